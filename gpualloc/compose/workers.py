"""What dividing roles into a service for each worker takes: edits, containers' names, host ports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpualloc.compose.copies import worker_name
from gpualloc.compose.data import Tagged, at, escaped
from gpualloc.compose.document import Mapping as MappingNode
from gpualloc.compose.document import Scalar, resolve
from gpualloc.compose.merge import strip
from gpualloc.compose.obstacles import Neighbours, check_alike, check_obstacles, numbered, refused, services_of
from gpualloc.compose.ports import HostPorts, TakenPorts, host_ports, with_first
from gpualloc.compose.replicas import REPLICAS, Division
from gpualloc.compose.route import Edit
from gpualloc.compose.taken import removable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gpualloc.compose.layers import ComposeFile
    from gpualloc.compose.project import Project, Service
    from gpualloc.compose.reader import Role
    from gpualloc.compose.route import Path


@dataclass(frozen=True, slots=True)
class Fresh:
    """A worker that gets a service of its own: its container's name, and its ports where they differ from the first's.

    ``host``: the host ports, for the plan to tell.
    """

    number: int
    container: str | None
    ports: list[Any] | None
    host: tuple[HostPorts, ...]


def divisions_of(
    roles: Iterable[Role], project: Project, fresh: Mapping[str, list[Fresh]]
) -> dict[ComposeFile, list[Division]]:
    """Return what is to be done to the project's files for each worker to have a service there.

    ``fresh``: the workers that have none yet, by role. Raises GpuallocError (``replicas-split``) where that cannot be.
    """
    result: dict[ComposeFile, list[Division]] = {}
    around: Neighbours | None = None
    for role in roles:
        if not role.splits and not role.surplus and role.name not in fresh:
            continue
        around = around or Neighbours.of(project)
        check_obstacles(role, around, inside=True)
        service = role.service
        taken = taken_away(service) if role.splits else ()
        copies = {
            worker.number: tuple(_copy(service, worker_name(role.name, worker.number), worker))
            for worker in fresh.get(role.name, ())
            if worker.number != 1
        }
        wanted = tuple(worker.replica for worker in role.request.workers)
        edits = tuple(_first(role, taken)) if role.splits else ()
        result.setdefault(service.file, []).append(Division(role.name, wanted, edits, taken, copies))
    return result


def taken_away(service: Service) -> tuple[Path, ...]:
    """Return the entries with a service's number of containers that can be taken away, and not just set to 1."""
    document, name = service.file.document, service.name
    return tuple(path for path in REPLICAS if at(service.base, path) is None and removable(document, name, path))


def _first(role: Role, taken: tuple[Path, ...]) -> Iterator[Edit]:
    """Yield the edits that make a role's service its first worker's; they are undone by ``gpualloc reset``."""
    service = role.service
    for path in REPLICAS:
        if path not in taken and at(service.data, path) not in {None, 1}:
            yield Edit(service.name, path, 1)
    name = container_name(service, 1)
    if name is not None:
        yield Edit(service.name, ("container_name",), name)
    yield from _aliases(service, role.name)


def _aliases(service: Service, alias: str) -> Iterator[Edit]:
    """Let the role's name lead to a service, in every network it joins."""
    if service.data.get("network_mode") is not None:
        return
    networks = aliases(service, alias)
    own = service.node("networks")
    real = resolve(own) if own is not None else None
    if not isinstance(real, MappingNode) and real is not None:
        yield Edit(service.name, ("networks",), networks)
        return
    for name, entry in networks.items():
        before = at(service.data, ("networks", name, "aliases")) if isinstance(real, MappingNode) else None
        if entry["aliases"] != before:
            yield Edit(service.name, ("networks", name, "aliases"), entry["aliases"])


def aliases(service: Service, alias: str) -> dict[str, Any]:
    """Return, for every network a service joins, its aliases there with one more.

    Raises GpuallocError (``replicas-split``) for a network behind a variable.
    """
    networks = strip(service.data.get("networks")) or ["default"]
    named = networks if isinstance(networks, dict) else {str(name): None for name in networks}
    if any("$" in name for name in named):
        raise refused(service, "networks", "its network is named by a variable", "write the network's name")
    result: dict[str, Any] = {}
    for name, entry in named.items():
        own = entry.get("aliases") or [] if isinstance(entry, dict) else []
        result[name] = {"aliases": own if alias in own else [*own, alias]}
    return result


def _copy(service: Service, name: str, worker: Fresh) -> Iterator[Edit]:
    """Yield the edits that tell a copy of a service from it."""
    if worker.container is not None:
        yield Edit(name, ("container_name",), worker.container)
    if worker.ports is None:
        return
    merged = service.data.get("ports") or []
    if at(service.base, ("ports",)) is not None:
        yield Edit(name, ("ports",), Tagged("!override", escaped(worker.ports)))
        return
    for index, (old, new) in enumerate(zip(merged, worker.ports, strict=True)):
        if old == new:
            continue
        if isinstance(new, dict):
            yield Edit(name, ("ports", index, "published"), new["published"])
        else:
            yield Edit(name, ("ports", index), new)


def container_name(service: Service, number: int) -> str | None:
    """Return the container name of a worker, as it is to be written; None where the service has none.

    ``service``: the role's, or its first worker's.
    """
    if service.data.get("container_name") is None:
        return None
    node = service.node("container_name")
    real = resolve(node) if node is not None else None
    text = real.value if isinstance(real, Scalar) else escaped(str(service.data["container_name"]))
    return numbered(service, text, number)


# --------------------------------------------------------------------------------------------------------------------
# Host ports


def fresh_workers(roles: Iterable[Role], project: Project) -> dict[str, list[Fresh]]:
    """Return what each worker that has no service of its own yet is to have, by role; the first keeps its ports.

    Raises GpuallocError (``replicas-split``) where there is no port left, or none may be chosen.
    """
    taken: TakenPorts | None = None
    result: dict[str, list[Fresh]] = {}
    for role in roles:
        fresh = [m.worker.replica for m in role.members if not m.present] if role.splits or role.divided else []
        if not fresh:
            continue
        if taken is None:
            services = [(service.now or service.data).get("ports") or () for service in services_of(project)]
            taken = TakenPorts(ports for items in services for item in items if (ports := host_ports(item)))
        check_alike(role)
        result[role.name] = [_fresh(role, number, taken) for number in fresh]
    return result


def _fresh(role: Role, number: int, taken: TakenPorts) -> Fresh:
    service = role.service
    container = container_name(service, number)
    own: list[Any] = []
    host: list[HostPorts] = []
    for index, item in enumerate(service.data.get("ports") or () if number != 1 else ()):
        ports = host_ports(item)
        if ports is None or _enough(ports, len(role.members)):
            own.append(item)
            continue
        following = taken.next_free(ports)
        if following is None:
            why = f"there is no host port left for {worker_name(role.name, number)}"
            raise refused(service, "ports", why, "publish other ports, or none", index)
        taken.take(following)
        host.append(following)
        own.append(with_first(item, following.first))
    return Fresh(number, container, own if host else None, tuple(host))


def _enough(ports: HostPorts, workers: int) -> bool:
    """Return whether all workers can publish the same entry: a range of which the engine gives each what is free."""
    return ports.pool and ports.count >= workers


def orphans(roles: Iterable[Role]) -> Iterator[str]:
    """Yield the services that are none any more once roles are written as planned."""
    for role in roles:
        if role.splits and not role.divided:
            yield role.name
        yield from (service.name for service in role.surplus)
