"""A host with GPUs and a project on it, both to be changed: what every fault is tried on.

The commands run as a user types them, in this process, and read the host through the real pynvml.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from gpualloc.inventory import load, nvml
from gpualloc.inventory.snapshot import dump
from tests.inventory.docker_text import docker_says, facts
from tests.nvml.fake import Machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result
    from tests.nvml.fake import FakeNvml

PROJECT = "shop"


def machine(name: str) -> Machine:
    """A shipped machine, for the fake NVML to answer for."""
    return Machine.from_inventory(json.loads(dump(load([f"sim:{name}"]).inventory)))


def uuids(name: str) -> list[str]:
    return [gpu.uuid for gpu in load([f"sim:{name}"]).inventory.hosts[0].gpus]


@dataclass
class Bench:
    """The host, the commands, and what containers it runs: ``contain`` puts a process into one."""

    fake: FakeNvml
    call: Callable[..., Result]
    folder: Path
    proc: Path
    containers: list[dict[str, Any]] = field(default_factory=list)
    policy: str = "prod"

    @property
    def file(self) -> Path:
        return self.folder / "compose.yaml"

    def project(self, services: str) -> None:
        self.file.write_text(f"name: {PROJECT}\nservices:\n{services}")

    def run(self, *args: str) -> Result:
        with self.fake.loaded():
            return self.call(*args, "--inventory", "nvml", "--policy", self.policy)

    def check(self, code: int | None = None) -> list[dict[str, Any]]:
        result = self.run("check", "--format", "json")
        assert code is None or result.code == code, result.out + result.err
        findings: list[dict[str, Any]] = json.loads(result.out)["findings"]
        return findings

    def plan(self, code: int = 0) -> dict[str, Any]:
        result = self.run("plan", "--format", "json")
        assert result.code == code, result.out + result.err
        plan: dict[str, Any] = json.loads(result.out)
        return plan

    def apply(self, code: int = 0) -> Result:
        result = self.run("apply", "--yes")
        assert result.code == code, result.out + result.err
        return result

    def contain(self, pid: int, project: str, service: str, **host: Any) -> None:
        """Let a process run in a container of a Compose service, as the kernel and Docker tell it."""
        name = f"{len(self.containers) + 1:064x}"
        labels = {"com.docker.compose.project": project, "com.docker.compose.service": service}
        self.containers.append(facts(name, pid, labels, **host))
        where = self.proc / str(pid)
        where.mkdir(parents=True)
        (where / "cgroup").write_text(f"0::/system.slice/docker-{name}.scope\n")
        self.engine()

    def engine(self) -> None:
        """Let Docker tell of the containers there are."""
        docker = self.folder / "bin" / "docker"
        docker.parent.mkdir(exist_ok=True)
        docker.write_text(f"#!/bin/sh\n{docker_says(*self.containers)}\n")
        docker.chmod(0o755)


@pytest.fixture
def bench(fake_nvml: FakeNvml, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    host = tmp_path / "host"
    host.mkdir()
    monkeypatch.setattr(nvml.read, "__defaults__", (host, host))
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/engine.sock")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return Bench(fake_nvml, run, tmp_path, host)
