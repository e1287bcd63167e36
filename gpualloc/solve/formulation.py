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
    identical_hosts,
    make_groups,
    patterns_of,
    shape_score,
    shapes_of,
)
from gpualloc.solve.highs import Program

if TYPE_CHECKING:
    from gpualloc.solve.blocks import Content
    from gpualloc.solve.groups import Pattern
    from gpualloc.solve.highs import Terms
    from gpualloc.solve.problem import Assignment, Devices, Kind, Problem

MOST_PATTERNS = 4000
"""Groups with more patterns than this are counted instead (:class:`gpualloc.solve.blocks.CountBlock`)."""

MOST_SHAPES = 20000
"""Shapes listed per kind and host; beyond that only some are, and nothing is proven."""


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
        self.complete = True
        self.supply = dict.fromkeys(range(len(problem.kinds)), 0)
        for job in problem.jobs:
            self.supply[job.kind] += 1
        self.groups: list[Group] = []
        self.blocks: list[PatternBlock | CountBlock] = []
        self._make_blocks(make_groups(problem))
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
        self.free_pairs: list[tuple[int, int, int, int]] = []
        self._free: dict[int, int] = {}

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
            for host, numbers in self.on_host.items():
                members = [self.groups[number] for number in numbers]
                for shape in self._shapes(kind, members):
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

    def _shapes(self, kind: Kind, members: list[Group]) -> list[tuple[tuple[int, int], ...]]:
        try:
            return shapes_of(self.problem, kind, members, MOST_SHAPES)
        except TooManyPatternsError:
            self.complete = False
            mine = [group for group in members if kind.number in group.kinds]
            found = []
            for size in range(kind.least, kind.most + 1):
                left, shape = size, []
                for group in mine:
                    if left:
                        shape.append((group.number, min(left, len(group.devices))))
                        left -= shape[-1][1]
                devices = tuple(sorted(d for number, count in shape for d in self.by_number[number].devices[:count]))
                if not left and self.problem.admits(kind, devices):
                    found.append(tuple(shape))
            return found

    def _placed(self, kind: Kind) -> Terms:
        terms: Terms = {}
        if kind.single:
            for block in self.blocks:
                add(terms, block.parts.get(kind.number, {}))
        else:
            add(terms, {draw.column: 1.0 for draw in self.draws if draw.kind == kind.number})
        return terms

    def _add_homes(self) -> None:
        problem = self.problem
        if problem.stability == "ignore":
            return
        at_home = Counter((job.kind, job.home) for job in problem.jobs if job.home is not None)
        group_of = {d: group.number for group in self.groups for d in group.devices}
        for (number, devices), count in sorted(at_home.items()):
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
        self._order_free(held, values)
        return values

    def _encode_workers(self, assignment: Assignment, values: list[float]) -> bool:
        """Write who takes which shape and who stays at home; False where a shape has no column."""
        problem = self.problem
        group_of = {d: group.number for group in self.groups for d in group.devices}
        stays: Counter[tuple[int, Devices]] = Counter()
        for job, devices in zip(problem.jobs, assignment, strict=True):
            if devices is None:
                continue
            if not problem.kinds[job.kind].single:
                draw = self._draw_of.get((job.kind, tuple(sorted(Counter(group_of[d] for d in devices).items()))))
                if draw is None:
                    return False
                values[draw.column] += 1.0
            if devices == job.home:
                stays[job.kind, devices] += 1
        for home in self.homes:
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
