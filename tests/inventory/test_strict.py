"""The typed getters, and the JSON reader under them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpualloc.errors import Diagnostic, GpuallocError
from gpualloc.jsontext import load
from gpualloc.strict import Document, Value, written

DOCUMENT = Document("policy.yaml", "policy")


def told(error: pytest.ExceptionInfo[GpuallocError]) -> Diagnostic:
    (diagnostic,) = error.value.diagnostics
    return diagnostic


def value(raw: Any) -> Value:
    return (
        Value({"hosts": [{"gpus": [raw]}]}, DOCUMENT)
        .fields(["hosts"])["hosts"]
        .items()[0]
        .fields(["gpus"])["gpus"]
        .items()[0]
    )


def test_a_path_is_written_as_in_javascript() -> None:
    assert written(("hosts", 0, "gpus", 2, "uuid")) == "hosts[0].gpus[2].uuid"
    assert written(("roles", "trainer*", "gpus")) == 'roles["trainer*"].gpus'
    assert written((0, "a")) == "[0].a"
    assert written(("", "a\x1b[31m")) == '[""]["a\\u001b[31m"]'
    assert value(1).path == "hosts[0].gpus[0]"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (None, "null"),
        (True, "true"),
        ("x", 'the string "x"'),
        (1.5, "the number 1.5"),
        ([], "a list"),
        ({}, "a mapping"),
        (b"", "a bytes"),
        pytest.param(10**5000, "the number one of thousands of digits", id="huge"),
        ("\ud800", 'the string "?"'),
        ("x" * 99, 'the string "' + "x" * 58 + "…"),
    ],
)
def test_a_wrong_type_is_named(raw: Any, shown: str) -> None:
    assert str(value(raw).type_error("a GPU").diagnostics[0]) == (
        f"policy.yaml: hosts[0].gpus[0]: must be a GPU, not {shown}"
    )


def test_a_missing_key_names_its_path() -> None:
    with pytest.raises(GpuallocError) as error:
        value({"index": 0}).fields(["uuid", "index"])
    assert told(error).code == "policy-missing-key"
    assert str(told(error)) == "policy.yaml: hosts[0].gpus[0].uuid: required"


def test_an_unknown_key_names_its_path_and_what_was_meant() -> None:
    with pytest.raises(GpuallocError) as error:
        value({"uuid": "", "idnex": 0}).fields(["uuid"], ["index"])
    assert told(error).code == "policy-unknown-key"
    assert str(told(error)) == "policy.yaml: hosts[0].gpus[0].idnex: unknown key\n  hint: did you mean `index`?"
    with pytest.raises(GpuallocError) as error:
        value({"zzz": 0}).fields(["uuid"], ["index"])
    assert told(error).hint == "known here: index, uuid"


def test_a_key_that_is_no_string_is_an_error() -> None:
    with pytest.raises(GpuallocError) as error:
        value({1: 0}).entries()
    assert told(error).summary == "keys must be strings, not the number 1"


def test_optional_keys_are_there_only_when_present() -> None:
    assert set(value({"a": None}).fields(["a"], ["b"])) == {"a"}
    assert set(value({"a": None, "b": 1}).fields(["a"], ["b"])) == {"a", "b"}


@pytest.mark.parametrize(
    ("raw", "get", "expected"),
    [
        ("x", lambda v: v.text(), "x"),
        ("GPU-1", lambda v: v.text(re.compile("GPU-.+")), "GPU-1"),
        (0, lambda v: v.integer(0, 5), 0),
        (5, lambda v: v.integer(0, 5), 5),
        (False, lambda v: v.boolean(), False),
        ("b", lambda v: v.choice(("a", "b")), "b"),
        (None, lambda v: v.or_none(Value.text), None),
        ("x", lambda v: v.or_none(Value.text), "x"),
        ({"b": 1, "a": 2}, lambda v: [(k, w.integer(), w.path) for k, w in v.entries()],
         [("b", 1, "hosts[0].gpus[0].b"), ("a", 2, "hosts[0].gpus[0].a")]),
    ],
)  # fmt: skip
def test_a_right_value_is_returned(raw: Any, get: Any, expected: Any) -> None:
    assert get(value(raw)) == expected


@pytest.mark.parametrize(
    ("raw", "get", "code", "summary"),
    [
        (1, lambda v: v.text(), "type", "must be a string, not the number 1"),
        ("", lambda v: v.text(), "value", 'must be filled in, not ""'),
        ("x", lambda v: v.text(re.compile("GPU-.+"), "a UUID"), "value", 'must be a UUID, not "x"'),
        ("a\nb", lambda v: v.text(re.compile("a"), "one line"), "value", 'must be one line, not "a\\nb"'),
        ("\udc80", lambda v: v.text(), "value", "half of a surrogate pair is not text"),
        (True, lambda v: v.integer(), "type", "must be a whole number, not true"),
        (1.0, lambda v: v.integer(), "type", "must be a whole number, not the number 1.0"),
        ("1", lambda v: v.integer(), "type", 'must be a whole number, not the string "1"'),
        (-1, lambda v: v.integer(0), "value", "must be at least 0, not -1"),
        (6, lambda v: v.integer(0, 5), "value", "must be at most 5, not 6"),
        (1, lambda v: v.boolean(), "type", "must be true or false, not the number 1"),
        ("c", lambda v: v.choice(("a", "b")), "value", 'must be one of a, b, not "c"'),
        (None, lambda v: v.choice(("a", "b")), "type", "must be one of a, b, not null"),
        ({}, lambda v: v.items(), "type", "must be a list, not a mapping"),
        ("ab", lambda v: v.items(), "type", 'must be a list, not the string "ab"'),
        ([], lambda v: v.entries(), "type", "must be a mapping, not a list"),
    ],
)
def test_a_wrong_value_is_an_error(raw: Any, get: Any, code: str, summary: str) -> None:
    with pytest.raises(GpuallocError) as error:
        get(value(raw))
    assert told(error).code == f"policy-{code}"
    assert told(error).summary == summary
    assert told(error).where is not None


def test_a_place_with_a_line_keeps_the_path_in_the_message() -> None:
    document = Document("policy.yaml", "policy", lambda route: (3, 5) if route == ("limit",) else None)
    with pytest.raises(GpuallocError) as error:
        Value({"limit": "six"}, document).fields(["limit"])["limit"].integer()
    assert str(told(error)) == 'policy.yaml:3:5: limit: must be a whole number, not the string "six"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.json:1:1: the file is empty"),
        (" \n", "f.json:1:1: the file is empty"),
        ('{"a": 1,\n "b" 2}', "f.json:2:6: not valid JSON: expecting ':' delimiter"),
        ('{"a": 1}\n{', "f.json:2:1: not valid JSON: extra data"),
        ('{"a": [{}, {"b": 1,\n  "c": 2, "b": 3}]}', 'f.json:2:11: the key "b" is given twice'),
        ('{"a": {}, "\\u0061": 1}', 'f.json:1:11: the key "a" is given twice'),
        ('{"NaN": "NaN",\n "a": NaN}', "f.json:2:7: not valid JSON: no such number"),
        ('["-Infinity", -Infinity]', "f.json:1:15: not valid JSON: no such number"),
        pytest.param("[1, " + "9" * 5000 + "]", "f.json:1:5: not valid JSON: no such number", id="huge"),
        pytest.param("[" * 100_000, "f.json:1:1: nested too deeply to be read", id="deep"),
    ],
)
def test_broken_json_is_an_error_with_line_and_column(text: str, message: str) -> None:
    with pytest.raises(GpuallocError) as error:
        load(text, "f.json", "inventory")
    assert told(error).code == "inventory-json"
    assert str(told(error)) == message


def test_a_byte_order_mark_is_passed_over() -> None:
    assert load("\ufeff[1]", "f.json", "plan").raw == [1]


json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(json_data, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_every_value_is_found_where_it_stands(data: Any, indent: int | str | None, ascii_only: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    text = json.dumps(data, indent=indent, ensure_ascii=ascii_only)
    lines = text.split("\n")

    def visit(at: Value) -> None:
        assert at.document.locate is not None
        found = at.document.locate(at.route)
        assert found is not None
        line, column = found
        rest = "\n".join([lines[line - 1][column - 1 :], *lines[line:]])
        assert json.JSONDecoder().raw_decode(rest)[0] == at.raw
        inside = [v for _, v in at.entries()] if isinstance(at.raw, dict) else []
        for item in at.items() if isinstance(at.raw, list) else inside:
            visit(item)

    root = load(text, "f.json", "plan")
    assert root.raw == data
    visit(root)


def test_a_missing_key_is_placed_at_the_mapping_that_should_have_it() -> None:
    root = load('{"hosts": [\n {}, {"gpus": [\n  {"index": 0}]}]}', "f.json", "inventory")
    with pytest.raises(GpuallocError) as error:
        root.fields(["hosts"])["hosts"].items()[1].fields(["gpus"])["gpus"].items()[0].fields(["uuid", "index"])
    assert str(told(error)) == "f.json:3:3: hosts[1].gpus[0].uuid: required"
