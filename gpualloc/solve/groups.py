"""Devices that no tier can tell apart, and what one device of a group can hold.

A *group* is devices of one host that may be exchanged for one another without changing anything: the same capacity,
size, NUMA node (under spread), links to every other device (where links matter), and nobody's home. A *pattern* is what
one device of a group holds: one exclusive worker, or so many sharing workers of each kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from gpualloc.policy.scoring import NOT_LINKED, peak_steps
from gpualloc.solve.rules import apart, device_fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpualloc.solve.problem import Devices, Kind, Problem


@dataclass(frozen=True, slots=True)
class Group:
    """Interchangeable devices of one host, ascending; ``kinds`` are the numbers of the kinds that may be here."""

    number: int
    host: int
    devices: Devices
    kinds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """What one device holds: pairs of kind and how many, by kind.

    ``load`` in the device's units, foreign part included.
    """

    counts: tuple[tuple[int, int], ...]
    exclusive: bool
    load: int
    steps: int


def links_matter(problem: Problem) -> bool:
    """Whether any rule or tier looks at links at all."""
    several = any(not kind.single for kind in problem.kinds)
    if several and any(kind.rank != NOT_LINKED for kind in problem.kinds):
        return True
    return problem.topology and (several or not problem.spread)


def make_groups(problem: Problem, *, together: bool = False, alone: frozenset[int] = frozenset()) -> list[Group]:
    """Return the groups of all eligible devices, in the order of their first device.

    Unless ``together``, a device that a sharing worker of several devices may have is a group of its own: which of its
    parts meet on one device matters to counts. So are the devices named in ``alone``.
    """
    homes = set()
    if problem.stability != "ignore":
        homes = {d for job in problem.jobs for d in job.home or ()}
    spanning = {
        d
        for kind in problem.kinds
        if kind.most > 1 and not kind.exclusive
        for d in kind.weight
        if problem.devices[d].mig is None and not together
    }
    linked = links_matter(problem)
    kinds_of: dict[int, list[int]] = {}
    for kind in problem.kinds:
        for d in kind.weight:
            kinds_of.setdefault(d, []).append(kind.number)
    groups: list[Group] = []
    for host, members in enumerate(problem.host_devices):
        buckets: dict[object, list[list[int]]] = {}
        for d in members:
            if not problem.eligible[d]:
                continue
            kinds = kinds_of.get(d, [])
            single = d if d in homes or d in spanning or d in alone else -1
            numa = problem.numa_of[d] if problem.spread else -1
            key = (single, numa, problem.taken[d], problem.full[d], problem.slots[d], problem.size[d], tuple(kinds))
            twins = buckets.setdefault(key, [])
            for group in twins:
                if not linked or _twins(problem, group[0], d, members):
                    group.append(d)
                    break
            else:
                twins.append([d])
        found = sorted(group for twins in buckets.values() for group in twins)
        groups += [
            Group(len(groups) + n, host, tuple(group), tuple(kinds_of.get(group[0], ())))
            for n, group in enumerate(found)
        ]
    return groups


def _twins(problem: Problem, a: int, b: int, members: list[int]) -> bool:
    pairs = problem.pairs(problem.host_of[a])

    def link(x: int, y: int) -> tuple[int, int]:
        return pairs.get((x, y) if x < y else (y, x), (0, NOT_LINKED))

    return all(link(a, c) == link(b, c) for c in members if c not in {a, b})


class TooManyPatternsError(Exception):
    """A group has more patterns than it is worth listing."""


def patterns_of(problem: Problem, group: Group, supply: dict[int, int], most: int) -> list[Pattern]:
    """Return every non-empty pattern of a group, exclusive ones first.

    ``supply`` is how many workers of a kind there are.
    Raises :class:`TooManyPatternsError` beyond ``most``.
    """
    d = group.devices[0]
    kinds = [problem.kinds[number] for number in group.kinds]
    found = [_pattern(problem, d, ((kind.number, 1),)) for kind in kinds if kind.exclusive and supply[kind.number] > 0]
    sharing = [kind for kind in kinds if not kind.exclusive and supply[kind.number] > 0]
    # heavy first: the tree stays narrow
    sharing.sort(key=lambda kind: (-kind.weight[d], kind.number))
    for counts in _fill(problem, d, sharing, supply, 0, problem.full[d] - problem.taken[d], problem.slots[d], []):
        members = [problem.kinds[number] for number, count in counts for _ in range(count)]
        if counts and device_fault(problem, d, members) is None:
            found.append(_pattern(problem, d, tuple(sorted(counts))))
            if len(found) > most:
                raise TooManyPatternsError
    return found


def _pattern(problem: Problem, d: int, counts: tuple[tuple[int, int], ...]) -> Pattern:
    exclusive = problem.kinds[counts[0][0]].exclusive
    load = problem.taken[d]
    for number, count in counts:
        load += problem.full[d] if exclusive else problem.kinds[number].weight[d] * count
    return Pattern(counts, exclusive, load, peak_steps(load, problem.full[d]))


def _fill(
    problem: Problem,
    d: int,
    kinds: list[Kind],
    supply: dict[int, int],
    at: int,
    room: int,
    slots: int,
    chosen: list[tuple[int, int]],
) -> Iterator[list[tuple[int, int]]]:
    if at == len(kinds):
        yield list(chosen)
        return
    kind = kinds[at]
    weight = kind.weight[d]
    fits = min(supply[kind.number], slots, room // weight if weight else slots)
    if fits and any(apart(kind, problem.kinds[number]) for number, _ in chosen):
        fits = 0
    if fits > 1 and apart(kind, kind):
        fits = 1
    for count in range(fits, 0, -1):
        chosen.append((kind.number, count))
        yield from _fill(problem, d, kinds, supply, at + 1, room - count * weight, slots - count, chosen)
        chosen.pop()
    yield from _fill(problem, d, kinds, supply, at + 1, room, slots, chosen)


def draws_of(sizes: list[int], least: int, most: int) -> int:
    """Return in how many ways between ``least`` and ``most`` devices can be drawn from groups of these sizes."""
    most = min(most, sum(sizes))
    ways = [1] + [0] * most
    for size in sizes:
        ways = [sum(ways[total - count] for count in range(min(size, total) + 1)) for total in range(most + 1)]
    return sum(ways[least:])


def shapes_of(problem: Problem, kind: Kind, groups: list[Group]) -> list[tuple[tuple[int, int], ...]]:
    """Return every way to draw one worker's devices from the groups of one host: pairs of group number and how many.

    Only draws that satisfy the kind's number and its ``min_link``. Raises :class:`TooManyPatternsError` beyond
    ``most``.
    """
    mine = [group for group in groups if kind.number in group.kinds]
    found: list[tuple[tuple[int, int], ...]] = []
    highest = min(kind.most, 1) if mine and problem.devices[mine[0].devices[0]].mig else kind.most

    def draw(at: int, total: int, chosen: list[tuple[int, int]]) -> None:
        if kind.least <= total and chosen:
            found.append(tuple(chosen))
        for n in range(at, len(mine)):
            group = mine[n]
            if not _close(problem, kind, groups, chosen, group, 1):
                continue
            for count in range(1, min(len(group.devices), highest - total) + 1):
                if count == 2 and not _close(problem, kind, groups, [], group, 2):
                    break
                draw(n + 1, total + count, [*chosen, (group.number, count)])

    draw(0, 0, [])
    return sorted(found)


def _close(
    problem: Problem, kind: Kind, groups: list[Group], chosen: list[tuple[int, int]], group: Group, count: int
) -> bool:
    if kind.rank == NOT_LINKED:
        return True
    first = group.devices[0]
    if count > 1 and problem.link(first, group.devices[1])[1] > kind.rank:
        return False
    by_number = {other.number: other.devices[0] for other in groups}
    others = (by_number[number] for number, _ in chosen)
    return all(problem.link(min(first, other), max(first, other))[1] <= kind.rank for other in others)


def shape_score(problem: Problem, shape: tuple[tuple[int, int], ...], groups: dict[int, Group]) -> int:
    """Return the link score of a worker whose devices are drawn so."""
    devices = [d for number, count in shape for d in groups[number].devices[:count]]
    return problem.set_score(tuple(sorted(devices)))


def identical_hosts(problem: Problem, groups: list[Group]) -> list[list[int]]:
    """Return runs of hosts that may be exchanged whole: the same groups in the same order, links included."""
    linked = links_matter(problem)
    signatures: dict[object, list[int]] = {}
    homes = {d for job in problem.jobs for d in job.home or ()} if problem.stability != "ignore" else set()
    for host, mine in groupby(groups, key=lambda group: group.host):
        members = list(mine)
        if any(d in homes for group in members for d in group.devices):
            continue
        base = problem.host_devices[host][0]
        shape = tuple(
            (
                tuple(d - base for d in group.devices),
                group.kinds,
                problem.taken[group.devices[0]],
                problem.full[group.devices[0]],
                problem.slots[group.devices[0]],
                problem.size[group.devices[0]],
            )
            for group in members
        )
        numa = (
            tuple(problem.numa_of[d] - problem.numa_of[base] for d in problem.host_devices[host])
            if problem.spread
            else ()
        )
        pairs = (
            tuple(sorted((a - base, b - base, pair) for (a, b), pair in problem.pairs(host).items())) if linked else ()
        )
        key = (shape, numa, pairs, problem.room[host], len(problem.host_devices[host]))
        signatures.setdefault(key, []).append(host)
    return [hosts for hosts in signatures.values() if len(hosts) > 1]
