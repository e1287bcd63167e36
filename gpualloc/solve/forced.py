"""Moves that no plan can avoid, from sums alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpualloc.solve.problem import Job, Problem


def forced_moves(problem: Problem) -> int:
    """Return how many workers move at least in a plan that places all of them.

    Those whose devices are gone or no longer good; and of those at home on one device as many as it has no room for.
    """
    at_home: dict[int, list[Job]] = {}
    moves = 0
    for job in problem.jobs:
        if job.home is None:
            moves += job.previous is not None
        else:
            # counted once, on the first of its devices
            at_home.setdefault(job.home[0], []).append(job)
    return moves + sum(len(jobs) - _most_staying(problem, d, jobs) for d, jobs in at_home.items())


def _most_staying(problem: Problem, d: int, jobs: list[Job]) -> int:
    kinds = [problem.kinds[job.kind] for job in jobs]
    alone = any(kind.exclusive for kind in kinds)
    room, sharing = problem.full[d] - problem.taken[d], 0
    for weight in sorted(kind.weight[d] for kind in kinds if not kind.exclusive):
        if weight > room or sharing == problem.slots[d]:
            break
        room -= weight
        sharing += 1
    return max(int(alone), sharing)
