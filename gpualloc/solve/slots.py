"""Workers of several devices one by one, where the sets that they may choose from are too many to list.

A kind that may have anything from one to sixteen devices of a host has 65,535 sets there. Its workers then get a column
per device each, and their pairs of devices, for the link score, a column per pair.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from gpualloc.policy.scoring import NOT_LINKED

if TYPE_CHECKING:
    from gpualloc.solve.highs import Program, Terms
    from gpualloc.solve.problem import Devices, Kind, Problem


class Slots:
    """The workers of one kind: which devices each has, on which host, and how many."""

    def __init__(self, problem: Problem, program: Program, kind: Kind) -> None:
        self.problem = problem
        self.program = program
        self.kind = kind
        self.jobs = [n for n, job in enumerate(problem.jobs) if job.kind == kind.number]
        self.has: dict[int, dict[int, int]] = {}
        self.at_least: dict[int, list[int]] = {}
        self.placed: Terms = {}
        self.parts: dict[int, Terms] = {}
        self.homes: list[tuple[int, int]] = []
        self._placed_of: dict[int, Terms] = {}
        self._pairs: dict[tuple[int, int, int], int] | None = None
        hosts: dict[int, list[int]] = {}
        for d in sorted(kind.weight):
            hosts.setdefault(problem.host_of[d], []).append(d)
        self.hosts = hosts
        for n in self.jobs:
            self._add(n)
        self._order_alike()

    def _add(self, n: int) -> None:
        problem, program, kind = self.problem, self.program, self.kind
        has = {d: program.column(1) for d in sorted(kind.weight)}
        self.has[n] = has
        on: Terms = {}
        for members in self.hosts.values():
            here = program.column(1)
            on[here] = 1.0
            most = 1 if problem.devices[members[0]].mig else min(kind.most, len(members))
            columns = dict.fromkeys((has[d] for d in members), 1.0)
            program.row({**columns, here: -float(most)}, upper=0.0)
            program.row({**columns, here: -float(kind.least)}, lower=0.0)
            for d in members:
                program.row({has[d]: 1.0, here: -1.0}, upper=0.0)
                self.parts.setdefault(d, {})[has[d]] = 1.0
            self._forbid_far_pairs(has, members)
        program.row(on, upper=1.0)
        self._placed_of[n] = on
        self.placed.update(on)
        steps = [program.column(1) for _ in range(kind.most)]
        for first, second in pairwise(steps):
            program.row({first: 1.0, second: -1.0}, lower=0.0)
        row: Terms = dict.fromkeys(has.values(), 1.0)
        row.update(dict.fromkeys(steps, -1.0))
        program.row(row, lower=0.0, upper=0.0)
        self.at_least[n] = steps
        home = problem.jobs[n].home
        if home is not None and problem.stability != "ignore":
            column = program.column(1)
            for d, mine in has.items():
                if d in home:
                    program.row({mine: 1.0, column: -1.0}, lower=0.0)
                else:
                    program.row({mine: 1.0, column: 1.0}, upper=1.0)
            self.homes.append((n, column))

    def _forbid_far_pairs(self, has: dict[int, int], members: list[int]) -> None:
        if self.kind.rank == NOT_LINKED:
            return
        for k, a in enumerate(members):
            for b in members[k + 1 :]:
                if self.problem.link(a, b)[1] > self.kind.rank:
                    self.program.row({has[a]: 1.0, has[b]: 1.0}, upper=1.0)

    def _order_alike(self) -> None:
        """Of workers that nothing tells apart, let the earlier have at least as many devices."""
        problem = self.problem
        alike: dict[object, list[int]] = {}
        for n in self.jobs:
            job = problem.jobs[n]
            same = () if problem.stability == "ignore" else (job.home, job.previous is None)
            alike.setdefault(same, []).append(n)
        for group in alike.values():
            for first, second in pairwise(group):
                row: Terms = dict.fromkeys(self.has[first].values(), 1.0)
                row.update(dict.fromkeys(self.has[second].values(), -1.0))
                self.program.row(row, lower=0.0)

    def size_terms(self) -> Terms:
        """Return the number of devices that these workers have."""
        return {column: 1.0 for has in self.has.values() for column in has.values()}

    def above_terms(self, size: int) -> Terms:
        """Return the number of workers with more than so many devices."""
        return {steps[size]: 1.0 for steps in self.at_least.values() if size < len(steps)}

    def link_terms(self) -> Terms:
        """Return the link score of these workers; adds the pairs on first use."""
        if self._pairs is None:
            self._pairs = {}
            for n, has in self.has.items():
                for members in self.hosts.values():
                    for k, a in enumerate(members):
                        for b in members[k + 1 :]:
                            if self.problem.link(a, b)[0]:
                                column = self.program.column(1, whole=False)
                                self.program.row({column: 1.0, has[a]: -1.0}, upper=0.0)
                                self.program.row({column: 1.0, has[b]: -1.0}, upper=0.0)
                                self._pairs[n, a, b] = column
        return {column: float(self.problem.link(a, b)[0]) for (_, a, b), column in self._pairs.items()}

    def encode(self, n: int, devices: Devices, values: list[float]) -> None:
        """Write the devices of one worker into ``values``."""
        for d in devices:
            values[self.has[n][d]] = 1.0
        for step in self.at_least[n][: len(devices)]:
            values[step] = 1.0
        for column, members in zip(self._placed_of[n], self.hosts.values(), strict=True):
            values[column] = float(devices[0] in members)
        for owner, column in self.homes:
            if owner == n:
                values[column] = float(devices == self.problem.jobs[n].home)
        for (owner, a, b), column in (self._pairs or {}).items():
            if owner == n:
                values[column] = float(a in devices and b in devices)

    def decode(self, values: list[float]) -> list[Devices]:
        """Return the sets of devices that these workers have."""
        sets = (tuple(d for d, column in has.items() if round(values[column])) for has in self.has.values())
        return [devices for devices in sets if devices]
