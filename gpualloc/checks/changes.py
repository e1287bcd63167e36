"""What changed between two readings of a machine, device by device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.model import Host
from gpualloc.policy.filters import busy_detail, gib
from gpualloc.solve.order import natural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gpualloc.model import Gpu, Inventory, Link, Request
    from gpualloc.policy.filters import Device


@dataclass(frozen=True, slots=True)
class Change:
    """One change: a code, the device's UUIDs (before and after, and of the MIG instances concerned), a sentence."""

    code: str
    uuids: tuple[str, ...]
    detail: str


def touched(change: Change, requests: Iterable[Request], pins: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the workers that a change touches, given the devices that each is pinned to.

    New numbers touch only those who are pinned by number.
    """
    written = {worker.name: worker.pinned or () for request in requests for worker in request.workers}
    found = [worker for worker, uuids in pins.items() if not set(uuids).isdisjoint(change.uuids)]
    if change.code == "renumbered":
        found = [w for w in found if any(not i.startswith(("GPU-", "MIG-")) for i in written.get(w, ()))]
    return tuple(found)


def changes(
    before: Inventory, after: Inventory, held: Sequence[Device] = (), holds: Sequence[Device] = ()
) -> tuple[Change, ...]:
    """Return what changed, host by host in the order of indices; with several hosts, each change names its host.

    ``held`` and ``holds`` are the devices before and after with what others hold of them; without, that is left out.
    Codes: ``gone``, ``new``, ``replaced``, ``renumbered``, ``unhealthy``, ``healthy``, ``degraded``, ``mig``,
    ``memory``, ``compute-mode``, ``links``, ``busy``, ``free``.
    """
    if len(before.hosts) == len(after.hosts) == 1:
        return tuple(_on_host(before.hosts[0], after.hosts[0], "", held, holds))
    old, new = ({host.name: host for host in inventory.hosts} for inventory in (before, after))
    found: list[Change] = []
    for name in sorted({*old, *new}, key=natural):
        was, now = (hosts.get(name) or Host(name, None, None, (), ()) for hosts in (old, new))
        mine = ([device for device in devices if device.host == name] for devices in (held, holds))
        found += _on_host(was, now, f" of {name}", *mine)
    return tuple(found)


def _on_host(
    before: Host, after: Host, of_host: str, held: Iterable[Device], holds: Iterable[Device]
) -> Iterator[Change]:
    old, new = _gpus(before), _gpus(after)
    names = {uuid: f"GPU {gpu.index}{of_host}" for uuid, gpu in [*old.items(), *new.items()]}
    yield from _comings(old, new, of_host)
    yield from _renumbered(old, new, of_host)
    for uuid, gpu in new.items():
        if uuid in old:
            yield from _same(old[uuid], gpu, names[uuid])
    yield from _holders(held, holds, of_host)
    yield from _links(before, after, old.keys() & new.keys(), names)


def _gpus(host: Host) -> dict[str, Gpu]:
    return {gpu.uuid: gpu for gpu in sorted(host.gpus, key=lambda gpu: gpu.index)}


def _uuids(gpu: Gpu) -> tuple[str, ...]:
    return (gpu.uuid, *(part.uuid for part in gpu.mig or ()))


def _comings(old: Mapping[str, Gpu], new: Mapping[str, Gpu], of_host: str) -> Iterator[Change]:
    gone = {uuid: gpu for uuid, gpu in old.items() if uuid not in new}
    came = {gpu.pci_bus_id: gpu for uuid, gpu in new.items() if uuid not in old}
    for gpu in gone.values():
        other = came.get(gpu.pci_bus_id)
        if other is not None:
            del came[gpu.pci_bus_id]
            detail = f"GPU {gpu.index}{of_host} was replaced: {gpu.uuid} ({gpu.name}) by {other.uuid} ({other.name})"
            yield Change("replaced", (*_uuids(gpu), *_uuids(other)), detail)
        else:
            yield Change("gone", _uuids(gpu), f"GPU {gpu.index}{of_host} ({gpu.uuid}, {gpu.name}) is gone")
    for gpu in came.values():
        yield Change("new", _uuids(gpu), f"GPU {gpu.index}{of_host} ({gpu.uuid}, {gpu.name}) is new")


def _renumbered(old: Mapping[str, Gpu], new: Mapping[str, Gpu], of_host: str) -> Iterator[Change]:
    moved = [gpu for uuid, gpu in new.items() if uuid in old and old[uuid].index != gpu.index]
    if moved:
        detail = ", ".join(f"GPU {gpu.index}{of_host} was GPU {old[gpu.uuid].index} before" for gpu in moved)
        yield Change("renumbered", tuple(gpu.uuid for gpu in moved), detail)


def _same(old: Gpu, new: Gpu, name: str) -> Iterator[Change]:
    own = (new.uuid,)
    yield from _health(old, new, name)
    if new.memory_total_mib != old.memory_total_mib:
        was, now = (gib(m) if m is not None else "unknown" for m in (old.memory_total_mib, new.memory_total_mib))
        yield Change("memory", own, f"{name} has {now} of memory, and had {was}")
    if new.compute_mode != old.compute_mode:
        yield Change(
            "compute-mode", own, f"the compute mode of {name} is {new.compute_mode}, and was {old.compute_mode}"
        )
    yield from _mig(old, new, name)


def _health(old: Gpu, new: Gpu, name: str) -> Iterator[Change]:
    before, now = ({issue.code: issue for issue in gpu.health} for gpu in (old, new))
    for code, issue in now.items():
        if code not in before:
            kind = "unhealthy" if issue.fatal else "degraded"
            yield Change(kind, _uuids(new), f"{name} is {kind}: {issue.detail} ({code})")
    mended = [code for code in before if code not in now]
    if mended and not any(issue.fatal for issue in now.values()):
        yield Change("healthy", _uuids(new), f"{name} is past its {', '.join(mended)}")


def _mig(old: Gpu, new: Gpu, name: str) -> Iterator[Change]:
    if old.mig is None and new.mig is None:
        return
    before, now = ({part.uuid for part in gpu.mig or ()} for gpu in (old, new))
    if before == now and (old.mig is None) == (new.mig is None):
        return
    uuids = (new.uuid, *sorted(before ^ now))
    if old.mig is None:
        yield Change("mig", uuids, f"MIG is on now on {name}, with {len(now)} instance{'' if len(now) == 1 else 's'}")
    elif new.mig is None:
        yield Change("mig", uuids, f"MIG is off now on {name}")
    else:
        detail = f"MIG was set up anew on {name}: {len(before - now)} gone, {len(now - before)} new"
        yield Change("mig", uuids, detail)


def _holders(held: Iterable[Device], holds: Iterable[Device], of_host: str) -> Iterator[Change]:
    before = {device.uuid: device for device in held}
    for device in holds:
        old = before.get(device.uuid)
        if old is None:
            continue
        part = "" if device.mig is None else f"MIG {device.mig.profile} of "
        name = f"{part}GPU {device.gpu.index}{of_host}"
        if device.busy and (not old.busy or device.holders != old.holders):
            yield Change("busy", (device.uuid,), f"{name} is busy: {busy_detail(device)}")
        elif old.busy and not device.busy:
            yield Change("free", (device.uuid,), f"{name} is free again")


def _links(before: Host, after: Host, both: Iterable[str], labels: Mapping[str, str]) -> Iterator[Change]:
    there = frozenset(both)
    old, new = _joined(before), _joined(after)
    for ends in sorted(old.keys() & new.keys(), key=sorted):
        if ends <= there and (old[ends].nvlink, old[ends].pcie) != (new[ends].nvlink, new[ends].pcie):
            a, b = sorted(ends, key=lambda uuid: natural(labels[uuid]))
            detail = f"{labels[a]} and {labels[b]} are joined by {_shown(new[ends])}, and were by {_shown(old[ends])}"
            yield Change("links", (a, b), detail)


def _joined(host: Host) -> dict[frozenset[str], Link]:
    return {frozenset((link.a, link.b)): link for link in host.links}


def _shown(link: Link) -> str:
    return f"NV{link.nvlink}" if link.nvlink else (link.pcie or "nothing known")
