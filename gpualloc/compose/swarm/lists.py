"""Ports, mounts, networks, secrets and configs of a service, as a stack file has them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gpualloc.compose.ports import one_of_pool
from gpualloc.compose.swarm import shapes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.swarm.notes import Notes

_PORT = frozenset(("mode", "target", "published", "protocol"))
_MOUNT = frozenset(("type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs"))
_INNER = {"bind": frozenset(("propagation",)), "volume": frozenset(("nocopy",)), "tmpfs": frozenset(("size",))}
_MOUNT_TYPES = frozenset(("bind", "volume", "tmpfs", "npipe", "cluster"))
_REFERENCE = frozenset(("source", "target", "uid", "gid", "mode"))
_ADDRESS = re.compile(r"(?P<ip>\[[^\]]*\]|[0-9.]*):(?=[0-9-]*:)")


def ports(name: str, items: list[Any], notes: Notes) -> list[Any]:
    """Return published ports. Swarm publishes on every node and every address of it, or, in mode host, on the node."""
    own = [_one(name, item, notes) for item in items]
    made = [_long_port(name, item, notes) if isinstance(item, dict) else _short(name, item, notes) for item in own]
    return shapes.once(made)


def _one(name: str, item: Any, notes: Notes) -> Any:
    """Return an entry with one port of its pool: of a pool Swarm would publish every port."""
    made = one_of_pool(item, 0)
    if made != item:
        notes.translated(name, "ports", "publishes the first of a range: Swarm would publish all of it")
    return made


def _short(name: str, item: Any, notes: Notes) -> Any:
    if not isinstance(item, str):
        return item
    found = _ADDRESS.match(item)
    if found is None:
        return item
    if found["ip"]:
        notes.left_out(name, "ports.host_ip", f"{found['ip']}: Swarm publishes a port on every address")
    return item[found.end() :].removeprefix(":")


def _long_port(name: str, item: dict[str, Any], notes: Notes) -> Any:
    for key in item.keys() - _PORT:
        if key == "host_ip":
            notes.left_out(name, "ports.host_ip", f"{item[key]}: Swarm publishes a port on every address")
        else:
            notes.left_out(name, f"ports.{key}", "docker stack does not know it", harmless=True)
    own = {key: item[key] for key in ("target", "published", "protocol", "mode") if item.get(key) not in {None, ""}}
    return {key: shapes.integer(v) if key in {"target", "published"} else shapes.text(v) for key, v in own.items()}


def mounts(name: str, items: list[Any], notes: Notes) -> list[Any]:
    """Return what is mounted."""
    return shapes.once([item for each in items for item in _mount(name, each, notes)])


def _mount(name: str, item: Any, notes: Notes) -> Iterator[Any]:
    if not isinstance(item, dict):
        yield shapes.text(item)
        return
    kind = item.get("type")
    if kind not in _MOUNT_TYPES:
        notes.left_out(name, "volumes", f"the mount of {item.get('target')}: Swarm has no mounts of type {kind}")
        return
    for key in item.keys() - _MOUNT:
        notes.left_out(name, f"volumes.{key}", "docker stack does not know it")
    own: dict[str, Any] = {}
    for key in ("type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs"):
        value = item.get(key)
        if value is None:
            continue
        if key in _INNER:
            if inner := _inner(name, key, value, notes):
                own[key] = inner
        else:
            own[key] = shapes.boolean(value) if key == "read_only" else shapes.text(value)
    yield own


def _inner(name: str, kind: str, value: MappingType[str, Any], notes: Notes) -> dict[str, Any]:
    for key in value.keys() - _INNER[kind]:
        harmless = key == "create_host_path"  # every folder that is mounted is told of anyway
        missing = "Swarm makes no folders"
        why = missing if harmless else "Swarm has no word for it"
        notes.left_out(name, f"volumes.{kind}.{key}", why, harmless=harmless)
    kept = {key: v for key, v in value.items() if key in _INNER[kind]}
    if "size" in kept:
        kept["size"] = shapes.size(kept["size"])
    if "nocopy" in kept:
        kept["nocopy"] = shapes.boolean(kept["nocopy"])
    return kept


def in_memory(name: str, value: Any, notes: Notes) -> list[Any]:
    """Return ``tmpfs`` as mounts, since Swarm passes over that key."""
    found = []
    for item in shapes.texts(value):
        target, _, options = item.partition(":")
        mount: dict[str, Any] = {"type": "tmpfs", "target": target}
        for option in filter(None, options.split(",")):
            key, _, content = option.partition("=")
            amount = shapes.size(content) if key == "size" else None
            if amount is not None:
                mount["tmpfs"] = {"size": amount}
            else:
                notes.left_out(name, "tmpfs", f"the option {option} of {target}: Swarm has no word for it")
        found.append(mount)
    return found


def networks(name: str, value: Any, notes: Notes) -> Any:
    """Return the networks that a service joins."""
    if not isinstance(value, dict):
        return shapes.names(value)
    result: dict[str, Any] = {}
    for network, entry in value.items():
        own: dict[str, Any] = {}
        for key, content in (entry or {}).items():
            if key == "aliases":
                own[key] = shapes.unique(content)
            else:
                notes.left_out(name, f"networks.{network}.{key}", "Swarm chooses addresses and order itself")
        result[str(network)] = own or None
    return result


def references(name: str, key: str, items: list[Any], notes: Notes) -> list[Any]:
    """Return the secrets or configs that a service is given."""
    result: list[Any] = []
    for item in items:
        if not isinstance(item, dict):
            result.append(shapes.text(item))
            continue
        for other in item.keys() - _REFERENCE:
            notes.left_out(name, f"{key}.{other}", "docker stack does not know it")
        own = {k: item[k] for k in ("source", "target", "uid", "gid", "mode") if item.get(k) is not None}
        result.append({k: shapes.integer(v) if k == "mode" else shapes.text(v) for k, v in own.items()})
    return result
