"""The fixed suite: 300 instances over the shipped machines, the same on every run.

Two thirds are first placements; in the others everything was placed by first fit, and then one GPU that was in use is
gone. Roles mix whole devices, several devices, and devices shared by memory or by count, at 50 % to 120 % of what there
is; some want a model, a size, a MIG profile or a host.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING

from bench.peers.state import first_fit, one_by_one
from gpualloc import inventory
from gpualloc.model import Exclude, GpuCount, Inventory, Policy, Request, Sharing, Worker, Write
from tests.oracle.rules import read_case

if TYPE_CHECKING:
    from gpualloc.model import Gpu, Host, Strategy

INSTANCES = 300

MACHINES: tuple[tuple[str, ...], ...] = (
    ("8xrtx4090",),
    ("dgx-a100",),
    ("dgx-1v",),
    ("dgx-h100",),
    ("4xl40s",),
    ("4xa100-pcie-bridged",),
    ("mixed-5090-4090",),
    ("workstation",),
    ("a100-mig",),
    ("dgx-1v",),
    ("4xa100-pcie-bridged", "dgx-1v"),
    ("dgx-a100", "8xrtx4090"),
    ("4xl40s", "mixed-5090-4090"),
    ("4xl40s", "4xa100-pcie-bridged"),
    ("desktop", "1xrtx3090", "workstation"),
)
"""Shipped machines that one instance has, several as several hosts. Linked in unequal ways: more than once."""

SIZES_MIB = (1024, 2048, 3072, 4096, 6144, 8192, 10240, 12288, 16384, 20480, 24576, 30720, 36864)
ROLE_NAMES = ("api", "batch", "chat", "detect", "embed", "finetune", "ocr", "rerank", "speech", "vision")
SEVERAL = 2
CHANGED = 2
"""Of every three instances, the last is after a change."""


@dataclass(frozen=True, slots=True)
class Instance:
    """The arguments of one call of the planner. ``changed``: a GPU has gone since the last placement."""

    name: str
    inventory: Inventory
    requests: tuple[Request, ...]
    policy: Policy
    changed: bool

    def under(self, strategy: Strategy) -> Instance:
        """Return the same instance under another strategy."""
        return replace(self, policy=replace(self.policy, strategy=strategy))


def policy(sharing: Sharing | None = None) -> Policy:
    """Return a policy as ``base`` is, with other sharing where one is given."""
    return Policy(
        name="suite",
        description="",
        strategy="pack",
        stability="keep",
        topology="prefer",
        sharing=sharing or Sharing("memory", "exclusive", 8, Fraction(0)),
        exclude=Exclude(unhealthy=False, busy=False, busy_above_mib=1024, display=False, gpus=()),
        reserve=0,
        limit=None,
        write=Write("uuid", "ordinal", (), ()),
        ignore=(),
        roles=(),
        sha256="",
    )


def suite(count: int | None = None) -> list[Instance]:
    """Return the instances; the first ``count``, where that is less."""
    return [instance(number) for number in range(INSTANCES if count is None else min(count, INSTANCES))]


def instance(number: int) -> Instance:
    """Return one instance of the suite. Every third is after a change."""
    rng = random.Random(number)  # noqa: S311 - instances, not secrets
    made = _first_placement(rng, number)
    if number % 3 != CHANGED:
        return made
    while True:
        after = _without_one(rng, made)
        if after is not None:
            return after
        made = _first_placement(rng, number)


def _first_placement(rng: random.Random, number: int) -> Instance:
    names = rng.choice(MACHINES)
    machine = _machine(names)
    mode = rng.choice(("memory", "memory", "memory", "count"))
    headroom = Fraction(rng.choice((0, 0, 5)), 100)
    rules = policy(Sharing("count" if mode == "count" else "memory", "exclusive", rng.choice((4, 8)), headroom))
    return Instance(f"{number:03d} {'+'.join(names)}", machine, _requests(rng, machine), rules, changed=False)


@cache
def _machine(names: tuple[str, ...]) -> Inventory:
    return inventory.load([f"sim:{name}" for name in names]).inventory


def _requests(rng: random.Random, machine: Inventory) -> tuple[Request, ...]:
    """Return roles until they ask for the part of all devices that was drawn."""
    gpus = [(host, gpu) for host in machine.hosts for gpu in host.gpus]
    devices = sum(len(gpu.mig or (None,)) for _, gpu in gpus)
    typical = sorted(_sizes(gpus))[devices // 2]
    budget = devices * rng.uniform(0.5, 1.2)
    requests: list[Request] = []
    names = list(ROLE_NAMES)
    rng.shuffle(names)
    while budget > 0 and names:
        request, cost = _role(rng, names.pop(), gpus, typical, budget)
        requests.append(request)
        budget -= cost
    return tuple(requests)


def _sizes(gpus: list[tuple[Host, Gpu]]) -> list[int]:
    return [
        size or 0
        for _, gpu in gpus
        for size in ([part.memory_total_mib for part in gpu.mig] if gpu.mig else [gpu.memory_total_mib])
    ]


def _role(
    rng: random.Random, name: str, gpus: list[tuple[Host, Gpu]], typical: int, budget: float
) -> tuple[Request, float]:
    """Return a role, and about how many devices it takes."""
    mig = any(gpu.mig for _, gpu in gpus)
    most = max(sum(host is other for other, _ in gpus) for host, _ in gpus)
    kind = rng.choice(("whole", "several", "shared", "shared", "shared"))
    width = 1
    memory = None
    if kind == "several" and not mig and most >= SEVERAL:
        width = rng.choice([n for n in (2, 2, 2, 3, 4, 4) if n <= most])
    elif kind == "shared":
        memory = rng.choice([size for size in SIZES_MIB if size < typical])
    each = width if memory is None else memory / typical
    replicas = max(1, min(rng.randint(1, 8 if memory else 4), round(budget / each)))
    host, gpu = rng.choice(gpus)
    wish = rng.random()
    request = Request(
        role=name,
        workers=tuple(Worker(name if replicas == 1 else f"{name}-{n}", n) for n in range(1, replicas + 1)),
        gpus=GpuCount(width, width),
        memory_mib=memory,
        model=gpu.name if wish < 0.1 else None,
        min_memory_mib=typical if 0.1 <= wish < 0.2 else None,
        host=host.name if 0.2 <= wish < 0.25 else None,
        mig_profile=rng.choice(gpu.mig).profile if gpu.mig and 0.25 <= wish < 0.6 else None,
    )
    return request, each * replicas


def _without_one(rng: random.Random, made: Instance) -> Instance | None:
    """Return the instance after a placement by first fit, with a GPU gone that was in use; None where none was."""
    case = read_case(made.inventory, made.requests, made.policy, None)
    choice = one_by_one(case, first_fit)
    held = {
        job.name: tuple(case.devices[d].uuid for d in sorted(devices))
        for job, devices in zip(case.jobs, choice, strict=True)
        if devices is not None
    }
    pinned = {uuid for uuids in held.values() for uuid in uuids}
    used = [
        gpu.uuid
        for host in made.inventory.hosts
        for gpu in host.gpus
        if pinned & {gpu.uuid, *(part.uuid for part in gpu.mig or ())}
    ]
    if not used:
        return None
    requests = tuple(
        replace(request, workers=tuple(replace(worker, pinned=held.get(worker.name)) for worker in request.workers))
        for request in made.requests
    )
    return replace(made, inventory=_less(made.inventory, rng.choice(used)), requests=requests, changed=True)


def _less(machine: Inventory, uuid: str) -> Inventory:
    hosts = tuple(
        replace(
            host,
            gpus=tuple(gpu for gpu in host.gpus if gpu.uuid != uuid),
            links=tuple(link for link in host.links if uuid not in {link.a, link.b}),
        )
        for host in machine.hosts
    )
    return replace(machine, hosts=tuple(host for host in hosts if host.gpus))
