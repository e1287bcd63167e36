"""What the planner's tests share: machines, roles and policies by hand, small random worlds, and every assignment."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from gpualloc.inventory import load
from gpualloc.model import (
    Container,
    Exclude,
    Gpu,
    GpuCount,
    HealthIssue,
    Host,
    Inventory,
    Link,
    MigInstance,
    Policy,
    Process,
    Request,
    Sharing,
    Worker,
    Write,
)
from gpualloc.solve.problem import build
from gpualloc.solve.rules import faults
from gpualloc.solve.tiers import score_of

if TYPE_CHECKING:
    from random import Random

    from gpualloc.model import ComputeMode
    from gpualloc.solve.problem import Assignment, Devices, Problem
    from gpualloc.solve.tiers import Score

World = tuple[Inventory, tuple[Request, ...], Policy]

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PROJECT = "mine"
COMPUTE_MODES: list[ComputeMode] = [*("default",) * 8, "exclusive_process", "prohibited"]


def machine(name: str) -> Inventory:
    return load([f"sim:{name}"]).inventory


def gpu(index: int, **changes: Any) -> Gpu:
    made = Gpu(
        uuid=f"GPU-{index}",
        index=index,
        name="NVIDIA A100-SXM4-40GB",
        pci_bus_id=f"00000000:{index + 1:02X}:00.0",
        memory_total_mib=40960,
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
    return replace(made, **changes)


def inventory(*gpus: Gpu, links: tuple[Link, ...] = (), name: str = "here", **changes: Any) -> Inventory:
    return Inventory("snapshot", (Host(name, None, None, gpus, links, **changes),))


def policy(sharing: dict[str, Any] | None = None, exclude: dict[str, Any] | None = None, **changes: Any) -> Policy:
    shares: dict[str, Any] = {
        "mode": "memory",
        "default_memory": "exclusive",
        "max_workers_per_gpu": 8,
        "headroom": Fraction(0),
        **(sharing or {}),
    }
    excludes: dict[str, Any] = {
        "unhealthy": False,
        "busy": False,
        "busy_above_mib": 1024,
        "display": False,
        "gpus": (),
        **(exclude or {}),
    }
    made = Policy(
        name="test",
        description="",
        strategy="pack",
        stability="keep",
        topology="prefer",
        sharing=Sharing(**shares),
        exclude=Exclude(**excludes),
        reserve=0,
        limit=None,
        write=Write("uuid", "ordinal", (), ()),
        ignore=(),
        roles=(),
        sha256="",
    )
    return replace(made, **changes)


def role(
    name: str, workers: int = 1, gpus: tuple[int, int | None] = (1, 1), pinned: Any = None, **changes: Any
) -> Request:
    """A request; ``pinned`` is one tuple of ids per worker, None for a worker without."""
    names = [name] if workers == 1 else [f"{name}-{n + 1}" for n in range(workers)]
    pins = pinned or [None] * workers
    made = Request(name, tuple(Worker(w, n + 1, pins[n]) for n, w in enumerate(names)), GpuCount(*gpus))
    return replace(made, **changes)


def problem_of(world: World) -> Problem:
    machines, requests, rules = world
    return build(machines, machines, requests, rules, project=PROJECT, stability=rules.stability)


# --------------------------------------------------------------------------------------------------------------------
# Random worlds


def _random_gpu(r: Random, host: int, index: int, members: int, *, mixed: bool, mig: bool) -> Gpu:
    name, total, capability = ("NVIDIA A100", 40960, "8.0")
    if mixed and r.random() < 0.5:
        name, total, capability = ("NVIDIA L40S", 46068, "8.9")
    processes: tuple[Process, ...] = ()
    if r.random() < 0.15:
        owner = r.choice([None, Container("x", "other", "s"), Container("y", PROJECT, "s")])
        processes = (Process(1, r.choice([500, 4000, 20000]), owner),)
    instances = None
    if mig or r.random() < 0.05:
        instances = (MigInstance(f"MIG-{host}{index}", 1, 0, "3g.20gb", 19968),)
    return Gpu(
        uuid=f"GPU-{host}{index}",
        index=index,
        name=name,
        pci_bus_id=f"00000000:{index + 1:02X}:00.0",
        memory_total_mib=total if r.random() < 0.95 else None,
        memory_reserved_mib=r.choice([0, 0, 500]),
        memory_used_mib=sum(p.used_mib or 0 for p in processes),
        compute_capability=capability,
        numa_node=index * 2 // members if r.random() < 0.9 else None,
        cpu_affinity=None,
        display_active=r.random() < 0.1,
        compute_mode=r.choice(COMPUTE_MODES),
        mig=instances,
        health=(HealthIssue("xid_79", fatal=True, detail=""),) if r.random() < 0.07 else (),
        processes=processes,
    )


def _random_inventory(r: Random, devices: int) -> Inventory:
    sizes = [0] * r.choice([1, 1, 1, 2, 2, 3])
    for _ in range(devices):
        sizes[r.randrange(len(sizes))] += 1
    hosts = []
    for number, size in enumerate(sizes):
        mixed, mig, even = r.random() < 0.5, r.random() < 0.15, r.random() < 0.2
        gpus = tuple(_random_gpu(r, number, n, size, mixed=mixed, mig=mig) for n in range(size))
        links = tuple(
            Link(
                f"GPU-{number}{a}",
                f"GPU-{number}{b}",
                2 if even else r.choice([0, 0, 1, 2, None]),
                "NODE" if even else r.choice(["PIX", "PXB", "NODE", "SYS", None]),
            )
            for a, b in combinations(range(size), 2)
            if r.random() < 0.9
        )
        hosts.append(Host(f"h{number}", None, None, gpus, links))
    return Inventory("snapshot", tuple(hosts))


def _random_role(r: Random, number: int, workers: int, uuids: list[str], *, pins: bool, plain: bool) -> Request:
    gpus = r.choice([(1, 1)] * 5 + [(2, 2), (1, 2), (1, None), (1, 3), (2, None)])
    wishes: dict[str, Any] = {}
    for chance, wish, values in (
        (0.55, "memory_mib", [5000, 8000, 10000, 13000, 20000, 30000]),
        (0.1, "exclusive", [True]),
        (0.15, "priority", [1, 5]),
        (0.1, "min_link", ["NVLINK", "PXB", "SYS"]),
        (0.1, "model", ["*A100*"]),
        (0.12, "anti_affinity", [("a",), ("b",), ("c",)]),
        (0.1, "host", ["h0"]),
        (0.05, "mig_profile", ["3g.20gb"]),
    ):
        if r.random() < chance and (not plain or wish == "memory_mib"):
            wishes[wish] = r.choice(values)
    pinned = None
    if pins and uuids:
        count = min(r.choice([gpus[0]] * 4 + [1]), len(uuids))
        pinned = [tuple(r.sample([*uuids, "GPU-lost"], count)) if r.random() < 0.6 else None for _ in range(workers)]
        wishes["hand_pinned"] = r.random() < 0.15
    return role("abcdefgh"[number], workers, gpus, pinned, **wishes)


def random_world(r: Random, most_devices: int, most_workers: int) -> World:
    machines = _random_inventory(r, r.randint(1, most_devices))
    uuids = [
        uuid
        for host in machines.hosts
        for gpu in host.gpus
        for uuid in ([gpu.uuid] if gpu.mig is None else [part.uuid for part in gpu.mig])
    ]
    requests: list[Request] = []
    left = r.randint(1, most_workers)
    pins, plain = r.random() < 0.6, r.random() < 0.4
    while left and len(requests) < 8:
        workers = r.randint(1, min(left, 3))
        left -= workers
        requests.append(_random_role(r, len(requests), workers, uuids, pins=pins, plain=plain))
    if len(requests) > 1 and not plain and r.random() < 0.2:
        wants = r.randrange(len(requests))
        requests[wants] = replace(requests[wants], affinity=(r.choice(requests).role,))
    rules = policy(
        strategy=r.choice(["pack", "spread"]),
        stability=r.choice(["keep", "keep", "prefer", "ignore"]),
        topology=r.choice(["prefer"] * 4 + ["ignore", "require"]),
        reserve=r.choice([0] * 6 + [1]) if not plain else 0,
        limit=r.choice([None] * 5 + [1, 2]) if not plain else None,
        sharing={
            "mode": r.choice(["memory"] * 4 + ["none", "count"]),
            "default_memory": r.choice(["exclusive", "exclusive", "share", 9000]),
            "max_workers_per_gpu": r.choice([2, 3, 8]),
            "headroom": r.choice([Fraction(0), Fraction(1, 20)]),
        },
        exclude={"unhealthy": r.random() < 0.5, "busy": r.random() < 0.3, "display": r.random() < 0.3},
    )
    return machines, tuple(requests), rules


def worlds(most_devices: int, most_workers: int) -> st.SearchStrategy[World]:
    return st.randoms(use_true_random=False).map(lambda r: random_world(r, most_devices, most_workers))


# --------------------------------------------------------------------------------------------------------------------
# Every assignment

MOST_ASSIGNMENTS = 60_000


def every_best(problem: Problem) -> tuple[Score, Assignment] | None:
    """The best score, and the first assignment to have it in the tie-break's order; None where there are too many."""
    choices: list[list[Devices | None]] = []
    for job in problem.jobs:
        kind = problem.kinds[job.kind]
        sets: list[Devices] = []
        for members in problem.host_devices:
            mine = [d for d in members if d in kind.weight]
            for size in range(kind.least, min(kind.most, len(mine)) + 1):
                sets += [devices for devices in combinations(mine, size) if problem.admits(kind, devices)]
        choices.append([*sorted(sets), None])
    if math.prod(len(options) for options in choices) > MOST_ASSIGNMENTS:
        return None
    best: tuple[Score, Assignment] | None = None
    for assignment in product(*choices):
        score = score_of(problem, assignment)
        if (best is None or score < best[0]) and not faults(problem, assignment):
            best = score, assignment
    return best
