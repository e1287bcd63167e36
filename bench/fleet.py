"""The sizes that planning time is measured at: machines and roles, the same on every run, and a check of the answer."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from bench.room import Room
from bench.suite import policy
from gpualloc.inventory import load
from gpualloc.model import Gpu, GpuCount, Host, Inventory, Link, MigInstance, Request, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gpualloc.model import Placement, Policy

GIB = 1024
PER_HOST = 8
PLACED_ALREADY = 0.3
"""The part of a fleet's devices that is in use when planning begins."""


@dataclass(frozen=True, slots=True)
class Size:
    """One problem: what there is, who asks, and under which policy."""

    inventory: Inventory
    requests: tuple[Request, ...]
    policy: Policy

    @property
    def devices(self) -> int:
        """How many devices there are."""
        return sum(len(gpu.mig or (None,)) for host in self.inventory.hosts for gpu in host.gpus)

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return sum(len(request.workers) for request in self.requests)

    @property
    def pinned(self) -> int:
        """How many workers have devices already."""
        return sum(worker.pinned is not None for request in self.requests for worker in request.workers)


class Model(NamedTuple):
    """A kind of host: eight GPUs of one model. ``nvlink`` joins every pair."""

    name: str
    memory_mib: int
    capability: str
    nvlink: int


class Role(NamedTuple):
    """A role: its part of all workers in per mille, its devices, and its memory (None: whole devices)."""

    name: str
    per_mille: int
    gpus: int = 1
    memory_gib: int | None = None
    model: str | None = None


MODELS = (
    Model("NVIDIA A100-SXM4-80GB", 81920, "8.0", 12),
    Model("NVIDIA H100 80GB HBM3", 81559, "9.0", 18),
    Model("NVIDIA A100-SXM4-80GB", 81920, "8.0", 12),
    Model("NVIDIA L40S", 46068, "8.9", 0),
)
"""What the hosts of a fleet are, in turn."""

ROLES = (
    Role("train-eight", 5, gpus=8, model="*H100*"),
    Role("train-four", 15, gpus=4, model="*A100*"),
    Role("train-two", 40, gpus=2),
    Role("serve", 50),
    Role("notebook", 40, model="*L40S*"),
    Role("llm", 110, memory_gib=40),
    Role("rag", 120, memory_gib=24),
    Role("chat", 130, memory_gib=16),
    Role("speech", 110, memory_gib=12),
    Role("embed", 160, memory_gib=8),
    Role("rerank", 140, memory_gib=6),
    Role("ocr", 80, memory_gib=4),
)
"""Twelve roles, of which three want several devices. One worker takes 0.45 devices on average."""

SMALL_ROLES = (
    Role("train", 125, gpus=2),
    Role("serve", 125),
    Role("llm", 125, memory_gib=20),
    Role("chat", 188, memory_gib=12),
    Role("embed", 250, memory_gib=8),
    Role("ocr", 187, memory_gib=4),
)

MIG_ROLES = (
    *(Role(f"slice-{n}", 60, memory_gib=n) for n in range(1, 8)),
    *(Role(f"pair-{n}", 70, memory_gib=n) for n in range(2, 8)),
    Role("alone", 80),
    Role("model-bound", 80, memory_gib=3, model="*A100*"),
)
"""Fifteen roles for instances of 1g.10gb."""


def small() -> Size:
    """Return 8 devices and 16 workers."""
    return Size(load(["sim:dgx-a100"]).inventory, _requests(SMALL_ROLES, 16), policy())


def medium() -> Size:
    """Return 16 devices of two models and 60 workers."""
    return Size(load(["sim:dgx-a100", "sim:dgx-h100"]).inventory, _requests(SMALL_ROLES, 60), policy())


def mig() -> Size:
    """Return 112 MIG instances on two hosts and 200 workers of 15 roles."""
    hosts = tuple(_mig_host(f"mig{number}") for number in range(2))
    return Size(Inventory("snapshot", hosts), _requests(MIG_ROLES, 200), policy())


def forty(seed: int) -> Callable[[], Size]:
    """Return the maker of 16 devices and 40 workers of nine roles; all share, or with odd seeds some are alone."""

    def make() -> Size:
        rng = random.Random(seed)  # noqa: S311 - instances, not secrets
        alone = (Role("train", 50, gpus=2), Role("serve", 50)) if seed % 2 else ()
        sharing = tuple(Role(f"size-{n}", 125, memory_gib=rng.randint(7, 30)) for n in range(9 - len(alone)))
        return Size(load(["sim:dgx-a100", "sim:dgx-h100"]).inventory, _requests((*alone, *sharing), 40), policy())

    return make


def fleet(hosts: int, workers: int) -> Callable[[], Size]:
    """Return the maker of a fleet of hosts with eight GPUs each, 30 % of them in use."""

    def make() -> Size:
        machines = Inventory("snapshot", tuple(_host(number) for number in range(hosts)))
        requests = _requests(ROLES, workers)
        return Size(machines, _placed_before(machines, requests), policy())

    return make


SIZES: dict[str, Callable[[], Size]] = {
    "8": small,
    "16": medium,
    "mig": mig,
    "40a": forty(0),
    "40b": forty(1),
    "40c": forty(2),
    "125": fleet(125, 2_000),
    "1250": fleet(1_250, 20_000),
    "12500": fleet(12_500, 100_000),
}


# --------------------------------------------------------------------------------------------------------------------
# Machines and roles


