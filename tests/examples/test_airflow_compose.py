"""The Airflow example: one GPU worker for each queue, and none loses what it inherits."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import compose_oracle

AIRFLOW = Path(__file__).resolve().parents[2] / "examples" / "airflow"
SOURCE = (AIRFLOW / "compose.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    loaded = compose_oracle.config([AIRFLOW / "compose.yaml"])
    assert loaded.ok, loaded.stderr
    found: dict[str, Any] = loaded.data["services"]
    return found


def gpu_workers(services: dict[str, Any]) -> dict[str, Any]:
    return {name: service for name, service in services.items() if name.startswith("worker-")}


def queues(service: dict[str, Any]) -> list[str]:
    command: list[str] = service["command"]
    return command[command.index("--queues") + 1].split(",")


def dag_queues() -> tuple[str, ...]:
    """Read QUEUES out of the DAG without Airflow, which importing it needs."""
    tree = ast.parse((AIRFLOW / "dags" / "gpu_allocation_check.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["QUEUES"]:
            value: tuple[str, ...] = ast.literal_eval(node.value)
            return value
    pytest.fail("the DAG has no QUEUES")


def test_only_the_gpu_workers_ask_for_gpus(services: dict[str, Any]) -> None:
    # From the file itself: Compose leaves a service's own extensions out of what it prints as JSON.
    written = yaml.safe_load(SOURCE)["services"]
    asking = {name for name, service in written.items() if "deploy" in service or "x-gpualloc" in service}
    assert asking == set(gpu_workers(services))


def test_each_queue_has_one_worker_and_the_dag_checks_each(services: dict[str, Any]) -> None:
    served = [queue for worker in gpu_workers(services).values() for queue in queues(worker)]
    assert sorted(served) == sorted(dag_queues())
    assert len(set(served)) == len(served)


def test_no_service_has_replicas(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service.get("scale") is None
        assert service.get("deploy", {}).get("replicas") is None


def test_one_task_at_a_time_uses_a_workers_gpus(services: dict[str, Any]) -> None:
    for worker in gpu_workers(services).values():
        assert worker["command"][-2:] == ["--concurrency", "1"]


def test_every_worker_keeps_every_inherited_variable(services: dict[str, Any]) -> None:
    document = yaml.safe_load(SOURCE)
    common = {key: str(value) for key, value in document["x-airflow-common"]["environment"].items()}
    inherited = {key: str(value) for key, value in document["x-gpu-worker"]["environment"].items()}
    assert set(common) < set(inherited)
    for name, worker in gpu_workers(services).items():
        missing = set(inherited) - set(worker["environment"])
        assert not missing, f"{name} lost {missing}"
        assert worker["environment"]["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"


def test_every_worker_waits_for_all_that_it_needs(services: dict[str, Any]) -> None:
    for worker in gpu_workers(services).values():
        waits = {name: need["condition"] for name, need in worker["depends_on"].items()}
        assert waits == {
            "postgres": "service_healthy",
            "redis": "service_healthy",
            "airflow-apiserver": "service_healthy",
            "airflow-init": "service_completed_successfully",
        }


def test_the_ways_of_asking_are_the_ones_it_is_meant_to_show() -> None:
    services = yaml.safe_load(SOURCE)["services"]
    compose = {
        name: service["deploy"]["resources"]["reservations"]["devices"][0]["count"]
        for name, service in services.items()
        if "deploy" in service
    }
    assert compose == {"worker-train": 2, "worker-evaluate": 1}
    own = {name: service["x-gpualloc"] for name, service in services.items() if "x-gpualloc" in service}
    assert own == {
        "worker-finetune": {"gpus": 1, "exclusive": True},
        "worker-inference": {"gpus": 1, "memory": "12GiB"},
        "worker-features": {"gpus": 1, "memory": "8GiB"},
    }


def test_the_policy_writes_what_the_check_reads() -> None:
    written = yaml.safe_load((AIRFLOW / "policies" / "airflow.yaml").read_text(encoding="utf-8"))["write"]["env"]
    source = (AIRFLOW / "dags" / "gpualloc_check" / "check.py").read_text(encoding="utf-8")
    read = {key for key in written if f'"{key}"' in source}
    assert read == set(written)


def test_the_image_and_the_compose_file_agree_on_versions() -> None:
    dockerfile = (AIRFLOW / "Dockerfile").read_text(encoding="utf-8")
    arguments = dict(line[4:].split("=", 1) for line in dockerfile.splitlines() if line.startswith("ARG "))
    assert set(arguments) == {"AIRFLOW_VERSION", "TENSORFLOW_VERSION"}
    for name, version in arguments.items():
        assert f"${{{name}:-{version}}}" in SOURCE
