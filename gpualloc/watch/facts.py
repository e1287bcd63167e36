"""What of a reading a plan rests on, fact by fact; and the machine that settled facts make up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpualloc.beside import with_promises
from gpualloc.checks.changes import Change, changes, touched
from gpualloc.model import Gpu, Host, Inventory, Link
from gpualloc.solve.demands import demand_of, hand_shares
from gpualloc.solve.devices import flatten
from gpualloc.solve.pins import resolve_pins
from gpualloc.watch.settle import Fact

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from gpualloc.beside import Promise
    from gpualloc.model import Policy, Request
    from gpualloc.policy.filters import Device
    from gpualloc.solve.pins import Pins

REMARKS = frozenset({"degraded"})
"""Facts that no plan rests on: they are told and nothing else."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The project, as far as it decides what matters about a machine."""

    project: str
    policy: Policy
    requests: tuple[Request, ...]
    promises: tuple[Promise, ...] = ()

    def pins(self, inventory: Inventory) -> Pins:
        """Return who is pinned where."""
        return resolve_pins(inventory, self.requests)

    def devices(self, inventory: Inventory) -> list[Device]:
        """Return the devices with what others hold of them."""
        taken = with_promises(inventory, self.promises)
        return flatten(taken, self.policy, self.project, self.pins(inventory).uuids())

    def changes(self, before: Inventory, after: Inventory) -> tuple[Change, ...]:
        """Return what changed between two readings."""
        return changes(before, after, self.devices(before), self.devices(after))

    def touched(self, change: Change, before: Inventory) -> tuple[str, ...]:
        """Return the workers that were pinned to a changed device."""
        return touched(change, self.requests, self.pins(before).by_worker)


def facts_of(inventory: Inventory, view: View) -> dict[Hashable, Fact]:
    """Return the facts of a reading, by name.

    Memory in use is none of them, which changes all the time: only whether others hold a device, and whether what is
    pinned to it still fits beside them.
    """
    devices = view.devices(inventory)
    pins = view.pins(inventory)
    wanted = _wanted(view, pins, devices)
    by_gpu: dict[str, list[Device]] = {}
    for device in devices:
        by_gpu.setdefault(device.gpu.uuid, []).append(device)
    facts: dict[Hashable, Fact] = {}
    for host in inventory.hosts:
        for gpu in host.gpus:
            for name, fact in _facts(gpu, by_gpu.get(gpu.uuid, ()), wanted):
                facts[host.name, gpu.uuid, name] = fact
        for link in host.links:
            a, b = sorted((link.a, link.b))
            facts[host.name, a, b, "link"] = Fact((link.nvlink, link.pcie))
    return facts


def _wanted(view: View, pins: Pins, devices: Sequence[Device]) -> dict[str, float]:
    """Return how much memory the workers pinned to each device ask for together, in MiB."""
    usable = {device.uuid: device.usable_mib for device in devices}
    shares = hand_shares(view.requests, pins)
    wanted: dict[str, float] = {}
    for request in view.requests:
        for worker in request.workers:
            demand = demand_of(request, worker, view.policy, shares)
            for uuid in pins.by_worker.get(worker.name, ()):
                part = demand.memory_mib or demand.needs_mib or 0
                if demand.share is not None:
                    part = max(part, int((usable.get(uuid) or 0) * demand.share))
                wanted[uuid] = wanted.get(uuid, 0) + part
    return wanted


def _facts(gpu: Gpu, devices: Sequence[Device], wanted: Mapping[str, float]) -> Iterator[tuple[str, Fact]]:
    fatal = tuple(issue for issue in gpu.health if issue.fatal)
    rest = tuple(issue for issue in gpu.health if not issue.fatal)
    held = tuple(
        (d.uuid, d.busy, d.holders, d.free_mib is not None and wanted.get(d.uuid, 0) > d.free_mib) for d in devices
    )
    yield "there", Fact(key=True)
    yield "index", Fact(gpu.index)
    yield "mig", Fact(gpu.mig)
    yield "memory", Fact((gpu.memory_total_mib, gpu.memory_reserved_mib))
    yield "mode", Fact((gpu.compute_mode, gpu.display_active))
    yield "fatal", Fact(frozenset(issue.code for issue in fatal), fatal)
    yield "degraded", Fact(frozenset(issue.code for issue in rest), rest)
    yield "held", Fact(held, (gpu.processes, gpu.memory_used_mib))


class Picture:
    """The machine that settled facts make up, with all that is not among them as it was last seen."""

    def __init__(self) -> None:
        self._hosts: dict[str, Host] = {}
        self._gpus: dict[tuple[str, str], Gpu] = {}
        self._source = "nvml"

    def see(self, inventory: Inventory, settled: Mapping[Hashable, Fact]) -> None:
        """Remember what was seen last of every GPU that is there or was."""
        self._source = inventory.source
        self._hosts |= {host.name: replace(host, gpus=(), links=()) for host in inventory.hosts}
        self._gpus |= {(host.name, gpu.uuid): gpu for host in inventory.hosts for gpu in host.gpus}
        here = {(host.name, gpu.uuid) for host in inventory.hosts for gpu in host.gpus}
        for name in [n for n in self._gpus if n not in here and (*n, "there") not in settled]:
            del self._gpus[name]

    def inventory(self, settled: Mapping[Hashable, Fact]) -> Inventory:
        """Return the machine as it has settled."""
        gpus: dict[str, list[Gpu]] = {}
        for (host, uuid), seen in self._gpus.items():
            if (host, uuid, "there") in settled:
                gpus.setdefault(host, []).append(_as_settled(seen, host, settled))
        hosts = [
            replace(
                self._hosts[name],
                gpus=tuple(sorted(there, key=lambda gpu: gpu.index)),
                links=tuple(_links(name, {gpu.uuid for gpu in there}, settled)),
            )
            for name, there in gpus.items()
        ]
        return Inventory(self._source, tuple(hosts))


def _as_settled(seen: Gpu, host: str, settled: Mapping[Hashable, Fact]) -> Gpu:
    def fact(name: str, otherwise: Fact) -> Fact:
        return settled.get((host, seen.uuid, name), otherwise)

    known: dict[str, Any] = {"index": fact("index", Fact(seen.index)).key, "mig": fact("mig", Fact(seen.mig)).key}
    memory: Any = fact("memory", Fact((seen.memory_total_mib, seen.memory_reserved_mib))).key
    mode: Any = fact("mode", Fact((seen.compute_mode, seen.display_active))).key
    processes, used = fact("held", Fact(None, (seen.processes, seen.memory_used_mib))).payload
    return replace(
        seen,
        **known,
        memory_total_mib=memory[0],
        memory_reserved_mib=memory[1],
        compute_mode=mode[0],
        display_active=mode[1],
        health=(*fact("fatal", Fact(None, ())).payload, *fact("degraded", Fact(None, ())).payload),
        processes=processes,
        memory_used_mib=used,
    )


def _links(host: str, there: set[str], settled: Mapping[Hashable, Fact]) -> Iterator[Link]:
    for name, fact in settled.items():
        if isinstance(name, tuple) and len(name) == 4 and name[0] == host and {name[1], name[2]} <= there:
            key: Any = fact.key
            yield Link(name[1], name[2], *key)
