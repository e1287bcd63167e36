"""A service of a project as ``docker stack`` takes it, with a note on every key that changes or goes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import at
from gpualloc.compose.merge import variables
from gpualloc.compose.swarm import keys, lists, shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gpualloc.compose.swarm.notes import Notes

HOST_NETWORK = "gpualloc-host-network"
"""The stack's name for a node's own network, where a service is to be in that."""

_RESTARTS = {"no": "none", "false": "none", "always": "any", "unless-stopped": "any", "on-failure": "on-failure"}
"""Source: docker/cli ``cli/compose/convert/service.go``, ``convertRestartPolicy``."""


@dataclass(slots=True)
class Draft:
    """A service while it is translated. ``built``: what Compose calls the image that it builds for it.

    ``ends``: whether another service waits for it to end.
    """

    name: str
    built: str
    notes: Notes
    source: dict[str, Any]
    ends: bool = False
    result: dict[str, Any] = field(default_factory=dict)

    def set(self, path: tuple[str, ...], value: Any) -> None:
        """Give the result a value at a path."""
        node = self.result
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node[path[-1]] = value


def stack_service(draft: Draft) -> dict[str, Any]:
    """Return the service of a stack file that a draft's source becomes, keys in order."""
    for key in sorted(draft.source, key=lambda k: k != "deploy"):  # what deploy says goes before what older keys do
        value = draft.source[key]
        if value is None:
            continue
        if key in keys.PLAIN:
            draft.result[key] = keys.PLAIN[key](value)
        elif key in _MADE:
            _MADE[key](draft, value)
        elif key in keys.RESOLVED:
            draft.notes.translated(draft.name, key, f"is done with: {keys.RESOLVED[key]}")
        elif key in keys.HARMLESS:
            draft.notes.left_out(draft.name, key, keys.HARMLESS[key], harmless=True)
        elif key.startswith("x-"):
            draft.notes.left_out(draft.name, key, "Swarm does nothing with it", harmless=True)
        else:
            draft.notes.left_out(draft.name, key, keys.LEFT_OUT.get(key, "docker stack does not know it"))
    if draft.ends and at(draft.result, ("deploy", "restart_policy")) is None:
        draft.set(("deploy", "restart_policy"), {"condition": "on-failure"})
    return in_order(draft.result)


def in_order(service: dict[str, Any]) -> dict[str, Any]:
    """Return a service of a stack with its keys in order."""
    return {key: service[key] for key in keys.ORDER if key in service}


# --------------------------------------------------------------------------------------------------------------------
# One key each


def _build(draft: Draft, _value: Any) -> None:
    image = draft.source.get("image")
    if image is None:
        image = draft.result["image"] = draft.built
    draft.notes.left_out(draft.name, "build", f"Swarm builds nothing: push {image} to where every node finds it")


def _limit(*path: str, shape: Callable[[Any], Any]) -> Callable[[Draft, Any], None]:
    """Return what puts an older key's value where a stack has it, unless something stands there."""

    def put(draft: Draft, value: Any) -> None:
        key = _OLDER[path]
        place = ".".join(("deploy", "resources", *path))
        if at(draft.result, ("deploy", "resources", *path)) is not None:
            draft.notes.left_out(draft.name, key, f"{place} says it", harmless=True)
            return
        draft.set(("deploy", "resources", *path), shape(value))
        draft.notes.translated(draft.name, key, f"becomes {place}")

    return put


_OLDER: dict[tuple[str, ...], str] = {
    ("limits", "cpus"): "cpus",
    ("limits", "memory"): "mem_limit",
    ("limits", "pids"): "pids_limit",
    ("reservations", "memory"): "mem_reservation",
}


def _depends_on(draft: Draft, value: Any) -> None:
    draft.result["depends_on"] = shapes.names(value)
    text = "keeps its names only: Swarm starts services in no order and waits for none"
    draft.notes.translated(draft.name, "depends_on", text)


def _environment(draft: Draft, value: Any) -> None:
    draft.result["environment"] = dict(variables(value))


def _env_file(draft: Draft, _value: Any) -> None:
    draft.notes.translated(draft.name, "env_file", "is read into environment")


