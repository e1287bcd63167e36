from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gpualloc.errors import GpuallocError, Place
from gpualloc.policy.document import MAX_DEPTH, Document, Node, document, merge, parse
from tests.policy.helpers import relaxed

LOADERS: list[Any] = [yaml.SafeLoader, *([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])]
SHIPPED = sorted((Path(__file__).parents[2] / "policies").glob("*.yaml"))


def read(text: str) -> Document:
    root = parse(text, "p.yaml")
    assert root is not None
    return document(root)


def refused(text: str, loader: Any = None) -> tuple[str, Place | None, str]:
    with pytest.raises(GpuallocError) as caught:
        parse(text, "p.yaml", loader=loader)
    (problem,) = caught.value.diagnostics
    return problem.code, problem.where, f"{problem.summary} {problem.hint}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("On", "On"),
        ("true", True),
        ("FALSE", False),
        ("tRue", "tRue"),
        ("", None),
        ("~", None),
        ("null", None),
        ("none", "none"),
        ("12", 12),
        ("-3", -3),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("5%", "5%"),
        ("0.05", 0.05),
        (".5", 0.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        ("9" * 5000, "9" * 5000),
        ('"12"', "12"),
        ("'true'", "true"),
        ("!!str 12", "12"),
        ("|\n  12\n", "12\n"),
    ],
)
@pytest.mark.parametrize("loader", LOADERS)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any, loader: Any) -> None:
    root = parse(f"a: {text}", "p.yaml", loader=loader)
    assert root is not None
    found = document(root).data["a"]
    assert found == value
    assert type(found) is type(value)


def test_every_value_and_key_knows_its_place() -> None:
    doc = read("sharing:\n  mode: none\nroles:\n  'a*': {gpus: [1, 2]}\n")
    assert {path: (spot.line, spot.column) for path, spot in doc.values.items()} == {
        "": (1, 1),
        "sharing": (2, 3),
        "sharing.mode": (2, 9),
        "roles": (4, 3),
        'roles["a*"]': (4, 9),
        'roles["a*"].gpus': (4, 16),
        'roles["a*"].gpus[0]': (4, 17),
        'roles["a*"].gpus[1]': (4, 20),
    }
    assert doc.place_of_key('roles["a*"].gpus') == Place("p.yaml", 4, 10, 'roles["a*"].gpus')
    assert doc.place("nowhere") == Place("p.yaml", path="nowhere")


@pytest.mark.parametrize("text", ["a: &x {b: 1}\r\nc: *x\r\n", "\N{PILE OF POO}: 1\nb: {c: '\N{PILE OF POO}', d: e}\n"])
def test_line_endings_and_wide_characters_do_not_shift_places(text: str) -> None:
    trees = [parse(text, "p.yaml", loader=loader) for loader in LOADERS]
    assert all(tree == trees[0] for tree in trees)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_both_parsers_read_the_shipped_policies_alike(path: Path) -> None:
    trees = [parse(path.read_text(), "p.yaml", loader=loader) for loader in LOADERS]
    assert trees[0] is not None
    assert all(tree == trees[0] for tree in trees)


def test_aliases_and_merge_keys() -> None:
    doc = read(
        "roles:\n"
        "  a: &a {gpus: 2, model: x}\n"
        "  b: &b {priority: 1, model: y}\n"
        "  c: *a\n"
        "  d: {<<: *a, gpus: 3}\n"
        "  e: {priority: 5, <<: [*a, *b]}\n"
    )
    roles = doc.data["roles"]
    assert roles["c"] == {"gpus": 2, "model": "x"}
    assert roles["d"] == {"gpus": 3, "model": "x"}
    assert roles["e"] == {"priority": 5, "gpus": 2, "model": "x"}
    assert doc.place("roles.c") == Place("p.yaml", 4, 6, "roles.c")
    assert doc.place("roles.d.model") == Place("p.yaml", 2, 26, "roles.d.model")