def _host(number: int) -> Host:
    name, memory, capability, nvlink = MODELS[number % len(MODELS)]
    gpus = tuple(_gpu(f"GPU-{number:05d}-{index}", index, name, memory, capability) for index in range(PER_HOST))
    links = tuple(
        Link(a.uuid, b.uuid, nvlink, "NODE" if a.numa_node == b.numa_node else "SYS") for a, b in combinations(gpus, 2)
    )
    return Host(f"gpu{number:05d}", "580.159.04", "13.0", gpus, links)


def _renamed(host: Host, name: str) -> Host:
    """Return a copy of a host under another name, with UUIDs of its own."""
    gpus = tuple(replace(gpu, uuid=f"GPU-{name}-{gpu.index}") for gpu in host.gpus)
    new = {old.uuid: gpu.uuid for old, gpu in zip(host.gpus, gpus, strict=True)}
    links = tuple(replace(link, a=new[link.a], b=new[link.b]) for link in host.links)
    return replace(host, name=name, gpus=gpus, links=links)


def _mig_host(name: str) -> Host:
    gpus = tuple(
        replace(
            _gpu(f"GPU-{name}-{index}", index, "NVIDIA A100-SXM4-80GB", 81920, "8.0"),
            mig=tuple(MigInstance(f"MIG-{name}-{index}-{gi}", gi, 0, "1g.10gb", 9984) for gi in range(7, 14)),
        )
        for index in range(PER_HOST)
    )
    return Host(name, "580.159.04", "13.0", gpus, ())


def _gpu(uuid: str, index: int, name: str, memory: int, capability: str) -> Gpu:
    return Gpu(
        uuid=uuid,
        index=index,
        name=name,
        pci_bus_id=f"00000000:{0x10 + 0x10 * index:02X}:00.0",
        memory_total_mib=memory,
        memory_reserved_mib=0,
        memory_used_mib=0,
        compute_capability=capability,
        numa_node=index * 2 // PER_HOST,
        cpu_affinity=None,
        display_active=False,
        compute_mode="default",
        mig=None,
        health=(),
        processes=(),
    )


def _requests(roles: Sequence[Role], workers: int) -> tuple[Request, ...]:
    """Return the roles with so many workers in all, each with its part and at least one."""
    counts = [max(1, workers * role.per_mille // 1000) for role in roles]
    counts[-1] += workers - sum(counts)
    return tuple(
        Request(
            role=role.name,
            workers=tuple(Worker(f"{role.name}-{n}", n) for n in range(1, count + 1)),
            gpus=GpuCount(role.gpus, role.gpus),
            memory_mib=None if role.memory_gib is None else role.memory_gib * GIB,
            model=role.model,
        )
        for role, count in zip(roles, counts, strict=True)
    )


def _placed_before(machines: Inventory, requests: tuple[Request, ...]) -> tuple[Request, ...]:
    """Return the requests with workers pinned, host after host in a random order, until 30 % of the devices are used.

    They lie as a scheduler without a plan leaves them: whoever comes next goes where it fits.
    """
    rng = random.Random(len(machines.hosts))  # noqa: S311 - instances, not secrets
    waiting = [(request, worker) for request in requests for worker in request.workers]
    rng.shuffle(waiting)
    queue = deque(waiting)
    order = list(range(len(machines.hosts)))
    rng.shuffle(order)
    room = Room(machines, policy().sharing.max_workers_per_gpu)
    pinned: dict[str, tuple[str, ...]] = {}
    used = 0
    for host in order:
        for _ in range(3 * PER_HOST):
            request, worker = queue.popleft()
            fitting = room.fitting(request, host)
            if fitting:
                pinned[worker.name] = tuple(fitting)
                room.give(request, fitting)
            else:
                queue.append((request, worker))
        used += room.used(host)
        if used >= PLACED_ALREADY * PER_HOST * len(order):
            break
    return tuple(
        replace(request, workers=tuple(replace(worker, pinned=pinned.get(worker.name)) for worker in request.workers))
        for request in requests
    )


# --------------------------------------------------------------------------------------------------------------------
# The answer


def faults(size: Size, placements: Iterable[Placement]) -> list[str]:
    """Return what is wrong with an answer to one of these sizes: linear, and independent of the planner."""
    parts = {
        part.uuid: (host.name, gpu.name, part.memory_total_mib or 0)
        for host in size.inventory.hosts
        for gpu in host.gpus
        for part in gpu.mig or (gpu,)
    }
    asked = {worker.name: request for request in size.requests for worker in request.workers}
    crowd: dict[str, list[Request]] = defaultdict(list)
    found = []
    for placement in placements:
        request = asked.pop(placement.worker, None)
        uuids = {ref.uuid for ref in placement.devices}
        if request is None or not uuids <= parts.keys():
            found.append(f"{placement.worker}: not asked for, twice, or on a device that is not there")
            continue
        if len(uuids) != request.gpus.min or {parts[uuid][0] for uuid in uuids} != {placement.host}:
            found.append(f"{placement.worker}: not {request.gpus.min} devices of {placement.host}")
        if request.model is not None and not all(fnmatchcase(parts[uuid][1], request.model) for uuid in uuids):
            found.append(f"{placement.worker}: the wrong model")
        for uuid in uuids:
            crowd[uuid].append(request)
    most = size.policy.sharing.max_workers_per_gpu
    return found + [
        f"{uuid}: more than it holds" for uuid, here in crowd.items() if not _holds(parts[uuid][2], here, most)
    ]


def _holds(memory: int, here: list[Request], most: int) -> bool:
    if any(request.memory_mib is None for request in here):
        return len(here) == 1
    return len(here) <= most and sum(request.memory_mib or 0 for request in here) <= memory