def _gpus(draft: Draft, _value: Any) -> None:
    draft.notes.left_out(draft.name, "gpus", "gpualloc leaves this service alone, and Swarm takes no such request")


def _healthcheck(draft: Draft, value: dict[str, Any]) -> None:
    own = _known(draft, "healthcheck", value, keys.HEALTH)
    if own.get("disable"):
        own.pop("test", None)  # docker stack refuses the two together
    draft.result["healthcheck"] = own


def _known(draft: Draft, path: str, value: dict[str, Any], shape_of: dict[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """Return the entries of a mapping that a stack takes, and note the others."""
    for key in value:
        if key not in shape_of:
            draft.notes.left_out(draft.name, f"{path}.{key}", "docker stack does not know it")
    return {key: shape(value[key]) for key, shape in shape_of.items() if value.get(key) is not None}


def _links(draft: Draft, value: Any) -> None:
    renamed = [text.partition(":")[2] for text in shapes.texts(value) if ":" in text]
    text = "services find each other by name in a network"
    draft.notes.left_out(draft.name, "links", text, harmless=not renamed)
    for alias in renamed:
        draft.notes.left_out(draft.name, "links", f"the name {alias} leads nowhere: make it an alias in a network")


def _logging(draft: Draft, value: dict[str, Any]) -> None:
    draft.result["logging"] = _known(draft, "logging", value, {"driver": shapes.text, "options": shapes.mapping})


def _network_mode(draft: Draft, value: Any) -> None:
    if value == "host":
        draft.result["networks"] = [HOST_NETWORK]
        draft.notes.translated(draft.name, "network_mode", f"becomes the network {HOST_NETWORK}")
    else:
        draft.notes.left_out(draft.name, "network_mode", keys.LEFT_OUT["network_mode"])


def _networks(draft: Draft, value: Any) -> None:
    draft.result["networks"] = lists.networks(draft.name, value, draft.notes)


def _ports(draft: Draft, value: Any) -> None:
    draft.result["ports"] = lists.ports(draft.name, list(value), draft.notes)


def _volumes(draft: Draft, value: Any) -> None:
    draft.result["volumes"] = [*lists.mounts(draft.name, list(value), draft.notes), *draft.result.get("volumes", ())]


def _tmpfs(draft: Draft, value: Any) -> None:
    mounts = lists.in_memory(draft.name, value, draft.notes)
    draft.result["volumes"] = [*draft.result.get("volumes", ()), *mounts]
    draft.notes.translated(draft.name, "tmpfs", "becomes mounts of type tmpfs")


def _shm_size(draft: Draft, value: Any) -> None:
    amount = shapes.size(value)
    if amount is None:
        draft.notes.left_out(draft.name, "shm_size", f"{value} is no amount of memory")
        return
    mount = {"type": "tmpfs", "target": "/dev/shm", "tmpfs": {"size": amount}}  # noqa: S108 - a path in a container
    draft.result["volumes"] = [*draft.result.get("volumes", ()), mount]
    draft.notes.translated(draft.name, "shm_size", "becomes a mount of type tmpfs on /dev/shm")


def _references(key: str) -> Callable[[Draft, Any], None]:
    def put(draft: Draft, value: Any) -> None:
        draft.result[key] = lists.references(draft.name, key, list(value), draft.notes)

    return put


def _restart(draft: Draft, value: Any) -> None:
    if at(draft.result, ("deploy", "restart_policy")) is not None:
        draft.notes.left_out(draft.name, "restart", "deploy.restart_policy says it", harmless=True)
        return
    word, _, tries = shapes.text(value).partition(":")
    if word not in _RESTARTS:
        draft.notes.left_out(draft.name, "restart", f"Swarm knows no policy {word}")
        return
    policy: dict[str, Any] = {"condition": _RESTARTS[word]}
    if tries.isdecimal() and int(tries):
        policy["max_attempts"] = int(tries)
    draft.set(("deploy", "restart_policy"), policy)
    draft.notes.translated(draft.name, "restart", "becomes deploy.restart_policy")


def _runtime(draft: Draft, value: Any) -> None:
    text = f"a node has one runtime for all tasks: let {value} be its default-runtime"
    draft.notes.left_out(draft.name, "runtime", text)


def _scale(draft: Draft, value: Any) -> None:
    draft.set(("deploy", "replicas"), shapes.integer(value))
    draft.notes.translated(draft.name, "scale", "becomes deploy.replicas")


def _ulimits(draft: Draft, value: dict[str, Any]) -> None:
    result: dict[str, Any] = {}
    for name, limit in value.items():
        if not re.fullmatch("[a-z]+", name):
            draft.notes.left_out(draft.name, f"ulimits.{name}", "docker stack does not know it")
        elif isinstance(limit, dict):
            result[name] = {key: shapes.integer(limit[key]) for key in ("soft", "hard") if key in limit}
        else:
            result[name] = shapes.integer(limit)
    draft.result["ulimits"] = result


_RESOURCES: dict[str, Callable[[Any], Any]] = {"limits": dict, "reservations": dict}
_LIMITS: dict[str, Callable[[Any], Any]] = {"cpus": shapes.text, "memory": shapes.text, "pids": shapes.integer}
_RESERVED: dict[str, Callable[[Any], Any]] = {"cpus": shapes.text, "memory": shapes.text, "generic_resources": list}
_PLACEMENT: dict[str, Callable[[Any], Any]] = {
    "constraints": shapes.texts,
    "preferences": list,
    "max_replicas_per_node": shapes.integer,
}


def _deploy(draft: Draft, value: dict[str, Any]) -> None:
    def resources(inner: dict[str, Any]) -> dict[str, Any]:
        own = _known(draft, "deploy.resources", inner, _RESOURCES)
        if "limits" in own:
            own["limits"] = _known(draft, "deploy.resources.limits", own["limits"], _LIMITS)
        if "reservations" in own:
            own["reservations"] = _known(draft, "deploy.resources.reservations", own["reservations"], _RESERVED)
        return {key: each for key, each in own.items() if each}

    def placement(inner: dict[str, Any]) -> dict[str, Any]:
        return _known(draft, "deploy.placement", inner, _PLACEMENT)

    shape_of: dict[str, Callable[[Any], Any]] = {
        "mode": shapes.text,
        "replicas": shapes.integer,
        "endpoint_mode": shapes.text,
        "placement": placement,
        "resources": resources,
        "update_config": lambda inner: _known(draft, "deploy.update_config", inner, keys.UPDATE),
        "rollback_config": lambda inner: _known(draft, "deploy.rollback_config", inner, keys.UPDATE),
        "restart_policy": lambda inner: _known(draft, "deploy.restart_policy", inner, keys.RESTART),
        "labels": shapes.mapping,
    }
    own = _known(draft, "deploy", value, shape_of)
    if not own.get("resources", True):
        del own["resources"]
    if own:
        draft.result["deploy"] = own


_MADE: dict[str, Callable[[Draft, Any], None]] = {
    "build": _build,
    "configs": _references("configs"),
    "cpus": _limit("limits", "cpus", shape=shapes.text),
    "depends_on": _depends_on,
    "deploy": _deploy,
    "env_file": _env_file,
    "environment": _environment,
    "gpus": _gpus,
    "healthcheck": _healthcheck,
    "links": _links,
    "logging": _logging,
    "mem_limit": _limit("limits", "memory", shape=shapes.text),
    "mem_reservation": _limit("reservations", "memory", shape=shapes.text),
    "network_mode": _network_mode,
    "networks": _networks,
    "pids_limit": _limit("limits", "pids", shape=shapes.integer),
    "ports": _ports,
    "restart": _restart,
    "runtime": _runtime,
    "scale": _scale,
    "secrets": _references("secrets"),
    "shm_size": _shm_size,
    "tmpfs": _tmpfs,
    "ulimits": _ulimits,
    "volumes": _volumes,
}


def awaited(services: Iterable[dict[str, Any]]) -> frozenset[str]:
    """Return the services whose end another waits for (``condition: service_completed_successfully``)."""
    needs = [service.get("depends_on") for service in services]
    return frozenset(
        name
        for each in needs
        if isinstance(each, dict)
        for name, entry in each.items()
        if isinstance(entry, dict) and entry.get("condition") == "service_completed_successfully"
    )
