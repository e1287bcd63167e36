"""Which container a process runs in, and which Compose service that container is.

The kernel says the first (``/proc/PID/cgroup``), without any privilege; Docker says the second.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

from gpualloc.errors import Diagnostic, Place
from gpualloc.model import Container

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_ID = re.compile(r"(?:^|[/:-])([0-9a-f]{64})(?:\.scope)?(?=/|$)")
"""Container runtimes name the cgroup after the full id: ``/docker/ID`` (cgroupfs), ``docker-ID.scope`` (systemd),
``cri-containerd-ID.scope``, ``libpod-ID.scope``. With one inside another, the first is the one this host started."""

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"

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


def owners(pids: Iterable[int], proc: Path) -> tuple[dict[int, Container], tuple[Diagnostic, ...]]:
    """Return the container of each process that is in one, and a warning where Docker could not be asked about them.

    Without an answer from Docker, project and service are None.
    """
    ids = {pid: found for pid in sorted(set(pids)) if (found := _read_id(pid, proc)) is not None}
    if not ids:
        return {}, ()
    labels, warnings = _labels(sorted(set(ids.values())))
    return {pid: _container(found, labels.get(found, {})) for pid, found in ids.items()}, warnings


def _read_id(pid: int, proc: Path) -> str | None:
    try:
        return container_id((proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace"))
    except OSError:  # the process has ended, or runs where this host's /proc does not reach
        return None


def _container(found: str, labels: Mapping[str, str]) -> Container:
    return Container(found, labels.get(_PROJECT), labels.get(_SERVICE))


def _labels(ids: Sequence[str]) -> tuple[dict[str, dict[str, str]], tuple[Diagnostic, ...]]:
    """Ask Docker for the labels of containers. Those of another runtime (Podman, Kubernetes) it does not know."""
    docker = shutil.which("docker")
    if docker is None:
        return {}, (_warning("docker is not on the PATH"),)
    command = [docker, "container", "inspect", "--format", '{"id":{{json .Id}},"labels":{{json .Config.Labels}}}', *ids]
    try:
        # no shell, and nothing of a user's in the arguments: the ids are hexadecimal
        answer = subprocess.run(  # noqa: S603 - see above
            command,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return {}, (_warning(f"docker did not answer within {_PATIENCE_S:g} s"),)
    except OSError as error:
        return {}, (_warning(f"docker cannot be run: {error.strerror}"),)
    labels = dict(_parse(line) for line in answer.stdout.splitlines() if line.startswith("{"))
    errors = [line for line in answer.stderr.splitlines() if line.strip() and "no such container" not in line.lower()]
    if answer.returncode != 0 and errors:
        return labels, (_warning(f"docker says: {errors[-1].strip()}"),)
    return labels, ()


def _parse(line: str) -> tuple[str, dict[str, str]]:
    data: dict[str, Any] = json.loads(line)
    return data["id"], data["labels"] or {}


def _warning(why: str) -> Diagnostic:
    return Diagnostic(
        "inventory-containers",
        f"which services hold the GPUs is unknown: {why}",
        Place("nvml"),
        "processes in containers may be counted as foreign",
        severity="warning",
    )
