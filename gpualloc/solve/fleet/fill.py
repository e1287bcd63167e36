"""A plan at once: kind after kind, each device and each host looked at once per kind.

Within a kind a device that has refused one worker refuses the next too, so a sorted list and one pass will do.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from gpualloc.policy.scoring import NOT_LINKED
from gpualloc.solve.rules import affinity_met

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpualloc.solve.fleet.links import Links
    from gpualloc.solve.greedy import Floor
    from gpualloc.solve.problem import Devices, Kind, Problem

Queues = dict[int, list[int]]
"""Per kind, the positions of the workers that wait, last first, so that the next is popped from the end."""

Chosen = dict[int, "Devices"]
"""Per worker's position, its devices."""

Shape = tuple[int, tuple[int, ...], int, int]


def urgent_kinds(problem: Problem) -> list[Kind]:
    """Return the kinds, hardest to place first: as :func:`gpualloc.solve.greedy.greedy` orders workers."""

    def urgency(kind: Kind) -> tuple[object, ...]:
        heaviest = 0.0
        if kind.weight and not kind.exclusive:
            d = next(iter(kind.weight))
            heaviest = kind.weight[d] / problem.full[d]
        return (
            bool(kind.affinity),
            -kind.priority,
            -kind.least,
            not kind.exclusive,
            len(kind.weight),
            -heaviest,
            kind.number,
        )

    return sorted(problem.kinds, key=urgency)


class Filler:
    """Places waiting workers on a floor."""

    def __init__(self, problem: Problem, floor: Floor, links: Links, queues: Queues, chosen: Chosen) -> None:
        self.problem = problem
        self.floor = floor
        self.queues = queues
        self.chosen = chosen
        self.links = links
        self._sets: dict[Shape, tuple[int, ...] | None] = {}

    def put(self, kind: Kind, devices: Devices) -> None:
        """Give devices to the next worker of a kind."""
        self.floor.put(devices, kind)
        self.chosen[self.queues[kind.number].pop()] = devices

    def fill(self) -> None:
        """Place everybody who fits."""
        for kind in urgent_kinds(self.problem):
            if not self.queues.get(kind.number):
                continue
            if kind.least > 1:
                self._several(kind)
            elif self.problem.spread:
                self._level(kind)
            else:
                self._pack(kind)

    def _fits(self, kind: Kind, d: int) -> bool:
        return self.floor.takes(d, kind) and (not kind.affinity or affinity_met(kind, [*self.floor.on[d], kind]))

    # one device each ------------------------------------------------------------------------------------------------

    def _pack(self, kind: Kind) -> None:
        problem, floor, queue = self.problem, self.floor, self.queues[kind.number]
        order = []
        for d in kind.weight:
            if kind.exclusive and floor.on[d]:
                continue
            host = problem.host_of[d]
            size = problem.size[d] if kind.names_memory else -problem.size[d]
            state = 0 if floor.on[d] else 1 if floor.used_on[host] else 2
            load = 0.0 if kind.exclusive else -floor.load[d] / problem.full[d]
            order.append((state, load if state == 0 else 0.0, size, d))
        for _, _, _, d in sorted(order):
            if not queue:
                return
            while queue and self._fits(kind, d) and floor.has_room((d,)):
                self.put(kind, (d,))

    def _level(self, kind: Kind) -> None:
        problem, floor, queue = self.problem, self.floor, self.queues[kind.number]

        def entry(d: int) -> tuple[float, int, int]:
            added = problem.full[d] if kind.exclusive else kind.weight[d]
            size = problem.size[d] if kind.names_memory else -problem.size[d]
            return (floor.load[d] + added) / problem.full[d], size, d

        heap = [entry(d) for d in kind.weight if self._fits(kind, d)]
        heapq.heapify(heap)
        while heap and queue:
            _, _, d = heapq.heappop(heap)
            if self._fits(kind, d) and floor.has_room((d,)):
                self.put(kind, (d,))
                if not kind.exclusive:
                    heapq.heappush(heap, entry(d))

    # several devices each -------------------------------------------------------------------------------------------

    def _several(self, kind: Kind) -> None:
        problem, floor, queue = self.problem, self.floor, self.queues[kind.number]
        by_host: dict[int, list[int]] = {}
        for d in kind.weight:
            if not (kind.exclusive and floor.on[d]) and problem.devices[d].mig is None:
                by_host.setdefault(problem.host_of[d], []).append(d)
        order = []
        for host, members in by_host.items():
            if len(members) < kind.least:
                continue
            if problem.spread:
                order.append((0, -self.links.best_pair(host), host))
            else:
                order.append((not floor.used_on[host], len(members) if floor.used_on[host] else 0, host))
        for _, _, host in sorted(order):
            while queue:
                devices = self.choose(kind, host, by_host[host])
                if devices is None:
                    break
                self.put(kind, devices)
            if not queue:
                return

    def choose(self, kind: Kind, host: int, members: list[int]) -> Devices | None:
        """Return the best linked devices of a host for the next worker of a kind, None where it does not fit there."""
        problem, floor = self.problem, self.floor
        free = [d for d in members if self._fits(kind, d)]
        if len(free) < kind.least:
            return None
        if not kind.exclusive:
            # on devices in use first, or on the emptiest
            sign = 1 if problem.spread else -1
            free.sort(key=lambda d: (sign * floor.load[d] / problem.full[d], d))
            found = next(self._sets_of(kind, free), None)
            return found if found is not None and floor.has_room(found) else None
        base = problem.host_devices[host][0]
        shape = (self.links.number(host), tuple(d - base for d in free), kind.least, kind.rank)
        if shape not in self._sets:
            best = max(self._sets_of(kind, free), key=problem.set_score, default=None)
            self._sets[shape] = None if best is None else tuple(d - base for d in best)
        known = self._sets[shape]
        devices = None if known is None else tuple(d + base for d in known)
        return devices if devices is not None and floor.has_room(devices) else None

    def _sets_of(self, kind: Kind, free: list[int]) -> Iterator[Devices]:
        """Yield a set of devices around each device, grown by what is linked best."""
        problem = self.problem
        for seed in free:
            devices = [seed]
            while len(devices) < kind.least:
                rest = [d for d in free if d not in devices]
                if kind.rank != NOT_LINKED:
                    rest = [d for d in rest if problem.admits_pairs(kind, (*devices, d))]
                if not rest:
                    break
                devices.append(max(rest, key=lambda d: (self._gain(devices, d), -free.index(d))))
            if len(devices) == kind.least:
                yield tuple(sorted(devices))

    def _gain(self, devices: list[int], d: int) -> int:
        problem = self.problem
        if not problem.topology:
            return 0
        return sum(problem.link(min(d, other), max(d, other))[0] for other in devices)
