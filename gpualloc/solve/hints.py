"""The smallest single changes that would let an unplaced worker in, each found by solving the changed problem.

A change counts when every worker that has a place still has one and the worker in question gets one too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpualloc.model import LINK_LEVELS, GpuCount
from gpualloc.policy.filters import gib
from gpualloc.policy.scoring import NOT_LINKED
from gpualloc.solve.engine import places_all
from gpualloc.solve.highs import Limits
from gpualloc.solve.problem import build
from gpualloc.solve.report import device_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpualloc.model import Inventory, Policy, Request
    from gpualloc.solve.problem import Assignment, Job, Problem
    from gpualloc.solve.unplaced import Obstacles

_NODES = 2_000
_MOST_HINTS = 2
_LARGE = 400
_MOST_SOLVES = 30
"""Changed problems solved for all unplaced workers together: of hundreds of roles left out, the first are told."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a problem was built from, so that it can be built again with one thing changed."""

    inventory: Inventory
    remaining: Inventory
    requests: tuple[Request, ...]
    policy: Policy
    project: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """One change to policy or request, and how to tell a user. Of changes to the same ``thing`` the first does."""

    thing: str
    text: str
    policy: Policy
    request: Request


class Hints:
    """Finds changes for the unplaced workers of one solution."""

    def __init__(self, inputs: Inputs, problem: Problem, assignment: Assignment, stops: Obstacles) -> None:
        self.inputs = inputs
        self.problem = problem
        self.placed = {job.name for job, devices in zip(problem.jobs, assignment, strict=True) if devices is not None}
        self.stops = stops
        self.solves = 0

    def hint(self, job: Job, obstacles: dict[int, tuple[str, str]]) -> str:
        """Return the smallest changes that let the worker in, worded for a user."""
        found: list[str] = []
        settled: set[str] = set()
        untried = False
        freed = self._free_memory(job, obstacles)
        if freed is not None:
            found.append(freed)
        if len(self.problem.jobs) <= _LARGE:
            for change in self._changes(job, {code for code, _ in obstacles.values()}):
                if len(found) == _MOST_HINTS:
                    break
                if change.thing in settled:
                    continue
                if self.solves == _MOST_SOLVES:
                    untried = True
                    break
                self.solves += 1
                if self._works(job, change):
                    found.append(change.text)
                    settled.add(change.thing)
        if not found and untried:
            return "make room for others first: too many workers are left out to try what would let in each"
        return ", or ".join(found) if found else self._last_resort(job, obstacles)

    def _works(self, job: Job, change: Change) -> bool:
        wanted = self.placed | {job.name}
        requests = [
            replace(request, workers=tuple(worker for worker in request.workers if worker.name in wanted))
            for request in self._with(change.request)
        ]
        inputs = self.inputs
        problem = build(
            inputs.inventory, inputs.remaining, requests, change.policy, project=inputs.project, stability="ignore"
        )
        return places_all(problem, Limits(_NODES))

    def _with(self, changed: Request) -> Sequence[Request]:
        return [changed if request.role == changed.role else request for request in self.inputs.requests]

    def _free_memory(self, job: Job, obstacles: dict[int, tuple[str, str]]) -> str | None:
        """Return on which device the least memory would have to be freed; only where that can help."""
        kind = self.problem.kinds[job.kind]
        if kind.exclusive or kind.least > 1:
            return None
        best: tuple[int, int] | None = None
        for d, (code, _) in obstacles.items():
            needs, free = self.stops.amounts(d, job)
            if code != "memory" or needs is None or free is None:
                continue
            lacking = math.ceil(needs - free)
            if lacking > 0 and (best is None or lacking < best[0]):
                best = lacking, d
        return None if best is None else f"free {gib(_tenth_up(best[0]))} on {device_name(self.problem, best[1])}"

    def _changes(self, job: Job, codes: set[str]) -> Iterator[Change]:
        yield from self._policy_changes(job, codes)
        yield from self._sharing_changes(job, codes)
        yield from self._exclusion_changes(job, codes)
        yield from self._request_changes(job, codes)

    def _policy_changes(self, job: Job, codes: set[str]) -> Iterator[Change]:
        policy, request = self.inputs.policy, job.demand.request
        kind = self.problem.kinds[job.kind]
        if policy.limit is not None and "limit" in codes | {"taken"}:
            for limit in range(policy.limit + 1, policy.limit + kind.least + 1):
                yield Change("limit", f"raise limit to {limit}", replace(policy, limit=limit), request)
        if "reserve" in codes:
            for reserve in range(policy.reserve - 1, -1, -1):
                yield Change("reserve", f"lower reserve to {reserve}", replace(policy, reserve=reserve), request)
        if kind.rank != NOT_LINKED and kind.least > 1:
            for rank in range(kind.rank + 1, len(LINK_LEVELS)):
                level = LINK_LEVELS[rank]
                loose = replace(policy, topology="prefer") if policy.topology == "require" else policy
                yield Change("link", f"drop min_link to {level}", loose, replace(request, min_link=level))
            yield Change("link", "drop min_link", replace(policy, topology="prefer"), replace(request, min_link=None))

    def _sharing_changes(self, job: Job, codes: set[str]) -> Iterator[Change]:
        policy, request = self.inputs.policy, job.demand.request
        sharing = policy.sharing
        if job.demand.exclusive and "taken" in codes and not request.exclusive:
            if sharing.mode == "none":
                mode = replace(sharing, mode="memory", default_memory="share")
                yield Change(
                    "sharing",
                    "set sharing.mode to memory and sharing.default_memory to share",
                    replace(policy, sharing=mode),
                    request,
                )
            elif sharing.default_memory == "exclusive":
                shared = replace(sharing, default_memory="share")
                yield Change(
                    "sharing",
                    "let workers that name no memory share devices: "
                    "sharing.default_memory: share, as --policy dev has it",
                    replace(policy, sharing=shared),
                    request,
                )
        if "max_workers" in codes:
            more = sharing.max_workers_per_gpu + 1
            wider = replace(sharing, max_workers_per_gpu=more)
            yield Change(
                "sharing", f"raise sharing.max_workers_per_gpu to {more}", replace(policy, sharing=wider), request
            )

    def _exclusion_changes(self, job: Job, codes: set[str]) -> Iterator[Change]:
        policy, request = self.inputs.policy, job.demand.request
        exclude = policy.exclude
        if "busy" in codes and exclude.busy:
            yield Change(
                "busy", "set exclude.busy to false", replace(policy, exclude=replace(exclude, busy=False)), request
            )
        if "display" in codes:
            yield Change(
                "display",
                "set exclude.display to false",
                replace(policy, exclude=replace(exclude, display=False)),
                request,
            )
        if "excluded" in codes:
            for pattern in exclude.gpus:
                rest = tuple(other for other in exclude.gpus if other != pattern)
                yield Change(
                    "excluded",
                    f"take {pattern} out of exclude.gpus",
                    replace(policy, exclude=replace(exclude, gpus=rest)),
                    request,
                )
        if "unhealthy" in codes:
            yield Change(
                "unhealthy",
                "repair the unhealthy GPU (or set exclude.unhealthy to false)",
                replace(policy, exclude=replace(exclude, unhealthy=False)),
                request,
            )

    def _request_changes(self, job: Job, codes: set[str]) -> Iterator[Change]:
        policy, request = self.inputs.policy, job.demand.request
        for code, name, loosened in (
            ("model", "model", replace(request, model=None)),
            ("host", "host", replace(request, host=None)),
            ("min_memory", "min_memory", replace(request, min_memory_mib=None)),
            ("compute_capability", "compute_capability", replace(request, compute_capability=None)),
            ("kind", "mig_profile", replace(request, mig_profile=None)),
            ("affinity", "affinity", replace(request, affinity=())),
            ("anti_affinity", "anti_affinity", replace(request, anti_affinity=())),
        ):
            if code in codes and loosened != request:
                yield Change(name, f"drop {name} from {request.role}", policy, loosened)
        least = self.problem.kinds[job.kind].least
        there = max(map(len, self.problem.host_devices), default=0)
        for count in range(min(least - 1, there), 0, -1):
            fewer = replace(request, gpus=GpuCount(count, request.gpus.max if request.gpus.max is None else count))
            yield Change(
                "count", f"ask for {count} instead of {least} devices per worker of {request.role}", policy, fewer
            )
        if request.memory_mib and "memory" in codes:
            for memory in self._smaller(job):
                yield Change(
                    "memory",
                    f"lower memory of {request.role} to {gib(memory)}",
                    policy,
                    replace(request, memory_mib=memory),
                )

    def _smaller(self, job: Job) -> list[int]:
        """Return amounts below what a worker names that some device has free, largest first."""
        asked = job.demand.request.memory_mib or 0
        amounts = {int(self.stops.amounts(d.position, job)[1] or d.free_mib or 0) for d in self.problem.devices}
        return [amount for amount in sorted(amounts, reverse=True) if 0 < amount < asked][:2]

    def _last_resort(self, job: Job, obstacles: dict[int, tuple[str, str]]) -> str:
        least = self.problem.kinds[job.kind].least
        if not obstacles:
            return "no single change helps: there is no device"
        more = "one more device" if least == 1 else f"{least} more devices on one host"
        return f"no single change to policy or request helps: it takes {more} for {job.demand.request.role}"


def _tenth_up(mib: int) -> int:
    """Round up to what :func:`gib` can show, so that the amount named is enough."""
    return mib if mib < 1024 else math.ceil(mib * 10 / 1024) * 1024 // 10 + 1
