"""Which container a process runs in, and which service that container is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gpualloc.inventory import containers, load, nvml
from gpualloc.inventory.containers import container_id, look, owners
from gpualloc.inventory.snapshot import dump
from gpualloc.model import Container, Process
from tests.inventory.docker_text import docker_says, facts
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
        monkeypatch.setenv("DOCKER_HOST", "unix:///run/engine.sock")
        return asked

    return place


def look_at(pids: list[int], proc: Path) -> tuple[dict[int, Container], list[str]]:
    found, warnings = owners(pids, proc, look())
    assert all((w.code, w.severity) == ("inventory-containers", "warning") for w in warnings)
    return found, [w.summary.removeprefix("which services hold the GPUs is unknown: ") for w in warnings]


WEB = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web", "maintainer": "it's me"}


def test_docker_tells_the_service(proc: Path, docker: Callable[[str], Path]) -> None:
    asked = docker(docker_says(facts(A, 11, WEB), facts(B, 13)))
    found, warnings = look_at([11, 12, 13, 14, 15, 11], proc)
    assert found == {
        11: Container(A, "shop", "web"),
        12: Container(A, "shop", "web"),
        13: Container(B, None, None),
    }
    assert warnings == []
    listing, question = asked.read_text().splitlines()  # once each, for all of them
    assert listing == "container ls --no-trunc --quiet"
    assert question.startswith("container inspect --format")
    assert question.endswith(f"{A} {B}")


def test_a_task_of_swarm_is_of_its_stack(proc: Path, docker: Callable[[str], Path]) -> None:
    task = {"com.docker.stack.namespace": "shop", "com.docker.swarm.service.name": "shop_web-1"}
    alone = {"com.docker.swarm.service.name": "shop_web-1"}  # docker service create, of no stack
    docker(docker_says(facts(A, 11, task), facts(B, 13, alone)))
    assert look_at([11, 13], proc) == ({11: Container(A, "shop", "web-1"), 13: Container(B, None, None)}, [])


def test_a_main_process_that_the_kernel_does_not_show_is_known_by_its_pid(
    proc: Path, docker: Callable[[str], Path]
) -> None:
    docker(docker_says(facts(A, 99, WEB)))
    assert look_at([99, 98], proc) == ({99: Container(A, "shop", "web")}, [])


def test_a_container_that_docker_does_not_know_keeps_its_id(proc: Path, docker: Callable[[str], Path]) -> None:
    gone = f"Error response from daemon: No such container: {B}"
    docker(docker_says(facts(A, 11, {}), code=1, error=gone))
    assert look_at([11, 13], proc) == ({11: Container(A, None, None), 13: Container(B, None, None)}, [])


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
    assert look_at([11], proc) == ({11: Container(A, None, None)}, [why])
    # an engine that should be there and does not answer may run containers that hold GPUs and show no process
    assert look_at([], proc) == ({}, [why])


def test_without_docker_only_the_id_is_known(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert look_at([11], proc) == ({11: Container(A, None, None)}, ["docker is not on the PATH"])
    assert look_at([14], proc) == ({}, [])


def test_a_docker_that_cannot_be_run_is_said(proc: Path, docker: Callable[[str], Path], tmp_path: Path) -> None:
    docker("")
    (tmp_path / "bin/docker").write_bytes(b"\x7fELF")
    _, (why,) = look_at([11], proc)
    assert why == "docker cannot be run: Exec format error"


def test_where_no_engine_listens_its_client_is_not_started(
    proc: Path, docker: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = docker("exit 1")
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setattr(containers, "SOCKET", tmp_path / "docker.sock")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert look_at([11], proc) == ({11: Container(A, None, None)}, ["no Docker engine is running"])
    assert look_at([14, 15], proc) == ({}, [])
    assert not asked.exists()
    for variable, folder in (("XDG_RUNTIME_DIR", "docker.sock"), ("DOCKER_CONFIG", "contexts")):
        (tmp_path / variable / folder).mkdir(parents=True)
        monkeypatch.setenv(variable, str(tmp_path / variable))
        look()
        assert asked.exists(), variable
        asked.unlink()
        monkeypatch.delenv(variable)


# What containers hold while they are idle

MACHINE = Machine(
    {
        "DriverVersion": "570.1",
        "CudaDriverVersion": 12080,
        "gpus": [
            {
                "UUID": f"GPU-{n}000",
                "Name": "NVIDIA L4",
                "PciInfo": {"busId": f"00000000:{n}B:00.0"},
                "MemoryAffinity": [1],
            }
            for n in range(3)
        ],
    }
)
SHOP = Container(A, "shop", "web")


def request(**facts: Any) -> dict[str, Any]:
    return {"DeviceRequests": [{"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]]} | facts]}


RUNTIME = {"Runtime": "nvidia"}
GIVEN: dict[str, tuple[dict[str, Any], list[int]]] = {
    "by uuid": (request(DeviceIDs=["GPU-1000"]), [1]),
    "by the beginning of a uuid": (request(DeviceIDs=["GPU-2"]), [2]),
    "by index": (request(DeviceIDs=["2"]), [2]),
    "two in one": (request(Driver="nvidia", DeviceIDs=["0,1"], Capabilities=None), [0, 1]),
    "by address": (request(DeviceIDs=["0000:1b:00.0"]), [1]),
    "the first two": (request(Count=2), [0, 1]),
    "all": (request(Count=-1), [0, 1, 2]),
    "all by name": (request(DeviceIDs=["all"]), [0, 1, 2]),
    "CDI": (request(Driver="cdi", DeviceIDs=["nvidia.com/gpu=GPU-0000"], Capabilities=None), [0]),
    "all by CDI": (request(Driver="cdi", DeviceIDs=["nvidia.com/gpu=all"], Capabilities=None), [0, 1, 2]),
    "another vendor's CDI": (request(Driver="cdi", DeviceIDs=["amd.com/gpu=0"], Capabilities=None), []),
    "another driver": (request(Driver="amd", Count=-1), []),
    "no GPU": (request(Count=-1, Capabilities=[["tpu"]]), []),
    "unknown": (request(DeviceIDs=["GPU-9", "7"]), []),
    "a variable": (RUNTIME | {"env": ["A=b", "NVIDIA_VISIBLE_DEVICES=1,GPU-2000"]}, [1, 2]),
    "a variable for all": (RUNTIME | {"env": ["NVIDIA_VISIBLE_DEVICES=all"]}, [0, 1, 2]),
    "a variable for none": (RUNTIME | {"env": ["NVIDIA_VISIBLE_DEVICES=void"]}, []),
    "what Swarm grants": (
        RUNTIME | {"env": ["NVIDIA_VISIBLE_DEVICES=all", "DOCKER_RESOURCE_NVIDIA-GPU=GPU-1000,GPU-2000"]},
        [1, 2],
    ),
    "what Swarm grants of something else": (
        RUNTIME | {"env": ["NVIDIA_VISIBLE_DEVICES=0", "DOCKER_RESOURCE_SSD=GPU-2000"]},
        [0],
    ),
    "a variable that no runtime heeds": ({"env": ["NVIDIA_VISIBLE_DEVICES=all"]}, []),
    "both: the request counts": (request(DeviceIDs=["0"]) | RUNTIME | {"env": ["NVIDIA_VISIBLE_DEVICES=all"]}, [0]),
    "a monitor": (request(Count=-1) | {"image": "nvcr.io/nvidia/k8s/dcgm-exporter:4"}, []),
    "nothing": ({}, []),
}


@pytest.mark.parametrize("case", GIVEN)
def test_a_container_holds_what_it_was_given(
    fake_nvml: FakeNvml, proc: Path, docker: Callable[[str], Path], case: str
) -> None:
    host, expected = GIVEN[case]
    docker(docker_says(facts(A, 11, WEB, **host)))
    fake_nvml.describe(MACHINE)
    with fake_nvml.loaded():
        (found,) = nvml.read(proc=proc, sys=proc).inventory.hosts
    held = [Process(11, 0, SHOP)]
    assert [list(gpu.processes) for gpu in found.gpus] == [held if n in expected else [] for n in range(3)]


def test_a_container_at_work_is_not_counted_twice(
    fake_nvml: FakeNvml, proc: Path, docker: Callable[[str], Path]
) -> None:
    docker(docker_says(facts(A, 11, WEB, **request(Count=2))))
    fake_nvml.describe(Machine(MACHINE.description).start(12, 0, 100).start(14, 0, 5))
    with fake_nvml.loaded():
        (found,) = nvml.read(proc=proc, sys=proc).inventory.hosts
    assert [gpu.processes for gpu in found.gpus] == [
        (Process(12, 100, SHOP), Process(14, 5, None)),
        (Process(11, 0, SHOP),),
        (),
    ]


def test_a_container_may_hold_a_part_of_a_gpu(fake_nvml: FakeNvml, proc: Path, docker: Callable[[str], Path]) -> None:
    described = Machine.from_inventory(json.loads(dump(load(["sim:a100-mig"]).inventory)))
    part = described.gpu(1)["mig"][3]
    docker(
        docker_says(
            facts(A, 11, WEB, **request(DeviceIDs=[part["UUID"]])), facts(B, 13, None, **request(DeviceIDs=["1:0"]))
        )
    )
    fake_nvml.describe(described)
    with fake_nvml.loaded():
        (found,) = nvml.read(proc=proc, sys=proc).inventory.hosts
    assert [gpu.processes for gpu in found.gpus] == [
        (),
        (Process(11, 0, SHOP, gi=part["GpuInstanceId"]), Process(13, 0, Container(B, None, None), gi=7)),
    ]
