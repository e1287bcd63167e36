"""What gpualloc makes of the examples, from the command line, on machines that it ships."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import compose_oracle

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
OWNED = {
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "TF_FORCE_GPU_ALLOW_GROWTH",
    "GPUALLOC_WORKER",
    "GPUALLOC_GPUS",
    "GPUALLOC_DEVICE_IDS",
    "GPUALLOC_MEMORY_MIB",
}


def gpualloc(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in an example's folder, where its header says to run it."""
    command = [sys.executable, "-m", "gpualloc", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def plan(folder: Path, policy: str, machine: str) -> dict[str, Any]:
    """Return the plan, which has to be complete."""
    source = ("--policy", policy, "--inventory", f"sim:{machine}")
    done = gpualloc(folder, "plan", *source, "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def devices(document: dict[str, Any]) -> dict[str, list[str]]:
    return {placed["worker"]: [device["uuid"] for device in placed["devices"]] for placed in document["placements"]}


@pytest.fixture
def airflow(tmp_path: Path) -> Path:
    """Return a copy of the Airflow example that may be written to."""
    return Path(shutil.copytree(EXAMPLES / "airflow", tmp_path / "airflow"))


@pytest.mark.parametrize(
    ("example", "policy", "machine"),
    [
        ("airflow", "airflow", "dgx-a100"),
        ("airflow", "airflow", "4xl40s"),
        ("airflow", "base", "8xrtx4090"),
        ("inference", "inference", "dgx-a100"),
        ("inference", "inference", "dgx-h100"),
        ("desktop", "desktop", "1xrtx3090"),
        ("desktop", "desktop", "desktop"),
        ("mixed", "base", "dgx-a100"),
        ("mixed", "prod", "8xrtx4090"),
        ("mig", "base", "a100-mig"),
        ("mig", "prod", "a100-mig"),
    ],
)
def test_it_fits_on_a_machine_of_its_kind(example: str, policy: str, machine: str) -> None:
    assert plan(EXAMPLES / example, policy, machine)["complete"]


def test_the_trainer_and_the_finetuner_share_with_nobody() -> None:
    held = devices(plan(EXAMPLES / "airflow", "airflow", "4xl40s"))
    assert {worker: len(uuids) for worker, uuids in held.items()} == {
        "worker-train": 2,
        "worker-finetune": 1,
        "worker-evaluate": 1,
        "worker-inference": 1,
        "worker-features": 1,
    }
    alone = [*held["worker-train"], *held["worker-finetune"]]
    shared = {uuid for name in ("worker-evaluate", "worker-inference", "worker-features") for uuid in held[name]}
    assert len(set(alone)) == 3
    assert len(shared) == 1, "the fourth GPU holds the other three"
    assert not shared & set(alone)


def test_applying_the_airflow_example_changes_gpu_facts_and_nothing_else(airflow: Path) -> None:
    file = airflow / "compose.yaml"
    before = compose_oracle.config([file])
    held = devices(plan(airflow, "airflow", "dgx-a100"))
    done = gpualloc(airflow, "apply", "-y", "--policy", "airflow", "--inventory", "sim:dgx-a100")
    assert done.returncode == 0, done.stderr
    after = compose_oracle.config([file])
    assert after.ok, after.stderr
    # Among others: no variable that a worker inherited is gone.
    assert compose_oracle.differences(before.data, after.data, owned=OWNED) == []
    services = compose_oracle.services(after.data)
    assert {name: facts.requests for name, facts in services.items() if facts.requests} == {
        worker: {"deploy": [{"driver": "nvidia", "device_ids": uuids, "capabilities": ["gpu"]}]}
        for worker, uuids in held.items()
    }
    for name, service in after.data["services"].items():
        assert OWNED.isdisjoint(service.get("environment", {})) == (name not in held)


def test_what_is_written_is_what_the_check_expects(airflow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(airflow / "dags")
    check = importlib.import_module("gpualloc_check.check")
    document = plan(airflow, "airflow", "4xl40s")
    gpualloc(airflow, "apply", "-y", "--policy", "airflow", "--inventory", "sim:4xl40s")
    services = compose_oracle.config([airflow / "compose.yaml"]).data["services"]
    for placed in document["placements"]:
        environment = services[placed["worker"]]["environment"]
        given = check.expected(environment)
        assert given.worker == placed["worker"]
        assert list(given.device_ids) == devices(document)[placed["worker"]]
        assert given.memory_mib == placed["memory_mib"]
        # TensorFlow grows into its share where others have theirs, and takes the device where it is alone.
        assert ("TF_FORCE_GPU_ALLOW_GROWTH" in environment) == (not placed["exclusive"])


def test_applying_twice_changes_nothing_and_reset_gives_the_original_back(airflow: Path) -> None:
    file = airflow / "compose.yaml"
    original = file.read_bytes()
    source = ("--policy", "airflow", "--inventory", "sim:dgx-a100")
    gpualloc(airflow, "apply", "-y", *source)
    applied = file.read_bytes()
    assert applied != original
    assert gpualloc(airflow, "apply", "-y", *source).returncode == 0
    assert file.read_bytes() == applied
    assert gpualloc(airflow, "check", *source).returncode == 0
    assert gpualloc(airflow, "reset", "-y").returncode == 0
    assert file.read_bytes() == original


def test_vllm_gets_the_part_of_its_gpu_that_it_was_given(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLES / "inference", tmp_path / "inference"))
    done = gpualloc(folder, "apply", "-y", "--policy", "inference", "--inventory", "sim:dgx-a100")
    assert done.returncode == 0, done.stderr
    services = compose_oracle.config([folder / "compose.yaml"]).data["services"]
    parts = {name: service["environment"].get("GPU_MEMORY_FRACTION") for name, service in services.items()}
    assert parts.pop("chat") is None, "it has its GPUs to itself"
    assert parts == {"autocomplete": "0.5500", "embeddings": "0.1500"}, "22 GiB and 6 GiB of 40 GiB"


def test_mig_instances_are_shared_only_by_those_that_name_their_memory(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(EXAMPLES / "mig", tmp_path / "mig"))
    source = ("--inventory", "sim:a100-mig")
    held = devices(plan(folder, "base", "a100-mig"))
    done = gpualloc(folder, "apply", "-y", *source)
    assert done.returncode == 0, done.stderr
    loaded = compose_oracle.config([folder / "compose.yaml"])
    assert loaded.ok, loaded.stderr
    services = loaded.data["services"]
    assert set(held) == {"llm", "embeddings", "reranker", "notebook-1", "notebook-2", "notebook-3"}
    assert held["embeddings"] == held["reranker"]
    assert len({uuid for uuids in held.values() for uuid in uuids}) == 5
    for worker, (uuid,) in held.items():
        assert uuid.startswith("MIG-")
        (entry,) = services[worker]["deploy"]["resources"]["reservations"]["devices"]
        assert entry["device_ids"] == [uuid]
        assert services[worker]["environment"]["CUDA_VISIBLE_DEVICES"] == uuid, "CUDA takes instances by UUID"
    ports = [services[f"notebook-{n}"]["ports"][0]["published"] for n in (1, 2, 3)]
    assert ports == ["8888", "8889", "8890"]
    assert gpualloc(folder, "check", *source).returncode == 0
