"""Small problems without an integer program: depth first over workers, cut off by bounds tier by tier.

Workers are taken in natural order of name and their choices in order of devices, so that of all best plans the first
one met is the one with the lowest PCI bus ids: the tie-break. Exchangeable devices and exchangeable workers are tried
in one order only. A branch is left when the bounds of its tiers, compared in order, cannot beat what is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from gpualloc.solve.groups import make_groups
from gpualloc.solve.relax import Bounds
from gpualloc.solve.rules import affinity_met, apart
from gpualloc.solve.tiers import score_of

if TYPE_CHECKING:
    from gpualloc.solve.problem import Assignment, Devices, Kind, Problem
    from gpualloc.solve.tiers import Score

MOST_SETS = 3000
"""Sets of devices listed per kind; a kind with more is not for this search."""


@dataclass(frozen=True, slots=True)
class Found:
    """The best assignment met, its score, and whether the search came to its end (so that nothing is better)."""

    assignment: Assignment
    score: Score
    finished: bool


class Search:
    """One depth-first search."""

    def __init__(self, problem: Problem, start: Assignment, nodes: int) -> None:
        self.problem = problem
        self.nodes = nodes
        self.best = start
        self.score = score_of(problem, start)
        self.met = False
        count = len(problem.devices)
        self.on: list[tuple[int, ...]] = [()] * count
        self.load = list(problem.taken)
        self.chosen: list[Devices | None] = []
        self.used_on = [0] * len(problem.hosts)
        self.used = 0
        self.options: list[list[Devices]] = []
        self.like: list[int] = []
        self.twins: list[tuple[int, ...]] = [()] * count
        self.bounds: Bounds | None = None

    def run(self) -> Found:
        """Search until done or out of nodes."""
        if not self._prepare():
            return Found(self.best, self.score, finished=False)
        self.bounds = Bounds(self.problem, self)
        try:
            self._descend()
        except _OutOfNodesError:
            return Found(self.best, self.score, finished=False)
        return Found(self.best, self.score, finished=True)

    def _prepare(self) -> bool:
        problem = self.problem
        sets: dict[int, list[Devices]] = {}
        for kind in problem.kinds:
            options = self._sets(kind)
            if options is None:
                return False
            sets[kind.number] = options
        for group in make_groups(problem, together=True):
            for d in group.devices:
                self.twins[d] = group.devices
        last: dict[object, int] = {}
        for n, job in enumerate(problem.jobs):
            self.options.append(sets[job.kind])
            same = (job.kind,) if problem.stability == "ignore" else (job.kind, job.home, job.previous is None)
            self.like.append(last.get(same, -1))
            last[same] = n
        return True

    def _sets(self, kind: Kind) -> list[Devices] | None:
        problem = self.problem
        if kind.most == 1 or kind.single:
            return [(d,) for d in sorted(kind.weight)] if kind.least == 1 else []
        found: list[Devices] = []
        for members in problem.host_devices:
            mine = [d for d in members if d in kind.weight]
            if not mine:
                continue
            highest = 1 if problem.devices[mine[0]].mig else min(kind.most, len(mine))
            if sum(math.comb(len(mine), size) for size in range(kind.least, highest + 1)) > MOST_SETS:
                return None
            for size in range(kind.least, highest + 1):
                found += [devices for devices in combinations(mine, size) if problem.admits(kind, devices)]
        return sorted(found) if len(found) <= MOST_SETS else None

    def _descend(self) -> None:
        at = len(self.chosen)
        if at == len(self.problem.jobs):
            self._leaf()
            return
        self.nodes -= 1
        if self.nodes < 0:
            raise _OutOfNodesError
        if self.bounds is None or not self.bounds.promising(self.score, strictly=self.met):
            return
        kind = self.problem.kinds[self.problem.jobs[at].kind]
        before = self.like[at]
        floor: Devices | None = None
        if before >= 0:
            floor = self.chosen[before]
        if before < 0 or floor is not None:
            tried: set[object] = set()
            for devices in self.options[at]:
                if floor is not None and devices < floor:
                    continue
                if not self.takes_all(devices, kind) or not self._lowest(devices, tried):
                    continue
                self._put(devices, kind)
                self._descend()
                self._take_back(devices, kind)
        self.chosen.append(None)
        self.bounds.skip(at)
        self._descend()
        self.bounds.unskip(at)
        self.chosen.pop()

    def _lowest(self, devices: Devices, tried: set[object]) -> bool:
        """Tell whether no exchangeable set of lower devices was there to try instead."""
        if len(devices) == 1:
            d = devices[0]
            key = (self.twins[d], self.on[d])
            if key in tried:
                return False
            tried.add(key)
            return True
        for d in devices:
            for other in self.twins[d]:
                if other >= d:
                    break
                if other not in devices and self.on[other] == self.on[d]:
                    return False
        return True

    def _takes(self, d: int, kind: Kind) -> bool:
        there = self.on[d]
        if not there:
            return True
        problem = self.problem
        if kind.exclusive or problem.kinds[there[0]].exclusive or len(there) >= problem.slots[d]:
            return False
        if self.load[d] + kind.weight[d] > problem.full[d]:
            return False
        return not any(apart(kind, problem.kinds[number]) for number in there)

    def takes_all(self, devices: Devices, kind: Kind) -> bool:
        """Tell whether a worker can still have these devices."""
        return all(self._takes(d, kind) for d in devices) and self._has_room(devices)

    def _has_room(self, devices: Devices) -> bool:
        new = sum(not self.on[d] for d in devices)
        if not new:
            return True
        problem = self.problem
        host = problem.host_of[devices[0]]
        if self.used_on[host] + new > problem.room[host]:
            return False
        return problem.limit is None or self.used + new <= problem.limit

    def _put(self, devices: Devices, kind: Kind) -> None:
        problem = self.problem
        for d in devices:
            if not self.on[d]:
                self.used += 1
                self.used_on[problem.host_of[d]] += 1
            self.on[d] = tuple(sorted((*self.on[d], kind.number)))
            amount = problem.full[d] if kind.exclusive else kind.weight[d]
            self.load[d] += amount
        if self.bounds is not None:
            self.bounds.placed(len(self.chosen), devices)
        self.chosen.append(devices)

    def _take_back(self, devices: Devices, kind: Kind) -> None:
        problem = self.problem
        self.chosen.pop()
        if self.bounds is not None:
            self.bounds.unplaced(len(self.chosen), devices)
        for d in devices:
            there = list(self.on[d])
            there.remove(kind.number)
            self.on[d] = tuple(there)
            amount = problem.full[d] if kind.exclusive else kind.weight[d]
            self.load[d] -= amount
            if not there:
                self.used -= 1
                self.used_on[problem.host_of[d]] -= 1

    def _leaf(self) -> None:
        kinds = self.problem.kinds
        for there in self.on:
            crowd = [kinds[number] for number in there]
            if any(kind.affinity and not affinity_met(kind, crowd) for kind in crowd):
                return
        found = tuple(self.chosen)
        score = score_of(self.problem, found)
        if score < self.score or (score == self.score and not self.met):
            self.best, self.score, self.met = found, score, True


class _OutOfNodesError(Exception):
    """The search used up its nodes."""
