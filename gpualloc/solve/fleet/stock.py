"""What a fleet has left, as classes: devices that hold somebody by what still fits, and hosts by their empty devices.

On a host that is in use anyway, what a device can still take depends on the device alone, so that such devices are one
class wherever they are. Empty devices come with their host: on a used one for nothing, on another at the price of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpualloc.solve.fleet.links import Links
    from gpualloc.solve.greedy import Floor
    from gpualloc.solve.problem import Kind, Problem

MOST_HOST_PATTERNS = 400
"""A class of hosts with more host patterns than this has them relaxed: devices of a worker may lie anywhere."""


@dataclass(slots=True)
class Pool:
    """Devices that nothing tells apart for workers of one device.

    ``there`` are the numbers of the kinds on each of them already, ``room`` and ``slots`` what is left. The
    ``devices`` of an empty pool are those of all its hosts, used or not by the plan.
    """

    number: int
    example: int
    empty: bool
    room: int
    slots: int
    there: tuple[int, ...]
    kinds: tuple[int, ...]
    devices: list[int] = field(default_factory=list)


@dataclass(slots=True)
class HostClass:
    """Hosts with the same empty devices. ``empties`` maps the pool of each sort of empty device to how many there are.

    ``patterns`` are the ways in which exclusive workers of several devices can lie on one of them: pairs of kind and
    how many, with what they take from each pool; None where there are too many.
    """

    number: int
    used: bool
    open: int
    empties: tuple[tuple[int, int], ...]
    hosts: list[int] = field(default_factory=list)
    patterns: list[HostPattern] | None = None


@dataclass(frozen=True, slots=True)
class HostPattern:
    """Workers of several devices on one host, what is left of each pool, and how many devices they take."""

    counts: tuple[tuple[int, int], ...]
    left: tuple[tuple[int, int], ...]
    taken: int


class Stock:
    """All pools and classes of hosts, given who is on the floor."""

    def __init__(self, problem: Problem, floor: Floor, links: Links) -> None:
        self.problem = problem
        self.floor = floor
        self.links = links
        self.pools: list[Pool] = []
        self.hosts: list[HostClass] = []
        self.wide = [kind for kind in problem.kinds if kind.exclusive and kind.least > 1 and kind.weight]
        self._social = any(kind.affinity or kind.anti for kind in problem.kinds)
        self._kinds_of: list[list[int]] = [[] for _ in problem.devices]
        for kind in problem.kinds:
            for d in kind.weight:
                self._kinds_of[d].append(kind.number)
        self._sorts: dict[object, int] = {}
        self._sort_of = [self._sort(d) for d in range(len(problem.devices))]
        self._collect()

    def _sort(self, d: int) -> int:
        """Return the number of what a device is, whoever is on it."""
        problem = self.problem
        key = (
            problem.full[d],
            problem.taken[d],
            problem.slots[d],
            problem.size[d],
            problem.devices[d].mig is None,
            tuple(self._kinds_of[d]),
        )
        return self._sorts.setdefault(key, len(self._sorts))

    def _collect(self) -> None:
        problem, floor = self.problem, self.floor
        pools: dict[object, Pool] = {}
        classes: dict[object, HostClass] = {}
        linked = problem.topology and bool(self.wide)
        for host, members in enumerate(problem.host_devices):
            used = floor.used_on[host] > 0
            left = problem.room[host] - floor.used_on[host]
            empties: dict[int, list[int]] = {}
            for d in members:
                if not self._kinds_of[d]:
                    continue
                if floor.on[d]:
                    self._partly(pools, d)
                else:
                    empties.setdefault(self._sort_of[d], []).append(d)
            if left <= 0 or not empties:
                continue
            sizes = tuple(sorted((sort, len(devices)) for sort, devices in empties.items()))
            links = self.links.shape(host, [d for devices in empties.values() for d in devices]) if linked else None
            key = (used, sizes, links, left if left < sum(n for _, n in sizes) else -1)
            known = classes.get(key)
            if known is None:
                owner = None if used else (len(classes),)
                numbers = tuple((self._empty(pools, (sort, owner), empties[sort][0]).number, n) for sort, n in sizes)
                known = classes[key] = HostClass(len(classes), used, left, numbers)
                self.hosts.append(known)
            known.hosts.append(host)
            for (number, _), (sort, _) in zip(known.empties, sizes, strict=True):
                self.pools[number].devices += empties[sort]
        for known in self.hosts:
            known.patterns = self._host_patterns(known)

    def _partly(self, pools: dict[object, Pool], d: int) -> None:
        problem, there = self.problem, self.floor.on[d]
        if there[0].exclusive:
            return
        room, slots = problem.full[d] - self.floor.load[d], problem.slots[d] - len(there)
        kinds = [problem.kinds[number] for number in self._kinds_of[d]]
        fitting = tuple(k.number for k in kinds if not k.exclusive and k.weight[d] <= room)
        if slots <= 0 or not fitting:
            return
        who = tuple(sorted(kind.number for kind in there)) if self._social else ()
        key = (self._sort_of[d], room, slots, who)
        pool = pools.get(key)
        if pool is None:
            pool = pools[key] = Pool(len(self.pools), d, empty=False, room=room, slots=slots, there=who, kinds=fitting)
            self.pools.append(pool)
        pool.devices.append(d)

    def _empty(self, pools: dict[object, Pool], key: object, d: int) -> Pool:
        pool = pools.get(key)
        if pool is None:
            problem = self.problem
            room = problem.full[d] - problem.taken[d]
            pool = pools[key] = Pool(
                len(self.pools),
                d,
                empty=True,
                room=room,
                slots=problem.slots[d],
                there=(),
                kinds=tuple(self._kinds_of[d]),
            )
            self.pools.append(pool)
        return pool

    def _host_patterns(self, known: HostClass) -> list[HostPattern] | None:
        """Return every way to lay workers of several devices on a host of a class, links left aside."""
        examples = {number: self.pools[number].example for number, _ in known.empties}
        ways: list[tuple[Kind, tuple[tuple[int, int], ...]]] = []
        for kind in self.wide:
            mine = [(n, c) for n, c in known.empties if self._may(kind, examples[n])]
            ways += [(kind, draw) for draw in _draws(mine, kind.least)]
        return _Layer(known, ways).run()

    def _may(self, kind: Kind, d: int) -> bool:
        return d in kind.weight and self.problem.devices[d].mig is None


class _Layer:
    """Lists the ways to lay workers of several devices on one host."""

    def __init__(self, known: HostClass, ways: list[tuple[Kind, tuple[tuple[int, int], ...]]]) -> None:
        self.known = known
        self.ways = ways
        self.free = dict(known.empties)
        self.counts: Counter[int] = Counter()
        self.found: dict[object, HostPattern] = {}

    def run(self) -> list[HostPattern] | None:
        """Return them, None where there are too many."""
        return list(self.found.values()) if self._lay(0, 0) else None

    def _lay(self, at: int, taken: int) -> bool:
        left, held = tuple(sorted(self.free.items())), tuple(sorted((+self.counts).items()))
        self.found.setdefault((held, left), HostPattern(held, left, taken))
        if len(self.found) > MOST_HOST_PATTERNS:
            return False
        for n in range(at, len(self.ways)):
            kind, draw = self.ways[n]
            if taken + kind.least > self.known.open or any(self.free[pool] < count for pool, count in draw):
                continue
            self._take(kind.number, draw, 1)
            good = self._lay(n, taken + kind.least)
            self._take(kind.number, draw, -1)
            if not good:
                return False
        return True

    def _take(self, kind: int, draw: tuple[tuple[int, int], ...], sign: int) -> None:
        self.counts[kind] += sign
        for pool, count in draw:
            self.free[pool] -= sign * count


def _draws(sizes: list[tuple[int, int]], total: int) -> list[tuple[tuple[int, int], ...]]:
    """Return every way to draw ``total`` devices from some pools."""
    if total == 0:
        return [()]
    if not sizes:
        return []
    (pool, size), rest = sizes[0], sizes[1:]
    found = []
    for count in range(min(size, total), -1, -1):
        mine = ((pool, count),) if count else ()
        found += [(*mine, *more) for more in _draws(rest, total - count)]
    return found
