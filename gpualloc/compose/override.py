"""The override form: a small file with only the GPU facts, to be laid over the project's own files.

A role with several workers becomes a service for each there: each extends the role's service, which itself is reset.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gpualloc.compose import emit
from gpualloc.compose.data import Tagged, at, escaped, lookup, plain
from gpualloc.compose.document import Mapping
from gpualloc.compose.merge import merge_service, strip, variables
from gpualloc.compose.obstacles import Neighbours, check_obstacles, refused
from gpualloc.compose.record import KEY, MARK, OVERRIDE, VERSION
from gpualloc.compose.references import KEYS, split_name
from gpualloc.compose.replicas import REPLICAS
from gpualloc.compose.workers import aliases, container_name
from gpualloc.errors import GpuallocError, Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.layers import ComposeFile
    from gpualloc.compose.patch import Edit
    from gpualloc.compose.project import Project, Service
    from gpualloc.compose.reader import Demand, Member, Role
    from gpualloc.compose.route import Path
    from gpualloc.compose.workers import Fresh

STYLE = emit.Style(step=2, dash=2, newline="\n")


def override_text(
    demand: Demand, project: Project, edits: Iterable[Edit], fresh: MappingType[str, list[Fresh]], shown: str
) -> str | None:
    """Return the override file for these edits, all of them made with ``whole``; None where there is nothing to write.

    ``fresh``: the workers that have no service of their own yet, by role. What the file has for services that are left
    alone stays. Raises GpuallocError (``replicas-split``) for a role that cannot be divided.
    """
    services = override_services(demand, project, edits, fresh)
    if not services:
        return None
    files = [file.shown for file in project.files]
    command = " ".join(f"-f {name}" for name in (*files, shown))
    lines = [
        f"{MARK}{OVERRIDE}. It is rewritten whole; change requests in {', '.join(files)}.",
        f"# docker compose {command} up -d    (Compose 2.24.4 or newer, for !override)",
        *emit.entry_lines("services", services, STYLE),
    ]
    divided = [role for role in demand.roles if role.splits]
    counts = {role.name: {"replicas": len(role.members)} for role in divided if len(role.members) != _written(role)}
    if project.override is not None:
        known = project.override.record.roles
        counts |= {name: {"replicas": known[name].replicas} for name in _left_divided(demand, project) if name in known}
    if counts:
        lines += emit.entry_lines(KEY, {"version": VERSION, "roles": counts, "services": {}}, STYLE)
    return "\n".join(lines) + "\n"


def override_services(
    demand: Demand, project: Project, edits: Iterable[Edit], fresh: MappingType[str, list[Fresh]]
) -> dict[str, Any]:
    """Return the services of an override file, in the project's order. Raises GpuallocError (``replicas-split``)."""
    divided = [role for role in demand.roles if role.splits]
    _check(demand.roles, project)
    workers = {role.name: [member.worker.name for member in role.members] for role in divided}
    workers |= _left_divided(demand, project)
    services = _left(demand, project, workers)
    for role in divided:
        own = {worker.number: worker for worker in fresh.get(role.name, ())}
        for member in role.members:
            services[member.worker.name] = _copy(role, member, own.get(member.worker.replica), project)
            services[member.worker.name] |= _renamed(role.service, workers)
    for edit in edits:
        put(services.setdefault(edit.service, {}), edit.path, edit.value)
    for service in project.services:
        if service.name in workers:
            services[service.name] = Tagged("!reset", None)
        elif names := _renamed(service, workers):
            services[service.name] = services.get(service.name, {}) | names
    order = [name for service in project.services for name in (*workers.get(service.name, ()), service.name)]
    return {name: services[name] for name in order if name in services}


def _left_divided(demand: Demand, project: Project) -> dict[str, list[str]]:
    """Return the workers of the roles that are left alone, and divided in the override file as it is."""
    inside = {service.name for service in project.services}
    return {
        role: [service.name for _, service in sorted(numbers.items())]
        for role, numbers in project.copies.items()
        if role in inside and all(service.name in demand.left for service in numbers.values())
    }


def _left(demand: Demand, project: Project, workers: MappingType[str, list[str]]) -> dict[str, Any]:
    """Return what the override file has for the services that are left alone, with the workers that there are now."""
    if project.override is None:
        return {}
    root = project.override.current.roots[-1]
    found = {name: lookup(root, ("services", name)) for name in demand.left}
    result: dict[str, Any] = {}
    for name, node in found.items():
        data = plain(node) if node is not None else None
        if isinstance(data, dict):
            result[name] = {k: v for k, v in data.items() if not (k in KEYS and isinstance(v, Tagged))}
    for role, numbers in project.copies.items():
        for service in numbers.values():
            if service.name in result and role in workers:
                result[service.name] |= _renamed(service, workers)
    return {name: data for name, data in result.items() if data}


