"""From an inventory to the flat, sorted list of devices that can be handed out, with whose memory is on them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from gpualloc.inventory.names import pci_key
from gpualloc.policy.filters import Device
from gpualloc.solve.order import natural

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpualloc.model import Gpu, Host, Inventory, MigInstance, Policy, Process


class Held(NamedTuple):
    """What something outside the project holds of a device: memory in MiB, and the containers by name."""

    mib: int
    holders: tuple[str, ...]


def without_devices(inventory: Inventory, gone: Iterable[str]) -> Inventory:
    """Return the inventory less the devices named: UUIDs of GPUs or MIG instances, or ``index:N`` on every host."""
    names = frozenset(gone)
    if not names:
        return inventory
    hosts = []
    for host in inventory.hosts:
        gpus = []
        for gpu in host.gpus:
            if gpu.uuid in names or f"index:{gpu.index}" in names:
                continue
            mig = None if gpu.mig is None else tuple(part for part in gpu.mig if part.uuid not in names)
            gpus.append(gpu if mig == gpu.mig else replace(gpu, mig=mig))
        hosts.append(replace(host, gpus=tuple(gpus)))
    return replace(inventory, hosts=tuple(hosts))


def sorted_hosts(inventory: Inventory) -> list[Host]:
    """Return the hosts in natural order of name."""
    return sorted(inventory.hosts, key=lambda host: natural(host.name))


def flatten(inventory: Inventory, policy: Policy, project: str | None, pinned: frozenset[str]) -> list[Device]:
    """Return every device, ordered by host, PCI bus id and MIG instance.

    ``pinned`` are the UUIDs that the compose file pins: a process of unknown owner is not foreign there.
    """
    devices: list[Device] = []
    for host in sorted_hosts(inventory):
        gpus = sorted(host.gpus, key=lambda gpu: (pci_key(gpu.pci_bus_id), gpu.index, gpu.uuid))
        mig_only = all(gpu.mig is not None for gpu in gpus)
        for gpu in gpus:
            for mig in _parts(gpu):
                held = foreign(gpu, mig, project, pinned)
                total = mig.memory_total_mib if mig else gpu.memory_total_mib
                devices.append(
                    Device(
                        position=len(devices),
                        host=host.name,
                        gpu=gpu,
                        mig=mig,
                        total_mib=total,
                        usable_mib=_usable(total, None if mig else gpu.memory_reserved_mib, policy.sharing.headroom),
                        foreign_mib=held.mib,
                        holders=held.holders,
                        busy=bool(held.holders) or held.mib > policy.exclude.busy_above_mib,
                        mig_only=mig_only,
                    )
                )
    return devices


def _parts(gpu: Gpu) -> list[MigInstance | None]:
    """Return what a GPU gives to hand out: itself, or its MIG instances in order."""
    if gpu.mig is None:
        return [None]
    return [*sorted(gpu.mig, key=lambda part: (part.gi, part.ci, part.uuid))]


def _usable(total: int | None, reserved: int | None, headroom: Fraction) -> Fraction | None:
    # where the driver does not tell its reserve, it counts it as used, so that it is not lost: it shows up as foreign
    return None if total is None else max(total - (reserved or 0), 0) * (1 - Fraction(headroom))


def foreign(gpu: Gpu, mig: MigInstance | None, project: str | None, pinned: frozenset[str]) -> Held:
    """Return what is held of a device by something that is not of this project.

    A process belongs to the project if its container does. One without a container has an unknown owner, and so has
    memory in use that no process accounts for: foreign, unless the compose file pins the device. On a GPU with MIG a
    process counts on the instances of its ``gi``, or on all where that is not known.
    """
    seen = [p for p in gpu.processes if mig is None or p.gi is None or p.gi == mig.gi]
    theirs = [p for p in seen if p.container is not None and not _is_ours(p, project)]
    ours = [p for p in seen if p.container is not None and _is_ours(p, project)]
    unknown = [p for p in seen if p.container is None]
    mine = (mig.uuid if mig else gpu.uuid) in pinned

    unaccounted = 0
    if mig is None and gpu.memory_used_mib is not None:
        unaccounted = max(0, gpu.memory_used_mib - sum(p.used_mib or 0 for p in seen))
    mib = sum(p.used_mib or 0 for p in theirs)
    if not mine:
        mib += sum(p.used_mib or 0 for p in unknown)
    if any(p.used_mib is None for p in theirs) or not (mine or any(p.used_mib is None for p in ours)):
        mib += unaccounted
    return Held(mib, tuple(sorted({_container_name(p) for p in theirs})))


def _is_ours(process: Process, project: str | None) -> bool:
    return process.container is not None and project is not None and process.container.project == project


def _container_name(process: Process) -> str:
    container = process.container
    if container is None:
        return f"process {process.pid}"
    if container.project is None:
        return f"container {container.id[:12]}"
    return f"{container.project}/{container.service}" if container.service else f"project {container.project}"
