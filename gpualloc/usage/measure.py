"""How much memory running workers use on their devices, now and at most over some time, against what they asked for."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Literal

from gpualloc.errors import Diagnostic, fail
from gpualloc.solve.demands import demand_of, hand_shares
from gpualloc.solve.devices import flatten
from gpualloc.solve.pins import resolve_pins

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpualloc.model import Inventory, Process
    from gpualloc.planning import Workspace
    from gpualloc.policy.filters import Demand, Device

State = Literal["running", "taken-to-be", "not-seen"]
"""Whether a worker's container holds its device; ``taken-to-be``: processes there are nobody's, so they are held to be
its own, since no other worker is pinned there; ``not-seen``: nothing of it is to be seen."""

Verdict = Literal["over", "tight", "generous", "fits", "unknown"]

_STEP_MIB = 256
_TIGHT, _GENEROUS = Fraction(9, 10), Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """Memory of one device in MiB, by one worker. ``declared_mib`` None: all of it is the worker's."""

    uuid: str
    index: int
    total_mib: int | None
    declared_mib: int | None
    used_mib: int | None
    peak_mib: int | None


@dataclass(frozen=True, slots=True)
class WorkerUsage:
    """One worker on its devices, with the ``memory:`` that would do for it, in MiB."""

    worker: str
    state: State
    devices: tuple[DeviceUsage, ...]
    suggested_mib: int | None

    @property
    def verdict(self) -> Verdict:
        """How what was asked for and what is used compare, on the device where that is worst."""
        known = [(d.declared_mib, d.peak_mib) for d in self.devices if d.declared_mib and d.peak_mib is not None]
        if not known:
            return "unknown"
        part = max(Fraction(peak, declared) for declared, peak in known)
        if part > 1:
            return "over"
        if part > _TIGHT:
            return "tight"
        suggested = self.suggested_mib or 0
        return "generous" if all(suggested < declared * _GENEROUS for declared, _ in known) else "fits"


@dataclass(frozen=True, slots=True)
class Usage:
    """Every worker that is pinned, over so many seconds and readings."""

    workers: tuple[WorkerUsage, ...]
    seconds: float
    readings: int


class Meter:
    """Adds up readings of a machine for the workers of a project. ``margin`` is added to a peak, as a part of it."""

    def __init__(self, workspace: Workspace, margin: Fraction) -> None:
        self._workspace = workspace
        self._margin = margin
        self._pins = resolve_pins(workspace.inventory, workspace.requests)
        self._peaks: dict[tuple[str, str], int] = {}
        self._now: dict[tuple[str, str], int | None] = {}
        self._states: dict[str, State] = {}
        self._readings = 0

    def take(self, inventory: Inventory) -> None:
        """Take one reading."""
        self._readings += 1
        self._now.clear()
        for service, worker, device in self._pinned(inventory):
            key = (worker, device.uuid)
            state, processes = self._processes(service, worker, device)
            if state != "not-seen" and self._states.get(worker) != "running":
                self._states[worker] = state
            used = _sum(processes) if state != "not-seen" else None
            self._now[key] = used
            if used is not None:
                self._peaks[key] = max(self._peaks.get(key, 0), used)

    def _pinned(self, inventory: Inventory) -> Iterator[tuple[str, str, Device]]:
        """Yield the service that each worker runs as, its name, and each of its devices that is there."""
        devices = self._devices(inventory)
        for role in self._workspace.demand.roles:
            together = role.shares and self._workspace.whole is None
            for worker in role.request.workers:
                for uuid in self._pins.by_worker.get(worker.name, ()):
                    if uuid in devices:
                        yield role.name if together else worker.name, worker.name, devices[uuid]

    def _devices(self, inventory: Inventory) -> dict[str, Device]:
        workspace = self._workspace
        found = flatten(inventory, workspace.policy, workspace.project.name, self._pins.uuids())
        return {device.uuid: device for device in found}

    def _processes(self, service: str, worker: str, device: Device) -> tuple[State, list[Process]]:
        """Return a worker's processes on a device: its container's, else nobody's where nobody else is pinned."""
        project = self._workspace.project.name
        here = [p for p in device.gpu.processes if device.mig is None or p.gi in {None, device.mig.gi}]
        own = [p for p in here if p.container and (p.container.project, p.container.service) == (project, service)]
        if own:
            return "running", own
        nobodys = [p for p in here if p.container is None]
        alone = [w for w, uuids in self._pins.by_worker.items() if device.uuid in uuids] == [worker]
        ours = any(p.container and p.container.project == project for p in here)
        return ("taken-to-be", nobodys) if nobodys and alone and not ours else ("not-seen", [])

    def result(self, seconds: float) -> Usage:
        """Return what the readings come to."""
        workspace = self._workspace
        devices = self._devices(workspace.inventory)
        shares = hand_shares(workspace.requests, self._pins)
        workers = []
        for request in workspace.requests:
            for worker in request.workers:
                pinned = [devices[u] for u in self._pins.by_worker.get(worker.name, ()) if u in devices]
                demand = demand_of(request, worker, workspace.policy, shares)
                used = tuple(self._usage(worker.name, device, demand) for device in pinned)
                if used:
                    state = self._states.get(worker.name, "not-seen")
                    workers.append(WorkerUsage(worker.name, state, used, self._suggestion(used)))
        return Usage(tuple(workers), seconds, self._readings)

    def _usage(self, worker: str, device: Device, demand: Demand) -> DeviceUsage:
        key = (worker, device.uuid)
        return DeviceUsage(
            device.uuid,
            device.gpu.index,
            device.total_mib,
            _declared(demand, device),
            self._now.get(key),
            self._peaks.get(key),
        )

    def _suggestion(self, used: Sequence[DeviceUsage]) -> int | None:
        """Return the largest peak with the margin, rounded up; None where nothing is known or nothing is used."""
        peak = max((device.peak_mib or 0 for device in used), default=0)
        return ceil(peak * (1 + self._margin) / _STEP_MIB) * _STEP_MIB or None


def _declared(demand: Demand, device: Device) -> int | None:
    if demand.exclusive:
        return demand.needs_mib
    if demand.memory_mib is not None:
        return demand.memory_mib
    return None if device.usable_mib is None or demand.share is None else int(device.usable_mib * demand.share)


def _sum(processes: Sequence[Process]) -> int | None:
    """Add up memory; None where some of it is not told."""
    amounts = [process.used_mib for process in processes]
    return None if any(amount is None for amount in amounts) else sum(amount or 0 for amount in amounts)


def unseen(usage: Usage) -> tuple[Diagnostic, ...]:
    """Return a warning where some workers are not to be seen."""
    names = [one.worker for one in usage.workers if one.state == "not-seen"]
    if not names:
        return ()
    summary = f"nothing is to be seen of {', '.join(names)} on the devices that the file gives"
    hint = "is it running, and from this file? gpualloc verify compares the two"
    return (Diagnostic("usage-not-seen", summary, None, hint, "warning"),)


def parse_margin(text: str) -> Fraction:
    """Return a margin as a part: ``20%`` is 1/5. Raises GpuallocError (``margin``)."""
    number = text.strip().removesuffix("%")
    if not number.isdigit() or not text.strip().endswith("%") or int(number) > 1000:
        raise fail("margin", f"--margin: not a percentage: {text}", None, "write it as 20%")
    return Fraction(int(number), 100)
