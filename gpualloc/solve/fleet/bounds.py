"""Bounds that need no program: what no plan of a fleet can beat, from sums alone. Turned, so that less is better."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from gpualloc.policy.scoring import PEAK_STEPS, peak_steps

if TYPE_CHECKING:
    from gpualloc.solve.problem import Kind, Problem
    from gpualloc.solve.tiers import Amount


def priorities(problem: Problem) -> list[int]:
    """Return the priorities of all workers, highest first."""
    return sorted({problem.kinds[job.kind].priority for job in problem.jobs}, reverse=True)


def placed_bound(problem: Problem) -> Amount:
    """Return, by priority, how many workers have a place when alone."""
    kinds = problem.kinds
    fits = {kind.number: _fits_somewhere(problem, kind) for kind in kinds}
    counts = Counter(kinds[job.kind].priority for job in problem.jobs if fits[job.kind])
    return tuple(-counts[priority] for priority in priorities(problem)) or (0,)


def _fits_somewhere(problem: Problem, kind: Kind) -> bool:
    if kind.least == 1:
        return bool(kind.weight)
    on = Counter(problem.host_of[d] for d in kind.weight if problem.devices[d].mig is None)
    return max(on.values(), default=0) >= kind.least


def peak_bound(problem: Problem, *, everybody: bool) -> int:
    """Bound the peak in steps: what is there anyway, and with ``everybody`` placed the best places and the mean."""
    members = [d for d, counts in enumerate(problem.eligible) if counts]
    bound = max((peak_steps(problem.taken[d], problem.full[d]) for d in members), default=0)
    if not everybody or not members:
        return bound
    total = sum(problem.taken[d] / problem.full[d] for d in members)
    jobs = Counter(job.kind for job in problem.jobs)
    for kind in problem.kinds:
        if not jobs[kind.number]:
            continue
        shares = {
            (problem.full[d] if kind.exclusive else w, problem.taken[d], problem.full[d])
            for d, w in kind.weight.items()
        }
        bound = max(bound, min(peak_steps(taken + share, full) for share, taken, full in shares))
        total += jobs[kind.number] * kind.least * min(share / full for share, _, full in shares)
    return max(bound, math.ceil(total / len(members) * PEAK_STEPS - 1e-6))


def grant_bounds(problem: Problem, *, settled: bool, everybody: bool) -> tuple[int, tuple[int, ...]]:
    """Bound the devices granted in all and worker by worker; who must stay at home gets no more than it has there."""
    elastic = [job for job in problem.jobs if problem.kinds[job.kind].elastic]
    wishes = [len(job.home) if settled and job.home else problem.kinds[job.kind].most for job in elastic]
    most = sum(wishes)
    alone = [problem.kinds[job.kind] for job in problem.jobs if problem.kinds[job.kind].exclusive]
    if len(alone) == len(problem.jobs):
        fixed = sum(kind.least for kind in alone if not kind.elastic) if everybody else 0
        most = min(most, len({d for kind in problem.kinds for d in kind.weight}) - fixed)
    return -most, tuple(-wish for wish in sorted(wishes))
