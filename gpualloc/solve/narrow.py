"""A smaller program for the later tiers, once it is settled how many devices elastic workers have.

Kinds that were placed worker by worker (:mod:`gpualloc.solve.slots`), since they might have had anything from one
device to all, then often have few enough shapes to count.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gpualloc.solve.formulation import Formulation

if TYPE_CHECKING:
    from gpualloc.solve.lexi import Driver


def narrow(driver: Driver, grants: list[int]) -> None:
    """Make a driver's program anew for workers of at most as many devices as the largest grant.

    ``grants`` are those of every elastic worker in every plan that counts; all tiers so far are proven, and held again.
    """
    most = max(grants, default=0)
    problem = driver.problem
    if not any(slots.kind.most > most for slots in driver.formulation.slots.values()):
        return
    kinds = [
        replace(kind, most=max(kind.least, min(kind.most, most))) if kind.elastic else kind for kind in problem.kinds
    ]
    formulation = driver.formulation = Formulation(replace(problem, kinds=kinds))
    driver.program = formulation.program
    for level, priority in enumerate(driver.priorities):
        driver.hold(driver.placed_terms(priority), driver.placed_part(level))
    if problem.stability == "keep":
        driver.hold(formulation.moves, driver.value(driver.names.index("moves")))
        if None in driver.best:
            driver.hold(formulation.add_evictions(), driver.value(driver.names.index("evictions")))
    elastic = {kind.number for kind in kinds if kind.elastic}
    driver.hold(formulation.granted_terms(elastic), sum(grants))
    for size in range(most):
        driver.hold(formulation.above_terms(elastic, size), sum(grant > size for grant in grants))
