"""The whole placement problem as an integer program over groups, patterns and shapes.

Columns: how many devices of each group hold each pattern (:mod:`gpualloc.solve.blocks`); for workers of several devices
or of an elastic number, how many of each kind take each *shape* (so many devices from each group of one host); how many
workers stay at each home; whether a host is used. One program serves every tier: the driver changes the objective and
adds rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from gpualloc.solve.blocks import CountBlock, PatternBlock
from gpualloc.solve.groups import (
    Group,
    TooManyPatternsError,
    draws_of,
    identical_hosts,
    make_groups,
    patterns_of,
    shape_score,
    shapes_of,
)
from gpualloc.solve.highs import Program
from gpualloc.solve.slots import Slots

if TYPE_CHECKING:
    from gpualloc.solve.blocks import Content
    from gpualloc.solve.groups import Pattern
    from gpualloc.solve.highs import Terms
    from gpualloc.solve.problem import Assignment, Devices, Kind, Problem

MOST_PATTERNS = 4000
"""Groups with more patterns than this are counted instead (:class:`gpualloc.solve.blocks.CountBlock`)."""

MOST_SHAPES = 6000
"""A kind with more shapes than this has its workers placed one by one (:class:`gpualloc.solve.slots.Slots`)."""


@dataclass(frozen=True, slots=True)
class Draw:
    """The workers of one kind that take one shape of one host; ``column`` counts them."""

    kind: int
    host: int
    shape: tuple[tuple[int, int], ...]
    size: int
    score: int
    column: int


@dataclass(frozen=True, slots=True)
class Home:
    """The workers of one kind whose home is this set of devices; ``column`` counts those that stay."""

    kind: int
    devices: Devices
    column: int


def add(into: Terms, terms: Terms, factor: float = 1.0) -> None:
    """Add a multiple of one expression to another."""
    for column, value in terms.items():
        into[column] = into.get(column, 0.0) + value * factor


class Formulation:
    """The program, and what its columns mean."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.program = Program()
        self.supply = dict.fromkeys(range(len(problem.kinds)), 0)
        for job in problem.jobs:
            self.supply[job.kind] += 1
        self.groups: list[Group] = []
        self.blocks: list[PatternBlock | CountBlock] = []
        self.slots: dict[int, Slots] = {}
        self._make_blocks(self._choose_groups())
        self.by_number = {group.number: group for group in self.groups}
        self.on_host: dict[int, list[int]] = {}
        for group in self.groups:
            self.on_host.setdefault(group.host, []).append(group.number)
        self.draws: list[Draw] = []
        self.homes: list[Home] = []
        self._draw_of: dict[tuple[int, tuple[tuple[int, int], ...]], Draw] = {}
        self._add_draws()
        self.placed = {kind.number: self._placed(kind) for kind in problem.kinds}
        for number, terms in self.placed.items():
            self.program.row(terms, upper=self.supply[number])
        self._add_homes()
        self.host_used = {host: self.program.column(1) for host in self.on_host}
        self._add_host_rows()
        self.moved: dict[int, tuple[int, Terms, int]] = {}
        self.moves: Terms = self._add_moves()
        self.evicted: list[tuple[int, Terms, int]] = []
        self.free_pairs: list[tuple[int, int, int, int]] = []
        self._free: dict[int, int] = {}

    def _choose_groups(self) -> list[Group]:
        """Return the groups of devices, and find the kinds with too many shapes: their devices stay single."""
        problem = self.problem
        groups = make_groups(problem)
        by_host: dict[int, list[Group]] = {}
        for group in groups:
            by_host.setdefault(group.host, []).append(group)
        many = [kind for kind in problem.kinds if not kind.single and self._too_many(kind, by_host)]
        self.slotted = {kind.number for kind in many}
        if not many:
            return groups
        return make_groups(problem, alone=frozenset(d for kind in many for d in kind.weight))

    def _too_many(self, kind: Kind, by_host: dict[int, list[Group]]) -> bool:
        total = 0
        for members in by_host.values():
            mine = [len(group.devices) for group in members if kind.number in group.kinds]
            total += draws_of(mine, kind.least, kind.most)
        return total > MOST_SHAPES

    def _make_blocks(self, groups: list[Group]) -> None:
        for group in groups:
            patterns = self._patterns(group)
            if patterns is None:
                for d in group.devices:
                    self._add_group((d,), group)
                    self.blocks.append(CountBlock(self.problem, self.program, self.groups[-1], self.supply))
            else:
                self._add_group(group.devices, group)
                self.blocks.append(PatternBlock(self.problem, self.program, self.groups[-1], patterns))

    def _patterns(self, group: Group) -> list[Pattern] | None:
        try:
            return patterns_of(self.problem, group, self.supply, MOST_PATTERNS)
        except TooManyPatternsError:
            return None

    def _add_group(self, devices: Devices, like: Group) -> None:
        self.groups.append(Group(len(self.groups), like.host, devices, like.kinds))

    def _add_draws(self) -> None:
        """Add the shapes of every kind that is not single, and tie them to what the groups hold."""
        for kind in self.problem.kinds:
            if kind.single:
                continue
            parts: dict[int, Terms] = {}
            if kind.number in self.slotted:
                self._add_slots(kind)
                continue
            for host, numbers in self.on_host.items():
                members = [self.groups[number] for number in numbers]
                for shape in shapes_of(self.problem, kind, members):
                    size = sum(count for _, count in shape)
                    draw = Draw(
                        kind.number,
                        host,
                        shape,
                        size,
                        shape_score(self.problem, shape, self.by_number) if size > 1 else 0,
                        self.program.column(self.supply[kind.number]),
                    )
                    self.draws.append(draw)
                    self._draw_of[kind.number, shape] = draw
                    for number, count in shape:
                        parts.setdefault(number, {})[draw.column] = float(count)
            for group, block in zip(self.groups, self.blocks, strict=True):
                held = block.parts.get(kind.number, {})
                if held or group.number in parts:
                    row = dict(held)
                    add(row, parts.get(group.number, {}), -1.0)
                    self.program.row(row, lower=0.0, upper=0.0)

    def _add_slots(self, kind: Kind) -> None:
        slots = self.slots[kind.number] = Slots(self.problem, self.program, kind)
        for group, block in zip(self.groups, self.blocks, strict=True):
            row = dict(block.parts.get(kind.number, {}))
            add(row, slots.parts.get(group.devices[0], {}), -1.0)
            if row:
                self.program.row(row, lower=0.0, upper=0.0)

    def _placed(self, kind: Kind) -> Terms:
        terms: Terms = {}
        if kind.single:
            for block in self.blocks:
                add(terms, block.parts.get(kind.number, {}))
        elif kind.number in self.slots:
            add(terms, self.slots[kind.number].placed)
        else:
            add(terms, {draw.column: 1.0 for draw in self.draws if draw.kind == kind.number})
        return terms

    def granted_terms(self, kinds: set[int]) -> Terms:
        """Return the number of devices that workers of some kinds have; none of the kinds is single."""
        terms = {draw.column: float(draw.size) for draw in self.draws if draw.kind in kinds}
        for number in sorted(kinds & self.slots.keys()):
            add(terms, self.slots[number].size_terms())
        return terms

    def above_terms(self, kinds: set[int], size: int) -> Terms:
        """Return how many workers of some kinds have more than so many devices; none of the kinds is single."""
        terms = {draw.column: 1.0 for draw in self.draws if draw.kind in kinds and draw.size > size}
        for number in sorted(kinds & self.slots.keys()):
            add(terms, self.slots[number].above_terms(size))
        return terms

    def link_terms(self) -> Terms:
        """Return the link score of all workers of several devices."""
        terms = {draw.column: float(draw.score) for draw in self.draws if draw.score}
        for slots in self.slots.values():
            add(terms, slots.link_terms())
        return terms

    def _add_homes(self) -> None:
        problem = self.problem
        if problem.stability == "ignore":
            return
        at_home = Counter((job.kind, job.home) for job in problem.jobs if job.home is not None)
        group_of = {d: group.number for group in self.groups for d in group.devices}
        for slots in self.slots.values():
            for n, column in slots.homes:
                self.homes.append(Home(slots.kind.number, problem.jobs[n].home or (), column))
        for (number, devices), count in sorted(at_home.items()):
            if number in self.slots:
                continue
            column = self.program.column(count)
            self.homes.append(Home(number, devices, column))
            if problem.kinds[number].single:
                there = self.blocks[group_of[devices[0]]].parts.get(number, {})
            else:
                draw = self._draw_of.get((number, tuple((group_of[d], 1) for d in devices)))
                there = {} if draw is None else {draw.column: 1.0}
            row = dict(there)
            add(row, {column: -1.0})
            self.program.row(row, lower=0.0)

    def _add_host_rows(self) -> None:
        problem, program = self.problem, self.program
        used_on: dict[int, Terms] = {}
        everywhere: Terms = {}
        for host, numbers in self.on_host.items():
            used: Terms = {}
            size = 0
            for number in numbers:
                block = self.blocks[number]
                add(used, block.used)
                size += len(block.group.devices)
                # group by group is tighter than the whole host at once
                program.row({**block.used, self.host_used[host]: -float(len(block.group.devices))}, upper=0.0)
            if size > problem.room[host]:
                program.row({**used, self.host_used[host]: -float(problem.room[host])}, upper=0.0)
            used_on[host] = used
            add(everywhere, used)
        self.used = everywhere
        if problem.limit is not None and problem.limit < len(problem.devices):
            program.row(everywhere, upper=problem.limit)
        for hosts in identical_hosts(problem, self.groups):
            for first, second in pairwise(hosts):
                row = dict(used_on[first])
                add(row, used_on[second], -1.0)
                program.row(row, lower=0.0)

    def _add_moves(self) -> Terms:
        """Return the number of moves: per kind, those placed who do not stay, less those who were nowhere before."""
        problem = self.problem
        moves: Terms = {}
        if problem.stability == "ignore":
            return moves
        for kind in problem.kinds:
            jobs = [job for job in problem.jobs if job.kind == kind.number]
            fresh = sum(job.previous is None for job in jobs)
            if fresh == len(jobs):
                continue
            column = self.program.column(len(jobs), whole=False)
            row: Terms = {column: 1.0}
            add(row, self.placed[kind.number], -1.0)
            add(row, {home.column: 1.0 for home in self.homes if home.kind == kind.number})
            self.program.row(row, lower=-float(fresh))
            self.moved[kind.number] = (column, row, fresh)
            moves[column] = 1.0
        return moves

    def add_evictions(self) -> Terms:
        """Return the number of evictions: per kind, those with a home who neither stay nor are moved.

        For when moves are as few as can be: of those placed away from home, only who would count as moved anyway.
        """
        problem = self.problem
        at_home = Counter(job.kind for job in problem.jobs if job.home is not None)
        for kind, count in sorted(at_home.items()):
            column = self.program.column(count, whole=False)
            row: Terms = {column: 1.0, self.moved[kind][0]: 1.0}
            add(row, {home.column: 1.0 for home in self.homes if home.kind == kind})
            self.program.row(row, lower=float(count))
            self.evicted.append((column, row, count))
        return {column: 1.0 for column, _, _ in self.evicted}

    def add_free_pairs(self) -> tuple[Terms, int]:
        """Add the pairs of devices left unused; return the link score among them, and what of it never changes."""
        problem = self.problem
        score: Terms = {}
        fixed = sum(
            points
            for host in range(len(problem.hosts))
            for (a, b), (points, _) in problem.pairs(host).items()
            if not problem.eligible[a] and not problem.eligible[b]
        )
        for host, numbers in self.on_host.items():
            free: dict[int, int] = {}
            for number in numbers:
                block = self.blocks[number]
                columns = [self.program.column(1) for _ in block.group.devices]
                free.update(zip(reversed(block.group.devices), columns, strict=True))
                self.program.row({**block.used, **dict.fromkeys(columns, 1.0)}, upper=float(len(block.group.devices)))
                for first, second in pairwise(columns):
                    self.program.row({first: 1.0, second: -1.0}, lower=0.0)
            self._free.update(free)
            for (a, b), (points, _) in sorted(problem.pairs(host).items()):
                if not points or (a not in free and b not in free):
                    continue
                if a not in free or b not in free:
                    add(score, {free[a] if a in free else free[b]: float(points)})
                    continue
                column = self.program.column(1, whole=False)
                self.program.row({column: 1.0, free[a]: -1.0}, upper=0.0)
                self.program.row({column: 1.0, free[b]: -1.0}, upper=0.0)
                self.free_pairs.append((column, a, b, points))
                add(score, {column: float(points)})
        return score, fixed

    def encode(self, assignment: Assignment) -> list[float] | None:
        """Return the point of the program that an assignment is, None where the program has no column for it."""
        problem = self.problem
        values = [0.0] * len(self.program.lower)
        held: dict[int, Counter[int]] = {}
        for job, devices in zip(problem.jobs, assignment, strict=True):
            for d in devices or ():
                held.setdefault(d, Counter())[job.kind] += 1
        if not self._encode_workers(assignment, values):
            return None
        for block in self.blocks:
            contents: list[Content] = [tuple(sorted(held.get(d, {}).items())) for d in block.group.devices]
            if not block.encode(contents, values):
                return None
        for host, numbers in self.on_host.items():
            members = (d for number in numbers for d in self.groups[number].devices)
            values[self.host_used[host]] = float(any(d in held for d in members))
        for column, row, fresh in self.moved.values():
            rest = sum(values[other] * part for other, part in row.items() if other != column)
            values[column] = max(0.0, -fresh - rest)
        for column, row, count in self.evicted:
            rest = sum(values[other] * part for other, part in row.items() if other != column)
            values[column] = max(0.0, count - rest)
        self._order_free(held, values)
        return values

    def _encode_workers(self, assignment: Assignment, values: list[float]) -> bool:
        """Write who takes which shape and who stays at home; False where a shape has no column."""
        problem = self.problem
        group_of = {d: group.number for group in self.groups for d in group.devices}
        stays: Counter[tuple[int, Devices]] = Counter()
        for n, (job, devices) in enumerate(zip(problem.jobs, assignment, strict=True)):
            if devices is None:
                continue
            if job.kind in self.slots:
                self.slots[job.kind].encode(n, devices, values)
            elif not problem.kinds[job.kind].single:
                draw = self._draw_of.get((job.kind, tuple(sorted(Counter(group_of[d] for d in devices).items()))))
                if draw is None:
                    return False
                values[draw.column] += 1.0
            if devices == job.home:
                stays[job.kind, devices] += 1
        for home in self.homes:
            if home.kind in self.slots:
                continue
            values[home.column] = float(stays[home.kind, home.devices])
        return True

    def _order_free(self, held: dict[int, Counter[int]], values: list[float]) -> None:
        # within a group the program only counts free devices, and has the last ones free first
        if not self._free:
            return
        for group in self.groups:
            count = sum(d not in held for d in group.devices)
            for n, d in enumerate(reversed(group.devices)):
                values[self._free[d]] = float(n < count)
        for column, a, b, _ in self.free_pairs:
            values[column] = min(values[self._free[a]], values[self._free[b]])
