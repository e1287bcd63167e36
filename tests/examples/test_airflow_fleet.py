"""The Airflow example over three hosts: planned as a stack, read by docker's own command, and written for each host."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests import compose_oracle
from tests.examples.test_examples_planned import airflow, gpualloc
from tests.swarm.stacks import docker_reads, needs_docker_stack, warned_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["airflow"]

HOSTS = ("4xl40s", "8xrtx4090", "4xa100-pcie-bridged")
FLEET = ("--policy", "fleet", *(word for host in HOSTS for word in ("--inventory", f"sim:{host}")))
WORKERS = {
    "worker-train": "4xa100-pcie-bridged",
    "worker-finetune": "4xa100-pcie-bridged",
    "worker-inference": "8xrtx4090",
    "worker-features": "4xl40s",
    "worker-evaluate": "4xl40s",
}


def plan(folder: Path, *more: str) -> dict[str, Any]:
    done = gpualloc(folder, "plan", *FLEET, "--format", "json", *more)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture
def stack(airflow: Path) -> Path:
    done = gpualloc(airflow, "apply", "-y", *FLEET, "--swarm", "stack.yaml", "--node-map", "4xl40s=node-1")
    assert done.returncode == 0, done.stderr
    return airflow / "stack.yaml"


def test_every_worker_is_on_its_node_with_its_gpus(airflow: Path, stack: Path) -> None:
    document = plan(airflow, "--swarm", "stack.yaml")
    assert {p["worker"]: p["host"] for p in document["placements"]} == WORKERS
    assert {p["action"] for p in document["placements"]} == {"keep"}
    assert all(tier["proven"] for tier in document["objective"])
    services = yaml.safe_load(stack.read_text())["services"]
    compose = compose_oracle.config([airflow / "compose.yaml"], cwd=airflow)
    assert services.keys() == compose.data["services"].keys()
    for placement in document["placements"]:
        service = services[placement["worker"]]
        node = {"4xl40s": "node-1"}.get(placement["host"], placement["host"])
        assert service["deploy"]["placement"]["constraints"] == [f"node.hostname == {node}"]
        uuids = ",".join(device["uuid"] for device in placement["devices"])
        assert service["environment"]["NVIDIA_VISIBLE_DEVICES"] == uuids
        assert service["environment"]["GPUALLOC_DEVICE_IDS"] == uuids
    assert not warned_of(services)


@needs_docker_stack
def test_docker_takes_the_stack_as_it_is(stack: Path) -> None:
    read = docker_reads(stack)
    ours = yaml.safe_load(stack.read_text())
    assert read["services"].keys() == ours["services"].keys()
    for name, service in read["services"].items():
        assert service["image"] == ours["services"][name]["image"]
        written = ours["services"][name].get("environment", {})
        assert service.get("environment", {}) == {k: v.replace("$$", "$") for k, v in written.items()}


@compose_oracle.needs_compose
def test_each_host_has_a_file_of_its_own(airflow: Path) -> None:
    done = gpualloc(airflow, "apply", "-y", *FLEET, "--per-host", "hosts", "--main", "4xl40s")
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = {}
    for host in HOSTS:
        model = compose_oracle.config([airflow / "compose.yaml", airflow / "hosts" / f"{host}.yaml"], cwd=airflow)
        assert model.ok, model.stderr
        found |= {name: host for name in model.data["services"] if name in WORKERS}
        assert ("postgres" in model.data["services"]) == (host == "4xl40s")
    assert found == WORKERS
