"""Verification from end to end: the file, Docker, inside every container, and the verdict on each worker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from gpualloc.errors import Diagnostic
from gpualloc.planning import open_workspace
from gpualloc.verification import Verification
from gpualloc.verify.docker import Docker
from gpualloc.verify.expect import expectations
from gpualloc.verify.given import asked_for
from gpualloc.verify.judge import Evidence, judge
from gpualloc.verify.look import Manner, look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from gpualloc.compose.project import Project, ProjectOptions
    from gpualloc.planning import Options
    from gpualloc.verify.docker import Container
    from gpualloc.verify.expect import Expectation
    from gpualloc.verify.machine import Machine


def verify(
    options: Options,
    environ: Mapping[str, str],
    cwd: Path,
    *,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
    manner: Manner | None = None,
) -> Verification:
    """Tell whether every worker that a project runs sees exactly the devices the compose file gives it.

    ``progress`` is called with how many of how many containers have been looked into. Raises GpuallocError if an input
    cannot be used or Docker does not answer; whatever is wrong with a container is a finding.
    """
    workspace = open_workspace(options, environ, cwd)
    machine, expected = expectations(workspace)
    docker = Docker(environ, cwd)
    containers = docker.containers(workspace.project.name)
    matched = match(expected, containers)
    running = [container for container in matched.values() if container.running]
    sights = look(docker, running, manner or Manner(), progress)
    hashes = _Hashes(docker, _as_now(options, containers, cwd))
    evidence = []
    for one in expected:
        container = matched.get(one.worker)
        sight = sights.get(container.id) if container else None
        evidence.append(Evidence(one, container, sight, _outdated(container, hashes)))
    return Verification(
        project=workspace.project.name,
        inventory=workspace.inventory,
        workers=judge(evidence, machine),
        findings=tuple(_others(containers, matched, expected, workspace.project, machine)),
        warnings=workspace.warnings,
    )


def _as_now(options: Options, containers: Sequence[Container], cwd: Path) -> ProjectOptions:
    """Return what to ask Compose about: the project's files, and the override file laid over them, if there is one.

    With the override named, Compose no longer finds the project's own files: they are those the containers came from.
    """
    if options.override is None:
        return options.project
    files = options.project.files or next((container.files for container in containers if container.files), ())
    laid_over = (cwd / options.override).resolve()
    own = [name for name in files if (cwd / name).resolve() != laid_over]
    return replace(options.project, files=(*own, options.override))


@dataclass(eq=False)
class _Hashes:
    """Compose's hashes of the services as they are now, asked for when the first is needed."""

    docker: Docker
    options: ProjectOptions

    @cached_property
    def by_service(self) -> dict[str, str]:
        return self.docker.config_hashes(self.options)


def _outdated(container: Container | None, hashes: _Hashes) -> Callable[[], bool | None]:
    """Return a question: would Compose make this container anew? None where that cannot be told."""

    def ask() -> bool | None:
        now = hashes.by_service.get(container.service) if container else None
        return None if container is None or now is None else now != container.config_hash

    return ask


def match(expected: Sequence[Expectation], containers: Sequence[Container]) -> dict[str, Container]:
    """Return each worker's container: of its service and number, running before stopped, lowest number first."""
    by_service: dict[str, list[Container]] = {}
    for container in sorted(containers, key=lambda c: (not c.running, c.number)):
        by_service.setdefault(container.service, []).append(container)
    found: dict[str, Container] = {}
    for one in expected:
        if one.parked:
            continue
        candidates = by_service.get(one.worker)  # a split role's workers are services of their own
        if candidates is None:
            candidates = [c for c in by_service.get(one.service, []) if one.copies == 1 or c.number == one.replica]
        if candidates:
            found[one.worker] = candidates[0]
    return found


def _others(
    containers: Sequence[Container],
    matched: Mapping[str, Container],
    expected: Sequence[Expectation],
    project: Project,
    machine: Machine,
) -> Iterator[Diagnostic]:
    """Find running containers of the project that hold GPUs and are no worker's."""
    taken = {container.id for container in matched.values()}
    workers = {name for one in expected for name in (one.worker, one.service)}
    known = {service.name for service in project.services}
    for container in containers:
        held = asked_for(container, machine)
        if container.id in taken or not container.running or not held:
            continue
        if container.service in workers:
            summary = f"{container.name} runs beside the workers the file has, and holds {machine.label(held)}"
            yield Diagnostic("extra-container", summary, None, "docker compose up -d ends it")
        elif container.service not in known:
            gone = f"{container.name} is of the service {container.service}, which the file does not have"
            hint = "docker compose up -d --remove-orphans ends it"
            yield Diagnostic("orphan", f"{gone}, and holds {machine.label(held)}", None, hint)
