"""Instances that mix everything a plan depends on, drawn by hypothesis or from a seed by one and the same recipe."""

from __future__ import annotations

import random
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol, TypeVar

from hypothesis import strategies as st

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

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")

PROJECT = "shop"


@dataclass(frozen=True, slots=True)
class Instance:
    """The arguments of one call of the planner."""

    inventory: Inventory
    requests: tuple[Request, ...]
    policy: Policy
    project: str | None = PROJECT

    def text(self) -> str:
        """Return Python that rebuilds the instance, given the names of `gpualloc.model` and ``Fraction``."""
        return (
            f"inventory = {self.inventory!r}\nrequests = {self.requests!r}\n"
            f"policy = {self.policy!r}\nproject = {self.project!r}\n"
        )


@dataclass(frozen=True, slots=True)
class Size:
    """How large an instance may be. ``round_numbers``: loads have small denominators, so that squares stay exact."""

    hosts: int
    devices: int
    workers: int
    single: bool = False
    round_numbers: bool = False
    fewest_devices: int = 1
    fewest_workers: int = 1
    fewest_hosts: int = 1


MIXED = Size(hosts=2, devices=4, workers=4)
SINGLE = Size(hosts=2, devices=5, workers=6, single=True)
MIDDLE = Size(hosts=3, devices=16, workers=40, round_numbers=True, fewest_devices=4, fewest_workers=6)
SMALL_FLEET = Size(hosts=4, devices=5, workers=4, fewest_devices=3, fewest_workers=2, fewest_hosts=2)
FLEET = Size(hosts=4, devices=16, workers=30, round_numbers=True, fewest_devices=6, fewest_workers=6, fewest_hosts=2)


class Source(Protocol):
    """Where the choices of a recipe come from."""

    def among(self, values: Sequence[T]) -> T: ...

    def between(self, low: int, high: int) -> int: ...


class Seeded:
    """Choices from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  # instances, not secrets

    def among(self, values: Sequence[T]) -> T:
        return self._random.choice(values)

    def between(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


class Drawn:
    """Choices by hypothesis, simplest first."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def among(self, values: Sequence[T]) -> T:
        return self._draw(st.sampled_from(values))

    def between(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))


def seeded(seed: int, size: Size) -> Instance:
    """Return the instance of a seed."""
    return Recipe(Seeded(seed), size).instance()


@st.composite
def instances(draw: st.DrawFn, size: Size) -> Instance:
    """Return any instance up to a size."""
    return Recipe(Drawn(draw), size).instance()


MODELS = (
    ("NVIDIA A100-SXM4-40GB", 40960, "8.0"),
    ("NVIDIA A100 80GB PCIe", 81920, "8.0"),
    ("Tesla T4", 16384, "7.5"),
    ("NVIDIA L4", 24576, "8.9"),
    ("NVIDIA H100 80GB HBM3", 81559, "9.0"),
    ("NVIDIA GeForce RTX 4090", 24564, None),
)
ROUND_MODELS = MODELS[:4]


