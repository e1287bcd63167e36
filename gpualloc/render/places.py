"""Who is where: every device of a host with its workers, and how its GPUs are grouped. Map and report draw it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from gpualloc.inventory.names import pci_key
from gpualloc.render.words import devices_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gpualloc.model import Action, Gpu, Host, Inventory, Link, MigInstance, Placement, Plan
    from gpualloc.render.words import Device

Kind = Literal["island", "NUMA", "switch"]


@dataclass(frozen=True, slots=True)
class Held:
    """What something outside the project holds of a device: memory in MiB, and who, as far as that is known."""

    mib: int
    holders: tuple[str, ...] = ()
    left_out: bool = False
    """Whether it is held by nobody, but this plan was to do without it."""


@dataclass(frozen=True, slots=True)
class Stay:
    """A worker on a device. ``part`` is the fraction of the device that it takes, to draw it by.

    ``action`` is None where no plan has it there: for what holds a device now, and for what has no place any more.
    """

    worker: str
    service: str
    action: Action | None
    mib: int | None
    exclusive: bool
    reason: str
    part: float


class Seat(NamedTuple):
    """A worker that has devices, or had: as a placement has it, or one that the plan has no place for."""

    worker: str
    service: str
    action: Action | None
    memory_mib: int | None
    exclusive: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Evicted:
    """A worker that has devices, ``previous``, as the file names them, and for which the plan has no place."""

    worker: str
    service: str
    previous: tuple[str, ...]
    memory_mib: int | None
    exclusive: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A device with what is on it.

    ``held_part`` is the fraction of it that is not the project's to give; ``used_mib`` is what is given out or held by
    others, None where a part of that is not known.
    """

    uuid: str
    gpu: Gpu
    instance: MigInstance | None
    held: Held
    held_part: float
    stays: tuple[Stay, ...]
    used_mib: int | None

    @property
    def total_mib(self) -> int | None:
        """The memory of the device, None where it is not known."""
        return self.instance.memory_total_mib if self.instance else self.gpu.memory_total_mib


