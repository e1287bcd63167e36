"""Looks inside containers: what CUDA, ``nvidia-smi`` and the frameworks there show. All containers at once."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from gpualloc.verification import Framework

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gpualloc.verify.docker import Answer, Container, Docker

MARK = "gpualloc-probe:"
"""What the line with the probe's answer starts with."""

AT_ONCE = 12
"""Containers looked into at the same time. Most of it is waiting, for Docker and for what is asked inside."""

GRACE_S = 10.0
"""What Docker gets to start the probe and bring its answer, beyond the probe's own time."""

PYTHONS = ("python3", "python")

_NOT_THERE = (126, 127)
"""Exit codes of ``docker exec`` for a program that cannot be started, or is not there."""

_SMI_LINE = re.compile(r"^(\s*).*\(UUID: ((?:GPU|MIG)-[0-9A-Za-z/-]+)\)\s*$")


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen inside a container. ``cuda``: hexadecimal digits of UUIDs, None where CUDA was not asked.

    ``blind`` is why CUDA was not asked. ``loaded``: whether the driver's library is there. ``listed``: full UUIDs by
    ``nvidia-smi -L``, None without it. ``environment``: the worker's own CUDA_… and NVIDIA_… variables. The UUIDs of
    ``frameworks`` are as those give them.
    """

    blind: str | None = None
    cuda: tuple[str, ...] | None = None
    cuda_error: str | None = None
    loaded: bool = False
    listed: tuple[str, ...] | None = None
    environment: Mapping[str, str] | None = None
    wsl: bool = False
    frameworks: tuple[Framework, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Manner:
    """How to look: seconds that a probe may take, and whether to ask frameworks too."""

    timeout_s: float = 60.0
    frameworks: bool = True


def look(
    docker: Docker, containers: Sequence[Container], manner: Manner, progress: Callable[[int, int], None]
) -> dict[str, Sight]:
    """Return what is seen inside running containers, by their ids. ``progress`` gets how many of how many are done."""
    if not containers:
        return {}
    source = resources.files("gpualloc.verify").joinpath("probe.py").read_text(encoding="utf-8")
    progress(0, len(containers))
    with ThreadPoolExecutor(max_workers=min(AT_ONCE, len(containers))) as pool:
        waiting = {pool.submit(_look, docker, one, source, manner): one.id for one in containers}
        found = {}
        for done in as_completed(waiting):
            found[waiting[done]] = done.result()
            progress(len(found), len(containers))
    return found


def _look(docker: Docker, container: Container, source: str, manner: Manner) -> Sight:
    options = [str(manner.timeout_s)]
    options += [] if container.own_pids else ["--own-environment"]
    options += [] if manner.frameworks else ["--no-frameworks"]
    blind = "there is no python in it"
    for python in PYTHONS:
        answer = docker.execute(container, (python, "-", *options), manner.timeout_s + GRACE_S, source)
        if answer.code in _NOT_THERE:
            continue
        sight = sight_of(answer)
        if sight is not None:
            return sight
        blind = _why(answer)
        break
    listing = docker.execute(container, ("nvidia-smi", "-L"), manner.timeout_s)
    return Sight(blind, listed=listed(listing.output) if listing.code == 0 else None)


def _why(answer: Answer) -> str:
    if answer.code is None:
        return "the probe did not answer in time"
    if "SyntaxError" in answer.errors:
        return "the python in it is older than 3.7"
    return f"the probe failed in it: {answer.last_error or f'exit code {answer.code}'}"


def sight_of(answer: Answer) -> Sight | None:
    """Return what a probe answered; None where there is no answer of its form, since anything may run in there."""
    lines = [line for line in answer.output.splitlines() if line.startswith(MARK)]
    if not lines:
        return None
    try:
        data = json.loads(lines[-1].removeprefix(MARK))
        cuda, smi = data["cuda"], data["nvidia_smi"].get("text")
        return Sight(
            cuda=tuple(digits for digits in map(str, cuda.get("devices", ()))),
            cuda_error=_text(cuda.get("error")),
            loaded=bool(cuda.get("loaded", True)),
            listed=listed(smi) if isinstance(smi, str) else None,
            environment={str(name): str(value) for name, value in data["environment"].items()},
            wsl=bool(data["wsl"]),
            frameworks=tuple(_framework(name, facts) for name, facts in sorted(data["frameworks"].items())),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _framework(name: str, facts: Mapping[str, Any]) -> Framework:
    count, uuids, built = facts.get("count"), facts.get("uuids"), facts.get("gpu_build")
    return Framework(
        name=name,
        version=_text(facts.get("version")),
        count=count if isinstance(count, int) else None,
        uuids=tuple(map(str, uuids)) if isinstance(uuids, list) else None,
        gpu_build=built if isinstance(built, bool) else None,
        error=_text(facts.get("error")),
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def listed(text: str) -> tuple[str, ...]:
    """Return the devices that ``nvidia-smi -L`` lists: of a GPU with MIG instances below it, those."""
    found: list[tuple[bool, str]] = []
    for line in text.splitlines():
        match = _SMI_LINE.match(line)
        if match is None:
            continue
        below = bool(match[1])
        if below and found and not found[-1][0]:
            found.pop()
        found.append((below, match[2]))
    return tuple(uuid for _, uuid in found)
