"""The rewriter driven without a solver: made-up GPUs, placements that hand them out in turn."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from gpualloc.compose.edits import edits
from gpualloc.compose.project import ProjectOptions, load_project
from gpualloc.compose.reader import read_demand
from gpualloc.compose.rewrite import rewrite
from gpualloc.model import DeviceRef, Gpu, Host, Inventory, Placement, Solution
from gpualloc.policy.load import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpualloc.compose.project import Project
    from gpualloc.compose.reader import Demand
    from gpualloc.model import Policy

OWNED = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")

GPUS = tuple(
    Gpu(
        uuid=f"GPU-{n:08x}-0000-0000-0000-000000000000",
        index=n,
        name="NVIDIA A100",
        pci_bus_id=f"00000000:{n:02X}:00.0",
        memory_total_mib=81920,
        memory_reserved_mib=0,
        memory_used_mib=0,
        compute_capability="8.0",
        numa_node=0,
        cpu_affinity=None,
        display_active=False,
        compute_mode="default",
        mig=None,
        health=(),
        processes=(),
    )
    for n in range(64)
)
INVENTORY = Inventory("sim", (Host("h", None, None, GPUS, ()),))


@cache
def base() -> Policy:
    """Return the base policy."""
    return load("base", cwd=Path(__file__).parent, compose_dir=None)


def policy(*, index: bool = False, extra: bool = False) -> Policy:
    """Return the base policy, writing indices, or an extra variable, if so asked."""
    write = replace(
        base().write,
        device_ids="index" if index else "uuid",
        env=(("GPU_SHARE", "$$${memory_fraction}/${gpus}"), ("GPU_ROLE", "role-${role}")) if extra else (),
    )
    return replace(base(), write=write)


def solution(demand: Demand, *, start: int = 0, at_most: int = 8) -> Solution:
    """Hand out GPUs in turn, from one number on; each worker gets as many as it asks for, at most so many."""
    placements = []
    number = start
    for role in demand.roles:
        count = max(1, min(role.request.gpus.max or 2, at_most))
        for worker in role.request.workers:
            devices = tuple(DeviceRef(GPUS[(number + i) % 64].uuid, (number + i) % 64) for i in range(count))
            placements.append(
                Placement(
                    worker=worker.name,
                    service=role.service.name,
                    replica=worker.replica,
                    host="h",
                    devices=devices,
                    memory_mib=None,
                    exclusive=True,
                    action="pin",
                    previous=None,
                    reason="",
                )
            )
            number += count
    return Solution(tuple(placements), (), (), ())


def project_of(path: Path, environ: Mapping[str, str] | None = None) -> Project:
    """Read a project of one file, all its profiles active."""
    return load_project(ProjectOptions(files=(str(path),), profiles=("*",)), environ or {}, path.parent)


def applied(project: Project, policy: Policy, *, start: int = 0, at_most: int = 8) -> dict[str, str]:
    """Return the new text of every file of a project, by name."""
    demand = read_demand(project, policy)
    wanted = edits(demand, solution(demand, start=start, at_most=at_most), policy, INVENTORY)
    services = {service.name: service for service in project.services}
    return {
        file.shown: rewrite(file, [e for e in wanted if services[e.service].home(e.path) is file]).text
        for file in project.files
    }