def _check(roles: Iterable[Role], project: Project) -> None:
    around: Neighbours | None = None
    for role in roles:
        if role.splits:
            around = around or Neighbours.of(project)
            check_obstacles(role, around, inside=False)
        elif role.surplus or any(not member.present for member in role.members):
            hint = "change its number without --override"
            raise refused(role.service, "", "it is divided in its own file already", hint)


def put(service: dict[str, Any], path: Path, value: Any) -> None:
    """Give a service of the override file a value at a path."""
    node = service
    for step in path[:-1]:
        inner = node.get(str(step))
        if isinstance(inner, Tagged):
            inner = inner.value if inner.tag == "!override" else None
        elif path[:1] == ("environment",) and inner is not None:
            node[str(step)] = inner = variables(inner)
        if not isinstance(inner, dict):
            node[str(step)] = inner = {}
        node = inner
    node[str(path[-1])] = value


def _written(role: Role) -> int:
    """Return the number of containers that a role's own files give it."""
    found = [at(role.service.data, path) for path in REPLICAS]
    return int(next((number for number in found if number is not None), 1))


def _copy(role: Role, member: Member, fresh: Fresh | None, project: Project) -> dict[str, Any]:
    """Return what makes a worker's service of a role's, but for its GPUs."""
    service = role.service
    first, rest = _parts(service)
    file = os.path.relpath(first.source.path, project.directory)
    result: dict[str, Any] = {"extends": {"service": role.name, "file": file.replace("$", "$$")}} | rest
    name = container_name(service, member.worker.replica)
    if name is not None:
        result["container_name"] = name
    ports = fresh.ports if fresh is not None else strip(member.service.now.get("ports"))
    if ports is not None and ports != service.data.get("ports"):
        result["ports"] = Tagged("!override", escaped(ports))
    if service.data.get("network_mode") is None:
        _join(service, role.name, result)
    for path in REPLICAS:
        if at(service.data, path) is not None:
            put(result, path, Tagged("!reset", None))
    return result


def _join(service: Service, role: str, result: dict[str, Any]) -> None:
    networks = strip(result.get("networks"))
    result["networks"] = dict(networks if isinstance(networks, dict) else dict.fromkeys(map(str, networks or ())))
    for network, entry in aliases(service, role).items():
        put(result, ("networks", network, "aliases"), entry["aliases"])


def _parts(service: Service) -> tuple[ComposeFile, dict[str, Any]]:
    """Return the first file that has a service, for ``extends`` to name, and what the others lay over it, as written.

    Raises GpuallocError (``replicas-split``) for what cannot be told so.
    """
    first, *others = (part.file for part in service.parts)
    rest: dict[str, Any] = {}
    for number, file in enumerate(others):
        nodes = [lookup(root, ("services", service.name)) for root in file.document.roots if isinstance(root, Mapping)]
        node = next((node for node in reversed(nodes) if node is not None), None)
        data = plain(node) if node is not None else None
        own = dict(data) if isinstance(data, dict) else {}
        own.pop(KEY, None)
        several = [part.file for part in service.parts].count(file) > 1
        if several or "extends" in own or (number and any(isinstance(value, Tagged) for value in own.values())):
            why = f"what {file.shown} says of it cannot be told in another file"
            raise refused(service, "", why, "let each file have it once, without extends")
        rest = merge_service(rest, own, service.place()) if number else own
    return first, rest


def _renamed(service: Service, workers: MappingType[str, list[str]]) -> dict[str, Any]:
    """Return the lists in which a service names roles that are divided, with their workers instead."""
    result: dict[str, Any] = {}
    for key in KEYS:
        value = strip(service.data.get(key))
        if isinstance(value, dict) and workers.keys() & value.keys():
            named = {name: entry for old, entry in value.items() for name in workers.get(old, [old])}
            result[key] = Tagged("!override", named)
        elif isinstance(value, list):
            items = [new for item in value for new in _items(str(item), key, workers)]
            if items != value:
                result[key] = Tagged("!override", items)
    return result


def _items(item: str, key: str, workers: MappingType[str, list[str]]) -> list[str]:
    name, rest = (item, "") if key == "depends_on" else split_name(item)
    foreign = key == "volumes_from" and name == "container"
    return [item] if foreign else [f"{new}{rest}" for new in workers.get(name, [name])]


def check_ours(text: str, shown: str) -> None:
    """Raise GpuallocError (``override-foreign``) for a file that gpualloc has not written, and so must not rewrite."""
    if not text.startswith(f"{MARK}{OVERRIDE}"):
        raise _foreign(shown)


def _foreign(shown: str) -> GpuallocError:
    hint = "name a new file, or remove this one if nothing in it is needed"
    return fail(
        "override-foreign",
        "gpualloc has not made this file as such, and would rewrite it whole",
        Place(shown, 1, 1),
        hint,
    )