@dataclass(frozen=True, slots=True)
class Grouping:
    """One way in which a host's GPUs belong together. ``of`` names the group of a GPU, by UUID, if it is in one."""

    kind: Kind
    of: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HostPlaces:
    """A host's devices, those of one group together. ``groupings`` has the widest first."""

    host: Host
    places: tuple[Place, ...]
    groupings: tuple[Grouping, ...]
    gone: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Ids that the host no longer has, each with the workers that had it."""

    @property
    def one_island(self) -> bool:
        """Whether NVLink joins all GPUs of the host."""
        return len(self.host.gpus) > 1 and [len(island) for island in islands(self.host)] == [len(self.host.gpus)]


def places_after(plan: Plan, hosts: Iterable[Host], held: Mapping[str, Held]) -> list[HostPlaces]:
    """Return ``hosts`` with the workers where ``plan`` puts them. ``held``: what others hold, by UUID of the device."""
    seats: dict[str, list[Seat]] = defaultdict(list)
    for placement in plan.solution.placements:
        for device in placement.devices:
            seats[device.uuid].append(_seat(placement))
    return [arranged(host, lambda gpu, instance: _place(gpu, instance, seats, held)) for host in hosts]


def places_before(
    plan: Plan,
    inventory: Inventory,
    hosts: Sequence[Host],
    held: Mapping[str, Held],
    evicted: Iterable[Evicted] = (),
) -> list[HostPlaces]:
    """Return ``hosts`` with the workers where they were before ``plan``: those that it places, and ``evicted``."""
    devices = devices_of(inventory)
    seats: dict[str, list[Seat]] = defaultdict(list)
    gone: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for placement in plan.solution.placements:
        for name in placement.previous or ():
            device = device_named(name, placement.host, devices)
            if device is None:
                gone[placement.host][name].append(placement.worker)
            else:
                seats[device.uuid].append(_seat(placement))
    for one in evicted:
        seat = Seat(one.worker, one.service, None, one.memory_mib, one.exclusive, "")
        found = [(name, _device_anywhere(name, hosts, devices)) for name in one.previous]
        home = next((device.host for _, device in found if device is not None), hosts[0].name if hosts else "")
        for name, device in found:
            if device is None:
                gone[home][name].append(one.worker)
            else:
                seats[device.uuid].append(seat)
    held = {uuid: of for uuid, of in held.items() if not of.left_out}
    return [
        arranged(
            host,
            lambda gpu, instance: _place(gpu, instance, seats, held),
            tuple((name, tuple(workers)) for name, workers in gone[host.name].items()),
        )
        for host in hosts
    ]


def device_named(name: str, host: str, devices: Mapping[str, Device]) -> Device | None:
    """Return the device that a file calls ``name``: by its UUID, or by its index on ``host``."""
    if name in devices:
        return devices[name]
    return next((d for d in devices.values() if d.host == host and d.instance is None and str(d.index) == name), None)


def _seat(placement: Placement) -> Seat:
    p = placement
    return Seat(p.worker, p.service, p.action, p.memory_mib, p.exclusive, p.reason)


def _device_anywhere(name: str, hosts: Iterable[Host], devices: Mapping[str, Device]) -> Device | None:
    found = (device_named(name, host.name, devices) for host in hosts)
    return next((device for device in found if device is not None), None)


def hosts_concerned(plan: Plan, inventory: Inventory, evicted: Iterable[Evicted] = ()) -> list[Host]:
    """Return the hosts that have workers by ``plan``, or had."""
    names = {placement.host for placement in plan.solution.placements}
    if any(placement.previous for placement in plan.solution.placements):
        devices = devices_of(inventory)
        before = (devices.get(name) for placement in plan.solution.placements for name in placement.previous or ())
        names |= {device.host for device in before if device is not None}
    devices = devices_of(inventory) if evicted else {}
    had = (_device_anywhere(name, inventory.hosts, devices) for one in evicted for name in one.previous)
    names |= {device.host for device in had if device is not None}
    return [host for host in inventory.hosts if host.name in names]


def is_replan(plan: Plan) -> bool:
    """Whether any worker had devices before."""
    return any(placement.previous for placement in plan.solution.placements)


def arranged(
    host: Host,
    place_of: Callable[[Gpu, MigInstance | None], Place],
    gone: tuple[tuple[str, tuple[str, ...]], ...] = (),
) -> HostPlaces:
    """Return a host's devices, each as ``place_of`` gives it, those of one group together."""
    groupings = _groupings(host)
    position = {gpu.uuid: at for at, gpu in enumerate(_in_pci_order(host))}
    first = [_first_positions(grouping, position) for grouping in groupings]
    gpus = sorted(
        host.gpus, key=lambda gpu: (*(firsts.get(gpu.uuid, position[gpu.uuid]) for firsts in first), position[gpu.uuid])
    )
    places = [place_of(gpu, instance) for gpu in gpus for instance in ([None] if gpu.mig is None else gpu.mig)]
    return HostPlaces(host, tuple(places), groupings, gone)


def _in_pci_order(host: Host) -> list[Gpu]:
    return sorted(host.gpus, key=lambda gpu: (pci_key(gpu.pci_bus_id), gpu.index, gpu.uuid))


def _first_positions(grouping: Grouping, position: Mapping[str, int]) -> dict[str, int]:
    """Return for each GPU of a group where the group's first GPU stands, so that sorting keeps them together."""
    first: dict[str, int] = {}
    for uuid, group in grouping.of.items():
        first[group] = min(first.get(group, position[uuid]), position[uuid])
    return {uuid: first[group] for uuid, group in grouping.of.items()}


