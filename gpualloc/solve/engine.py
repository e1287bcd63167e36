"""Which engine answers: the small search where it comes to its end, HiGHS beyond.

Both give the same score, and where the small search ends within its nodes, the same plan: it looks for the lowest of
the best plans also after HiGHS has found one. Where it does not end, the plan is the one that
:mod:`gpualloc.solve.expand` makes of the program's answer: the same every time, and low, but not proven to be lowest.

What the time goes into: up to 16 hosts the program has the hosts one by one (:mod:`gpualloc.solve.formulation`), and
every tier is one run of HiGHS at least. Above, :mod:`gpualloc.solve.fleet` plans by classes of devices and hosts.
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
    from gpualloc.solve.tiers import Score

SMALL_JOBS = 80
"""Problems with more workers than this go to HiGHS at once."""

SMALL_DEVICES = 200
"""Problems with more devices than this are not for the small search either: its bounds look at every one."""

LARGE = 20_000
"""With more workers times devices than this, the first plan is that of a fleet: it takes linear time."""

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
    small = len(problem.jobs) <= SMALL_JOBS and len(problem.devices) <= SMALL_DEVICES
    many = len(problem.hosts) > MOST_HOSTS
    fleet = None
    if many or len(problem.jobs) * len(problem.devices) > LARGE:
        fleet = optimize_fleet(problem, limits)
        start = fleet.assignment
    else:
        start = greedy(problem)
    if small:
        found = Search(problem, start, SMALL_NODES).run()
        if found.finished:
            return Answer(_settled(problem, found.assignment, found.score), cut_off=False)
        start = found.assignment
    if fleet is not None and many:
        better = score_of(problem, start)
        if better < fleet.score:
            fleet = Optimum(start, better, _kept(fleet, better))
        return Answer(fleet, cut_off=limits.cut_off)
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
    if not all(kind.weight for kind in problem.kinds):
        return False
    if len(problem.hosts) > MOST_HOSTS:
        return None not in optimize_fleet(problem, limits).assignment
    start = greedy(problem)
    if None not in start:
        return True
    driver = Driver(problem, start, limits)
    driver.placed(0, driver.rules[0])
    return None not in driver.best
