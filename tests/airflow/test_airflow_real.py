"""The Airflow example under a real Airflow with a real TensorFlow: SQLite, `airflow dags test`, and no GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.airflow import airflow_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "airflow"
A, B, C = (f"{digit * 8}-0000-4000-8000-{digit * 12}" for digit in "abc")
TASKS = {"check_train", "check_finetune", "check_evaluate", "check_inference", "check_features"}

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.version_info < (3, 11), reason="the versions in constraints.txt need Python 3.11"),
]


@dataclass(frozen=True)
class Airflow:
    """An Airflow with a database of its own, on a host whose driver library is made for the test."""

    programs: Path
    home: Path
    cuda: Path

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run Airflow's command line in a worker's environment."""
        environment = {
            "PATH": f"{self.programs}{os.pathsep}/usr/bin:/bin",
            "HOME": str(self.home),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLE / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_COLOR": "1",
            "GPUALLOC_WORKER": "worker-train",
            "GPUALLOC_GPUS": "2",
            "GPUALLOC_DEVICE_IDS": f"GPU-{A},GPU-{B}",
            "CUDA_VISIBLE_DEVICES": "0,1",
            "LD_LIBRARY_PATH": str(self.cuda),
            **(env or {}),
        }
        return subprocess.run(
            [self.programs / "airflow", *arguments], env=environment, capture_output=True, text=True, check=False
        )

    def check(self, stand_in: int = 0, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run the DAG; return the exit status and all that was printed."""
        conf = json.dumps({"stand_in_devices": stand_in})
        done = self.run("dags", "test", "gpu_allocation_check", "--conf", conf, env=env)
        return done.returncode, done.stdout + done.stderr

    def check_one(self, stand_in: int, env: Mapping[str, str]) -> str:
        """Run one of the DAG's tasks alone, which is quicker, and exits with 0 whatever becomes of the task."""
        params = json.dumps({"stand_in_devices": stand_in})
        done = self.run("tasks", "test", "gpu_allocation_check", "check_train", "--task-params", params, env=env)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for libcuda with")
    try:
        programs = airflow_environment.ensure()
    except airflow_environment.InstallError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    home = tmp_path_factory.mktemp("airflow")
    cuda = tmp_path_factory.mktemp("cuda")
    source = ROOT / "tests" / "examples" / "standin_cuda.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", cuda / "libcuda.so.1", source], check=True)
    made = Airflow(programs, home, cuda)
    migrated = made.run("db", "migrate")
    assert migrated.returncode == 0, migrated.stderr
    return made


def visible(*uuids: str) -> dict[str, str]:
    """Return the setting by which the driver library's stand-in has these devices."""
    return {"STANDIN_CUDA": ",".join(uuid.replace("-", "") for uuid in uuids)}


def test_the_dag_is_parsed_where_there_is_no_tensorflow(airflow: Airflow, tmp_path: Path) -> None:
    # The scheduler's image has none: whoever imports it while parsing gets this instead.
    (tmp_path / "tensorflow.py").write_text("raise ImportError('there is no TensorFlow in the scheduler')\n")
    env = {"PYTHONPATH": str(tmp_path)}
    errors = airflow.run("dags", "list-import-errors", "--output", "json", env=env)
    assert (errors.returncode, errors.stdout.splitlines()[-1]) == (0, "[]"), errors.stdout
    tasks = airflow.run("tasks", "list", "gpu_allocation_check", env=env)
    assert set(tasks.stdout.split()) >= TASKS, tasks.stderr


def test_on_a_host_without_a_driver_every_task_says_so(airflow: Airflow, tmp_path: Path) -> None:
    # An empty file in the library's place cannot be loaded, so that a host with GPUs runs this test all the same.
    (tmp_path / "libcuda.so.1").touch()
    status, text = airflow.check(env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert status != 0
    message = (
        "worker-train does not see exactly the GPUs that gpualloc gave it:\n  TensorFlow lists no GPUs, gpualloc gave 2"
    )
    assert text.count(message) == len(TASKS)
    assert text.count("likely cause: there is no NVIDIA driver in this container") == len(TASKS)
    assert f"given: GPU-{A}, GPU-{B}" in text


def test_logical_devices_standing_in_pass(airflow: Airflow) -> None:
    status, text = airflow.check(stand_in=2, env=visible(A, B))
    assert status == 0, text
    assert text.count("worker-train: REHEARSAL, logical CPU devices stand in for its GPUs (TensorFlow 2.") == len(TASKS)
    for number, uuid in enumerate((A, B)):
        assert text.count(f"  /device:CPU:{number}: Stand-in {number}, 24576 MiB, GPU-{uuid}, matrix product in ") == 5
    assert "exactly" not in text


def test_one_device_too_few_fails(airflow: Airflow) -> None:
    text = airflow.check_one(1, visible(A, B))
    assert "  TensorFlow lists 1 stand-in device, gpualloc gave 2\n" in text
    assert "new_state=failed" in text


def test_another_gpu_than_the_one_given_fails(airflow: Airflow) -> None:
    text = airflow.check_one(2, visible(A, C))
    assert f"  CUDA shows GPU-{A}, GPU-{C}\n" in text
    assert "likely cause: the container is older than the compose file" in text
    assert "new_state=failed" in text


def test_the_settings_in_the_compose_file_are_airflows(airflow: Airflow) -> None:
    common = yaml.safe_load((EXAMPLE / "compose.yaml").read_text(encoding="utf-8"))["x-airflow-common"]["environment"]
    listing = airflow.run("config", "list", "--defaults")
    known = {line.split()[-1] for line in listing.stdout.splitlines() if line.startswith("# Variable: AIRFLOW__")}
    settings = {name for name in common if name.startswith("AIRFLOW__") and not name.startswith("AIRFLOW__CELERY__")}
    assert settings, "those of the Celery provider are not known here, which is not installed"
    assert settings <= known
