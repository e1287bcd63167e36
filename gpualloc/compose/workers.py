"""What dividing a role into a service for each worker takes, and what stands against it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import Tagged, at, escaped, plain
from gpualloc.compose.document import Mapping, Scalar, resolve
from gpualloc.compose.merge import strip
from gpualloc.compose.ports import HostPorts, host_ports, next_free, with_first
from gpualloc.compose.references import KEYS, split_name
from gpualloc.compose.replicas import REPLICAS, Division, removable, worker_name
from gpualloc.compose.route import Edit
from gpualloc.errors import GpuallocError, fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gpualloc.compose.project import Project, Service
    from gpualloc.compose.reader import Role
    from gpualloc.compose.route import Path

_NAMESPACES = ("network_mode", "ipc", "pid")
_ADDRESSES = ("ipv4_address", "ipv6_address", "link_local_ips", "mac_address")
_OUTSIDE = "plan it with --override, which leaves the files as they are"


@dataclass(frozen=True, slots=True)
class Fresh:
    """A worker that gets a service of its own: its container's name, and its ports where they differ from the first's.

    ``host``: the host ports, for the plan to tell.
    """

    number: int
    container: str | None
    ports: list[Any] | None
    host: tuple[HostPorts, ...]


def division_of(role: Role, project: Project, workers: Iterable[Fresh]) -> Division | None:
    """Return what is to be done to a role's file for each worker to have a service there; None for nothing.

    ``workers``: those that have none yet.

    Raises GpuallocError (``replicas-split``) where that cannot be.
    """
    wanted = tuple(worker.replica for worker in role.request.workers)
    fresh = [n for n, member in zip(wanted, role.members, strict=True) if not member.present]
    if not role.splits and not fresh and not role.surplus:
        return None
    service = role.service
    _check_spread(role)
    check_free(role, project)
    check_named(role, project, [role.name] if role.splits else [one.name for one in role.surplus], inside=True)
    taken = taken_away(service) if role.splits else ()
    return Division(
        role.name,
        wanted,
        tuple(_first(role, taken)) if role.splits else (),
        taken,
        {
            worker.number: tuple(_copy(service, worker_name(role.name, worker.number), worker))
            for worker in workers
            if worker.number != 1
        },
    )


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
    if not isinstance(real, Mapping) and real is not None:
        yield Edit(service.name, ("networks",), networks)
        return
    for name, entry in networks.items():
        before = at(service.data, ("networks", name, "aliases")) if isinstance(real, Mapping) else None
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
    first = service.name.removesuffix("-1") != service.name and _is_first(service)
    return f"{text.removesuffix('-1') if first else text}-{number}"


def _is_first(service: Service) -> bool:
    return service.name in {worker_name(role, 1) for role in service.file.record.roles}


# --------------------------------------------------------------------------------------------------------------------
# Host ports


def fresh_workers(roles: Iterable[Role], project: Project) -> dict[str, list[Fresh]]:
    """Return what each worker that has no service of its own yet is to have, by role; the first keeps its ports.

    Raises GpuallocError (``replicas-split``) where there is no port left, or none may be chosen.
    """
    taken: list[HostPorts] | None = None
    result: dict[str, list[Fresh]] = {}
    for role in roles:
        fresh = [m.worker.replica for m in role.members if not m.present] if role.splits or role.divided else []
        if not fresh:
            continue
        if taken is None:
            services = [(s.now or s.data).get("ports") or () for s in _all_services(project)]
            taken = [ports for items in services for item in items if (ports := host_ports(item))]
        _check_fixed(role.service)
        _check_ports(role, fresh)
        result[role.name] = [_fresh(role, number, taken) for number in fresh]
    return result


def _fresh(role: Role, number: int, taken: list[HostPorts]) -> Fresh:
    service = role.service
    container = container_name(service, number)
    own: list[Any] = []
    host: list[HostPorts] = []
    for index, item in enumerate(service.data.get("ports") or () if number != 1 else ()):
        ports = host_ports(item)
        if ports is None or _enough(ports, len(role.members)):
            own.append(item)
            continue
        following = next_free(ports, taken)
        if following is None:
            why = f"there is no host port left for {worker_name(role.name, number)}"
            raise refused(service, "ports", why, "publish other ports, or none", index)
        taken.append(following)
        host.append(following)
        own.append(with_first(item, following.first))
    return Fresh(number, container, own if host else None, tuple(host))


def _all_services(project: Project) -> Iterator[Service]:
    yield from project.services
    names = {service.name for service in project.services}
    for numbers in project.copies.values():
        yield from (service for service in numbers.values() if service.name not in names)


def _enough(ports: HostPorts, workers: int) -> bool:
    """Return whether all workers can publish the same entry: a range of which the engine gives each what is free."""
    return ports.pool and ports.count >= workers


def _check_ports(role: Role, fresh: list[int]) -> None:
    service = role.service
    node = service.node("ports")
    items = strip(plain(node)) if node is not None else None
    for index, item in enumerate(items if isinstance(items, list) else ()):
        text = str(item.get("published") or "") if isinstance(item, dict) else str(item)
        if "$" in text:
            hint = "write the port itself, or publish none: other services reach the workers without"
            raise refused(service, "ports", "its host port is behind a variable", hint, index)
    published = [item for item in service.data.get("ports") or () if host_ports(item)]
    if role.ports == "error" and published and fresh != [1]:
        hint = "drop the host port, or let each worker have another: x-gpualloc: {ports: increment}"
        raise refused(service, "ports", "its x-gpualloc says ports: error, and it publishes some", hint)


# --------------------------------------------------------------------------------------------------------------------
# What stands against it


def refused(service: Service, path: str, why: str, hint: str, *steps: int) -> GpuallocError:
    """Return the error for a role that cannot be divided."""
    role = service.name
    summary = f"{role} cannot become a service for each worker: {why}"
    where = service.place(path, *steps) if path else service.place()
    return fail("replicas-split", summary, where, hint)


def _check_spread(role: Role) -> None:
    if len(role.service.parts) > 1:
        files = ", ".join(dict.fromkeys(file.shown for file in role.service.parts))
        raise refused(role.service, "", f"it is put together from several places in {files}", _OUTSIDE)


def check_free(role: Role, project: Project) -> None:
    """Raise GpuallocError (``replicas-split``) where a worker's name, or its container's, is another service's."""
    service = role.service
    others = {one.name: one for one in project.services}
    ours = {one.name for one in project.copies.get(role.name, {}).values()} | {service.name}
    containers = {str(o.data["container_name"]): o for o in others.values() if o.data.get("container_name")}
    for member in role.members:
        name = member.worker.name
        if member.present:
            continue
        if name in others and name not in ours:
            why = f"there is a service named {name} already"
            raise refused(service, "", why, f"give the other one another name: {others[name].place()}")
        if service.data.get("container_name") is not None:
            base = str(service.data["container_name"])
            text = f"{base.removesuffix('-1') if _is_first(service) else base}-{member.worker.replica}"
            if text in containers and containers[text].name not in ours:
                why = f"the container {text} is {containers[text].name}'s"
                raise refused(service, "container_name", why, "give one of them another name")


