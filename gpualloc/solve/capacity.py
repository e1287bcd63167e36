"""How many more workers of a role would fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gpualloc.errors import fail
from gpualloc.model import Capacity, Worker
from gpualloc.solve import SolveOptions, solve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.model import Inventory, Policy, Refusal, Request

MOST = 1_000_000
"""The search stops here: no machine holds more workers."""


def capacity(
    inventory: Inventory,
    requests: Sequence[Request],
    policy: Policy,
    role: str,
    *,
    project: str | None = None,
    options: SolveOptions | None = None,
) -> Capacity:
    """Return how many more workers of a role would fit, found by solving with more of them.

    Raises GpuallocError (``unknown-role``) for a role that no request has.
    """
    options = options or SolveOptions()
    asked = next((request for request in requests if request.role == role), None)
    if asked is None:
        roles = ", ".join(request.role for request in requests) or "none"
        raise fail("unknown-role", f"no service called {role} asks for a GPU", None, f"the roles are: {roles}")
    now = solve(inventory, requests, policy, project=project, options=options)
    placed = {placement.worker for placement in now.placements}
    mine = tuple(worker for worker in asked.workers if worker.name in placed)

    above = (
        max(request.priority for request in requests) + 1
    )  # where not all fit, it is to be this role's that does not

    def fits(extra: int) -> tuple[bool, tuple[Refusal, ...]]:
        added = tuple(Worker(f"{role} +{n}", len(mine) + n) for n in range(1, extra + 1))
        changed = [
            replace(request, workers=(*mine, *added))
            if request is asked
            else replace(request, workers=tuple(w for w in request.workers if w.name in placed), priority=above)
            for request in requests
        ]
        solution = solve(inventory, changed, policy, project=project, options=options)
        reasons = solution.unplaced[0].reasons if solution.unplaced else ()
        return not solution.unplaced, reasons

    low, high = 0, 1
    good, stops = fits(high)
    while good and high < MOST:
        low, high = high, high * 2
        good, stops = fits(high)
    while high - low > 1:
        middle = (low + high) // 2
        good, reasons = fits(middle)
        if good:
            low = middle
        else:
            high, stops = middle, reasons
    return Capacity(role, len(mine), low, stops)
