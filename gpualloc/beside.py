"""Other projects on the same host: what their compose files pin is taken, whether it runs or not."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

from gpualloc.compose.forms import forms_of, pinned
from gpualloc.compose.project import ProjectOptions, load_project
from gpualloc.compose.reader import read_demand, replicas_of
from gpualloc.errors import Diagnostic
from gpualloc.inventory.names import Names
from gpualloc.model import Container, Process
from gpualloc.solve.demands import demand_of, hand_shares
from gpualloc.solve.devices import flatten
from gpualloc.solve.pins import resolve_pins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from fractions import Fraction
    from pathlib import Path

    from gpualloc.compose.project import Project, Service
    from gpualloc.errors import Place
    from gpualloc.model import Gpu, Inventory, MigInstance, Policy


@dataclass(frozen=True, slots=True)
class Promise:
    """A device that another project's file pins for a service of its own.

    ``memory_mib`` is what it takes of it, None for all of it. ``project`` is never the name of the project at hand.
    """

    project: str
    service: str
    uuid: str
    memory_mib: int | None
    where: Place


def promises(
    beside: Sequence[str], inventory: Inventory, policy: Policy, own: Project, environ: Mapping[str, str], cwd: Path
) -> tuple[tuple[Promise, ...], tuple[Diagnostic, ...]]:
    """Return what other projects' files pin of this inventory, and warnings about those files.

    Each of ``beside`` is a compose file, several joined by the path separator (as in ``COMPOSE_FILE``), or a folder. Of
    the policy only how devices are shared counts: what its roles say and what it ignores is about the project at hand.

    Raises GpuallocError if one of them cannot be read.
    """
    policy = replace(policy, roles=(), ignore=())
    # the name, the files and the profiles that these variables give are those of the project at hand
    environ = {name: value for name, value in environ.items() if not name.startswith("COMPOSE_")}
    found: list[Promise] = []
    warnings: list[Diagnostic] = []
    for name in beside:
        several = tuple(name.split(os.pathsep))
        folder = len(several) == 1 and (cwd / name).is_dir()
        files = ProjectOptions(profiles=("*",)) if folder else ProjectOptions(several, profiles=("*",))
        project = load_project(files, environ, cwd / name if folder else cwd)
        warnings += project.warnings
        called = project.name if project.name != own.name else f"{project.name} ({name})"
        found += _promises(project, called, inventory, policy, warnings)
    return tuple(found), tuple(warnings)


def _promises(
    project: Project, called: str, inventory: Inventory, policy: Policy, warnings: list[Diagnostic]
) -> list[Promise]:
    demand = read_demand(project, policy)
    requests = [role.request for role in demand.roles]
    shares = hand_shares(requests, resolve_pins(inventory, requests))
    demands = {w.name: demand_of(r, w, policy, shares) for r in requests for w in r.workers}
    demands |= {r.role: demands[r.workers[0].name] for r in requests}
    watching = {observer.service.name for observer in demand.observers}
    usable = {device.uuid: device.usable_mib for device in flatten(inventory, policy, None, frozenset())}
    names = Names(gpu for host in inventory.hosts for gpu in host.gpus)
    found = []
    for service in project.services:
        if service.name in watching or replicas_of(service) == 0:
            continue
        forms = forms_of(service, service.now)
        ids = pinned(forms)
        where = service.place(*(forms[0].path if forms else ()), current=True)
        if ids is None:
            if forms:
                warnings.append(_not_pinned(service, where))
            continue
        uuids = {name: names.resolve(name) for name in ids}
        unknown = [name for name, uuid in uuids.items() if uuid is None]
        if unknown:
            warnings.append(_unknown(service, unknown, where))
        asked = demands.get(service.name)
        for uuid in dict.fromkeys(uuid for uuid in uuids.values() if uuid is not None):
            alone = asked is None or asked.exclusive
            memory = None if asked is None or alone else _memory(asked.memory_mib, asked.share, usable.get(uuid))
            found.append(Promise(called, service.name, uuid, memory, where))
    return found


def _memory(named: int | None, share: Fraction | None, usable: Fraction | None) -> int | None:
    if named is not None or share is None or usable is None:
        return named
    return ceil(usable * share)


def _not_pinned(service: Service, where: Place) -> Diagnostic:
    summary = f"{service.name} asks for GPUs and is not pinned: nothing is set aside for it"
    return Diagnostic("beside-not-pinned", summary, where, "run gpualloc apply on that project", severity="warning")


def _unknown(service: Service, ids: Sequence[str], where: Place) -> Diagnostic:
    summary = f"{service.name} is pinned to {', '.join(ids)}, which is not here"
    return Diagnostic("beside-lost-device", summary, where, "run gpualloc apply on that project", severity="warning")


def with_promises(inventory: Inventory, taken: Sequence[Promise]) -> Inventory:
    """Return the inventory with what is promised as held, by the services it is promised to.

    What one of them uses already counts only as far as it exceeds its promise.
    """
    if not taken:
        return inventory
    hosts = tuple(
        replace(host, gpus=tuple(_held(gpu, [p for p in taken if _concerns(p, gpu)]) for gpu in host.gpus))
        for host in inventory.hosts
    )
    return replace(inventory, hosts=hosts)


def _concerns(promise: Promise, gpu: Gpu) -> bool:
    return promise.uuid == gpu.uuid or any(promise.uuid == part.uuid for part in gpu.mig or ())


def _held(gpu: Gpu, taken: Sequence[Promise]) -> Gpu:
    parts = {part.uuid: part for part in gpu.mig or ()}
    processes = [_process(gpu, parts.get(promise.uuid), promise) for promise in taken]
    return replace(gpu, processes=(*gpu.processes, *processes)) if processes else gpu


def _process(gpu: Gpu, part: MigInstance | None, promise: Promise) -> Process:
    total = part.memory_total_mib if part else gpu.memory_total_mib
    memory = promise.memory_mib if promise.memory_mib is not None else total
    gi = part.gi if part else None
    if memory is not None:
        used = sum(
            process.used_mib or 0
            for process in gpu.processes
            if process.container is not None
            and (process.container.project, process.container.service) == (promise.project, promise.service)
            and gi in {None, process.gi}
        )
        memory = max(memory - used, 0)
    # no process of the system has pid 0
    return Process(0, memory, Container("", promise.project, promise.service), gi)
