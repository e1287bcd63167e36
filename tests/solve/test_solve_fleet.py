"""The planner for many hosts: what it claims holds on worlds small enough to be judged by the exact engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from gpualloc.solve.fleet.plan import optimize_fleet
from gpualloc.solve.greedy import greedy
from gpualloc.solve.highs import Limits
from gpualloc.solve.lexi import Driver
from gpualloc.solve.rules import faults
from gpualloc.solve.tiers import rules_of, score_of
from tests.solve.worlds import World, gpu, inventory, policy, problem_of, relaxed, role, worlds

if TYPE_CHECKING:
    from gpualloc.solve.lexi import Optimum
    from gpualloc.solve.tiers import Score

NODES = 200_000


def claims_hold(optimum: Optimum, best: Score) -> None:
    """Compare the claims with the best score, tier by tier, as long as the tiers before agree."""
    for value, true, proof in zip(optimum.score, best, optimum.proofs, strict=True):
        if proof.bound is not None:
            assert proof.bound <= true  # type: ignore[operator]  # two numbers, or two tuples
        if proof.proven:
            assert value == true
        if value != true:
            return


@settings(relaxed, max_examples=60)
@given(worlds(6, 8))
def test_what_a_fleet_plan_claims_holds(world: World) -> None:
    check(world)


@pytest.mark.long
@settings(relaxed, max_examples=3_000)
@given(worlds(8, 12))
def test_what_a_fleet_plan_claims_holds_long(world: World) -> None:
    check(world)


def test_a_priority_is_not_bounded_by_plans_that_place_too_many_of_the_one_before() -> None:
    # "wide" needs two devices of the one there is; a program that counts parts believes one of them can be placed
    machine = inventory(gpu(0))
    requests = (
        role("wide", 3, (2, None), priority=5),
        role("small", 2),
        role("friend", priority=1, memory_mib=5000, affinity=("small",)),
    )
    check((machine, requests, policy({"default_memory": "share", "max_workers_per_gpu": 2})))


def check(world: World) -> None:
    problem = problem_of(world)
    optimum = optimize_fleet(problem, Limits(NODES))
    assert not faults(problem, optimum.assignment)
    assert score_of(problem, optimum.assignment) == optimum.score
    assert len(optimum.proofs) == len(rules_of(problem))
    exact = Driver(problem, greedy(problem), Limits(NODES)).run()
    assert exact.score <= optimum.score
    claims_hold(optimum, exact.score)
