"""A linear program with whole numbers, and HiGHS to solve it: the only place that imports ``highspy``.

Columns and rows are added to a :class:`Program`; :meth:`Program.minimize` may be called again and again with different
objectives, rows being added in between. One thread, a fixed seed and limits on nodes: the same program gives the same
answer every time.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Terms = dict[int, float]
"""A linear expression: coefficient per column."""

INFINITY = math.inf
_TOLERANCE = 1e-9
_MIP_TOLERANCE = 1e-7
"""With 1e-9 HiGHS has ended whole processes: https://github.com/FlexMeasures/flexmeasures/issues/2527."""

_RULES_OFF = 1 << 16
"""The presolve rule that lists all solutions of a few columns: in HiGHS 1.16 it writes beyond an array, which has ended
whole processes (valgrind shows it below ``HPresolve::enumerateSolutions``)."""

_WHOLE = 1e-6
"""How far from a whole number a value may be to count as one."""

_SMALL_COLUMNS = 10_000
"""Up to this many columns HiGHS's presolve costs more than it saves: two to three times the whole solve, measured."""


_WORK_PER_NODE = 3_000
_FIRST_ITERATIONS = 2_500
_ITERATIONS_PER_NODE = 30


@dataclass(slots=True)
class Limits:
    """What the searches of one solve may use together; ``cut_off`` tells that the time ran out.

    ``nodes`` bounds every single search, and with it the work of all of them: a search's work is its simplex iterations
    times its columns, which follows the time it takes and is the same on every machine.
    """

    nodes: int
    deadline: float | None = None
    cut_off: bool = False
    work: int = 0

    def nodes_left(self, columns: int) -> int:
        """Return how many nodes the next search may have, 0 where the work of all is done."""
        left = self.nodes * _WORK_PER_NODE - self.work
        # a search is not begun where its first node alone would take most of what is left
        return (
            0
            if columns * _FIRST_ITERATIONS > left
            else min(self.nodes, 1 + left // (_ITERATIONS_PER_NODE * max(columns, 1)))
        )

    def seconds_left(self) -> float:
        """Return the time left, infinite without a limit."""
        return INFINITY if self.deadline is None else max(0.0, self.deadline - time.monotonic())


@dataclass(frozen=True, slots=True)
class Answer:
    """The best point found (None: none), and a bound that no point beats.

    ``infeasible`` where there is none at all; not ``whole`` where the point has fractions. ``reduced``: by how much the
    objective grows at least for each unit of a column, where the answer is a relaxation's.
    """

    values: list[float] | None
    objective: float
    bound: float
    infeasible: bool
    whole: bool = True
    reduced: list[float] | None = None


@dataclass(slots=True)
class Program:
    """Columns with bounds, rows of terms between bounds."""

    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    rows: list[tuple[float, float, Terms]] = field(default_factory=list)
    presolve: bool = False
    _engine: Any = None
    _rows_sent: int = 0

    def column(self, upper: float = INFINITY, *, whole: bool = True) -> int:
        """Add a column between 0 and ``upper``; return its number."""
        self.lower.append(0.0)
        self.upper.append(upper)
        self.whole.append(whole)
        self._engine = None
        return len(self.lower) - 1

    def row(self, terms: Mapping[int, float], lower: float = -INFINITY, upper: float = INFINITY) -> int:
        """Add a row ``lower <= terms <= upper``; return its number."""
        self.rows.append((lower, upper, {column: value for column, value in terms.items() if value}))
        return len(self.rows) - 1

    def bound_column(self, column: int, upper: float) -> None:
        """Change the upper bound of a column."""
        self.upper[column] = upper
        if self._engine is not None:
            self._engine.changeColBounds(column, self.lower[column], upper)

    def bound_row(self, row: int, lower: float, upper: float) -> None:
        """Change the bounds of a row."""
        self.rows[row] = (lower, upper, self.rows[row][2])
        if self._engine is not None and row < self._rows_sent:
            self._engine.changeRowBounds(row, lower, upper)

    def minimize(self, objective: Mapping[int, float], limits: Limits, most: int | None = None) -> Answer:
        """Solve in whole numbers, with at most so many nodes.

        A known point is not handed over as a start: HiGHS 1.16 with presolve then reports an objective and a bound that
        are not those of the solution it returns (seen: 3 for a solution that costs 4).
        """
        return self._run(objective, limits, relaxed=False, most=most)

    def relax(self, objective: Mapping[int, float], limits: Limits) -> Answer:
        """Solve without whole numbers; the answer tells whether the point found is whole all the same."""
        answer = self._run(objective, limits, relaxed=True)
        if answer.values is None:
            return answer
        broken = any(
            whole and abs(value - round(value)) > _WHOLE for whole, value in zip(self.whole, answer.values, strict=True)
        )
        return replace(answer, whole=False) if broken else answer

    def _run(self, objective: Mapping[int, float], limits: Limits, *, relaxed: bool, most: int | None = None) -> Answer:
        import highspy  # noqa: PLC0415 - a heavy import, made where it is used
        import numpy as np  # noqa: PLC0415 - a heavy import, made where it is used

        seconds = limits.seconds_left()
        count = len(self.lower)
        nodes = min(limits.nodes_left(count), limits.nodes if most is None else most)
        if seconds <= 0 or not (nodes or relaxed):
            limits.cut_off = limits.cut_off or seconds <= 0
            return Answer(None, INFINITY, -INFINITY, infeasible=False)
        engine = self._ready()
        costs = np.zeros(count)
        for column, value in objective.items():
            costs[column] = value
        engine.changeColsCost(count, np.arange(count, dtype=np.int32), costs)
        engine.setOptionValue("solve_relaxation", relaxed)
        engine.setOptionValue("mip_max_nodes", nodes)
        engine.setOptionValue("time_limit", engine.getRunTime() + seconds if seconds < INFINITY else INFINITY)
        engine.clearSolver()  # nor is what the last run left behind a start
        engine.run()
        status = engine.getModelStatus()
        if status in {highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible}:
            return Answer(None, INFINITY, INFINITY, infeasible=True)
        if status == highspy.HighsModelStatus.kTimeLimit:
            limits.cut_off = True
        info = engine.getInfo()
        if not relaxed:
            limits.work += count * max(1, info.simplex_iteration_count)
        found = math.isfinite(info.objective_function_value) and info.primal_solution_status == 2
        if relaxed and status != highspy.HighsModelStatus.kOptimal:
            return Answer(None, INFINITY, -INFINITY, infeasible=False)
        values = list(engine.getSolution().col_value) if found else None
        whole = any(self.whole) and not relaxed
        bound = info.mip_dual_bound if whole else info.objective_function_value
        value = info.objective_function_value if found else INFINITY
        reduced = list(engine.getSolution().col_dual) if relaxed else None
        return Answer(values, value, bound, infeasible=False, reduced=reduced)

    def minimize_part(
        self,
        objective: Mapping[int, float],
        keep: Sequence[int],
        limits: Limits,
        most: int | None = None,
        below: float = INFINITY,
    ) -> Answer:
        """Solve in whole numbers with all columns at 0 but those in ``keep``: the small program that is left.

        Only points whose objective is at most ``below`` count.
        """
        place = {column: n for n, column in enumerate(keep)}
        part = Program([0.0] * len(keep), [self.upper[c] for c in keep], [self.whole[c] for c in keep])
        part.lower = [self.lower[c] for c in keep]
        for lower, upper, terms in self.rows:
            left = {place[c]: value for c, value in terms.items() if c in place}
            if left or lower > 0 or upper < 0:
                part.rows.append((lower, upper, left))
        costs = {place[c]: value for c, value in objective.items() if c in place}
        if below < INFINITY:
            part.row(costs, upper=below)
        part.presolve = True
        answer = part.minimize(costs, limits, most)
        if answer.values is None:
            return answer
        values = [0.0] * len(self.lower)
        for column, value in zip(keep, answer.values, strict=True):
            values[column] = value
        return replace(answer, values=values)

    def _ready(self) -> Any:
        import numpy as np  # noqa: PLC0415 - a heavy import, made where it is used

        if self._engine is None:
            self._engine = self._load()
            self._rows_sent = len(self.rows)
        for lower, upper, terms in self.rows[self._rows_sent :]:
            columns = sorted(terms)
            self._engine.addRow(
                lower,
                upper,
                len(columns),
                np.array(columns, dtype=np.int32),
                np.array([terms[column] for column in columns], dtype=float),
            )
        self._rows_sent = len(self.rows)
        return self._engine

    def _load(self) -> Any:
        import highspy  # noqa: PLC0415 - a heavy import, made where it is used
        import numpy as np  # noqa: PLC0415 - a heavy import, made where it is used

        engine = bare_engine()
        engine.setOptionValue("presolve", "choose" if self.presolve or len(self.lower) > _SMALL_COLUMNS else "off")
        lp = highspy.HighsLp()
        lp.num_col_ = len(self.lower)
        lp.num_row_ = len(self.rows)
        lp.col_cost_ = np.zeros(len(self.lower))
        lp.col_lower_ = np.array(self.lower)
        lp.col_upper_ = np.array(self.upper)
        lp.row_lower_ = np.array([row[0] for row in self.rows])
        lp.row_upper_ = np.array([row[1] for row in self.rows])
        starts, indices, values = [0], [], []
        for _, _, terms in self.rows:
            for column in sorted(terms):
                indices.append(column)
                values.append(terms[column])
            starts.append(len(indices))
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.array(starts, dtype=np.int32)
        lp.a_matrix_.index_ = np.array(indices, dtype=np.int32)
        lp.a_matrix_.value_ = np.array(values, dtype=float)
        if any(self.whole):
            kinds = highspy.HighsVarType
            lp.integrality_ = [kinds.kInteger if whole else kinds.kContinuous for whole in self.whole]
        engine.passModel(lp)
        return engine


def bare_engine() -> Any:
    """Return HiGHS, silent, on one thread, with a fixed seed and no gap allowed."""
    import highspy  # noqa: PLC0415 - a heavy import, made where it is used

    # the bare engine: highspy.Highs prints a banner to stdout before it can be silenced
    engine = highspy._Highs()  # type: ignore[attr-defined]  # noqa: SLF001 - see the line above
    for option, value in (
        ("output_flag", False),
        ("threads", 1),
        ("parallel", "off"),
        ("random_seed", 0),
        ("mip_rel_gap", 0.0),
        ("presolve_rule_off", _RULES_OFF),
        ("mip_feasibility_tolerance", _MIP_TOLERANCE),
        ("primal_feasibility_tolerance", _TOLERANCE),
        ("dual_feasibility_tolerance", _TOLERANCE),
    ):
        engine.setOptionValue(option, value)
    return engine
