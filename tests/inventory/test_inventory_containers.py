"""Which container a process runs in, and which service that container is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gpualloc.inventory import containers, nvml
from gpualloc.inventory.containers import container_id, owners
from gpualloc.model import Container, Process
from tests.nvml.fake import FakeNvml, Machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

A, B = "4f2a" * 16, "0c9d" * 16


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        (f"0::/system.slice/docker-{A}.scope\n", A),  # version 2, systemd
        (f"0::/docker/{A}\n", A),  # version 2, cgroupfs
        (f"0::/../{A}\n", A),  # seen from another container
        (f"0::/../docker-{A}.scope/init\n", A),
        (f"12:pids:/docker/{A}\n11:memory:/docker/{A}\n0::/system.slice/containerd.service\n", A),  # version 1
        ("12:pids:/user.slice\n11:name=systemd:/user.slice/user-1000.slice/session-2.scope\n0::/\n", None),
        (f"13:cpu,cpuacct:/\n12:memory:/system.slice/docker-{A}.scope\n", A),
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope\n", A),  # rootless
        (f"0::/machine.slice/libpod-{A}.scope/container\n", A),  # Podman
        (f"0::/kubepods.slice/kubepods-pod7d.slice/cri-containerd-{A}.scope\n", A),  # Kubernetes
        (f"0::/system.slice/containerd.service/kubepods-pod7d.slice:cri-containerd:{A}\n", A),
        (f"0::/docker/{A}/docker/{B}\n", A),  # one inside the other: this host knows the outer one
        (f"0::/docker/{A[:-1]}\n", None),
        (f"0::/docker/{A}0\n", None),
        (f"0::/backup-of-{A}x\n", None),
        ("0::/init.scope\n", None),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_the_cgroup_names_the_container(cgroup: str, expected: str | None) -> None:
    assert container_id(cgroup) == expected


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with two processes of one container, one of another, and one of none."""
    for pid, where in ((11, f"docker-{A}.scope"), (12, f"docker-{A}.scope"), (13, f"docker-{B}.scope"), (14, "x")):
        directory = tmp_path / "proc" / str(pid)
        directory.mkdir(parents=True)
        (directory / "cgroup").write_text(f"0::/system.slice/{where}\n")
    return tmp_path / "proc"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a command in place of docker, which also writes down what it was asked."""

    def place(script: str) -> Path:
        directory = tmp_path / "bin"
        directory.mkdir(exist_ok=True)
        asked = tmp_path / "asked"
        (directory / "docker").write_text(f'#!/bin/sh\necho "$@" >> {asked}\n{script}\n')
        (directory / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
        return asked

    return place


def says(*labelled: tuple[str, dict[str, str] | None]) -> str:
    return "\n".join(f"echo '{json.dumps({'id': i, 'labels': labels})}'" for i, labels in labelled)


WEB = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "maintainer": "it's me"}


def test_docker_tells_the_service(proc: Path, docker: Callable[[str], Path]) -> None:
    asked = docker(says((A, {k: v for k, v in WEB.items() if "'" not in v}), (B, None)))
    found, warnings = owners([11, 12, 13, 14, 15, 11], proc)
    assert found == {
        11: Container(A, "shop", "web"),
        12: Container(A, "shop", "web"),
        13: Container(B, None, None),
    }
    assert warnings == ()
    (question,) = asked.read_text().splitlines()  # once, for all of them
    assert question.startswith("container inspect --format")
    assert question.endswith(f"{B} {A}")


def test_a_container_that_docker_does_not_know_keeps_its_id(proc: Path, docker: Callable[[str], Path]) -> None:
    docker(f"{says((A, {}))}\necho 'Error response from daemon: No such container: {B}' >&2\nexit 1")
    found, warnings = owners([11, 13], proc)
    assert found == {11: Container(A, None, None), 13: Container(B, None, None)}
    assert warnings == ()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'Cannot connect to the Docker daemon' >&2; exit 1", "docker says: Cannot connect to the Docker daemon"),
        ("exec sleep 60", "docker did not answer within 0.2 s"),
    ],
)
def test_without_dockers_answer_only_the_id_is_known(
    proc: Path, docker: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    if "sleep" in script:
        monkeypatch.setattr(containers, "_PATIENCE_S", 0.2)
    docker(script)
    found, (warning,) = owners([11], proc)
    assert found == {11: Container(A, None, None)}
    assert (warning.code, warning.severity) == ("inventory-containers", "warning")
    assert warning.summary == f"which services hold the GPUs is unknown: {why}"


def test_without_docker_only_the_id_is_known(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found, (warning,) = owners([11], proc)
    assert found == {11: Container(A, None, None)}
    assert warning.summary.endswith("docker is not on the PATH")


def test_a_docker_that_cannot_be_run_is_said(proc: Path, docker: Callable[[str], Path], tmp_path: Path) -> None:
    docker("")
    (tmp_path / "bin/docker").write_bytes(b"\x7fELF")
    _, (warning,) = owners([11], proc)
    assert "docker cannot be run: Exec format error" in warning.summary


def test_docker_is_not_asked_about_processes_of_the_host(proc: Path, docker: Callable[[str], Path]) -> None:
    asked = docker("exit 1")
    assert owners([14, 15], proc) == ({}, ())
    assert not asked.exists()


def test_an_inventory_names_the_services_that_hold_its_gpus(
    fake_nvml: FakeNvml, proc: Path, docker: Callable[[str], Path]
) -> None:
    docker(says((A, {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"})))
    gpu = {"UUID": "GPU-0", "Name": "NVIDIA L4", "PciInfo": {"busId": "00000000:1B:00.0"}, "MemoryAffinity": [1]}
    described = Machine({"DriverVersion": "570.1", "CudaDriverVersion": 12080, "gpus": [gpu]})
    described.start(11, 0, 100).start(14, 0, 5)
    fake_nvml.describe(described)
    with fake_nvml.loaded():
        (host,) = nvml.read(proc=proc, sys=proc).inventory.hosts
    assert host.gpus[0].processes == (Process(11, 100, Container(A, "shop", "web")), Process(14, 5, None))
