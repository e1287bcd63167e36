"""A linear program that grows by columns: solved again and again from where it stood, at the end in whole numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.solve.highs import INFINITY, bare_engine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpualloc.solve.highs import Limits


@dataclass(frozen=True, slots=True)
class Relaxed:
    """The optimum of the relaxation: its value, the value of every column, and the dual price of every row."""

    objective: float
    values: list[float]
    duals: list[float]


class ColumnProgram:
    """Rows first, then columns."""

    def __init__(self, rows: Sequence[tuple[float, float]]) -> None:
        import numpy as np  # noqa: PLC0415 - a heavy import, made where it is used

        self._np = np
        self._engine = bare_engine()
        self.rows = list(rows)
        self.upper: list[float] = []
        none = np.array([], dtype=np.int32)
        for lower, upper in rows:
            self._engine.addRow(lower, upper, 0, none, np.array([], dtype=float))

    def row(self, terms: Mapping[int, float], lower: float, upper: float) -> int:
        """Add a row over columns that are there; return its number."""
        np = self._np
        columns = sorted(terms)
        self._engine.addRow(
            lower, upper, len(columns), np.array(columns, dtype=np.int32), np.array([terms[c] for c in columns])
        )
        self.rows.append((lower, upper))
        return len(self.rows) - 1

    def bound_row(self, row: int, lower: float, upper: float) -> None:
        """Change the bounds of a row."""
        self.rows[row] = (lower, upper)
        self._engine.changeRowBounds(row, lower, upper)

    def column(self, upper: float, entries: Mapping[int, float]) -> int:
        """Add a column between 0 and ``upper`` with its entries by row; return its number."""
        np = self._np
        rows = sorted(entries)
        self._engine.addCol(
            0.0,
            0.0,
            upper,
            len(rows),
            np.array(rows, dtype=np.int32),
            np.array([entries[r] for r in rows], dtype=float),
        )
        self.upper.append(upper)
        return len(self.upper) - 1

    def bound_column(self, column: int, upper: float) -> None:
        """Change the upper bound of a column."""
        self.upper[column] = upper
        self._engine.changeColBounds(column, 0.0, upper)

    def costs(self, costs: Mapping[int, float]) -> None:
        """Set what every column costs; 0 where nothing is said."""
        np = self._np
        count = len(self.upper)
        values = np.zeros(count)
        for column, value in costs.items():
            values[column] = value
        self._engine.changeColsCost(count, np.arange(count, dtype=np.int32), values)

    def cost(self, column: int, value: float) -> None:
        """Set what one column costs."""
        self._engine.changeColCost(column, value)

    def relax(self, limits: Limits) -> Relaxed | None:
        """Solve without whole numbers; None where the rows contradict each other or the time is up."""
        import highspy  # noqa: PLC0415 - a heavy import, made where it is used

        if not self._time(limits):
            return None
        self._engine.setOptionValue("presolve", "off")
        self._engine.run()
        if self._engine.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            limits.cut_off = limits.cut_off or limits.seconds_left() <= 0
            return None
        solution = self._engine.getSolution()
        return Relaxed(
            self._engine.getInfo().objective_function_value, list(solution.col_value), list(solution.row_dual)
        )

    def whole(self, limits: Limits, nodes: int, gap: float) -> tuple[list[float] | None, float]:
        """Solve in whole numbers; return the values (None: none found) and the bound over these columns.

        ``gap`` is the part of the objective within which a solution is good enough.
        """
        import highspy  # noqa: PLC0415 - a heavy import, made where it is used

        np, engine, count = self._np, self._engine, len(self.upper)
        if not self._time(limits):
            return None, -INFINITY
        every = np.arange(count, dtype=np.int32)
        kinds = highspy.HighsVarType
        engine.changeColsIntegrality(count, every, np.array([kinds.kInteger] * count))
        engine.setOptionValue("presolve", "choose")
        engine.setOptionValue("mip_max_nodes", nodes)
        engine.setOptionValue("mip_rel_gap", gap)
        engine.clearSolver()
        engine.run()
        if engine.getModelStatus() == highspy.HighsModelStatus.kTimeLimit:
            limits.cut_off = True
        info = engine.getInfo()
        found = math.isfinite(info.objective_function_value) and info.primal_solution_status == 2
        values = list(engine.getSolution().col_value) if found else None
        bound = info.mip_dual_bound
        engine.changeColsIntegrality(count, every, np.array([kinds.kContinuous] * count))
        engine.clearSolver()
        return values, bound

    def _time(self, limits: Limits) -> bool:
        seconds = limits.seconds_left()
        if seconds <= 0:
            limits.cut_off = True
            return False
        self._engine.setOptionValue(
            "time_limit", self._engine.getRunTime() + seconds if seconds < INFINITY else INFINITY
        )
        return True
