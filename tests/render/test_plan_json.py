from __future__ import annotations

import copy
import json
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpualloc.errors import GpuallocError
from gpualloc.model import (
    ComposeInput,
    DeviceRef,
    Placement,
    Plan,
    PlanInputs,
    PlanWarning,
    Refusal,
    Solution,
    Tier,
    Unplaced,
)
from gpualloc.render.plan_json import dump, parse
from tests.render.samples import busy_plan, check_snapshot, placement, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMA = json.loads(files("gpualloc").joinpath("schemas/plan.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

# --------------------------------------------------------------------------------------------------------------------
# The contract


def test_document() -> None:
    check_snapshot("plan-json", dump(busy_plan()))


def test_keys_stand_in_the_order_of_the_contract() -> None:
    document = json.loads(dump(busy_plan()))
    assert list(document) == [
        "format_version",
        "complete",
        "changed",
        "inputs",
        "placements",
        "unplaced",
        "objective",
        "warnings",
    ]
    assert list(document["inputs"]) == [
        "compose",
        "inventory",
        "inventory_sha256",
        "policy",
        "policy_sha256",
        "profiles",
    ]
    assert list(document["placements"][0]) == [
        "worker",
        "service",
        "replica",
        "host",
        "devices",
        "memory_mib",
        "exclusive",
        "action",
        "previous",
        "reason",
    ]


def test_reproducible_is_written_only_where_it_is_false() -> None:
    assert "reproducible" not in dump(busy_plan())
    assert json.loads(dump(plan(reproducible=False)))["reproducible"] is False


def test_an_infinite_bound_is_never_written() -> None:
    endless = plan(objective=(Tier("peak_load", "min", 1.0, float("inf"), proven=False),))
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump(endless)


# --------------------------------------------------------------------------------------------------------------------
# Round trip

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
texts = st.lists(words, max_size=3).map(tuple)
numbers = (
    st.none()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.lists(st.integers(), max_size=3).map(tuple)
)
device_lists = st.lists(
    st.builds(DeviceRef, words, st.integers(0, 99)), min_size=1, max_size=3, unique_by=lambda device: device.uuid
).map(tuple)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    workers = draw(st.lists(words, unique=True, max_size=5))
    placed = draw(st.integers(0, len(workers)))
    placements = tuple(
        Placement(
            worker,
            draw(words),
            draw(st.integers(1, 99)),
            draw(words),
            draw(device_lists),
            draw(st.none() | st.integers(1)),
            draw(st.booleans()),
            draw(st.sampled_from(("pin", "keep", "move", "resize"))),
            draw(st.none() | texts),
            draw(st.just("") | words),
        )
        for worker in workers[:placed]
    )
    reasons = st.lists(st.builds(Refusal, words, texts, words), max_size=2).map(tuple)
    tiers = st.builds(Tier, words, st.sampled_from(("min", "max")), numbers, numbers, st.booleans())
    solution = Solution(
        placements,
        tuple(Unplaced(worker, draw(reasons), draw(st.just("") | words)) for worker in workers[placed:]),
        draw(st.lists(tiers, max_size=3).map(tuple)),
        draw(st.lists(st.builds(PlanWarning, words, words, texts), max_size=2).map(tuple)),
        draw(st.booleans()),
    )
    some = st.lists(words, min_size=1, max_size=2).map(tuple)
    compose = st.lists(st.builds(ComposeInput, words, words), min_size=1, max_size=2).map(tuple)
    inputs = PlanInputs(draw(compose), draw(some), draw(words), draw(words), draw(words), draw(texts))
    return Plan(inputs, solution, draw(st.booleans()))


@settings(deadline=None)
@given(plans())
def test_what_is_dumped_is_parsed_to_the_same_plan(some: Plan) -> None:
    text = dump(some)
    assert parse(text, "plan.json") == some
    assert dump(parse(text, "plan.json")) == text
    assert text.isascii()
    VALIDATOR.validate(json.loads(text))


# --------------------------------------------------------------------------------------------------------------------
# Strictness


def refusal(document: Any) -> GpuallocError:
    with pytest.raises(GpuallocError) as caught:
        parse(document if isinstance(document, str) else json.dumps(document, indent=1), "plan.json")
    return caught.value


def changed(change: Callable[[Any], object]) -> Any:
    document = json.loads(dump(busy_plan()))
    change(document)
    return document


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (lambda d: d["placements"][0]["devices"][1].pop("uuid"), "plan-missing-key", "placements[0].devices[1].uuid: "),
        (lambda d: d.pop("inputs"), "plan-missing-key", "inputs: required"),
        (lambda d: d["inputs"].update(policies=1), "plan-unknown-key", "inputs.policies: unknown key"),
        (lambda d: d.update(format_version="2.0"), "plan-version", 'format_version: must be "1.0", not "2.0"'),
        (lambda d: d.update(format_version=1.0), "plan-version", 'format_version: must be "1.0", not 1.0'),
        (lambda d: d["placements"][0].update(replica=0), "plan-value", "placements[0].replica: "),
        (lambda d: d["placements"][0].update(replica=True), "plan-type", "placements[0].replica: "),
        (lambda d: d["placements"][0].update(devices=[]), "plan-value", "placements[0].devices: "),
        (lambda d: d["placements"][0].update(action="drop"), "plan-value", "placements[0].action: "),
        (lambda d: d["objective"][0].update(value="6"), "plan-type", "objective[0].value: "),
        (lambda d: d["objective"][0].update(bound=[1, 2.5]), "plan-type", "objective[0].bound[1]: "),
        (lambda d: d["unplaced"][0]["reasons"][0].update(code=""), "plan-value", "unplaced[0].reasons[0].code: "),
        (lambda d: d["inputs"].update(inventory=[]), "plan-value", "inputs.inventory: "),
        (lambda d: d.update(complete=True), "plan-value", "complete: contradicts `unplaced`"),
        (lambda d: d.update(reproducible=True), "plan-value", "reproducible: "),
        (lambda d: d["unplaced"][0].update(worker="encoder"), "plan-duplicate-worker", "unplaced[0].worker: "),
        (
            lambda d: d["placements"][0]["devices"].append(dict(d["placements"][0]["devices"][0], index=9)),
            "plan-duplicate-device",
            "placements[0].devices[4].uuid: ",
        ),
    ],
)
def test_a_wrong_document_is_one_error_that_names_its_path(
    change: Callable[[Any], object], code: str, says: str
) -> None:
    (diagnostic,) = refusal(changed(change)).diagnostics
    assert diagnostic.code == code
    assert diagnostic.summary.startswith(says)
    assert diagnostic.where is not None
    assert diagnostic.where.file == "plan.json"