def _place(
    gpu: Gpu, instance: MigInstance | None, seats: Mapping[str, Sequence[Seat]], held: Mapping[str, Held]
) -> Place:
    uuid = instance.uuid if instance else gpu.uuid
    total = instance.memory_total_mib if instance else gpu.memory_total_mib
    foreign = held.get(uuid, Held(0))
    held_part = min(foreign.mib / total, 1.0) if total else 0.0
    here = list(seats.get(uuid, ()))
    parts = parts_of([None if p.exclusive else p.memory_mib for p in here], total, 1.0 - held_part)
    stays = tuple(
        Stay(p.worker, p.service, p.action, p.memory_mib, p.exclusive, p.reason, part)
        for p, part in zip(here, parts, strict=True)
    )
    amounts = [p.memory_mib for p in here]
    used = None if None in amounts else foreign.mib + sum(mib for mib in amounts if mib is not None)
    return Place(uuid, gpu, instance, foreign, held_part, stays, total if any(p.exclusive for p in here) else used)


def parts_of(amounts: Sequence[int | None], total: int | None, free: float) -> list[float]:
    """Return which fraction of a device each takes; one that is not known gets an equal part of what is left.

    ``amounts`` and ``total`` are in MiB; ``free`` is the fraction that there is for all of them.
    """
    known = [mib / total if total and mib is not None else None for mib in amounts]
    open_ = known.count(None)
    left = max(free - sum(part for part in known if part is not None), 0.0)
    parts = [left / open_ if part is None else part for part in known]
    if sum(parts) <= free or not sum(parts):
        return parts
    return [part * free / sum(parts) for part in parts]  # as the file had it, which may be more than fits


# --------------------------------------------------------------------------------------------------------------------
# Groups


def islands(host: Host) -> list[list[Gpu]]:
    """Return the GPUs that NVLink joins, directly or through others, largest first in PCI order; at least two each."""
    return _joined(host, lambda link: bool(link.nvlink))


def _groupings(host: Host) -> tuple[Grouping, ...]:
    """Return the groupings that tell GPUs apart: one group that holds all of them does not."""
    found: list[tuple[Kind, list[list[Gpu]]]] = [
        ("island", islands(host)),
        ("NUMA", []),
        # one switch, or several without a host bridge between (PIX, PXB in `nvidia-smi topo -m`)
        ("switch", _joined(host, lambda link: link.pcie in {"PIX", "PXB"})),
    ]
    result = [
        Grouping(kind, {gpu.uuid: str(number) for number, group in enumerate(groups, 1) for gpu in group})
        for kind, groups in found
        if groups and len(groups[0]) < len(host.gpus)
    ]
    nodes = {gpu.uuid: str(gpu.numa_node) for gpu in host.gpus if gpu.numa_node is not None}
    if len(set(nodes.values())) > 1:
        result.append(Grouping("NUMA", nodes))
    return tuple(sorted(result, key=lambda grouping: -_widest(grouping)))


def _widest(grouping: Grouping) -> int:
    return max(Counter(grouping.of.values()).values())


def _joined(host: Host, by: Callable[[Link], bool]) -> list[list[Gpu]]:
    """Return the connected components of two GPUs or more, in PCI order."""
    gpus = _in_pci_order(host)
    beside: dict[str, set[str]] = {gpu.uuid: set() for gpu in gpus}
    for link in host.links:
        if by(link) and link.a in beside and link.b in beside:
            beside[link.a].add(link.b)
            beside[link.b].add(link.a)
    seen: set[str] = set()
    components = []
    for gpu in gpus:
        if gpu.uuid in seen:
            continue
        component = _reached(gpu.uuid, beside)
        seen |= component
        if len(component) > 1:
            components.append([other for other in gpus if other.uuid in component])
    return components


def _reached(start: str, beside: Mapping[str, Iterable[str]]) -> set[str]:
    reached, todo = {start}, [start]
    while todo:
        new = set(beside[todo.pop()]) - reached
        reached |= new
        todo += new
    return reached
