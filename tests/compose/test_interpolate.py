"""Variable substitution, beside the real Compose."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpualloc.compose.interpolate import MAX_DEPTH, escape, interpolate, variables
from gpualloc.errors import GpuallocError, Place
from tests.compose_oracle import config, fails_in_old_compose, needs_compose
from tests.long_runs import share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ENV = {"A": "va", "E": "", "D": "$A", "_": "low", "A1": "one"}
"""U, and every name not here, is not set."""

VALUES = {
    "": "",
    "plain": "plain",
    "$A": "va",
    "${A}": "va",
    "$U|${U}": "|",
    "$A1-$_": "one-low",
    "$A-b": "va-b",
    "{$A}": "{va}",
    "${A}}": "va}",
    # a dollar sign before anything else stays
    "$": "$",
    "a $ b": "a $ b",
    "$1": "$1",
    "$É": "$É",
    "a$": "a$",
    # escapes
    "$$": "$",
    "$$A": "$A",
    "$$$A": "$va",
    "$${A}": "${A}",
    "${U:-$$A}": "$A",
    # a value is not looked at again
    "$D": "$A",
    "${U:-$D}": "$A",
    # operators: unset, empty, set
    "${U:-d}${U-d}": "dd",
    "${E:-d}${E-d}": "d",
    "${A:-d}${A-d}": "vava",
    "${U:+p}${U+p}": "",
    "${E:+p}${E+p}": "p",
    "${A:+p}${A+p}": "pp",
    "${A:?m}${A?m}${E?m}": "vava",
    "${U:-}${E:-}": "",
    "${A-x:?y}": "va",
    "${A?x:-y}": "va",
    # nesting
    "${U:-${E:-c}}": "c",
    "${U:-${A}-${A}} z": "va-va z",
    "${U-$A${U-b}}": "vab",
    "${A:-${U:-${E:-c}}}": "va",
    # braces in an operand
    '${U:-{"a": 1}}': '{"a": 1}',
    "${U:-{}}": "{}",
    "${U:-{x}} ${U:-y}": "{x} y",
    "${U:-{$A}} ${A}": "{va} va",
    "{${U:-a}}": "{a}",
    "${U:-}}": "}",
    "${U:-\\}}": "\\}",
    # the character after a { is not looked at: here the braces do not balance, and the operand reaches to the last }
    "${A:-{}": "va",
    "${U:-{}": "{",
    "${U:-{}} a} b": "{}} a b",
    # lines
    "${U:-a}\n${U:-b}": "a\nb",
    "${U:-a\rb}": "a\rb",
    # Go folds case beyond ASCII
    "${U\u212a:-k}$\u017f": "k",
}

ERRORS = {
    "${": "invalid-interpolation",
    "${}": "invalid-interpolation",
    "a ${ b": "invalid-interpolation",
    "${A": "invalid-interpolation",
    "${A b}": "invalid-interpolation",
    "${ A}": "invalid-interpolation",
    "${1}": "invalid-interpolation",
    "${A.b}": "invalid-interpolation",
    "${A!}": "invalid-interpolation",
    "${A:b}": "invalid-interpolation",
    "${A:=x}": "invalid-interpolation",
    "${-x}": "invalid-interpolation",
    "${U:-${}}": "invalid-interpolation",
    "${U:-a}${": "invalid-interpolation",
    "${U:-a\nb}": "invalid-interpolation",
    "${U:-{}} ${U:-x}": "invalid-interpolation",
    "${U:?}": "required-variable",
    "${U?}": "required-variable",
    "${E:?no}": "required-variable",
    "${U?msg ${A}}": "required-variable",
    '${U:?${A} "q"}': "required-variable",
    "${A}${U:?x y}": "required-variable",
    "${U:-${U:?deep}}": "required-variable",
}

# only an operand that is needed is looked at; Compose up to 2.40 fails on these
LAZY = {
    "${A:-${U:?boo}}": "va",
    "${A:-${}}": "va",
    "${U:+${U:?boo}}": "",
    "${A?${U:?boo}}": "va",
}


def ask(texts: Sequence[str], folder: Path) -> tuple[list[str] | None, str]:
    """Return what Compose makes of the texts, None where it fails, with what it says on stderr."""
    labels = {f"k{number}": text for number, text in enumerate(texts)}
    file = folder / "compose.yaml"
    document = {"name": "p", "services": {"s": {"image": "x", "labels": labels}}}
    file.write_bytes(yaml.safe_dump(document, allow_unicode=True, encoding="utf-8"))
    result = config([file], env=ENV)
    if not result.ok:
        return None, result.stderr
    got = result.data["services"]["s"].get("labels", {})
    return [got[key] for key in labels], result.stderr


def warned(stderr: str) -> set[str]:
    return set(re.findall(r'The \\"(\w+)\\" variable is not set', stderr))


@pytest.mark.parametrize(("text", "expected"), [*VALUES.items(), *LAZY.items()])
def test_value(text: str, expected: str) -> None:
    assert interpolate(text, ENV.get) == expected


@pytest.mark.parametrize(("text", "code"), ERRORS.items())
def test_error(text: str, code: str) -> None:
    with pytest.raises(GpuallocError) as caught:
        interpolate(text, ENV.get, place=lambda: Place("compose.yaml", 3, 7))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    assert diagnostic.where == Place("compose.yaml", 3, 7)
    assert diagnostic.hint


@needs_compose
def test_compose_gives_the_same_values(tmp_path: Path) -> None:
    got, stderr = ask(list(VALUES), tmp_path)
    assert got == list(VALUES.values()), stderr
    unset: set[str] = set()
    for text in VALUES:
        interpolate(text, ENV.get, unset=unset)
    assert unset == warned(stderr)


@needs_compose
@pytest.mark.parametrize(("text", "code"), ERRORS.items())
def test_compose_gives_the_same_error(text: str, code: str, tmp_path: Path) -> None:
    got, stderr = ask([text], tmp_path)
    assert got is None
    assert ("is missing a value" in stderr) == (code == "required-variable"), stderr
    assert ("invalid interpolation format" in stderr) == (code == "invalid-interpolation"), stderr


@needs_compose
@pytest.mark.parametrize("text", LAZY)
def test_compose_2_40_looks_at_operands_it_does_not_need(text: str, tmp_path: Path) -> None:
    assert ask([text], tmp_path)[0] is None
    assert fails_in_old_compose(text, ENV.get)


def test_the_message_of_a_required_variable_is_the_users() -> None:
    with pytest.raises(GpuallocError, match=r"^required variable U is not set: name the model, e\.g\. va\n"):
        interpolate("${U:?name the model, e.g. ${A}}", ENV.get)
    with pytest.raises(GpuallocError, match=r"^required variable E is empty\n"):
        interpolate("${E:?}", ENV.get)


def test_place_is_asked_for_only_on_errors() -> None:
    def place() -> Place:
        raise AssertionError

    assert interpolate("$A ${U} ${U:-x}", ENV.get, place=place) == "va  x"


def test_deep_nesting_is_an_error_and_not_a_crash() -> None:
    def nested(levels: int) -> str:
        return "${U:-" * levels + "x" + "}" * levels

    assert interpolate(nested(MAX_DEPTH), ENV.get) == "x"
    with pytest.raises(GpuallocError, match="too deep"):
        interpolate(nested(5000), ENV.get)
    assert variables(nested(5000)) == ("U",)


def test_many_variables_on_one_line() -> None:
    assert interpolate("${U:-x}" * 20_000, ENV.get) == "x" * 20_000


def test_variables() -> None:
    assert variables("plain $$A") == ()
    assert variables("$A ${B:-${C:?$D}} ${E} $A") == ("A", "B", "E", "C", "D")
    assert variables("$A ${} $B") == ("A",)


@pytest.mark.parametrize("text", ["a", "$", "$$A", "$${A}"])
def test_texts_without_variables(text: str) -> None:
    assert variables(text) == ()


@pytest.mark.parametrize("text", ["$$$A", "${A}", "x${A:-b}"])
def test_texts_with_one(text: str) -> None:
    assert variables(text) == ("A",)


PIECES = st.sampled_from(
    [
        "$",
        "$$",
        "${",
        "}",
        "{",
        "A",
        "E",
        "U",
        "A1",
        "_",
        ":-",
        "-",
        ":?",
        "?",
        ":+",
        "+",
        ":",
        " ",
        "x",
        "\n",
        "1",
        "é",
    ]
)
WHOLE = st.recursive(
    st.sampled_from(["", "x", "$A", "${A}", "$U", "${E}", "$$", "{y}", "{}", "a b", "-", ":-", "$"]),
    lambda inner: st.builds(
        lambda before, name, operator, operand, after: f"{before}${{{name}{operator}{operand}}}{after}",
        inner,
        st.sampled_from(["A", "E", "U", "A1"]),
        st.sampled_from([":-", "-", ":+", "+", ":?", "?"]),
        inner,
        inner,
    ),
    max_leaves=8,
)
TEXTS = st.one_of(WHOLE, WHOLE, st.lists(PIECES, max_size=12).map("".join))


@given(TEXTS)
def test_an_escaped_text_comes_back(text: str) -> None:
    assert interpolate(escape(text), ENV.get) == text
    assert variables(escape(text)) == ()


@given(TEXTS)
def test_only_the_variables_named_are_looked_up(text: str) -> None:
    asked: set[str] = set()

    def lookup(name: str) -> str | None:
        asked.add(name)
        return ENV.get(name)

    unset: set[str] = set()
    try:
        interpolate(text, lookup, unset=unset)
    except GpuallocError:
        pass
    else:
        assert bool(asked) == bool(variables(text))
    assert asked <= set(variables(text))
    assert unset <= asked - set(ENV)


def same_as_compose(texts: list[str], folder: Path, most_errors: int) -> None:
    failing = [text for text in texts if fails_in_old_compose(text, ENV.get)]
    good = [text for text in texts if text not in failing]
    unset: set[str] = set()
    expected = [interpolate(text, ENV.get, unset=unset) for text in good]
    got, stderr = ask(good, folder)
    if got is None:
        got = [value[0] if (value := ask([text], folder)[0]) else "an error" for text in good]
    assert dict(zip(good, expected, strict=True)) == dict(zip(good, got, strict=True))
    assert unset <= warned(stderr)
    for text in failing[:most_errors]:
        assert ask([text], folder)[0] is None, text


@needs_compose
@settings(max_examples=25, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=50))
@example(["${U:-{}} a} b", "${A:-{}} ${U:-x}"])
def test_compose_agrees(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    same_as_compose(texts, tmp_path_factory.mktemp("p"), 3)


@needs_compose
@pytest.mark.long
@settings(max_examples=share(500), deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=50))
def test_compose_agrees_on_many(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    same_as_compose(texts, tmp_path_factory.mktemp("p"), 10)
