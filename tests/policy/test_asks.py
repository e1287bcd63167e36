from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpualloc.errors import Diagnostic, GpuallocError, Place
from gpualloc.model import Ask, GpuCount
from gpualloc.policy.asks import ASK_KEYS, combine, parse_ask
from tests.policy.helpers import BAD_ASK, GOOD_ASK, at, good_asks, relaxed


def refused(data: object) -> tuple[Diagnostic, ...]:
    with pytest.raises(GpuallocError) as caught:
        parse_ask(data, at)
    return caught.value.diagnostics


def test_every_key() -> None:
    data = {
        "gpus": {"min": 1, "max": 4},
        "memory": "12GiB",
        "exclusive": True,
        "model": "*A100*",
        "min_memory": "40GiB",
        "compute_capability": ">=8.0",
        "mig_profile": "1g.10gb",
        "min_link": "NVLINK",
        "priority": 50,
        "host": "gpu0*",
        "affinity": ["tokenizer"],
        "anti_affinity": ["encoder"],
        "ports": "increment",
        "observe": False,
    }
    assert tuple(data) == ASK_KEYS
    assert parse_ask(data, at) == Ask(
        GpuCount(1, 4),
        12288,
        True,  # in the order of the fields
        "*A100*",
        40960,
        ">=8.0",
        "1g.10gb",
        "NVLINK",
        50,
        "gpu0*",
        ("tokenizer",),
        ("encoder",),
        "increment",
        False,
    )


def test_nothing_asked_is_nothing_set() -> None:
    assert parse_ask({}, at) == Ask()


@pytest.mark.parametrize(
    ("gpus", "count"),
    [
        (2, GpuCount(2, 2)),
        ("2", GpuCount(2, 2)),
        ("all", GpuCount(1, None)),
        ({"min": 1, "max": "all"}, GpuCount(1, None)),
        ({"min": 2}, GpuCount(2, None)),
        ({"max": 3}, GpuCount(1, 3)),
        ({"min": "2", "max": "3"}, GpuCount(2, 3)),
    ],
)
def test_gpus(gpus: object, count: GpuCount) -> None:
    assert parse_ask({"gpus": gpus}, at).gpus == count


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in GOOD_ASK.items() for value in values])
def test_each_good_value_is_taken(key: str, value: Any) -> None:
    ask = parse_ask({key: value}, at)
    assert sum(getattr(ask, field.name) is not None for field in fields(Ask)) == 1


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD_ASK.items() for value in values])
def test_each_bad_value_is_one_error_that_names_it(key: str, value: Any) -> None:
    (problem,) = refused({key: value})
    assert problem.code in {"ask-type", "ask-value", "ask-key", "ask-memory"}
    assert problem.where is not None
    assert problem.where.line == 7
    assert problem.where.path in problem.summary
    assert key in problem.where.path


