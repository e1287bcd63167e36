"""Workers placed by priority: several in one program, weighed so that a higher one outweighs all below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.solve.formulation import add

if TYPE_CHECKING:
    from gpualloc.solve.highs import Terms
    from gpualloc.solve.lexi import Driver

MOST_WEIGHT = 10_000
"""Priorities are taken together as long as the highest weighs no more than this: whole numbers stay exact."""


def place_by_priority(driver: Driver) -> tuple[list[int] | None, bool]:
    """Place the most workers, from the highest priority down, and hold that.

    Returns a bound on the turned numbers placed, compared in that order (None: none known), and whether it is met.
    """
    problem = driver.problem
    supply = [
        sum(problem.kinds[job.kind].priority == priority for job in problem.jobs) for priority in driver.priorities
    ]
    bounds: list[int] = []
    at = 0
    while at < len(supply):
        together = _together(driver, supply, at)
        found = _place(driver, together, [supply[level] for level in together])
        if found is None:
            return None, False
        bounds += found
        at += len(together)
    now = [driver.placed_part(level) for level in range(len(supply))]
    return bounds, bounds == now


def _together(driver: Driver, supply: list[int], at: int) -> list[int]:
    """Return the levels to take together: one alone where all of it is placed, else as many as may be weighed."""
    levels = [at]
    if driver.placed_part(at) == -supply[at]:
        return levels
    weight = supply[at] + 1
    while at + len(levels) < len(supply) and weight * (supply[at + len(levels)] + 1) <= MOST_WEIGHT:
        weight *= supply[at + len(levels)] + 1
        levels.append(at + len(levels))
    return levels


def _place(driver: Driver, levels: list[int], supply: list[int]) -> list[int] | None:
    weights = [1] * len(levels)
    for n in range(len(levels) - 2, -1, -1):
        weights[n] = weights[n + 1] * (supply[n + 1] + 1)
    terms: Terms = {}
    for level, weight in zip(levels, weights, strict=True):
        add(terms, driver.placed_terms(driver.priorities[level]), float(weight))

    def value() -> int:
        return sum(weight * driver.placed_part(level) for level, weight in zip(levels, weights, strict=True))

    most = -sum(weight * count for weight, count in zip(weights, supply, strict=True))
    bound, met = driver.whole(terms, value, most)
    if met and len(levels) > 1:
        for level in levels:
            driver.hold(driver.placed_terms(driver.priorities[level]), driver.placed_part(level))
    if bound is None:
        return None
    # a bound on the sum says which numbers come first of those that it leaves
    left = bound - most
    found = []
    for weight, count in zip(weights, supply, strict=True):
        digit, left = divmod(left, weight)
        found.append(digit - count)
    return found
