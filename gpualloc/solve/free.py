"""How well the devices that stay free can be linked at best, from counts alone.

Once it is settled how many hosts and devices are used and how much memory they have together, few ways are left to
divide them among hosts; on each, the best linked devices stay free.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import product
from operator import add
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpualloc.solve.problem import Problem

MOST_STATES = 5_000
MOST_SETS = 15_000

State = tuple[int, tuple[int, ...]]
"""How many hosts are used, and how many devices of each size."""


def most_free_score(problem: Problem, hosts: int, devices: int, memory: int) -> int | None:
    """Return a link score that the free devices of no plan are above; None where there are too many ways.

    Of plans that use so many ``hosts`` and ``devices``, with ``memory`` MiB together.
    """
    sizes = sorted({problem.size[d] for d, eligible in enumerate(problem.eligible) if eligible})
    best: dict[State, int] = {(0, (0,) * len(sizes)): 0}
    for host in range(len(problem.hosts)):
        ways = list(_ways(problem, host, sizes, devices))
        if len(best) * len(ways) > MOST_STATES * 10:
            return None
        found: dict[State, int] = {}
        for (used_hosts, used), score in best.items():
            for more, gain in ways:
                count = tuple(map(sum, zip(used, more, strict=True)))
                state = used_hosts + any(more), count
                if state[0] <= hosts and sum(count) <= devices:
                    found[state] = max(found.get(state, 0), score + gain)
        if len(found) > MOST_STATES:
            return None
        best = found
    return max(
        (
            score
            for (used_hosts, used), score in best.items()
            if used_hosts == hosts
            and sum(used) == devices
            and sum(size * count for size, count in zip(sizes, used, strict=True)) == memory
        ),
        default=None,
    )


def _ways(problem: Problem, host: int, sizes: list[int], devices: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield how many devices of each size may be used on a host, each with the best score of those left free."""
    members = problem.host_devices[host]
    there = Counter(problem.size[d] for d in members if problem.eligible[d])
    scores: dict[int, int] = {}
    for used in product(*(range(there[size] + 1) for size in sizes)):
        total = sum(used)
        if total > min(problem.room[host], devices):
            continue
        if total not in scores:
            scores[total] = _best_score(problem, host, len(members) - total)
        yield used, scores[total]


def _best_score(problem: Problem, host: int, count: int) -> int:
    """Return the best link score of so many devices of a host, or a bound on it where there are many to choose from."""
    members, pairs = problem.host_devices[host], problem.pairs(host)
    if not pairs:
        return 0
    # devices that nobody may have are free in any case
    fixed = [d for d in members if not problem.eligible[d]]
    rest = [d for d in members if problem.eligible[d]]
    count -= len(fixed)
    if math.comb(len(rest), count) > MOST_SETS:
        best = sorted((score for score, _ in pairs.values()), reverse=True)
        return sum(best[: math.comb(count + len(fixed), 2)])
    link = {(a, b): score for (a, b), (score, _) in pairs.items()}
    link |= {(b, a): score for (a, b), score in link.items()}
    worth = [sum(link.get((d, other), 0) for other in fixed) for d in rest]
    rows = [[link.get((a, b), 0) for b in rest] for a in rest]
    return problem.set_score(tuple(fixed)) + _best_of(rows, worth, 0, count)


def _best_of(rows: list[list[int]], worth: list[int], start: int, count: int) -> int:
    """Return the best score of so many from ``start`` on: what each is worth beside those chosen, and their pairs."""
    if count == 0:
        return 0
    if count == 1:
        return max(worth[start:])
    return max(
        worth[n] + _best_of(rows, list(map(add, worth, rows[n])), n + 1, count - 1)
        for n in range(start, len(rows) - count + 1)
    )
