"""The minimum of one tier in whole numbers, over no more of the program than proves it.

HiGHS spends its time on columns, most of which no better plan can have. The relaxation tells which: a column whose
reduced cost makes up for all that there is to gain is 0 in every better plan.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gpualloc.solve.highs import INFINITY
from gpualloc.solve.lattice import rounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.solve.highs import Terms
    from gpualloc.solve.lexi import Driver

FEW_COLUMNS = 100
"""Programs with more columns than this are solved over a part of them that proves as much."""

LIKELY = (FEW_COLUMNS, 10 * FEW_COLUMNS)
"""Numbers of likely columns that are searched for a good plan first."""

FEW_NODES = 20
"""Nodes of the search for a good plan among the likely columns."""

_MARGIN = 1e-5
_ROOM = 0.01
"""Between whole numbers: how much further than the next better one a program is let go."""


def minimum(driver: Driver, scaled: Terms, value: Callable[[], int], scale: int, least: int | None) -> int | None:
    """Minimise whole numbers, as multiples of ``scale``; return the best bound known."""
    # the relaxation often says it all, at a small part of the cost
    relaxed = driver.program.relax(scaled, driver.limits)
    driver.look(relaxed)
    bound = _higher(least, relaxed.bound, scale)
    if bound is not None:
        bound = scale * rounded(-(-bound // scale), [round(part) for part in scaled.values()])
    if bound is not None and value() <= bound:
        return bound
    reduced = relaxed.reduced
    if reduced is None or len(reduced) <= FEW_COLUMNS:
        return _higher(bound, driver.minimize(scaled).bound, scale)
    # first a good plan, with the columns that the relaxation likes and those of the plan there is
    order = _by_liking(driver, relaxed.values or [], reduced)
    for size in LIKELY:
        if len(reduced) <= size * 3 // 2:
            break
        answer = driver.program.minimize_part(scaled, sorted(order[:size]), driver.limits, FEW_NODES)
        driver.look(answer)
        if bound is not None and value() <= bound:
            return bound
    # then all: a better plan has none of the columns whose reduced cost alone makes up for the difference
    within = value() / scale - 1 - relaxed.bound + _MARGIN
    keep = [column for column, cost in enumerate(reduced) if cost <= within]
    # and none that is not better is let in, which leaves HiGHS little to look at
    known = value()
    below = known / scale - 1 + _ROOM
    answer = driver.program.minimize_part(scaled, keep, driver.limits, below=below)
    driver.look(answer)
    return _higher(bound, min(INFINITY if answer.infeasible else answer.bound, known / scale), scale)


def _by_liking(driver: Driver, values: list[float], reduced: list[float]) -> list[int]:
    """Return the columns in order of how likely they make a good plan."""
    here = driver.start() or values
    return sorted(
        range(len(reduced)),
        # of columns that are worth the same, some of every sort: scattered by a multiplicative hash
        key=lambda column: (
            not values[column],
            not here[column],
            round(reduced[column], 6),
            column * 2654435761 % 2**32,
        ),
    )


def _higher(known: int | None, bound: float, scale: int) -> int | None:
    """Return the higher of a bound and what a bound in multiples of ``scale`` says in whole numbers."""
    if not math.isfinite(bound):
        return known
    found = math.ceil(bound - 1e-6) * scale
    return found if known is None else max(known, found)
