"""The part of the integer program that says what the devices of one group hold.

Two ways to say it, with one face. A :class:`PatternBlock` counts how many devices hold each pattern: small and tight,
and a pattern's cost may be any function of its load. Where a group has more patterns than are worth listing, a
:class:`CountBlock` counts the workers of each kind on one device; the square of its load is then approached from below
by tangents, added as they are needed.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from gpualloc.policy.scoring import PEAK_STEPS
from gpualloc.solve.rules import apart

if TYPE_CHECKING:
    from gpualloc.solve.groups import Group, Pattern
    from gpualloc.solve.highs import Program, Terms
    from gpualloc.solve.problem import Problem

Content = tuple[tuple[int, int], ...]
"""What one device holds: pairs of kind and how many, by kind; empty where nothing."""


class PatternBlock:
    """A group by its patterns: one column per pattern, counting the devices that hold it."""

    def __init__(self, problem: Problem, program: Program, group: Group, patterns: list[Pattern]) -> None:
        self.group = group
        self.patterns = patterns
        self.program = program
        self.columns = [program.column(len(group.devices)) for _ in patterns]
        program.row(dict.fromkeys(self.columns, 1.0), upper=len(group.devices))
        self._by_content = {pattern.counts: column for pattern, column in zip(patterns, self.columns, strict=True)}

        d = group.devices[0]
        full = problem.full[d]
        idle = Fraction(problem.taken[d], full)
        self.idle_steps = -(-problem.taken[d] * PEAK_STEPS // full)
        self.used: Terms = dict.fromkeys(self.columns, 1.0)
        self.parts: dict[int, Terms] = {}
        self.load: Terms = {}
        self.load_constant = float(idle * len(group.devices))
        self.square: Terms = {}
        self.square_constant = float(idle * idle * len(group.devices))
        self.curves: list[tuple[int, Terms, float]] = []
        for pattern, column in zip(patterns, self.columns, strict=True):
            for kind, count in pattern.counts:
                self.parts.setdefault(kind, {})[column] = float(count)
            load = Fraction(pattern.load, full)
            self.load[column] = float(load - idle)
            self.square[column] = float(load * load - idle * idle)

    def cap(self, steps: int) -> None:
        """Forbid every load above so many steps of 5 %."""
        for pattern, column in zip(self.patterns, self.columns, strict=True):
            self.program.bound_column(column, len(self.group.devices) if pattern.steps <= steps else 0.0)

    def encode(self, contents: list[Content], values: list[float]) -> bool:
        """Write what the group's devices hold into ``values``; False where a content is no pattern."""
        for content in contents:
            if not content:
                continue
            column = self._by_content.get(content)
            if column is None:
                return False
            values[column] += 1.0
        return True

    def decode(self, values: list[float]) -> list[Content]:
        """Return what the group's devices hold, fullest first; as many contents as devices."""
        contents: list[Content] = []
        for pattern, column in zip(self.patterns, self.columns, strict=True):
            contents += [pattern.counts] * round(values[column])
        contents.sort(key=_fullest_first)
        return contents + [()] * (len(self.group.devices) - len(contents))


def _fullest_first(content: Content) -> tuple[tuple[int, int], ...]:
    return tuple((kind, -count) for kind, count in content)


class CountBlock:
    """One device by the number of workers of each kind on it."""

    def __init__(self, problem: Problem, program: Program, group: Group, supply: dict[int, int]) -> None:
        self.group = group
        self.program = program
        d = group.devices[0]
        full = problem.full[d]
        room = problem.full[d] - problem.taken[d]
        self.full = full
        self.taken = problem.taken[d]
        self.idle_steps = -(-self.taken * PEAK_STEPS // full)
        self.shared = program.column(1)
        self.used: Terms = {self.shared: 1.0}
        self.parts: dict[int, Terms] = {}
        self.load: Terms = {}
        self.presence: dict[int, int] = {}
        kinds = [problem.kinds[number] for number in group.kinds if supply[number] > 0]
        for kind in kinds:
            if kind.exclusive:
                column = program.column(1)
                self.used[column] = 1.0
                self.load[column] = 1.0
            else:
                weight = kind.weight[d]
                most = min(supply[kind.number], problem.slots[d], room // weight if weight else problem.slots[d])
                column = program.column(most if not apart(kind, kind) else min(most, 1))
                program.row({column: 1.0, self.shared: -float(most)}, upper=0.0)
                self.load[column] = weight / full
            self.parts[kind.number] = {column: 1.0}
        self._rules(problem, supply, room)

        self.load_constant = self.taken / full
        curve = program.column(whole=False)
        self.square: Terms = {curve: 1.0}
        self.square_constant = 0.0
        self.curves = [(curve, self.load, self.load_constant)]
        self._cap_row: int | None = None

    def _rules(self, problem: Problem, supply: dict[int, int], room: int) -> None:
        program, d = self.program, self.group.devices[0]
        program.row(self.used, upper=1.0)
        sharing = [problem.kinds[number] for number in self.parts if not problem.kinds[number].exclusive]
        columns = {kind.number: next(iter(self.parts[kind.number])) for kind in sharing}
        weights = {columns[kind.number]: kind.weight[d] / self.full for kind in sharing}
        program.row({**weights, self.shared: -room / self.full}, upper=0.0)
        program.row({**dict.fromkeys(columns.values(), 1.0), self.shared: -float(problem.slots[d])}, upper=0.0)
        for n, kind in enumerate(sharing):
            for other in sharing[n + 1 :]:
                if apart(kind, other):
                    pair = (self._present(kind.number, supply), self._present(other.number, supply))
                    program.row(dict.fromkeys(pair, 1.0), upper=1.0)
            for role in kind.affinity:
                held = {columns[other.number]: 1.0 for other in sharing if other.role == role}
                wanted = self._present(kind.number, supply)
                program.row({**held, wanted: -2.0 if kind.role == role else -1.0}, lower=0.0)

    def _present(self, kind: int, supply: dict[int, int]) -> int:
        column = self.presence.get(kind)
        if column is None:
            column = self.presence[kind] = self.program.column(1)
            count = next(iter(self.parts[kind]))
            self.program.row({count: 1.0, column: -float(max(supply[kind], 1))}, upper=0.0)
        return column

    def cap(self, steps: int) -> None:
        """Forbid every load above so many steps of 5 %."""
        most = steps / PEAK_STEPS - self.load_constant
        if self._cap_row is None:
            self._cap_row = self.program.row(self.load, upper=most)
        else:
            self.program.bound_row(self._cap_row, -float("inf"), most)

    def encode(self, contents: list[Content], values: list[float]) -> bool:
        """Write what the device holds into ``values``."""
        for kind, count in contents[0]:
            if kind not in self.parts:
                return False
            column = next(iter(self.parts[kind]))
            values[column] = float(count)
            if column not in self.used:
                values[self.shared] = 1.0
            if kind in self.presence:
                values[self.presence[kind]] = 1.0
        load = self.load_constant + sum(values[column] * part for column, part in self.load.items())
        values[self.curves[0][0]] = load * load
        return True

    def decode(self, values: list[float]) -> list[Content]:
        """Return what the device holds."""
        counts = ((kind, round(values[next(iter(columns))])) for kind, columns in sorted(self.parts.items()))
        return [tuple((kind, count) for kind, count in counts if count)]