def check_named(role: Role, project: Project, names: list[str], *, inside: bool) -> None:
    """Raise GpuallocError (``replicas-split``) where another service needs one of these by a name it cannot go by.

    ``inside``: in the file itself, where ``extends`` must find it, and only lists in the same file are rewritten.
    """
    service = role.service
    container = service.data.get("container_name") if role.splits else None
    ours = {one.name for one in project.copies.get(role.name, {}).values()} | {service.name, *names}
    for other in _all_services(project):
        if other.name in ours:
            continue
        for key, text in _uses(other):
            if text in {f"service:{name}" for name in names} or (container and text == f"container:{container}"):
                why = f"{other.name} has {key}: {text}"
                raise refused(service, "", why, f"that names one container: let it name another ({other.place(key)})")
        if inside:
            _check_inside(service, other, names)


def _uses(service: Service) -> Iterator[tuple[str, str]]:
    """Yield each key of a service under which it names one container or service to join, or take from."""
    for key in _NAMESPACES:
        yield key, str(service.data.get(key) or "")
    for item in strip(service.data.get("volumes_from")) or ():
        yield "volumes_from", str(item).removesuffix(":ro").removesuffix(":rw")
    build = service.data.get("build")
    contexts = build.get("additional_contexts") if isinstance(build, dict) else None
    for text in contexts.values() if isinstance(contexts, dict) else contexts or ():
        yield "build", str(text).rpartition("=")[2]


def _check_inside(service: Service, other: Service, names: list[str]) -> None:
    extends = other.data.get("extends")
    extended = extends.get("service") if isinstance(extends, dict) else extends
    from_file = extends.get("file") if isinstance(extends, dict) else None
    home = other.file.source.path.parent / str(from_file) if from_file else other.file.source.path
    if extended in names and os.path.abspath(home) == os.path.abspath(service.file.source.path):  # noqa: PTH100 - as Compose does, links are not followed
        hint = f"move what they share into a service of its own that both extend, or {_OUTSIDE}"
        raise refused(service, "", f"{other.name} extends it", hint)
    if any(part is not service.file for part in other.parts):
        for key in KEYS:
            if any(name in names for name in named(other.data.get(key), key)):
                raise refused(service, "", f"{other.name} names it under {key}, in another file", _OUTSIDE)


def named(value: Any, key: str) -> Iterable[str]:
    """Return the services that a list under one of ``KEYS`` names."""
    items = strip(value) or ()
    return [str(item) if key == "depends_on" else split_name(str(item))[0] for item in items]


def _check_fixed(service: Service) -> None:
    if service.data.get("mac_address") is not None:
        raise refused(service, "mac_address", "its MAC address is fixed", "drop mac_address")
    networks = strip(service.data.get("networks"))
    for name, entry in networks.items() if isinstance(networks, dict) else ():
        fixed = next((k for k in _ADDRESSES if isinstance(entry, dict) and entry.get(k)), None)
        if fixed is not None:
            raise refused(service, "networks", f"it has a fixed address in {name}: {fixed}", f"drop {fixed}")


def orphans(roles: Iterable[Role]) -> Iterator[str]:
    """Yield the services that are none any more once roles are written as planned."""
    for role in roles:
        if role.splits and not role.divided:
            yield role.name
        yield from (service.name for service in role.surplus)
