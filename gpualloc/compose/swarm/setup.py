"""What has to be set up on the nodes of a Swarm once, so that a stack's tasks see their GPUs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gpualloc.compose.swarm.stack import KIND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpualloc.compose.swarm.stack import Swarm

_DAEMON = "/etc/docker/daemon.json"
_RUNTIME = "/etc/nvidia-container-runtime/config.toml"


def setup_text(swarm: Swarm, devices: Mapping[str, tuple[str, ...]]) -> str:
    """Return the set-up of the nodes, to be shown. ``devices``: by host, the UUIDs that a plan may give out.

    Sources: Docker docs, ``dockerd``, ``node-generic-resources``, which swarmkit hands each task in
    ``DOCKER_RESOURCE_<KIND>``; NVIDIA container toolkit, ``swarm-resource`` in its config.toml.
    """
    runtime = {"default-runtime": "nvidia", "runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}
    if swarm.mode == "uuid":
        nodes = ", ".join(swarm.nodes[host] for host in devices)
        return f"on each of these nodes, {nodes}, {_DAEMON} has:\n{_shown(runtime)}"
    parts = [
        f"on {swarm.nodes[host]}, {_DAEMON} has:\n"
        + _shown(runtime | {"node-generic-resources": [f"{KIND}={uuid}" for uuid in uuids]})
        for host, uuids in devices.items()
    ]
    parts.append(f'on each of them, {_RUNTIME} has, above its sections:\n  swarm-resource = "DOCKER_RESOURCE_{KIND}"\n')
    return "".join(parts)


def _shown(settings: Mapping[str, object]) -> str:
    return "".join(f"  {line}\n" for line in json.dumps(settings, indent=2).splitlines())
