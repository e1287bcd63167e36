from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import assume, given, settings

from gpualloc.solve import SolveOptions, solve
from gpualloc.solve.engine import optimize
from gpualloc.solve.greedy import greedy
from gpualloc.solve.highs import Limits
from gpualloc.solve.lexi import Driver
from gpualloc.solve.rules import faults
from gpualloc.solve.search import Search
from gpualloc.solve.tiers import score_of
from tests.long_runs import share
from tests.solve.worlds import PROJECT, World, every_best, machine, policy, problem_of, relaxed, role, worlds

NODES = 200_000


@settings(relaxed, max_examples=150)
@given(worlds(4, 4))
def test_the_small_search_finds_the_best_and_the_lowest(world: World) -> None:
    problem = problem_of(world)
    best = every_best(problem)
    assume(best is not None)
    found = Search(problem, greedy(problem), NODES).run()
    assert found.finished
    assert (found.score, found.assignment) == best


@settings(relaxed, max_examples=80)
@given(worlds(4, 4))
def test_highs_proves_the_best_from_nothing(world: World) -> None:
    problem = problem_of(world)
    best = every_best(problem)
    assume(best is not None)
    assert best is not None
    optimum = Driver(problem, (None,) * len(problem.jobs), Limits(NODES)).run()
    assert optimum.score == best[0]
    assert all(proof.proven for proof in optimum.proofs)
    assert not faults(problem, optimum.assignment)


@settings(relaxed, max_examples=40)
@given(worlds(8, 10))
def test_both_engines_agree(world: World) -> None:
    problem = problem_of(world)
    start = greedy(problem)
    assert not faults(problem, start)
    found = Search(problem, start, 5_000).run()
    optimum = Driver(problem, start, Limits(NODES)).run()
    assert all(proof.proven for proof in optimum.proofs)
    assert optimum.score <= found.score
    if found.finished:
        assert optimum.score == found.score


@pytest.mark.long
@settings(relaxed, max_examples=share(3_000))
@given(worlds(5, 5))
def test_both_engines_find_the_best_of_every_assignment(world: World) -> None:
    problem = problem_of(world)
    best = every_best(problem)
    assume(best is not None)
    assert best is not None
    found = Search(problem, greedy(problem), NODES).run()
    assert (found.score, found.assignment) == best
    assert Driver(problem, greedy(problem), Limits(NODES)).run().score == best[0]


@settings(relaxed, max_examples=100)
@given(worlds(6, 8))
def test_what_is_reported_is_what_the_placements_are_worth(world: World) -> None:
    machines, requests, rules = world
    solution = solve(machines, requests, rules, project=PROJECT)
    problem = problem_of(world)
    where = {device.uuid: device.position for device in problem.devices}
    held = {p.worker: tuple(sorted(where[d.uuid] for d in p.devices)) for p in solution.placements}
    assignment = tuple(held.get(job.name) for job in problem.jobs)
    assert not faults(problem, assignment)
    answer = optimize(problem, Limits(SolveOptions().node_limit))
    assert score_of(problem, assignment) == answer.optimum.score
    assert {p.worker for p in solution.placements} | {u.worker for u in solution.unplaced} == {
        job.name for job in problem.jobs
    }
    uuids = sorted(device.uuid for device in problem.devices)
    for unplaced in solution.unplaced:
        assert sorted(uuid for refusal in unplaced.reasons for uuid in refusal.devices) == uuids
        assert unplaced.hint


def test_a_usual_plan_needs_no_integer_program() -> None:
    script = (
        "import sys; from tests.solve.test_solve_exact import usual; usual(); "
        "print([name for name in ('highspy', 'numpy', 'networkx') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def usual() -> None:
    requests = [role(f"service-{n}", memory_mib=None if n < 6 else 9000 + 1000 * n) for n in range(10)]
    solution = solve(machine("dgx-a100"), requests, policy())
    assert not solution.unplaced
    assert all(tier.proven for tier in solution.objective)
