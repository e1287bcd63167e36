"""Which engine answers: the small search where it comes to its end, HiGHS beyond.

Both give the same score, and where the small search ends within its nodes, the same plan: it looks for the lowest of
the best plans also after HiGHS has found one. Where it does not end, the plan is the one that
:mod:`gpualloc.solve.expand` makes of the program's answer: the same every time, and low, but not proven to be lowest.

What the time goes into: the program has the hosts one by one (:mod:`gpualloc.solve.formulation`), with at most a row of
inequalities to say that identical ones are used in order, so its size grows with the number of hosts; and every tier is
one run of HiGHS at least, the tiers made of squares (:meth:`gpualloc.solve.lexi.Driver.sum_sq_load` and after) several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.solve.fleet.plan import optimize_fleet
from gpualloc.solve.greedy import greedy
from gpualloc.solve.lexi import Driver, Optimum, Proof
from gpualloc.solve.search import Search
from gpualloc.solve.tiers import rules_of, score_of

if TYPE_CHECKING:
    from gpualloc.solve.highs import Limits
    from gpualloc.solve.problem import Assignment, Problem
    from gpualloc.solve.tiers import Amount, Score

SMALL_JOBS = 80
"""Problems with more workers than this go to HiGHS at once."""

SMALL_NODES = 1500
"""Nodes of the small search before HiGHS takes over; as many again look for the lowest of the best plans."""


MOST_HOSTS = 16
"""With more hosts than this, only the tiers up to the numbers of hosts and devices are bounded."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The plan chosen; ``cut_off`` where a time limit ended the search, so that it may differ next time."""

    optimum: Optimum
    cut_off: bool


def optimize(problem: Problem, limits: Limits) -> Answer:
    """Return the best plan, with what is proven of it."""
    if len(problem.hosts) > MOST_HOSTS:
        return Answer(optimize_fleet(problem, limits), cut_off=limits.cut_off)
    start = greedy(problem)
    small = len(problem.jobs) <= SMALL_JOBS
    if small:
        found = Search(problem, start, SMALL_NODES).run()
        if found.finished:
            return Answer(_settled(problem, found.assignment, found.score), cut_off=False)
        start = found.assignment
    best = Driver(problem, start, limits).run()
    if small and not limits.cut_off:
        found = Search(problem, best.assignment, SMALL_NODES).run()
        if found.finished:
            best = _settled(problem, found.assignment, found.score)
        elif found.score <= best.score:
            best = Optimum(found.assignment, found.score, _kept(best, found.score))
    return Answer(best, cut_off=limits.cut_off)


def _settled(problem: Problem, assignment: Assignment, score: Score) -> Optimum:
    return Optimum(
        assignment, score, tuple(Proof(value, proven=True) for value, _ in zip(score, rules_of(problem), strict=True))
    )


def _kept(best: Optimum, score: Score) -> tuple[Proof, ...]:
    """Return the proofs that still speak of a plan with ``score``: those of tiers up to the first that differs."""
    if score == best.score:
        return best.proofs
    proofs: list[Proof] = []
    same = True
    for value, old, proof in zip(score, best.score, best.proofs, strict=True):
        proofs.append(proof if same else Proof(None, proven=False))
        same = same and value == old
    return tuple(proofs)


def places_all(problem: Problem, limits: Limits) -> bool:
    """Tell whether every worker can be placed; where the limits end the search, what was found counts."""
    start = greedy(problem)
    if None not in start:
        return True
    if not all(kind.weight for kind in problem.kinds):
        return False
    driver = Driver(problem, start, limits)
    driver.placed(0, driver.rules[0])
    return None not in driver.best


def placed_only(problem: Problem, limits: Limits) -> tuple[Amount, Assignment]:
    """Return the most workers that can be placed, and how."""
    start = greedy(problem)
    if None in start:
        driver = Driver(problem, start, limits)
        driver.placed(0, driver.rules[0])
        start = driver.best
    return score_of(problem, start)[0], start
