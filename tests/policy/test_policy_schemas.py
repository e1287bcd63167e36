"""The JSON Schemas say what the parser does, but for what a schema cannot say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from gpualloc.errors import GpuallocError
from gpualloc.model import LINK_LEVELS, PortRule, SharingMode, Stability, Strategy, Topology
from gpualloc.policy import asks, schema, values
from gpualloc.policy.document import document, parse
from tests.policy.helpers import BAD_ASK, GOOD_ASK, at, chosen, good_asks, load_data, mixed, policies, relaxed

FOLDER = Path(__file__).parents[2] / "gpualloc" / "schemas"
POLICIES = sorted((FOLDER.parents[1] / "policies").glob("*.yaml"))
POLICY: dict[str, Any] = json.loads((FOLDER / "policy.schema.json").read_text())
ASK: dict[str, Any] = json.loads((FOLDER / "x-gpualloc.schema.json").read_text())
REGISTRY: Registry[Any] = Registry().with_resources(
    [(contents["$id"], Resource.from_contents(contents)) for contents in (POLICY, ASK)]
)
VALID_POLICY = Draft202012Validator(POLICY, registry=REGISTRY)
VALID_ASK = Draft202012Validator(ASK, registry=REGISTRY)


def parses_as_ask(data: Any) -> bool:
    try:
        asks.parse_ask(data, at)
    except GpuallocError:
        return False
    return True


def loads(folder: Path, data: Any) -> bool:
    try:
        load_data(folder, data)
    except GpuallocError:
        return False
    return True


def sayable(ask: dict[str, Any]) -> bool:
    """Whether a schema can judge an ask: it cannot compare two of its lists."""
    lists = [ask.get(key) for key in ("affinity", "anti_affinity")]
    texts = [{str(item) for item in found} for found in lists if isinstance(found, list)]
    return len(texts) < 2 or not texts[0] & texts[1]


def test_the_schemas_are_schemas() -> None:
    Draft202012Validator.check_schema(POLICY)
    Draft202012Validator.check_schema(ASK)


def test_keys_words_and_patterns_are_the_parsers_own() -> None:
    top = POLICY["properties"]
    assert tuple(top) == schema.POLICY_KEYS
    assert {key: tuple(top[key]["properties"]) for key in schema.SECTIONS} == schema.SECTIONS
    assert tuple(top["strategy"]["enum"]) == get_args(Strategy)
    assert tuple(top["stability"]["enum"]) == get_args(Stability)
    assert tuple(top["topology"]["enum"]) == get_args(Topology)
    assert tuple(top["sharing"]["properties"]["mode"]["enum"]) == get_args(SharingMode)
    assert top["exclude"]["properties"]["gpus"]["items"]["pattern"] == schema.GPU_PATTERN
    ask = ASK["$defs"]["ask"]["properties"]
    assert tuple(ask) == asks.ASK_KEYS
    assert tuple(ask["min_link"]["enum"]) == LINK_LEVELS
    assert tuple(ask["ports"]["enum"]) == get_args(PortRule)
    assert ask["mig_profile"]["pattern"] == asks.MIG_PROFILE_PATTERN
    assert ask["compute_capability"]["pattern"] == values.CAPABILITY_PATTERN
    assert ASK["$defs"]["glob"]["pattern"] == values.GLOB_PATTERN
    assert ASK["$defs"]["memory"]["pattern"] == "^(?=.*[1-9])" + values.MEMORY_PATTERN[1:]


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_the_shipped_policies_are_valid(path: Path) -> None:
    root = parse(path.read_text(), path.name)
    assert root is not None
    assert VALID_POLICY.is_valid(document(root).data)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in GOOD_ASK.items() for value in values])
def test_good_values_of_an_ask(key: str, value: Any) -> None:
    assert VALID_ASK.is_valid({key: value})


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD_ASK.items() for value in values])
def test_bad_values_of_an_ask(key: str, value: Any) -> None:
    assert not VALID_ASK.is_valid({key: value})


def test_false_leaves_a_service_alone_and_nothing_else_does() -> None:
    assert VALID_ASK.is_valid(False)  # the document itself
    others: list[Any] = [True, None, 0, "", []]
    assert not any(VALID_ASK.is_valid(other) for other in others)


@relaxed
@given(chosen(GOOD_ASK))
def test_schema_and_parser_agree_on_good_values_together(data: dict[str, Any]) -> None:
    if sayable(data):
        assert VALID_ASK.is_valid(data) == parses_as_ask(data)


@relaxed
@given(chosen(mixed(GOOD_ASK, BAD_ASK)))
def test_schema_and_parser_agree_on_asks(data: dict[str, Any]) -> None:
    if sayable(data):
        assert VALID_ASK.is_valid(data) == parses_as_ask(data)


@relaxed
@given(policies(good_asks.filter(sayable)))
def test_schema_and_parser_agree_on_good_policies(tmp_path: Path, data: dict[str, Any]) -> None:
    assert VALID_POLICY.is_valid(data) == loads(tmp_path, data)


@relaxed
@given(policies(chosen(mixed(GOOD_ASK, BAD_ASK)).filter(sayable), bad=True))
def test_schema_and_parser_agree_on_bad_policies(tmp_path: Path, data: dict[str, Any]) -> None:
    assert VALID_POLICY.is_valid(data) == loads(tmp_path, data)


@pytest.mark.parametrize(
    "data",
    [
        {"gpus": {"min": 3, "max": 2}},
        {"compute_capability": ">=9,<8"},
        {"affinity": ["a"], "anti_affinity": ["a"]},
        {"gpus": 2.0},
    ],
)
def test_what_only_the_parser_sees(data: dict[str, Any]) -> None:
    assert VALID_ASK.is_valid(data)
    assert not parses_as_ask(data)
