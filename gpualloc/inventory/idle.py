"""Containers hold the devices that Docker gave them, even while no process of theirs uses one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gpualloc.inventory.names import Names
from gpualloc.inventory.observers import observes
from gpualloc.model import Process

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpualloc.inventory.containers import Running
    from gpualloc.model import Gpu


def with_holders(gpus: Sequence[Gpu], running: Iterable[Running]) -> tuple[Gpu, ...]:
    """Add the main process of each container, using no memory, to the devices it was given and does not use now.

    Monitors, known by their image, hold nothing. Ids that name no device of this host are passed over.
    """
    names: Names | None = None
    idle: dict[str, list[Process]] = {}
    for one in running:
        if observes(one.image) or not (one.ids or one.first):
            continue
        names = names or Names(gpus)
        for gpu in gpus:
            idle.setdefault(gpu.uuid, []).extend(_on(gpu, one, names))
    return tuple(_with(gpu, idle[gpu.uuid]) if idle.get(gpu.uuid) else gpu for gpu in gpus)


def _with(gpu: Gpu, idle: Iterable[Process]) -> Gpu:
    seen = {(p.container.id, p.gi) for p in gpu.processes if p.container is not None}
    new = [p for p in idle if p.container is not None and (p.container.id, p.gi) not in seen]
    return replace(gpu, processes=(*gpu.processes, *new)) if new else gpu


def _on(gpu: Gpu, one: Running, names: Names) -> list[Process]:
    """Return what a container holds of a GPU: all of it, some of its MIG instances, or nothing."""
    wanted = {i.rpartition("=")[2] for i in one.ids or ()}
    if "all" in wanted or one.first == -1 or gpu.index < one.first:
        return [Process(one.pid, 0, one.container)]
    uuids = {names.resolve(name) for name in wanted}
    if gpu.uuid in uuids:
        return [Process(one.pid, 0, one.container)]
    instances = {part.gi for part in gpu.mig or () if part.uuid in uuids}
    return [Process(one.pid, 0, one.container, gi) for gi in sorted(instances)]