def test_a_quoted_merge_key_is_a_key() -> None:
    assert read("'<<': 1").data == {"<<": 1}


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "code", "place", "said"),
    [
        ("a:\n\tb: 1\n", "policy-yaml", (2, 1), "spaces"),
        ("a: 1\n\tb: 1\n", "policy-yaml", None, "spaces"),
        ("a: 'x", "policy-yaml", None, "not valid YAML"),
        ("a: >=8.0\n", "policy-yaml", None, "quotes"),
        ("{a: *A100*}", "policy-yaml", None, "quotes"),
        ("ignore: [*legacy]", "policy-yaml", (1, 10), "quotes"),
        ("a: b: c", "policy-yaml", (1, 5), "quotes"),
        ("a: 1\nb: 2\na: 3\n", "policy-duplicate-key", (3, 1), "first on line 1"),
        ("r: {x: {g: 1, g: 1}}", "policy-duplicate-key", (1, 15), "line 1"),
        ("a: &x 1\nb: {<<: [*x]}", "policy-yaml", (2, 10), "mapping"),
        ("b: {<<: {}, <<: {}}", "policy-duplicate-key", (1, 13), "<<: [*a, *b]"),
        ("&a [*a]", "policy-yaml", (1, 5), "inside"),
        ("a: !reset null", "policy-yaml", (1, 4), "tags"),
        ("a: !!int 5", "policy-yaml", (1, 4), "tags"),
        ("a: !x [1]", "policy-yaml", (1, 4), "tags"),
        ("a: 1\n---\nb: 1\n", "policy-yaml", (2, 1), "one document"),
        ("? [a]\n: 1\n", "policy-yaml", (1, 3), "text"),
        ("~: 1", "policy-yaml", (1, 1), "text"),
        ("a: x\n \x00", "policy-yaml", (2, 2), "U+0000"),
        ("a: \x07", "policy-yaml", (1, 4), "U+0007"),
        (BOMB, "policy-too-large", None, "aliases"),
        ("- a\n" * 30_000, "policy-too-large", (1, 1), "more than"),
        ("{a: " * (MAX_DEPTH + 2) + "1" + "}" * (MAX_DEPTH + 2), "policy-too-large", None, "deep"),
    ],
)
@pytest.mark.parametrize("loader", LOADERS)
def test_what_yaml_cannot_be(text: str, code: str, place: tuple[int, int] | None, said: str, loader: Any) -> None:
    found, where, words = refused(text, loader)
    assert found == code
    assert where is not None
    assert where.line is not None
    if place:
        assert (where.line, where.column) == place
    assert said in words


def test_deep_nesting_is_an_error_whatever_its_depth() -> None:
    for depth in (100, 5_000, 200_000):
        code, where, _ = refused("[" * depth)
        assert code in {"policy-yaml", "policy-too-large"}
        assert where is not None
        assert where.line == 1


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n...\n"])
def test_nothing_is_no_tree(text: str) -> None:
    root = parse(text, "p.yaml")
    assert root is None or root.value is None


def test_a_byte_order_mark_within_the_text_is_told() -> None:
    code, where, words = refused("a: 1\nb: " + codecs.BOM_UTF8.decode())
    assert (code, where) == ("policy-yaml", Place("p.yaml", 2, 4))
    assert "U+FEFF" in words


KEYS = st.sampled_from(["a", "b", "c", "on"])
TREES = st.recursive(
    st.none() | st.integers(-5, 5) | st.booleans() | st.sampled_from(["x", "on", "1", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


def tree(data: Any) -> Node:
    root = parse(json.dumps(data), "p.yaml")
    assert root is not None
    return root


@relaxed
@given(TREES)
def test_json_is_read_as_it_is(data: Any) -> None:
    assert document(tree(data)).data == data


def merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {
        key: merged(below[key], above[key]) if key in below and key in above else (above | below)[key]
        for key in [*below, *(key for key in above if key not in below)]
    }


@relaxed
@given(TREES, TREES)
def test_mappings_merge_deep_and_the_rest_replaces(below: Any, above: Any) -> None:
    result = document(merge(tree(below), tree(above))).data
    expected = merged(below, above)
    assert result == expected
    assert json.dumps(result) == json.dumps(expected)
