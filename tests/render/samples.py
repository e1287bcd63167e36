"""Inventories and plans to render, and the comparison with a file that holds what was rendered before."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from gpualloc.model import (
    ComposeInput,
    Container,
    DeviceRef,
    Gpu,
    HealthIssue,
    Host,
    Inventory,
    Link,
    MigInstance,
    Placement,
    Plan,
    PlanInputs,
    PlanWarning,
    Process,
    Refusal,
    Solution,
    Tier,
    Unplaced,
)

SNAPSHOTS = Path(__file__).parent / "snapshots"


def check_snapshot(name: str, text: str) -> None:
    """Compare with snapshots/NAME.txt, which ``UPDATE_SNAPSHOTS=1`` writes anew; escapes are shown as ␛, CR as ␍."""
    shown = text.replace("\x1b", "␛").replace("\r", "␍")
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(shown.encode())
    assert shown == path.read_bytes().decode()


def uuid(index: int, host: int = 0) -> str:
    return f"GPU-{host:04x}{index:04x}-0000-4000-8000-00000000000{host}"


def gpu(index: int, name: str = "NVIDIA A100-SXM4-40GB", memory: int | None = 40960, host: int = 0) -> Gpu:
    return Gpu(
        uuid=uuid(index, host),
        index=index,
        name=name,
        pci_bus_id=f"00000000:{16 * index + 7:02X}:00.0",
        memory_total_mib=memory,
        memory_reserved_mib=0,
        memory_used_mib=0,
        compute_capability="8.0",
        numa_node=index // 4,
        cpu_affinity="0-31",
        display_active=False,
        compute_mode="default",
        mig=None,
        health=(),
        processes=(),
    )


def machine(count: int, name: str = "dgx01", nvlink: int = 12, host: int = 0) -> Host:
    gpus = tuple(gpu(index, host=host) for index in range(count))
    links = tuple(Link(a.uuid, b.uuid, nvlink, "SYS") for a, b in combinations(gpus, 2))
    return Host(name, "580.159.04", "13.0", gpus, links)


def inventory(count: int) -> Inventory:
    return Inventory("sim", (machine(count),))


def two_hosts() -> Inventory:
    return Inventory("snapshot", (machine(4, "gpu01"), machine(4, "gpu02", nvlink=0, host=1)))


def mig_instance(index: int, gi: int, ci: int = 0, profile: str = "1g.5gb") -> MigInstance:
    return MigInstance(f"MIG-{index:04x}{gi:02x}{ci:02x}-0000-4000-8000-000000000000", gi, ci, profile, 4864)


def workstation() -> Inventory:
    """One host with one of everything that can be told of a GPU, and of what holds it."""
    desktop = replace(
        gpu(0, "NVIDIA GeForce RTX 4090", 24564),
        display_active=True,
        memory_used_mib=730,
        processes=(Process(1258, 412, None), Process(2001, None, None)),
    )
    server = Container("0123456789abcdef0123456789abcdef", "llm", "server")
    loose = Container("fedcba9876543210fedcba9876543210", None, None)
    sick = replace(
        gpu(1, "NVIDIA GeForce RTX 5090", 32607),
        memory_used_mib=20480,
        health=(
            HealthIssue("row_remap_pending", fatal=True, detail="two rows wait for a reset of the GPU"),
            HealthIssue("ecc_corrected", fatal=False, detail="12 errors since the driver was loaded"),
        ),
        processes=(Process(4711, 18432, server), Process(4712, 2048, loose)),
    )
    split = replace(
        gpu(2),
        mig=(mig_instance(2, 7), mig_instance(2, 9), mig_instance(2, 9, 1)),
        processes=(Process(99, 100, server, gi=9),),
    )
    strange = replace(
        gpu(3, "NVIDIA T400", None),
        memory_used_mib=None,
        compute_capability=None,
        numa_node=None,
        display_active=None,
        compute_mode="prohibited",
    )
    links = (
        Link(desktop.uuid, sick.uuid, 0, "PHB"),
        Link(desktop.uuid, split.uuid, None, "NODE"),
        Link(split.uuid, sick.uuid, 2, None),
        Link(strange.uuid, sick.uuid, 0, None),
    )
    return Inventory("nvml", (Host("desk", None, "13.0", (desktop, sick, split, strange), links, platform="wsl2"),))


def placement(worker: str, *gpus: int, host: str = "dgx01", at: int = 0) -> Placement:
    """A new exclusive worker on GPUs of the host with number ``at``."""
    role, _, replica = worker.rpartition("-")
    return Placement(
        worker=worker,
        service=role or worker,
        replica=int(replica) if replica.isdigit() else 1,
        host=host,
        devices=tuple(DeviceRef(uuid(index, at), index) for index in gpus),
        memory_mib=None,
        exclusive=True,
        action="pin",
        previous=None,
        reason="the fewest devices",
    )


PROVEN = (Tier("placed", "max", 6, 6, proven=True), Tier("devices_used", "min", 2, 2, proven=True))


def plan(
    *placements: Placement,
    unplaced: tuple[Unplaced, ...] = (),
    objective: tuple[Tier, ...] = PROVEN,
    warnings: tuple[PlanWarning, ...] = (),
    reproducible: bool = True,
    changed: bool = True,
) -> Plan:
    inputs = PlanInputs((ComposeInput("compose.yaml", "c" * 64),), ("sim:dgx-a100",), "a" * 64, "base", "b" * 64)
    return Plan(inputs, Solution(placements, unplaced, objective, warnings, reproducible), changed)


def busy_plan() -> Plan:
    """A plan of every action and kind of request, with workers that do not fit."""
    return plan(
        placement("trainer-1", 0, 1, 2, 3),
        replace(placement("trainer-2", 4, 5), action="resize", previous=(uuid(4), uuid(5), uuid(6))),
        replace(
            placement("encoder", 6),
            exclusive=False,
            memory_mib=12288,
            action="move",
            previous=("GPU-deadbeef-1111-4222-8333-444455556666",),
        ),
        replace(placement("tokenizer", 6), exclusive=False, memory_mib=1536, action="keep", previous=(uuid(6),)),
        replace(placement("embedder", 6, 7), exclusive=False, memory_mib=500, action="move", previous=("2", uuid(7))),
        replace(placement("counter", 6), exclusive=False),
        unplaced=(
            Unplaced(
                "eval-2",
                (
                    Refusal("memory", (uuid(0), uuid(1), uuid(2), uuid(6)), "needs 40 GiB, 22 GiB free"),
                    Refusal("unhealthy", (uuid(7),), "row_remap_pending"),
                ),
                "free 18 GiB on GPU 6",
            ),
            Unplaced(
                "eval-3",
                (
                    Refusal("memory", (uuid(0), uuid(1), uuid(2), uuid(6)), "needs 40 GiB, 22 GiB free"),
                    Refusal("unhealthy", (uuid(7),), "row_remap_pending"),
                ),
                "free 18 GiB on GPU 6",
            ),
            Unplaced("extra", (Refusal("limit", (), "the limit of 8 devices is reached"),), "raise limit to 9"),
        ),
        warnings=(
            PlanWarning("split_nvlink_role", "trainer-1 and trainer-2 are apart", ("trainer-1", "trainer-2")),
            PlanWarning("hand_pinned", "pinned by hand to one device, so they share it", ("encoder", "tokenizer")),
        ),
    )