class Recipe:
    """How an instance is made. The first value of every choice is the plainest, so that examples shrink well."""

    def __init__(self, source: Source, size: Size) -> None:
        self.source = source
        self.size = size

    def once_in(self, n: int) -> bool:
        return self.source.between(0, n - 1) == n - 1

    def _amount(self, low: int, high: int) -> int:
        """Return a number that is most often the highest: full instances are the telling ones."""
        return high if self.source.between(0, 2) else self.source.between(low, high)

    def instance(self) -> Instance:
        hosts = self._hosts()
        inventory = Inventory("snapshot", hosts)
        requests = self._requests(inventory)
        return Instance(inventory, requests, self._policy(inventory))

    # ---- inventory

    def _hosts(self) -> tuple[Host, ...]:
        devices = self._amount(self.size.fewest_devices, self.size.devices)
        fewest = self.size.fewest_hosts
        hosts = min(self.source.among((fewest, fewest, self.source.between(fewest, self.size.hosts))), devices)
        models = ROUND_MODELS if self.size.round_numbers else MODELS
        # Mixed machines are the exception, as in life; equal devices make the larger classes.
        palette = [self.source.among(models) for _ in range(self.source.among((1, 1, 2, 3)))]
        troubled = self.once_in(2)
        made = []
        for number in range(hosts):
            share = devices // hosts + (1 if number < devices % hosts else 0)
            made.append(self._host(number, share, palette, troubled=troubled))
        return tuple(made)

    def _host(self, number: int, devices: int, palette: list[tuple[str, int, str | None]], *, troubled: bool) -> Host:
        gpus: list[Gpu] = []
        while devices > 0:
            instances = 0
            if not self.size.single and self.once_in(8):
                instances = self.source.between(1, min(devices, 3))
            gpus.append(self._gpu(number, len(gpus), self.source.among(palette), instances, troubled=troubled))
            devices -= max(1, instances)
        return Host(f"gpu{number:02d}", "580.159.04", "13.0", tuple(gpus), self._links(gpus))

    def _gpu(self, host: int, index: int, model: tuple[str, int, str | None], instances: int, *, troubled: bool) -> Gpu:
        name, total, capability = model
        mig = tuple(
            MigInstance(
                f"MIG-{host}{index:02d}-{n}", n + 1, 0, *self.source.among((("1g.10gb", 9984), ("2g.20gb", 20096)))
            )
            for n in range(instances)
        )
        if self.size.round_numbers:
            mig = tuple(
                MigInstance(m.uuid, m.gi, m.ci, m.profile, 4096 * (m.memory_total_mib or 0) // 8192) for m in mig
            )
        processes = self._processes(len(mig)) if troubled and self.once_in(3) else ()
        known = sum(process.used_mib or 0 for process in processes)
        extra = 0
        if troubled and not mig and self.once_in(6):
            extra = self.source.among((512, 4096))
        return Gpu(
            uuid=f"GPU-{host}{index:02d}",
            index=index,
            name=name,
            pci_bus_id=f"00000000:{8 * (index + 1):02X}:00.0",
            memory_total_mib=None if troubled and self.once_in(12) else total,
            memory_reserved_mib=0 if self.size.round_numbers else self.source.among((0, 480, 480, None)),
            memory_used_mib=None if troubled and self.once_in(6) else known + extra,
            compute_capability=capability,
            numa_node=self.source.among((0, 0, 1, None)) if self.size.single or troubled else index // 2,
            cpu_affinity=None,
            display_active=troubled and self.once_in(8),
            compute_mode=self.source.among(("default",) * 9 + ("exclusive_process", "prohibited"))
            if troubled
            else "default",
            mig=mig or None,
            health=(HealthIssue("row_remap_pending", fatal=self.once_in(2), detail="pending"),)
            if troubled and self.once_in(8)
            else (),
            processes=processes,
        )

    def _processes(self, instances: int) -> tuple[Process, ...]:
        used = (512, 4096, 8192) if self.size.round_numbers else (300, 512, 4096, 4706, 9000)
        owner = (None, PROJECT, "other", "")
        made = []
        for pid in range(self.source.between(1, 2)):
            whose = self.source.among(owner)
            container = None if whose is None else Container(f"c{pid}", whose or None, "web" if whose else None)
            gi = self.source.between(1, instances) if instances and not self.once_in(5) else None
            hidden = gi is None and self.once_in(5)
            made.append(Process(1000 + pid, None if hidden else self.source.among(used), container, gi))
        return tuple(made)

    def _links(self, gpus: list[Gpu]) -> tuple[Link, ...]:
        kind = self.source.among(("none", "one level", "pairs", "ring", "mesh", "random"))
        if kind == "none":
            return ()
        links = []
        for a in range(len(gpus)):
            for b in range(a + 1, len(gpus)):
                near = a // 2 == b // 2
                nvlink: int | None = 0
                pcie = "PHB"
                if kind == "pairs":
                    nvlink, pcie = (4, "NODE") if near else (0, "SYS")
                elif kind == "ring":
                    nvlink, pcie = (2 if near else 1 if b == a + 1 else 0), ("PIX" if near else "SYS")
                elif kind == "mesh":
                    nvlink, pcie = 12, "NODE"
                elif kind == "random":
                    if self.once_in(8):
                        continue
                    nvlink = self.source.among((0, 0, 1, 2, None))
                    pcie = self.source.among(("PIX", "PXB", "PHB", "NODE", "SYS"))
                level = None if nvlink and self.once_in(3) else pcie
                links.append(Link(gpus[a].uuid, gpus[b].uuid, nvlink, level))  # type: ignore[arg-type]  # a level
                if kind == "random" and self.once_in(6):
                    back = self.source.among((0, 1, 2, 3, None))
                    links.append(Link(gpus[b].uuid, gpus[a].uuid, back, self.source.among(("SYS", "PIX", None))))
        return tuple(links)

    # ---- requests

    def _requests(self, inventory: Inventory) -> tuple[Request, ...]:
        workers = self._amount(self.size.fewest_workers, self.size.workers)
        roles = min(workers, self.source.between(1, 3 if self.size.workers < 10 else 7))
        counts = [1] * roles
        for _ in range(workers - roles):
            counts[self.source.between(0, roles - 1)] += 1
        pins = self.source.among(("none", "some", "most", "foreign"))
        names = [f"r{n}" for n in range(roles)]
        plain = self.once_in(2)
        return tuple(self._request(inventory, names, n, counts[n], pins, plain=plain) for n in range(roles))

    def _request(
        self, inventory: Inventory, names: list[str], number: int, count: int, pins: str, *, plain: bool
    ) -> Request:
        role = names[number]
        by_hand = pins in ("some", "most") and count <= 2 and self.once_in(4)
        gpus = GpuCount(1, 1) if self.size.single else self._gpu_count()
        workers = tuple(
            Worker(role if count == 1 else f"{role}-{n + 1}", n + 1, self._pin(inventory, gpus, pins, by_hand=by_hand))
            for n in range(count)
        )
        if by_hand:
            held = max(len(worker.pinned or ()) for worker in workers)
            if any(len(worker.pinned or ()) != held for worker in workers):
                workers = tuple(Worker(w.name, w.replica, workers[0].pinned) for w in workers)
                held = len(workers[0].pinned or ())
            return Request(role, workers, GpuCount(held, held), hand_pinned=True)
        memory = self._memory(inventory) if self.source.between(0, 2) else None
        if plain:
            return Request(role, workers, gpus, memory_mib=memory)
        others = [name for name in names if name != role]
        gpus_here = [gpu for host in inventory.hosts for gpu in host.gpus]
        mig = [instance.profile for gpu in gpus_here for instance in gpu.mig or ()]
        name = self.source.among(gpus_here).name
        return Request(
            role=role,
            workers=workers,
            gpus=gpus,
            memory_mib=memory,
            exclusive=self.once_in(8),
            model=self.source.among((f"*{name[-4:]}", f"{name[:9]}*", "*T4", name)) if self.once_in(8) else None,
            min_memory_mib=self.source.among((16384, 20000, 24576, 40960)) if self.once_in(8) else None,
            compute_capability=self.source.among((">=8.0", ">=8.9", "<9.0", "8.0")) if self.once_in(8) else None,
            mig_profile=self.source.among(mig) if mig and self.once_in(4) else None,
            min_link=self.source.among(("NVLINK", "PIX", "PHB", "NODE", "SYS")) if self.once_in(5) else None,
            priority=self.source.among((0, 0, 10)),
            host=self.source.among(("gpu00", "gpu*", "gpu01")) if self.once_in(10) else None,
            affinity=(self.source.among(others),) if others and self.once_in(6) else (),
            anti_affinity=(self.source.among(names),) if self.once_in(6) else (),
        )

    def _gpu_count(self) -> GpuCount:
        return self.source.among(
            (GpuCount(1, 1),) * 5
            + (GpuCount(2, 2), GpuCount(2, 2), GpuCount(3, 3), GpuCount(1, 2), GpuCount(1, None), GpuCount(2, 3))
        )

    def _memory(self, inventory: Inventory) -> int:
        """Most often no more than the largest device has."""
        most = max((gpu.memory_total_mib or 0 for host in inventory.hosts for gpu in host.gpus), default=0)
        round_numbers = (2048, 4096, 8192, 12288, 16384, 20480)
        amounts = round_numbers if self.size.round_numbers else (4096, 7000, 8192, 12288, 20480, 1, 40000, 5461)
        return self.source.among([n for n in amounts if n <= most or self.once_in(8)] or amounts)

    def _pin(self, inventory: Inventory, gpus: GpuCount, pins: str, *, by_hand: bool) -> tuple[str, ...] | None:
        if pins == "foreign":
            return ("GPU-far", "GPU-off")[: gpus.min] if self.once_in(2) else None
        if pins == "none" or (not by_hand and self.once_in(4 if pins == "most" else 2)):
            return None
        host = self.source.among(inventory.hosts)
        devices = [uuid for gpu in host.gpus for uuid in ([gpu.uuid] if gpu.mig is None else [m.uuid for m in gpu.mig])]
        wanted = gpus.min if gpus.max == gpus.min else self.source.between(gpus.min, gpus.max or gpus.min + 2)
        wanted = 1 if self.size.single else min(wanted, len(devices))
        first = self.source.between(0, len(devices) - wanted)
        ids = devices[first : first + wanted]
        if not by_hand and self.once_in(6):
            ids[-1] = "GPU-lost"
        elif len(inventory.hosts) == 1 and self.once_in(6):
            index = {gpu.uuid: str(gpu.index) for gpu in host.gpus}
            ids = [index.get(uuid, uuid) for uuid in ids]
        return tuple(ids)

    # ---- policy

    def _policy(self, inventory: Inventory) -> Policy:
        headroom = Fraction(0) if self.size.round_numbers else self.source.among((Fraction(0), Fraction(1, 20)))
        gpu = self.source.among([gpu for host in inventory.hosts for gpu in host.gpus])
        names = [gpu.uuid, f"index:{gpu.index}", f"name:*{gpu.name[-4:]}", *(m.uuid for m in gpu.mig or ())]
        gpus = sum(len(host.gpus) for host in inventory.hosts)
        return Policy(
            name="drawn",
            description="",
            strategy=self.source.among(("pack", "spread")),
            stability=self.source.among(("ignore", "keep", "prefer")),
            topology=self.source.among(("prefer", "prefer", "ignore", "prefer", "require")),
            sharing=Sharing(
                mode=self.source.among(("memory", "memory", "count", "none")),
                default_memory=self.source.among(("exclusive", "share", 4096)),
                max_workers_per_gpu=self.source.among((2, 4, 8, 1)),
                headroom=headroom,
            ),
            exclude=Exclude(
                unhealthy=self.source.among((False, True)),
                busy=self.source.among((False, True)),
                busy_above_mib=1024,
                display=self.source.among((False, True)),
                gpus=(self.source.among(names),) if self.once_in(6) else (),
            ),
            reserve=self.source.between(1, 2) if self.once_in(6) else 0,
            limit=self.source.between((gpus + 1) // 2, gpus) if self.once_in(5) else None,
            write=Write("uuid", "ordinal", (), ()),
            ignore=(),
            roles=(),
            sha256="",
        )
