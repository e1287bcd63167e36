"""The hard rules of one device: which workers may be on it together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.solve.problem import Assignment, Kind, Problem


def device_fault(problem: Problem, d: int, kinds: Sequence[Kind]) -> str | None:
    """Return the code of the first rule that these workers break together on device ``d``, else None."""
    fault = crowd_fault(problem, d, kinds)
    if fault is None and any(not affinity_met(kind, kinds) for kind in kinds):
        return "affinity"
    return fault


def crowd_fault(problem: Problem, d: int, kinds: Sequence[Kind]) -> str | None:
    """Return the code of the first rule that more workers cannot mend, else None; affinity is not one of them."""
    if not kinds:
        return None
    if any(kind.exclusive for kind in kinds):
        return "taken" if len(kinds) > 1 else None
    if len(kinds) > problem.slots[d]:
        return "max_workers"
    if problem.taken[d] + sum(kind.weight[d] for kind in kinds) > problem.full[d]:
        return "memory"
    for n, kind in enumerate(kinds):
        for other in kinds[n + 1 :]:
            if apart(kind, other):
                return "anti_affinity"
    return None


def apart(kind: Kind, other: Kind) -> bool:
    """Tell whether two workers of these kinds may not share a device."""
    return other.role in kind.anti or kind.role in other.anti


def affinity_met(kind: Kind, kinds: Sequence[Kind]) -> bool:
    """Tell whether a worker of ``kind``, itself among ``kinds``, finds every role it wants; its own needs a second."""
    return all(sum(other.role == role for other in kinds) > (kind.role == role) for role in kind.affinity)


def faults(problem: Problem, assignment: Assignment) -> list[str]:
    """Return every hard rule that an assignment breaks; an empty list is a valid one. For tests and self-checks."""
    found: list[str] = []
    holders: dict[int, list[Kind]] = {}
    for job, devices in zip(problem.jobs, assignment, strict=True):
        if devices is None:
            continue
        kind = problem.kinds[job.kind]
        if not problem.admits(kind, devices):
            found.append(f"{job.name} may not have {devices}")
        for d in devices:
            holders.setdefault(d, []).append(kind)
    for d, kinds in holders.items():
        fault = device_fault(problem, d, kinds)
        if fault:
            found.append(f"device {d}: {fault}")
    for host, members in enumerate(problem.host_devices):
        if sum(d in holders for d in members) > problem.room[host]:
            found.append(f"host {host}: reserve")
    if problem.limit is not None and len(holders) > problem.limit:
        found.append("limit")
    return found
