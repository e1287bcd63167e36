"""Hosts by how their devices are linked, so that what is found out about one host serves all like it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gpualloc.policy.scoring import NOT_LINKED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.solve.problem import Problem


class Links:
    """Numbers for link structures, and within each the devices that are linked alike."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._numbers: dict[object, int] = {}
        self._of: dict[int, int] = {}
        self._twins: dict[int, list[int]] = {}

    def number(self, host: int) -> int:
        """Return a number that is the same for hosts whose devices, by position, are linked alike."""
        known = self._of.get(host)
        if known is None:
            base = self.problem.host_devices[host][0]
            pairs = self.problem.pairs(host)
            shape = (
                len(self.problem.host_devices[host]),
                frozenset((a - base, b - base, pair) for (a, b), pair in pairs.items()),
            )
            known = self._of[host] = self._numbers.setdefault(shape, len(self._numbers))
            if known not in self._twins:
                self._twins[known] = self._find_twins(host)
        return known

    def shape(self, host: int, devices: Sequence[int]) -> tuple[object, ...]:
        """Return what some devices of a host are to each other: the same for any that may be exchanged by links."""
        number = self.number(host)
        base = self.problem.host_devices[host][0]
        groups = Counter(self._twins[number][d - base] for d in devices)
        return number, tuple(sorted(groups.items()))

    def best_pair(self, host: int) -> int:
        """Return the score of the best pair of a host."""
        return max((score for score, _ in self.problem.pairs(host).values()), default=0)

    def _find_twins(self, host: int) -> list[int]:
        """Return, per device of a host, the number of the group that it may be exchanged within."""
        members = self.problem.host_devices[host]
        pairs = self.problem.pairs(host)

        def link(a: int, b: int) -> tuple[int, int]:
            return pairs.get((a, b) if a < b else (b, a), (0, NOT_LINKED))

        firsts: list[int] = []
        groups = []
        for d in members:
            for n, first in enumerate(firsts):
                if all(link(d, c) == link(first, c) for c in members if c not in {d, first}):
                    groups.append(n)
                    break
            else:
                groups.append(len(firsts))
                firsts.append(d)
        return groups
