"""Why a worker got its devices: what stopped it on the others, and what the best alternative would have cost.

The alternative is found by solving again with one of the chosen devices closed to this worker; of several such plans,
the best one counts.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from gpualloc.errors import fail
from gpualloc.model import Alternative, Cost, Explanation, Verdict
from gpualloc.solve import SolveOptions
from gpualloc.solve.devices import without_devices
from gpualloc.solve.engine import optimize
from gpualloc.solve.highs import Limits
from gpualloc.solve.problem import build
from gpualloc.solve.report import placements_of, tiers_of
from gpualloc.solve.unplaced import Obstacles

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gpualloc.model import Inventory, Policy, Request, TierValue
    from gpualloc.solve.problem import Problem
    from gpualloc.solve.tiers import Score

CHOSEN, OPEN = "chosen", "open"
"""Codes beside those of refusals: the worker is here; it could be here as things stand."""


def explain(
    inventory: Inventory,
    requests: Sequence[Request],
    policy: Policy,
    workers: Collection[str] = (),
    *,
    project: str | None = None,
    options: SolveOptions | None = None,
) -> tuple[Explanation, ...]:
    """Explain the placement of some workers, by name, or of all where none is named.

    Raises GpuallocError (``unknown-worker``) for a name that no worker has, and whatever ``solve`` raises.
    """
    options = options or SolveOptions()
    limits = Limits(
        options.node_limit, None if options.time_limit_s is None else time.monotonic() + options.time_limit_s
    )
    remaining = without_devices(inventory, options.without)
    stability = "ignore" if options.replan else policy.stability
    problem = build(inventory, remaining, requests, policy, project=project, stability=stability)
    names = {job.name for job in problem.jobs}
    for name in workers:
        if name not in names:
            hint = f"the workers are {', '.join(sorted(names)[:12])}" if names else "no service asks for a GPU"
            raise fail("unknown-worker", f"there is no worker {name!r}", None, hint)
    optimum = optimize(problem, limits).optimum
    placements = {p.worker: p for p in placements_of(problem, optimum.assignment)}
    tiers = tiers_of(problem, optimum)
    found = []
    for number, job in enumerate(problem.jobs):
        if workers and job.name not in workers:
            continue
        devices = optimum.assignment[number]
        others = tuple(None if n == number else there for n, there in enumerate(optimum.assignment))
        obstacles = Obstacles(problem, others).of(job)
        verdicts = tuple(
            Verdict(device.uuid, CHOSEN, placements[job.name].reason)
            if devices and device.position in devices
            else Verdict(device.uuid, *_here(obstacles.get(device.position)))
            for device in problem.devices
        )
        alternative = None
        if devices:
            other, score, text = _without_one(problem, number, devices, limits)
            costs = tuple(
                Cost(tier.name, tier.sense, tier.value, instead)
                for tier, mine, theirs, instead in zip(tiers, optimum.score, score, text, strict=True)
                if mine != theirs
            )
            alternative = Alternative(tuple(problem.devices[d].uuid for d in other), costs)
        found.append(Explanation(job.name, placements.get(job.name), verdicts, alternative))
    return tuple(found)


def _here(obstacle: tuple[str, str] | None) -> tuple[str, str]:
    if obstacle is None or obstacle[0] == "search":
        return OPEN, "could take it too"
    return obstacle


def _without_one(
    problem: Problem, number: int, devices: tuple[int, ...], limits: Limits
) -> tuple[tuple[int, ...], Score, tuple[TierValue, ...]]:
    """Return the best plan in which a worker lacks one of its devices: its devices there, the score, and its words."""
    best: tuple[Score, tuple[int, ...], tuple[TierValue, ...]] | None = None
    job = problem.jobs[number]
    for closed in devices:
        kind = problem.kinds[job.kind]
        weight = {d: amount for d, amount in kind.weight.items() if d != closed}
        home = None if job.home is not None and closed in job.home else job.home
        jobs = list(problem.jobs)
        jobs[number] = replace(job, kind=len(problem.kinds), home=home)
        kinds = [*problem.kinds, replace(kind, number=len(problem.kinds), weight=weight)]
        optimum = optimize(replace(problem, kinds=kinds, jobs=jobs), limits).optimum
        if best is None or optimum.score < best[0]:
            values = tuple(tier.value for tier in tiers_of(problem, optimum))
            best = optimum.score, optimum.assignment[number] or (), values
    if best is None:
        raise ValueError("a placed worker has at least one device")
    return best[1], best[0], best[2]