@pytest.mark.parametrize(
    ("data", "code", "path", "hint"),
    [
        ({"gpus": 0}, "ask-value", "gpus", "x-gpualloc: false"),
        ({"gpus": -1}, "ask-value", "gpus", "all"),
        ({"gpus": {"min": 3, "max": 2}}, "ask-value", "gpus", "write {min: 2, max: 3}"),
        ({"gpus": {"mim": 3}}, "ask-key", "gpus.mim", "min"),
        ({"memory": 12}, "ask-memory", "memory", "12GiB"),
        ({"memory": "12gb"}, "ask-memory", "memory", "12GiB"),
        ({"memory": None}, "ask-type", "memory", "leave the key out"),
        ({"exclusive": "yes"}, "ask-type", "exclusive", "write true"),
        ({"observe": "off"}, "ask-type", "observe", "write false"),
        ({"exclusive": "TRUE"}, "ask-type", "exclusive", "true without quotes"),
        ({"model": 4090}, "ask-type", "model", '"4090"'),
        ({"compute_capability": 8.9}, "ask-type", "compute_capability", '">=8.9"'),
        ({"compute_capability": ">9,<8"}, "ask-value", "compute_capability", "must all hold"),
        ({"mig_profile": "MIG 1g.10gb"}, "ask-value", "mig_profile", "1g.10gb"),
        ({"min_link": "NV12"}, "ask-value", "min_link", "NVLINK"),
        ({"min_link": "nvlink"}, "ask-value", "min_link", "did you mean NVLINK?"),
        ({"priority": 2.0}, "ask-type", "priority", "write 2"),
        ({"affinity": "tokenizer"}, "ask-type", "affinity", '["tokenizer"]'),
        ({"affinity": ["a", "b*"]}, "ask-value", "affinity[1]", "in full"),
        ({"memry": "1GiB"}, "ask-key", "memry", "did you mean memory?"),
        ({"count": 2}, "ask-key", "count", "gpus"),
        ({"replicas": 2}, "ask-key", "replicas", "deploy.replicas"),
        ({1: 2}, "ask-key", '["1"]', "the keys here are"),
        ({"observe": True, "gpus": 2}, "ask-conflict", "gpus", "observe"),
        ({"observe": True, "memory": "1GiB"}, "ask-conflict", "memory", "observe"),
        ({"observe": True, "exclusive": True}, "ask-conflict", "exclusive", "observe"),
        ({"mig_profile": "1g.10gb", "gpus": 2}, "ask-conflict", "gpus", "whole GPUs"),
        ({"affinity": ["a"], "anti_affinity": ["b", "a"]}, "ask-conflict", "anti_affinity[1]", "drop one"),
        ([], "ask-type", "", "its keys are"),
        (True, "ask-type", "", "its keys are"),
        (None, "ask-type", "", "its keys are"),
    ],
)
def test_what_is_wrong_where_and_what_to_do(data: object, code: str, path: str, hint: str) -> None:
    (problem,) = refused(data)
    assert problem.code == code
    assert problem.where == at(path)
    assert hint in (problem.hint or "")


def test_all_problems_are_told_at_once() -> None:
    data = {"gpus": 0, "memory": 12, "modle": "x", "priority": "high", "affinity": [1, "a*"]}
    assert sorted(problem.code for problem in refused(data)) == [
        "ask-key",
        "ask-memory",
        "ask-type",
        "ask-type",
        "ask-value",
        "ask-value",
    ]


def test_an_unknown_key_is_told_at_the_key_where_that_is_known() -> None:
    with pytest.raises(GpuallocError) as caught:
        parse_ask({"memry": 1}, at, lambda path: Place("compose.yaml", 9, 1, path))
    (problem,) = caught.value.diagnostics
    assert problem.where == Place("compose.yaml", 9, 1, "memry")


def test_memory_with_exclusive_is_no_contradiction() -> None:
    ask = parse_ask({"memory": "40GiB", "exclusive": True}, at)
    assert (ask.memory_mib, ask.exclusive) == (40960, True)


def test_combine_takes_each_key_from_the_service_where_it_has_one() -> None:
    own = Ask(gpus=GpuCount(2, 2), exclusive=False, affinity=())
    roles = Ask(gpus=GpuCount(1, None), memory_mib=5, exclusive=True, affinity=("a",), priority=0)
    assert combine(own, roles) == Ask(gpus=GpuCount(2, 2), memory_mib=5, exclusive=False, affinity=(), priority=0)
    assert combine(None, roles) is roles
    assert combine(own, None) is own
    assert combine(None, None) is None


@relaxed
@given(good_asks, good_asks)
def test_combine_is_by_key(own: dict[str, Any], roles: dict[str, Any]) -> None:
    both = roles | own
    try:
        expected = parse_ask(both, at)
    except GpuallocError as error:
        assert {problem.code for problem in error.diagnostics} == {"ask-conflict"}  # noqa: PT017  # only one kind may rise
        return
    try:
        parts = parse_ask(own, at), parse_ask(roles, at)
    except GpuallocError:
        return
    assert combine(*parts) == expected


SCRAPS = st.text("aA1.*[]=> é\n", max_size=6)
ANYTHING = st.recursive(
    st.none() | SCRAPS | st.integers() | st.floats() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCRAPS, inner, max_size=3),
    max_leaves=4,
)


@relaxed
@given(st.dictionaries(st.sampled_from(ASK_KEYS), ANYTHING, max_size=4))
def test_anything_is_an_ask_or_a_clear_error(data: dict[str, Any]) -> None:
    try:
        parse_ask(data, at)
    except GpuallocError as error:
        assert all(problem.where and problem.summary for problem in error.diagnostics)  # noqa: PT017  # either is right
