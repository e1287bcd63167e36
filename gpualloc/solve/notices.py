"""Warnings about a plan that is valid all the same."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from gpualloc.model import PlanWarning
from gpualloc.policy.filters import gib
from gpualloc.solve.report import device_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.solve.problem import Assignment, Problem

NEAR = Fraction(95, 100)
"""Memory asked beyond this part of a device's total leaves little for the CUDA context and fragmentation."""


def _shared_by_hand(problem: Problem, assignment: Assignment) -> list[PlanWarning]:
    groups: dict[str, list[str]] = {}
    for job, devices in zip(problem.jobs, assignment, strict=True):
        if devices is None or job.demand.exclusive or job.name not in problem.hand_shares:
            continue
        for d in devices:
            groups.setdefault(device_name(problem, d), []).append(job.name)
    return [
        PlanWarning(
            "shared_by_hand",
            f"{', '.join(names)} are pinned by hand to {device} and share it: "
            "x-gpualloc: {gpus: 1} in one of them parts them",
            tuple(names),
        )
        for device, names in groups.items()
        if len(names) > 1
    ]


def _split_nvlink_role(problem: Problem, assignment: Assignment) -> list[PlanWarning]:
    """Warn of workers of one role with one device each on devices joined by NVLink.

    In separate containers they lose peer access: an all-reduce of 100 MB went at 4 GB/s instead of 157 GB/s on two
    A100s joined by NV12, as publicly reported.
    """
    roles: dict[str, list[tuple[str, int]]] = {}
    for job, devices in zip(problem.jobs, assignment, strict=True):
        if devices is not None and len(devices) == 1 and problem.devices[devices[0]].mig is None:
            roles.setdefault(job.demand.request.role, []).append((job.name, devices[0]))
    found = []
    for role, members in roles.items():
        if len(members) < 2:
            continue
        on_host: dict[int, list[tuple[str, int]]] = {}
        for name, d in members:
            on_host.setdefault(problem.host_of[d], []).append((name, d))
        joined: list[tuple[str, int]] = []
        for host, there in on_host.items():
            nvlinked = {d for pair, (_, rank) in problem.pairs(host).items() if rank == 0 for d in pair}
            held = {d for _, d in there}
            mine = {
                d
                for (a, b), (_, rank) in problem.pairs(host).items()
                if rank == 0 and a in held and b in held
                for d in (a, b)
            }
            joined += [(name, d) for name, d in there if d in mine and d in nvlinked]
        if joined:
            found.append(
                PlanWarning(
                    "split_nvlink_role",
                    f"the workers of {role} sit on GPUs joined by NVLink, one each: in separate containers they cannot "
                    f"use it; if they talk to each other, ask for one worker with {len({d for _, d in joined})} GPUs",
                    tuple(name for name, _ in joined),
                )
            )
    return found


def _memory_near_size(problem: Problem, assignment: Assignment) -> list[PlanWarning]:
    found = []
    for job, devices in zip(problem.jobs, assignment, strict=True):
        asked = job.demand.request.memory_mib
        for d in devices or ():
            total = problem.devices[d].total_mib
            if asked is not None and total is not None and asked > total * NEAR:
                text = f"{job.name} asks for {gib(asked)} of {device_name(problem, d)}, which has {gib(total)} in all"
                found.append(PlanWarning("memory_near_size", text, (job.name,)))
                break
    return found


def _far_numa(problem: Problem, assignment: Assignment) -> list[PlanWarning]:
    found = []
    for job, devices in zip(problem.jobs, assignment, strict=True):
        nodes = {problem.devices[d].gpu.numa_node for d in devices or ()} - {None}
        if len(nodes) > 1:
            listed = " and ".join(str(node) for node in sorted(node for node in nodes if node is not None))
            found.append(
                PlanWarning(
                    "numa_split", f"{job.name} has GPUs of NUMA nodes {listed}: some are far from its CPUs", (job.name,)
                )
            )
    return found


def _unhealthy(problem: Problem, assignment: Assignment) -> list[PlanWarning]:
    found: dict[int, list[str]] = {}
    for job, devices in zip(problem.jobs, assignment, strict=True):
        for d in devices or ():
            if any(issue.fatal for issue in problem.devices[d].gpu.health):
                found.setdefault(d, []).append(job.name)
    return [
        PlanWarning(
            "unhealthy_device",
            f"{device_name(problem, d)} is unhealthy "
            f"({', '.join(issue.code for issue in problem.devices[d].gpu.health if issue.fatal)}), and the policy does "
            "not exclude such devices",
            tuple(names),
        )
        for d, names in sorted(found.items())
    ]


NOTICES: tuple[Callable[[Problem, Assignment], list[PlanWarning]], ...] = (
    _shared_by_hand,
    _split_nvlink_role,
    _memory_near_size,
    _far_numa,
    _unhealthy,
)
"""Every warning; a new one is one function and one line here."""


def notices_of(problem: Problem, assignment: Assignment) -> tuple[PlanWarning, ...]:
    """Return what is worth knowing about an assignment."""
    return tuple(warning for notice in NOTICES for warning in notice(problem, assignment))