def test_another_version_is_told_before_its_other_keys() -> None:
    (diagnostic,) = refusal({"format_version": "2.0", "answer": {}}).diagnostics
    assert diagnostic.code == "plan-version"


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("", 1, 1),
        ("{\n  'complete': true}", 2, 3),
        ('{"complete": true,\n "complete": true}', 2, 2),
        ('{"value":\n   NaN}', 2, 4),
    ],
)
def test_what_is_not_json_is_told_with_its_place(text: str, line: int, column: int) -> None:
    (diagnostic,) = refusal(text).diagnostics
    assert diagnostic.code == "plan-json"
    assert diagnostic.where is not None
    assert (diagnostic.where.line, diagnostic.where.column) == (line, column)


# --------------------------------------------------------------------------------------------------------------------
# Parser and schema agree

ATOMS: tuple[Any, ...] = (None, True, False, -1, 0, 1, 7, 0.5, "", "word", "1.0", "pin", "min")
VALUES: tuple[Any, ...] = (*ATOMS, [], {}, [1], ["a"], [""], [0.5], [{}])


def containers(value: Any) -> Iterator[Any]:
    """Yield every mapping and every non-empty list in a document."""
    children: list[Any] = []
    if isinstance(value, dict):
        children = list(value.values())
        yield value
    elif isinstance(value, list):
        children = value
        if value:
            yield value
    for child in children:
        yield from containers(child)


def accepted(document: Any) -> bool:
    try:
        parse(json.dumps(document), "plan.json")
    except GpuallocError:
        return False
    return True


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A good document with a few keys dropped, added or replaced, anywhere in it."""
    base = draw(
        st.sampled_from(
            (busy_plan(), plan(reproducible=False), plan(replace(placement("a", 0), previous=("0",), memory_mib=9)))
        )
    )
    document = json.loads(dump(base))
    for _ in range(draw(st.integers(1, 3))):
        container = draw(st.sampled_from(list(containers(document))))
        value = copy.deepcopy(draw(st.sampled_from(VALUES)))
        if isinstance(container, list):
            container[draw(st.integers(0, len(container) - 1))] = value
        elif container and draw(st.booleans()):
            container[draw(st.sampled_from(list(container)))] = value
        elif container and draw(st.booleans()):
            del container[draw(st.sampled_from(list(container)))]
        else:
            container[draw(st.sampled_from(("extra", "uuid", "reproducible", "profiles", "hint")))] = value
    return document


def small_plan() -> Plan:
    """One of each object, for damage to every part in turn."""
    whole = busy_plan().solution
    return plan(
        replace(placement("a", 0), previous=("0",), memory_mib=9),
        unplaced=whole.unplaced[:1],
        objective=(Tier("placed", "max", 1, None, proven=False), Tier("grant_vector", "max", (1,), 0.5, proven=False)),
        warnings=whole.warnings[:1],
        reproducible=False,
    )


def damages() -> Iterator[tuple[str, Any]]:
    """Yield a good document with each key dropped, each key and item replaced, and each mapping with a key too many."""
    text = dump(small_plan())
    for number in range(len(list(containers(json.loads(text))))):
        container = list(containers(json.loads(text)))[number]
        keys: list[Any] = list(container) if isinstance(container, dict) else list(range(len(container)))
        for key in keys:
            for value in VALUES:
                document = json.loads(text)
                list(containers(document))[number][key] = value
                yield f"{key}={value!r}", document
        for key in [*keys, "extra"] if isinstance(container, dict) else []:
            document = json.loads(text)
            target = list(containers(document))[number]
            if key in target:
                del target[key]
            else:
                target[key] = "word"
            yield f"without or with {key}", document


def test_parser_and_schema_agree_on_every_single_damage() -> None:
    verdicts = [(what, accepted(document), VALIDATOR.is_valid(document)) for what, document in damages()]
    assert [what for what, parsed, valid in verdicts if parsed != valid] == []
    assert {parsed for _, parsed, _ in verdicts} == {True, False}


@settings(deadline=None)
@given(damaged())
def test_parser_and_schema_accept_the_same_documents(document: Any) -> None:
    assert accepted(document) == VALIDATOR.is_valid(document)


def test_the_schema_is_a_schema() -> None:
    VALIDATOR.check_schema(SCHEMA)
