"""Which container a process runs in, and which Compose service that container is.

The kernel says the first (``/proc/PID/cgroup``), without any privilege; Docker says the second, and what it gave each
container, whether that uses it or not.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpualloc.errors import Diagnostic, Place
from gpualloc.model import Container

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ID = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?=/|$)")
"""Container runtimes name the cgroup after the full id: ``/docker/ID`` (cgroupfs), ``docker-ID.scope`` (systemd),
``cri-containerd-ID.scope``, ``libpod-ID.scope``. With one inside another, the first is the one this host started."""

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"
_STACK = "com.docker.stack.namespace"
_SWARM_SERVICE = "com.docker.swarm.service.name"
"""What a task of Swarm has instead (docker/cli ``cli/compose/convert``, moby ``daemon/cluster/executor``)."""

_GRANTED = "DOCKER_RESOURCE_"
"""How the variables begin in which a task finds its generic resources (``swarm-resource`` of NVIDIA's toolkit)."""

SOCKET = Path("/var/run/docker.sock")
"""Where the engine listens if nobody says otherwise; a rootless one does in the user's own runtime folder."""

_PATIENCE_S = 10.0
"""How long Docker may take to answer. A daemon that hangs must not hang the inventory."""


def container_id(cgroup: str) -> str | None:
    """Return the id of the container that a process is in, from the text of its ``/proc/PID/cgroup``.

    Version 1 has a line for each hierarchy, version 2 one line: the first that names a container decides.
    """
    for line in cgroup.splitlines():
        found = _ID.search(line.split(":", 2)[-1])
        if found:
            return found[1]
    return None


@dataclass(frozen=True, slots=True)
class Running:
    """A running container, with what Docker was asked to give it.

    ``ids`` are devices as they were named, None where none were; ``first`` is how many GPUs of the host it gets
    instead, from index 0 on, and -1 all of them. ``pid`` is its main process.
    """

    container: Container
    pid: int
    image: str
    ids: tuple[str, ...] | None
    first: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the engine tells: the running containers, or why it cannot be asked. ``absent``: there is none to ask."""

    running: tuple[Running, ...] = ()
    problem: str | None = None
    absent: bool = False


def look() -> Known:
    """Ask Docker for its running containers. Where there is no engine, that costs nothing."""
    docker = shutil.which("docker")
    if docker is None:
        return Known(problem="docker is not on the PATH", absent=True)
    if not _engine_may_be_there():
        return Known(problem="no Docker engine is running", absent=True)
    try:
        ids = _ask(docker, "container", "ls", "--no-trunc", "--quiet").split()
        answer = _ask(docker, "container", "inspect", "--format", _FORMAT, *ids) if ids else ""
        return Known(tuple(_running(json.loads(line)) for line in answer.splitlines() if line.startswith("{")))
    except _NoAnswerError as error:
        return Known(problem=str(error))


def owners(pids: Iterable[int], proc: Path, known: Known) -> tuple[dict[int, Container], tuple[Diagnostic, ...]]:
    """Return the container of each process that is in one, and a warning where the engine does not tell of them.

    Where it does not, project and service are None. No engine and no process in a container is nothing to warn of.
    """
    engine = {one.container.id: one.container for one in known.running}
    main = {one.pid: one.container for one in known.running}
    found: dict[int, Container] = {}
    for pid in sorted(set(pids)):
        name = _read_id(pid, proc)
        if name is not None:
            found[pid] = engine.get(name, Container(name, None, None))
        elif pid in main:
            found[pid] = main[pid]
    if known.problem is None or (known.absent and not found):
        return found, ()
    return found, (_warning(known.problem),)


def _read_id(pid: int, proc: Path) -> str | None:
    try:
        return container_id((proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace"))
    except OSError:  # the process has ended, or runs where this host's /proc does not reach
        return None


# --------------------------------------------------------------------------------------------------------------------
# The engine


class _NoAnswerError(Exception):
    """Docker cannot be asked, for the reason in the text."""


def _engine_may_be_there() -> bool:
    """Tell whether it is worth starting the client: somebody named an engine, or one listens where engines do."""
    if os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT"):
        return True
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    if (folder / "contexts").is_dir():
        return True
    sockets = [SOCKET]
    if os.environ.get("XDG_RUNTIME_DIR"):
        sockets.append(Path(os.environ["XDG_RUNTIME_DIR"]) / "docker.sock")
    return any(socket.exists() for socket in sockets)


def _ask(docker: str, *arguments: str) -> str:
    """Run the client and return what it prints; containers that ended meanwhile are passed over."""
    try:
        # no shell, and nothing of a user's in the arguments: the ids are hexadecimal
        answer = subprocess.run(  # noqa: S603 - see above
            [docker, *arguments],
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise _NoAnswerError(f"docker did not answer within {_PATIENCE_S:g} s") from None
    except OSError as error:
        raise _NoAnswerError(f"docker cannot be run: {error.strerror}") from None
    errors = [line for line in answer.stderr.splitlines() if line.strip() and "no such container" not in line.lower()]
    if answer.returncode != 0 and errors:
        raise _NoAnswerError(f"docker says: {errors[-1].strip()}")
    return answer.stdout


_FORMAT = '{"id":{{json .Id}},"pid":{{json .State.Pid}},"config":{{json .Config}},"host":{{json .HostConfig}}}'
"""Whole sections, since Podman's command of the same name has fewer keys in them."""


def _running(data: dict[str, Any]) -> Running:
    config, host = data["config"], data["host"]
    labels = config.get("Labels") or {}
    ids, first = _given(config, host)
    project, service = _owner(labels)
    return Running(
        Container(data["id"], project, service),
        data["pid"],
        config.get("Image", ""),
        ids,
        first,
    )


def _owner(labels: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the project and the service of a container: of Compose, or of a stack, which puts its name before both."""
    stack, task = labels.get(_STACK), labels.get(_SWARM_SERVICE)
    if labels.get(_PROJECT) is None and stack is not None:
        return stack, None if task is None else task.removeprefix(f"{stack}_")
    return labels.get(_PROJECT), labels.get(_SERVICE)


def _given(config: Mapping[str, Any], host: Mapping[str, Any]) -> tuple[tuple[str, ...] | None, int]:
    """Return the devices that a container was given by name, and how many of the first ones instead.

    A device request outranks ``NVIDIA_VISIBLE_DEVICES``, which only NVIDIA's runtime heeds; it stands in the image of
    every CUDA container, whether it gets GPUs or not. What Swarm grants of a node's generic resources outranks that.
    """
    requests = [request for request in host.get("DeviceRequests") or () if _is_for_gpus(request)]
    if requests:
        named = [i.strip() for request in requests for item in request.get("DeviceIDs") or () for i in item.split(",")]
        counts = [request.get("Count") or 0 for request in requests if not request.get("DeviceIDs")]
        return tuple(named) or None, -1 if -1 in counts else max(counts, default=0)
    if not str(host.get("Runtime") or "").startswith("nvidia"):
        return None, 0
    variables = dict(item.partition("=")[::2] for item in config.get("Env") or ())
    granted = (value for name, value in variables.items() if name.startswith(_GRANTED) and "GPU" in name)
    wanted = next(granted, variables.get("NVIDIA_VISIBLE_DEVICES", ""))
    if wanted == "all":
        return None, -1
    return tuple(name.strip() for name in wanted.split(",") if name.strip() not in {"", "none", "void"}) or None, 0


def _is_for_gpus(request: Mapping[str, Any]) -> bool:
    driver = request.get("Driver") or ""
    if driver == "cdi":
        return any(str(name).startswith("nvidia.com/") for name in request.get("DeviceIDs") or ())
    return driver == "nvidia" or (not driver and any("gpu" in some for some in request.get("Capabilities") or ()))


def _warning(why: str) -> Diagnostic:
    return Diagnostic(
        "inventory-containers",
        f"which services hold the GPUs is unknown: {why}",
        Place("nvml"),
        "processes in containers may be counted as foreign",
        severity="warning",
    )
