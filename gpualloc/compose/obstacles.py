"""What stands against dividing a role into a service for each worker: names others hold it by, and fixed addresses."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpualloc.compose.data import plain
from gpualloc.compose.merge import strip
from gpualloc.compose.ports import host_ports
from gpualloc.compose.references import KEYS, split_name
from gpualloc.errors import GpuallocError, fail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpualloc.compose.project import Project, Service
    from gpualloc.compose.reader import Role

_NAMESPACES = ("network_mode", "ipc", "pid")
_ADDRESSES = ("ipv4_address", "ipv6_address", "link_local_ips", "mac_address")
_OUTSIDE = "plan it with --override, which leaves the files as they are"


def refused(service: Service, path: str, why: str, hint: str, *steps: int) -> GpuallocError:
    """Return the error for a role that cannot be divided."""
    summary = f"{service.name} cannot become a service for each worker: {why}"
    where = service.place(path, *steps) if path else service.place()
    return fail("replicas-split", summary, where, hint)


@dataclass(slots=True)
class Neighbours:
    """The services of a project by their names, their containers' names, and what they need of others.

    ``joined``: who joins, or takes from, ``service:NAME`` or ``container:NAME``, and under which key. ``extended``: who
    extends a service, by its file and name. ``listed``: who lists a service, and under which key.
    """

    named: dict[str, Service] = field(default_factory=dict)
    containers: dict[str, Service] = field(default_factory=dict)
    joined: dict[str, list[tuple[Service, str]]] = field(default_factory=lambda: defaultdict(list))
    extended: dict[tuple[str, str], list[Service]] = field(default_factory=lambda: defaultdict(list))
    listed: dict[str, list[tuple[Service, str]]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, project: Project) -> Neighbours:
        """Look at every service of a project."""
        result = cls()
        for service in services_of(project):
            result.named[service.name] = service
            container = service.data.get("container_name")
            if container is not None:
                result.containers.setdefault(str(container), service)
            for key, text in _joins(service):
                result.joined[text].append((service, key))
            for file, name in service.inherits():
                result.extended[_path(file.source.path), name].append(service)
            for key in KEYS:
                for item in strip(service.data.get(key)) or ():
                    name = str(item) if key == "depends_on" else split_name(str(item))[0]
                    result.listed[name].append((service, key))
        return result


def services_of(project: Project) -> Iterator[Service]:
    """Yield every service of a project, with those that only an override file has."""
    yield from project.services
    names = {service.name for service in project.services}
    for numbers in project.copies.values():
        yield from (service for service in numbers.values() if service.name not in names)


def _joins(service: Service) -> Iterator[tuple[str, str]]:
    """Yield each key of a service under which it names one container or service to join, or take from."""
    for key in _NAMESPACES:
        if service.data.get(key):
            yield key, str(service.data[key])
    for item in strip(service.data.get("volumes_from")) or ():
        if str(item).startswith("container:"):
            yield "volumes_from", ":".join(str(item).split(":")[:2])
    build = service.data.get("build")
    contexts = build.get("additional_contexts") if isinstance(build, dict) else None
    for text in contexts.values() if isinstance(contexts, dict) else contexts or ():
        yield "build", str(text).rpartition("=")[2]


def _path(path: os.PathLike[str]) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - as Compose does, links are not followed


def check_obstacles(role: Role, around: Neighbours, *, inside: bool) -> None:
    """Raise GpuallocError (``replicas-split``) where a role's services cannot come or go.

    ``inside``: in the file itself, which must hold all of the role, where ``extends`` must find it, and where only
    lists in the same file are rewritten.
    """
    service = role.service
    if inside and len(service.parts) > 1:
        files = ", ".join(dict.fromkeys(part.file.shown for part in service.parts))
        raise refused(service, "", f"it is put together from several places in {files}", _OUTSIDE)
    ours = {member.service.name for member in role.members} | {one.name for one in role.surplus} | {service.name}
    _check_free(role, around, ours)
    leaving = [service] if role.splits else list(role.surplus)
    for one in leaving:
        _check_joined(one, around, ours)
        if inside:
            _check_inside(one, around, ours)


def _check_free(role: Role, around: Neighbours, ours: set[str]) -> None:
    service = role.service
    for member in role.members:
        name = member.worker.name
        if member.present:
            continue
        if name in around.named and name not in ours:
            why = f"there is a service named {name} already"
            raise refused(service, "", why, f"give the other one another name: {around.named[name].place()}")
        if service.data.get("container_name") is not None:
            text = numbered(service, str(service.data["container_name"]), member.worker.replica)
            holder = around.containers.get(text)
            if holder is not None and holder.name not in ours:
                why = f"the container {text} is {holder.name}'s"
                raise refused(service, "container_name", why, "give one of them another name")


def numbered(service: Service, container: str, number: int) -> str:
    """Return the container name of a worker. ``container``: the role's, or the first worker's, as ``service`` is."""
    first = any(service.name == f"{role}-1" for role in service.file.record.roles)
    return f"{container.removesuffix('-1') if first else container}-{number}"


def _check_joined(service: Service, around: Neighbours, ours: set[str]) -> None:
    container = service.data.get("container_name")
    for text in (f"service:{service.name}", f"container:{container}"):
        for other, key in around.joined.get(text, ()):
            if other.name not in ours:
                why = f"{other.name} has {key}: {text}"
                hint = f"that names one container: let it name another ({other.place(key)})"
                raise refused(service, "", why, hint)


def _check_inside(service: Service, around: Neighbours, ours: set[str]) -> None:
    for other in around.extended.get((_path(service.file.source.path), service.name), ()):
        if other.name not in ours:
            hint = f"move what they share into a service of its own that both extend, or {_OUTSIDE}"
            raise refused(service, "", f"{other.name} extends it", hint)
    for other, key in around.listed.get(service.name, ()):
        if any(part.file is not service.file for part in other.parts):
            raise refused(service, "", f"{other.name} names it under {key}, in another file", _OUTSIDE)


def check_alike(role: Role) -> None:
    """Raise GpuallocError (``replicas-split``) where new workers of a role cannot have what the first has."""
    service = role.service
    if service.data.get("mac_address") is not None:
        raise refused(service, "mac_address", "its MAC address is fixed", "drop mac_address")
    networks = strip(service.data.get("networks"))
    for name, entry in networks.items() if isinstance(networks, dict) else ():
        fixed = next((k for k in _ADDRESSES if isinstance(entry, dict) and entry.get(k)), None)
        if fixed is not None:
            raise refused(service, "networks", f"it has a fixed address in {name}: {fixed}", f"drop {fixed}")
    node = service.node("ports")
    items = strip(plain(node)) if node is not None else None
    for index, item in enumerate(items if isinstance(items, list) else ()):
        text = str(item.get("published") or "") if isinstance(item, dict) else str(item)
        if "$" in text:
            hint = "write the port itself, or publish none: other services reach the workers without"
            raise refused(service, "ports", "its host port is behind a variable", hint, index)
    several = any(not member.present and member.worker.replica > 1 for member in role.members)
    if role.ports == "error" and several and any(host_ports(item) for item in service.data.get("ports") or ()):
        hint = "drop the host port, or let each worker have another: x-gpualloc: {ports: increment}"
        raise refused(service, "ports", "its x-gpualloc says ports: error, and it publishes some", hint)
