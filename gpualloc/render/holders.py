"""What holds each device of a host now, as places that the map can draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.render.places import Held, Place, Stay, arranged, parts_of

if TYPE_CHECKING:
    from gpualloc.model import Container, Gpu, Host, MigInstance, Process
    from gpualloc.render.places import HostPlaces

CONTAINER_ID = 12
"""So many digits of a container's id are enough, as in ``docker ps``."""

NAMED = 3
"""So many processes that are in no known container are named on a device; of more, only how many there are."""


LEAST = 0.01
"""Memory that no known process holds is drawn from this part of a device on: drivers keep a little for themselves."""


def places_now(host: Host) -> HostPlaces:
    """Return a host's devices with what holds them. A holder's part is the memory that its processes use."""
    return arranged(host, _place)


def holder_name(container: Container) -> str:
    """Return the name of a container: ``project/service``, as far as it has them."""
    if container.project and container.service:
        return f"{container.project}/{container.service}"
    return f"container {container.service or container.id[:CONTAINER_ID]}"


def _place(gpu: Gpu, instance: MigInstance | None) -> Place:
    uuid = instance.uuid if instance else gpu.uuid
    total = instance.memory_total_mib if instance else gpu.memory_total_mib
    holders = _holders([p for p in gpu.processes if instance is None or p.gi in {None, instance.gi}])
    known = sum(mib for mib in holders.values() if mib is not None)
    unclear = None in holders.values()
    # What is used of one instance is told by processes alone: NVML's number is of the whole GPU.
    used = gpu.memory_used_mib if instance is None else None if unclear else known
    size = total or 1
    rest = max((used or 0) - known, 0) / size
    if unclear:  # then the rest is theirs
        rest, theirs = 0.0, known / size + rest
    else:
        rest, theirs = rest if rest >= LEAST else 0.0, known / size
    parts = parts_of(list(holders.values()), size, min(theirs, 1.0 - min(rest, 1.0)))
    stays = tuple(
        Stay(name, name, None, mib, exclusive=False, reason="", part=width if total else 0.0)
        for (name, mib), width in zip(holders.items(), parts, strict=True)
    )
    held = Held(round(rest * size), ("unknown",)) if rest and total else Held(0)
    return Place(uuid, gpu, instance, held, min(rest, 1.0) if total else 0.0, stays, used)


def _holders(processes: list[Process]) -> dict[str, int | None]:
    """Return what each holder uses, in MiB; None where that is not known of one of its processes."""
    loose = [process for process in processes if process.container is None]
    found: dict[str, int | None] = {}
    for process in processes:
        if process.container is not None:
            name = holder_name(process.container)
        elif len(loose) > NAMED:
            name = f"{len(loose)} processes"
        else:
            name = f"pid {process.pid}"
        before = found.get(name, 0)
        found[name] = None if before is None or process.used_mib is None else before + process.used_mib
    return found
