from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpualloc.errors import Place
from gpualloc.model import Ask, GpuCount, Policy
from gpualloc.policy.asks import parse_ask
from gpualloc.policy.load import load
from gpualloc.policy.roles import ignored, roles_for, unmatched_roles
from tests.policy.helpers import at, load_text, relaxed

BASE = load("base", cwd=Path("/nonexistent"), compose_dir=None)


def policy(roles: dict[str, dict[str, Any]], ignore: tuple[str, ...] = ()) -> Policy:
    return replace(BASE, roles=tuple((glob, parse_ask(ask, at)) for glob, ask in roles.items()), ignore=ignore)


def test_no_entry_no_ask() -> None:
    assert roles_for(BASE, "web") is None
    assert roles_for(policy({"trainer*": {"gpus": 1}}), "web") is None
    assert roles_for(policy({"trainer*": {"gpus": 1}}), "my-trainer") is None


def test_names_are_told_apart_by_case() -> None:
    assert roles_for(policy({"web*": {"gpus": 1}}), "Web") is None


def test_the_more_specific_entry_wins_key_by_key() -> None:
    roles: dict[str, dict[str, Any]] = {
        "trainer-1": {"gpus": 4},
        "trainer*": {"gpus": 2, "memory": "40GiB", "priority": 10},
        "*": {"gpus": 1, "memory": "1GiB", "host": "gpu0*"},
    }
    assert roles_for(policy(roles), "trainer-1") == Ask(GpuCount(4, 4), 40960, priority=10, host="gpu0*")
    assert roles_for(policy(roles), "trainer-2") == Ask(GpuCount(2, 2), 40960, priority=10, host="gpu0*")
    assert roles_for(policy(roles), "web") == Ask(GpuCount(1, 1), 1024, host="gpu0*")


GLOBS = ["*", "w*", "?eb", "[vw]eb", "web", "w?b*", "*b", "we[!x]", "x*"]


@relaxed
@given(st.dictionaries(st.sampled_from(GLOBS), st.integers(1, 9)), st.integers())
def test_the_order_in_the_file_does_not_count(roles: dict[str, int], seed: int) -> None:
    entries = [(glob, Ask(gpus=GpuCount(number, number))) for glob, number in roles.items()]
    once = roles_for(replace(BASE, roles=tuple(entries)), "web")
    random.Random(seed).shuffle(entries)  # noqa: S311  # a shuffle
    assert roles_for(replace(BASE, roles=tuple(entries)), "web") == once
    if "web" in roles:
        assert once == Ask(gpus=GpuCount(roles["web"], roles["web"]))
    assert (once is None) == (not set(roles) - {"x*"})


@pytest.mark.parametrize(
    ("service", "expected"), [("legacy-web", True), ("web", True), ("weber", False), ("Web", False)]
)
def test_ignored(service: str, expected: bool) -> None:  # noqa: FBT001  # a column of the table
    assert ignored(policy({}, ("legacy-*", "web")), service) is expected


def test_an_entry_that_fits_no_service_is_a_warning(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, "roles:\n  trainr*: {gpus: 1}\n  'web?': {gpus: 1}\n  zz: {gpus: 1}\n")
    found = unmatched_roles(loaded, ["trainer", "web1", "db"])
    assert {problem.severity for problem in found} == {"warning"}
    assert [(problem.code, problem.where, problem.hint) for problem in found] == [
        ("policy-role-unmatched", Place("mine.yaml", 2, 3, 'roles["trainr*"]'), "did you mean trainer?"),
        ("policy-role-unmatched", Place("mine.yaml", 4, 3, "roles.zz"), "the services are db, trainer and web1"),
    ]
    assert unmatched_roles(loaded, ["trainr", "web1", "zz"]) == ()
    assert len(unmatched_roles(loaded, [])) == 3
    assert unmatched_roles(loaded, [f"s{n}" for n in range(50)])[0].hint == "there are 50 services"
