"""What tests of stack files share: hosts, the way from a compose file to a stack, and what may not be in one."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gpualloc.compose.project import ProjectOptions
from gpualloc.fleet.options import FleetOptions
from gpualloc.planning import Options, make_plan
from tests.fleet.machines import save

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from gpualloc.errors import Diagnostic
    from gpualloc.planning import Planned

# docker/cli cli/compose/types/types.go: what `docker stack deploy` warns of or refuses
UNSUPPORTED = frozenset(
    (
        "build",
        "cgroupns_mode",
        "cgroup_parent",
        "devices",
        "domainname",
        "external_links",
        "ipc",
        "links",
        "mac_address",
        "network_mode",
        "pid",
        "privileged",
        "restart",
        "security_opt",
        "shm_size",
        "userns_mode",
    )
)
DEPRECATED = frozenset(("container_name", "expose"))
FORBIDDEN = frozenset(
    ("extends", "volume_driver", "volumes_from", "cpu_quota", "cpu_shares", "cpuset", "mem_limit", "memswap_limit")
)
# and what its schema has, but cli/compose/convert/service.go passes over
PASSED_OVER = frozenset(("tmpfs", "group_add", "env_file"))

DOCKER = shutil.which("docker")


def docker_stack() -> bool:
    """Tell whether there is a docker command that can read stack files; it needs no engine for that."""
    return (
        DOCKER is not None
        and subprocess.run([DOCKER, "stack", "config", "--help"], capture_output=True, check=False).returncode == 0
    )


needs_docker_stack = pytest.mark.skipif(not docker_stack(), reason="there is no docker command with stack config")


@dataclass(frozen=True)
class Stacked:
    """A project as a stack: the plan, the file, and its content as PyYAML reads it."""

    planned: Planned
    path: Path
    data: dict[str, Any]

    @property
    def services(self) -> dict[str, Any]:
        found: dict[str, Any] = self.data["services"]
        return found

    @property
    def notes(self) -> tuple[Diagnostic, ...]:
        return self.planned.notes

    def named(self) -> dict[str, set[str]]:
        """Return the keys that the notes name, by service; the project's own under an empty name."""
        result: dict[str, set[str]] = {}
        for note in self.notes:
            if note.code in {"swarm-folder", "swarm-any-gpu"}:
                continue
            names, colon, rest = note.summary.partition(": ")
            if not colon or names.split(" ")[1:2] in (["is"], ["becomes"]):
                names, rest = "", note.summary
            for name in names.split(", "):
                result.setdefault(name, set()).add(rest.split(" ")[0])
        return result


def stacked(
    compose: Path,
    environ: Mapping[str, str] | None = None,
    *,
    profiles: tuple[str, ...] = (),
    policy: str | None = None,
    **fleet: Any,
) -> Stacked:
    """Plan a compose file for three hosts of eight GPUs, write its stack beside it, and read that."""
    folder = compose.parent
    save(folder / ".fleet", "gpu-a", "gpu-b", "gpu-c", machine="dgx-a100")
    options = Options(
        project=ProjectOptions(files=(compose.name,), profiles=profiles),
        inventory=(str(folder / ".fleet"),),
        policy=policy,
        fleet=FleetOptions(swarm="stack.yaml", **fleet),
    )
    planned = make_plan(options, environ or {}, folder)
    (target,) = planned.files
    path = folder / "stack.yaml"
    path.write_text(target.after, encoding="utf-8")
    return Stacked(planned, path, yaml.load(target.after, Loader=yaml.CSafeLoader))


def stack(folder: Path, text: str, **options: Any) -> Stacked:
    (folder / "compose.yaml").write_text(text, encoding="utf-8")
    made = stacked(folder / "compose.yaml", **options)
    if docker_stack():
        docker_reads(made.path)
    return made


def docker_reads(path: Path) -> dict[str, Any]:
    """Return the stack file as docker's own command reads it; any word on stderr fails the test."""
    assert DOCKER is not None
    done = subprocess.run(
        [DOCKER, "stack", "config", "-c", str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": "/nowhere"},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    data: dict[str, Any] = yaml.load(done.stdout, Loader=yaml.CSafeLoader)
    return data


def warned_of(services: Mapping[str, Any]) -> set[str]:
    """Return the keys of services that docker would refuse, warn of, or pass over."""
    return {key for service in services.values() for key in service} & (
        UNSUPPORTED | DEPRECATED | FORBIDDEN | PASSED_OVER
    )


def unaccounted(source: Any, made: Any, named: set[str], path: str = "") -> Iterator[str]:
    """Yield the paths of a service's source that are neither in the stack nor named in a note."""
    if isinstance(source, dict):
        for key, value in source.items():
            inner = f"{path}.{key}" if path else str(key)
            if value not in (None, {}, []) and not _covered(inner, named):
                yield from _entry(key, value, made, named, inner)
    elif isinstance(source, list) and isinstance(made, list) and path not in named:
        kept = {key for item in made if isinstance(item, dict) for key in item}
        for key in {key for item in source if isinstance(item, dict) for key in item} - kept:
            if not _told_below(f"{path}.{key}", named) and not _covered(f"{path}.{key}", named):
                yield f"{path}.{key}"


def _entry(key: Any, value: Any, made: Any, named: set[str], inner: str) -> Iterator[str]:
    if isinstance(made, dict) and key in made:
        yield from unaccounted(value, made[key], named, inner)
    elif isinstance(value, dict) and _told_below(inner, named):
        yield from unaccounted(value, {}, named, inner)
    elif not isinstance(made, list) or not any(isinstance(item, str) for item in made):
        yield inner  # else a mapping became a list of texts


def _covered(path: str, named: set[str]) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in named)


def _told_below(path: str, named: set[str]) -> bool:
    return any(each.startswith(f"{path}.") for each in named)
