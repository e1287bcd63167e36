"""The command from end to end, without an engine: docker is a stand-in, and probes run in this host's own processes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpualloc.inventory import load
from tests.verify.standin import put_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.cli.running import Result

UUID = [gpu.uuid for gpu in load(["sim:4xl40s"]).inventory.hosts[0].gpus]
ON = ("--inventory", "sim:4xl40s")


@dataclass
class World:
    """A project with its containers, whose devices do not exist."""

    folder: Path
    library: Path
    run: Callable[..., Result]
    containers: list[dict[str, Any]] = field(default_factory=list)
    inside: dict[str, dict[str, str]] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)

    def service(self, name: str, ids: Sequence[str], **environ: str) -> None:
        """Add a service that is pinned to ids."""
        request = json.dumps({"capabilities": ["gpu"], "device_ids": list(ids)})
        self.services[name] = (
            f"    image: i\n    deploy: {{resources: {{reservations: {{devices: [{request}]}}}}}}\n"
            f"    environment: {json.dumps(environ)}\n"
        )

    def container(self, service: str, ids: Sequence[str], has: Sequence[str], **environ: str) -> dict[str, Any]:
        """Add a running container that asks for ids and has devices in it."""
        identity = f"{len(self.containers):064x}"
        put_devices(self.folder / identity, has)
        self.inside[identity] = {
            "LD_LIBRARY_PATH": str(self.library.parent),
            "STANDIN_GPUS": str(self.folder / identity),
            "PATH": "/nowhere",
            **environ,
        }
        labels = {"service": service, "container-number": "1", "config-hash": "h"}
        found = {
            "Id": identity,
            "Name": f"/site-{service}-1",
            "Created": "2026-01-01T00:00:00Z",
            "Config": {
                "Env": [f"{name}={value}" for name, value in environ.items()],
                "Labels": {f"com.docker.compose.{name}": value for name, value in labels.items()},
            },
            "HostConfig": {
                "Runtime": "runc",
                "Privileged": False,
                "PidMode": "",
                "DeviceRequests": [
                    {"Driver": "", "Count": 0, "DeviceIDs": list(ids), "Capabilities": [["gpu"]], "Options": {}}
                ],
            },
            "State": {"Status": "running", "ExitCode": 0, "Error": ""},
        }
        self.containers.append(found)
        return found

    def both(self, name: str, ids: Sequence[str], **environ: str) -> dict[str, Any]:
        """Add a service with a container that is as it should be."""
        self.service(name, ids, **environ)
        return self.container(name, ids, ids, **environ)

    def write(self, **more: Any) -> None:
        """Write the compose file, and what docker is to answer."""
        text = "".join(f"  {name}:\n{body}" for name, body in self.services.items())
        (self.folder / "compose.yaml").write_text(f"name: site\nservices:\n{text}")
        facts = {"containers": self.containers, "inside": self.inside, "hashes": self.hashes, **more}
        (self.folder / "docker.json").write_text(json.dumps(facts))

    def verify(self, *words: str, code: int) -> dict[str, Any]:
        self.write()
        result = self.run("verify", "--format", "json", *ON, *words)
        assert result.code == code, f"{result.out}{result.err}"
        return dict(json.loads(result.out))

    def codes(self, *words: str, code: int) -> dict[str, list[str]]:
        answer = self.verify(*words, code=code)
        return {worker["worker"]: [f["code"] for f in worker["findings"]] for worker in answer["workers"]}


@pytest.fixture
def world(tmp_path: Path, cuda_library: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> World:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "fake_docker.py"} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_DOCKER", str(tmp_path / "docker.json"))
    return World(tmp_path, cuda_library, run)


def test_all_is_well(world: World) -> None:
    world.both("trainer", UUID[:2], CUDA_VISIBLE_DEVICES="0,1")
    world.both("encoder", UUID[2:3], CUDA_VISIBLE_DEVICES="0")
    answer = world.verify(code=0)
    assert answer["good"]
    assert [worker["verdict"] for worker in answer["workers"]] == ["ok", "ok"]
    assert answer["workers"][0]["seen"]["devices"] == UUID[:2]
    result = world.run("verify", *ON)
    assert result.code == 0
    assert "2 of 2 workers of site see exactly the GPUs the file gives" in result.out
    assert result.err == ""


def test_a_wrong_worker_is_told_with_its_place(world: World) -> None:
    world.both("trainer", UUID[1:2], CUDA_VISIBLE_DEVICES="1")
    (finding,) = world.verify(code=1)["workers"][0]["findings"]
    assert finding["code"] == "cuda-host-index"
    assert (finding["file"], finding["line"]) == ("compose.yaml", 6)
    assert "trainer sees no GPU, not GPU 1" in world.run("verify", *ON).out


def test_an_outdated_container_and_one_that_compose_would_keep(world: World) -> None:
    for name in ("old", "changed"):
        world.service(name, UUID[:1])
        world.container(name, UUID[1:2], UUID[1:2])
    world.hashes = {"old": "another", "changed": "h"}
    assert world.codes(code=1) == {"old": ["older-than-file"], "changed": ["container-differs"]}


def test_compose_is_asked_with_the_same_options_and_only_where_it_matters(world: World) -> None:
    world.both("trainer", UUID[:1])
    world.verify(code=0)
    log = world.folder / "docker.log"
    assert not [line for line in log.read_text().splitlines() if json.loads(line)[0] == "compose"]
    world.container("trainer", UUID[1:2], UUID[1:2])
    world.containers[0]["State"]["Status"] = "exited"
    world.verify("-f", "compose.yaml", "-p", "site", code=1)
    (asked,) = (json.loads(line) for line in log.read_text().splitlines() if json.loads(line)[0] == "compose")
    assert asked == ["compose", "--file", "compose.yaml", "--project-name", "site", "config", "--hash", "*"]


def test_what_does_not_run_is_a_finding(world: World) -> None:
    world.service("missing", UUID[:1])
    world.both("stopped", UUID[1:2])["State"].update(Status="exited", ExitCode=3)
    world.both("broken", UUID[2:3])["State"].update(Status="created", Error='no device driver "nvidia"')
    world.both("cdi", UUID[3:])["State"].update(Status="created", Error="unresolvable CDI devices nvidia.com/gpu=x")
    assert world.codes(code=1) == {
        "missing": ["missing-container"],
        "stopped": ["stopped-container"],
        "broken": ["not-started"],
        "cdi": ["stale-cdi"],
    }


def test_parked_workers_need_no_container(world: World) -> None:
    world.both("trainer", UUID[:1])
    world.services["parked"] = (
        "    image: i\n    deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 4}]}}}\n"
    )
    world.write()
    assert world.run("apply", "--yes", "--partial", *ON).code == 3
    result = world.run("verify", "--format", "json", *ON)
    answer = {worker["worker"]: worker for worker in json.loads(result.out)["workers"]}
    assert answer["parked"]["state"] == "parked"
    assert [f["severity"] for f in answer["parked"]["findings"]] == ["note"]


def test_containers_of_no_worker_are_told(world: World) -> None:
    world.both("trainer", UUID[:1])
    world.container("renamed", UUID[1:2], UUID[1:2])
    world.container("trainer", UUID[2:3], UUID[2:3])
    world.containers[2]["Config"]["Labels"]["com.docker.compose.container-number"] = "2"
    world.containers[2]["Name"] = "/site-trainer-2"
    answer = world.verify(code=1)
    assert [worker["verdict"] for worker in answer["workers"]] == ["ok"]
    assert sorted(finding["code"] for finding in answer["findings"]) == ["extra-container", "orphan"]


def test_without_python_it_says_so(world: World) -> None:
    world.both("blind", UUID[:1], NO_PYTHON="1")
    world.both("wrong", UUID[1:2], NO_PYTHON="1", CUDA_VISIBLE_DEVICES="1")
    answer = world.verify(code=1)
    blind, wrong = answer["workers"]
    assert (blind["verdict"], blind["seen"]["how"]) == ("unseen", "docker")
    assert wrong["verdict"] == "wrong"
    assert "GPU 0 (by docker)" in world.run("verify", *ON).out


def test_docker_that_cannot_be_asked_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.both("trainer", UUID[:1])
    world.write(error="Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
    result = world.run("verify", *ON)
    assert result.code == 2
    assert "docker says: Cannot connect to the Docker daemon" in result.err
    assert "hint:" in result.err
    monkeypatch.setenv("PATH", str(world.folder / "nothing"))
    result = world.run("verify", *ON)
    assert result.code == 2
    assert "docker is not on the PATH" in result.err


def test_a_project_without_workers(world: World) -> None:
    world.services["web"] = "    image: i\n"
    answer = world.verify(code=0)
    assert answer["workers"] == []
    assert "No worker asks for a GPU." in world.run("verify", *ON).out


def test_progress_is_shown_on_a_terminal_only(world: World) -> None:
    for number in range(3):
        world.both(f"w{number}", UUID[number : number + 1])
    world.write()
    reader, writer = pty.openpty()
    words = [sys.executable, "-m", "gpualloc", "verify", *ON]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(words, cwd=world.folder, env=environ, stdout=subprocess.PIPE, stderr=writer, check=True)
    os.close(writer)
    shown = os.read(reader, 4096).decode()
    os.close(reader)
    assert shown.startswith("\rverifying 0/3\rverifying 1/3\rverifying 2/3")
    assert shown.endswith("\r\x1b[K")
    assert b"verifying" not in done.stdout
