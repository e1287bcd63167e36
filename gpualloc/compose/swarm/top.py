"""The networks, volumes, secrets and configs of a project, as a stack file has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpualloc.compose.swarm import shapes
from gpualloc.compose.swarm.services import HOST_NETWORK

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpualloc.compose.swarm.notes import Notes
    from gpualloc.compose.swarm.source import Whole

_KNOWN: dict[str, tuple[str, ...]] = {
    "networks": ("name", "driver", "driver_opts", "ipam", "external", "internal", "attachable", "labels"),
    "volumes": ("name", "driver", "driver_opts", "external", "labels"),
    "secrets": ("name", "file", "external", "labels", "driver", "driver_opts", "template_driver"),
    "configs": ("name", "file", "external", "labels", "template_driver"),
}
"""Source: docker/cli ``cli/compose/schema/data/config_schema_v3.13.json``."""

_FLAGS = frozenset(("internal", "attachable"))
_LOCAL = frozenset(("bridge", "host", "none", "macvlan", "ipvlan"))
"""Network drivers that reach no other node."""
_NOT_HERE = frozenset(("environment", "content"))


def sections_of(whole: Whole, services: Iterable[dict[str, Any]], notes: Notes) -> dict[str, dict[str, Any]]:
    """Return the sections of a stack file beside ``services``; what no service of it uses comes along, too."""
    result = {
        section: {name: _entry(section, name, dict(entry), notes) for name, entry in entries.items()}
        for section, entries in whole.sections.items()
        if entries
    }
    if any(HOST_NETWORK in (service.get("networks") or ()) for service in services):
        result.setdefault("networks", {})[HOST_NETWORK] = {"external": True, "name": "host"}
    for key in whole.others:
        if key == "name":
            notes.left_out("", key, "docker stack deploy takes the stack's name as an argument", harmless=True)
        elif key == "include":
            notes.translated("", key, "is done with: what it names is in the stack")
        elif key == "x-gpualloc":
            continue
        elif key.startswith("x-"):
            notes.left_out("", key, "what services merge from it is in them", harmless=True)
        else:
            notes.left_out("", key, "docker stack does not know it")
    return result


def _entry(section: str, name: str, entry: dict[str, Any], notes: Notes) -> dict[str, Any] | None:
    path = f"{section}.{name}"
    external = entry.get("external")
    if isinstance(external, dict):
        entry["external"] = True
        if external.get("name") and not entry.get("name"):
            entry["name"] = external["name"]
            notes.translated("", f"{path}.external.name", f"becomes {path}.name")
    if missing := _NOT_HERE & entry.keys():
        key = min(missing)
        kind = section.removesuffix("s")
        text = f"make it by hand: docker {kind} create {entry.get('name', name)} FILE"
        notes.left_out("", f"{path}.{key}", text)
        return {"external": True, "name": shapes.text(entry.get("name", name))}
    result: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in _KNOWN[section]:
            if not key.startswith("x-"):
                notes.left_out("", f"{path}.{key}", "docker stack does not know it")
            else:
                notes.left_out("", f"{path}.{key}", "Swarm does nothing with it", harmless=True)
        elif value is not None:
            result[key] = _value(path, key, value, notes)
    if section == "networks":
        _reaching(path, result, notes)
    return {key: value for key, value in result.items() if value not in ({}, [])} or None


def _value(path: str, key: str, value: Any, notes: Notes) -> Any:
    if key == "external" or key in _FLAGS:
        return shapes.boolean(value)
    if key == "labels":
        return shapes.mapping(value)
    if key == "driver_opts":
        return {str(name): shapes.text(each) for name, each in value.items() if each is not None}
    if key == "ipam":
        return _ipam(path, value, notes)
    return shapes.text(value)


def _ipam(path: str, value: dict[str, Any], notes: Notes) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, each in value.items():
        if key == "driver":
            result[key] = shapes.text(each)
        elif key == "config":
            for inner in {inner for row in each or () for inner in row if inner != "subnet"}:
                notes.left_out("", f"{path}.ipam.config.{inner}", "docker stack does not know it")
            rows = [{"subnet": shapes.text(row["subnet"])} for row in each or () if row.get("subnet")]
            if rows:
                result[key] = rows
        else:
            notes.left_out("", f"{path}.ipam.{key}", "docker stack does not know it")
    return result


def _reaching(path: str, result: dict[str, Any], notes: Notes) -> None:
    """Let a network that reaches no other node be an overlay, which is what a stack's networks are by default."""
    driver = result.get("driver")
    if driver in _LOCAL and not result.get("external"):
        del result["driver"]
        notes.translated("", f"{path}.driver", f"becomes overlay: a network of driver {driver} ends at its node")
        if result.pop("driver_opts", None):
            notes.left_out("", f"{path}.driver_opts", f"they are those of driver {driver}")
