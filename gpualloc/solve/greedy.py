"""A good plan at once: workers in a sensible order, each on the devices that suit the strategy.

It proves nothing. It gives the searches a plan to beat, and answers at once whether something fits when it does.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from gpualloc.solve.rules import affinity_met, crowd_fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpualloc.solve.problem import Assignment, Devices, Job, Kind, Problem


class Floor:
    """Devices with who is on them so far."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.on: list[list[Kind]] = [[] for _ in problem.devices]
        self.load = list(problem.taken)
        self.used_on = [0] * len(problem.hosts)
        self.used = 0

    def takes(self, d: int, kind: Kind) -> bool:
        """Tell whether one device can take one more worker; reserve and limit are the caller's to count."""
        return d in kind.weight and crowd_fault(self.problem, d, [*self.on[d], kind]) is None

    def has_room(self, devices: Devices) -> bool:
        """Tell whether reserve and limit let these devices of one host be used."""
        new = sum(not self.on[d] for d in devices)
        if not new:
            return True
        host = self.problem.host_of[devices[0]]
        limit = self.problem.limit
        return self.used_on[host] + new <= self.problem.room[host] and (limit is None or self.used + new <= limit)

    def put(self, devices: Devices, kind: Kind) -> None:
        """Add a worker."""
        for d in devices:
            if not self.on[d]:
                self.used += 1
                self.used_on[self.problem.host_of[d]] += 1
            self.on[d].append(kind)
            self.load[d] += self.problem.full[d] if kind.exclusive else kind.weight[d]


def greedy(problem: Problem) -> Assignment:
    """Return a valid assignment, good but not always best."""
    floor = Floor(problem)
    chosen: dict[str, Devices] = {}
    order = sorted(enumerate(problem.jobs), key=lambda item: _urgency(problem, item[1], item[0]))
    waiting = [job for _, job in order]
    if problem.stability != "ignore":
        for job in waiting:
            kind = problem.kinds[job.kind]
            if job.home and floor.has_room(job.home) and all(floor.takes(d, kind) for d in job.home):
                floor.put(job.home, kind)
                chosen[job.name] = job.home
    for job in waiting:
        if job.name in chosen:
            continue
        kind = problem.kinds[job.kind]
        best = _best(floor, kind, kind.least)
        if best is not None:
            floor.put(best, kind)
            chosen[job.name] = best
    drop_lonely(problem, floor, chosen)
    grow(problem, floor, chosen)
    return tuple(chosen.get(job.name) for job in problem.jobs)


def _urgency(problem: Problem, job: Job, at: int) -> tuple[object, ...]:
    kind = problem.kinds[job.kind]
    heaviest = 0.0
    if kind.weight and not kind.exclusive:
        d = next(iter(kind.weight))
        heaviest = kind.weight[d] / problem.full[d]
    # who wants company comes after it; who can go fewest places, wants most devices, or most of one, goes first
    return (
        bool(kind.affinity),
        -kind.priority,
        -kind.least,
        not kind.exclusive,
        len(kind.weight),
        -heaviest,
        at,
    )


def _best(floor: Floor, kind: Kind, size: int) -> Devices | None:
    """Return the best set of so many devices for a worker, by links first for several, else by the strategy."""
    problem = floor.problem
    best: tuple[tuple[object, ...], Devices] | None = None
    by_host: dict[int, list[int]] = {}
    for d in kind.weight:
        if floor.takes(d, kind) and affinity_met(kind, [*floor.on[d], kind]):
            by_host.setdefault(problem.host_of[d], []).append(d)
    for host, members in by_host.items():
        ranked = sorted(members, key=lambda d: _suits(floor, kind, d))
        for devices in _candidates(problem, kind, ranked, size):
            if not floor.has_room(devices):
                continue
            new = sum(not floor.on[d] for d in devices)
            key = (
                (0 if problem.spread else (not floor.used_on[host], new)),
                -problem.set_score(devices) if problem.topology and size > 1 else 0,
                tuple(_suits(floor, kind, d) for d in devices),
            )
            if best is None or key < best[0]:
                best = key, devices
    return None if best is None else best[1]


def _candidates(problem: Problem, kind: Kind, ranked: list[int], size: int) -> Iterator[Devices]:
    if size == 1:
        # the first that suits, on new and on used devices alike
        yield from ((d,) for d in ranked)
        return
    if len(ranked) < size or problem.devices[ranked[0]].mig is not None:
        return
    for seed in ranked:
        devices = [seed]
        while len(devices) < size:
            rest = [d for d in ranked if d not in devices]
            rest = [d for d in rest if problem.admits_pairs(kind, (*devices, d))]
            if not rest:
                break
            devices.append(max(rest, key=lambda d: (_gain(problem, devices, d), -ranked.index(d))))
        if len(devices) == size:
            yield tuple(sorted(devices))


def _gain(problem: Problem, devices: list[int], d: int) -> int:
    if not problem.topology:
        return 0
    return sum(problem.link(min(d, other), max(d, other))[0] for other in devices)


def _suits(floor: Floor, kind: Kind, d: int) -> tuple[object, ...]:
    problem = floor.problem
    load = floor.load[d] / problem.full[d]
    size = problem.size[d] if kind.names_memory else -problem.size[d]
    if problem.spread:
        after = load + (1.0 if kind.exclusive else kind.weight[d] / problem.full[d])
        return (after, size, d)
    return (not floor.on[d], -load, size, d)


def drop_lonely(problem: Problem, floor: Floor, chosen: dict[str, Devices]) -> None:
    """Take back workers whose company did not come, until none is left."""
    while True:
        lonely = [
            job
            for job in problem.jobs
            if any(not affinity_met(problem.kinds[job.kind], floor.on[d]) for d in chosen.get(job.name, ()))
        ]
        if not lonely:
            return
        for job in lonely:
            kind = problem.kinds[job.kind]
            for d in chosen.pop(job.name):
                floor.on[d].remove(kind)
                floor.load[d] -= problem.full[d] if kind.exclusive else kind.weight[d]
                if not floor.on[d]:
                    floor.used -= 1
                    floor.used_on[problem.host_of[d]] -= 1


def grow(problem: Problem, floor: Floor, chosen: dict[str, Devices]) -> None:
    """Give elastic workers one device more at a time, the one with the fewest first.

    Who stays at home does not grow.
    """
    growing = []
    for n, job in enumerate(problem.jobs):
        kind = problem.kinds[job.kind]
        settled = problem.stability == "keep" and job.home is not None and chosen.get(job.name) == job.home
        if kind.elastic and job.name in chosen and not settled:
            growing.append((len(chosen[job.name]), n))
    heapq.heapify(growing)
    while growing:
        count, n = heapq.heappop(growing)
        job = problem.jobs[n]
        kind = problem.kinds[job.kind]
        devices = chosen[job.name]
        more = _one_more(floor, kind, devices) if len(devices) < kind.most else None
        if more is None:
            continue
        floor.put((more,), kind)
        chosen[job.name] = tuple(sorted((*devices, more)))
        heapq.heappush(growing, (count + 1, n))


def _one_more(floor: Floor, kind: Kind, devices: Devices) -> int | None:
    problem = floor.problem
    options = [
        d
        for d in problem.host_devices[problem.host_of[devices[0]]]
        if d not in devices
        and problem.devices[d].mig is None
        and floor.takes(d, kind)
        and affinity_met(kind, [*floor.on[d], kind])
        and problem.admits_pairs(kind, (*devices, d))
        and floor.has_room((d,))
    ]
    return max(options, key=lambda d: (_gain(problem, list(devices), d), -d), default=None)
