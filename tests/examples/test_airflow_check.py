"""The Airflow example's check: what a worker was given against what is seen in it."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "examples" / "airflow" / "dags"
A, B, C = (f"{digit * 8}-0000-4000-8000-{digit * 12}" for digit in "abc")
PAIR = {"GPUALLOC_WORKER": "worker-train", "GPUALLOC_GPUS": "2", "GPUALLOC_DEVICE_IDS": f"GPU-{A},GPU-{B}"}


def load() -> Any:
    """Import the example's module as the DAG does: with the DAG folder on the path."""
    sys.path.insert(0, str(DAGS))
    try:
        return importlib.import_module("gpualloc_check.check")
    finally:
        sys.path.remove(str(DAGS))


check = load()


def seen(*uuids: str, listed: int | None = None, loaded: bool = True, **tensorflow: Any) -> dict[str, Any]:
    """Return what the probe reports for a worker that CUDA shows these devices and TensorFlow as many, or `listed`."""
    cuda = [{"uuid": uuid, "name": "NVIDIA L40S", "memory_mib": 46068} for uuid in uuids]
    devices = [
        {"name": f"/device:GPU:{n}", "model": "NVIDIA L40S", "seconds": 0.01, "error": None}
        for n in range(len(uuids) if listed is None else listed)
    ]
    return {
        "cuda": {"loaded": loaded, "devices": cuda, "error": None if uuids else "cuInit: CUDA_ERROR_NO_DEVICE (100)"},
        "container": list(uuids),
        "tensorflow": {"version": "2.21.0", "cuda_build": True, "devices": devices, "error": None, **tensorflow},
    }


# ---- what was given


def test_expectation_comes_from_what_gpualloc_wrote() -> None:
    given = check.expected({**PAIR, "GPUALLOC_MEMORY_MIB": "12288"})
    assert (given.worker, given.device_ids, given.memory_mib) == ("worker-train", (f"GPU-{A}", f"GPU-{B}"), 12288)
    assert check.expected(PAIR).memory_mib is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"GPUALLOC_GPUS": ""}, "GPUALLOC_GPUS not set"),
        ({"GPUALLOC_DEVICE_IDS": "", "GPUALLOC_GPUS": ""}, "GPUALLOC_GPUS and GPUALLOC_DEVICE_IDS not set"),
        ({"GPUALLOC_DEVICE_IDS": "0,1"}, "GPUALLOC_DEVICE_IDS=0,1 are not UUIDs"),
        ({"GPUALLOC_DEVICE_IDS": f"GPU-{A}"}, "GPUALLOC_GPUS=2, but GPUALLOC_DEVICE_IDS names 1"),
        ({"GPUALLOC_GPUS": "two"}, "GPUALLOC_GPUS=two, but GPUALLOC_DEVICE_IDS names 2"),
    ],
)
def test_an_unusable_expectation_fails_the_check(change: dict[str, str], message: str) -> None:
    with pytest.raises(check.AllocationError, match=r"likely cause: ") as caught:
        check.expected({**PAIR, **change})
    assert message in str(caught.value)


# ---- the comparison


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from([A, B, C]), min_size=1), st.lists(st.sampled_from([A, B, C])), st.integers(0, 4))
def test_only_exactly_the_given_devices_pass(given_ids: set[str], shown: list[str], listed: int) -> None:
    expectation = check.Expected("w", tuple(f"GPU-{uuid}" for uuid in sorted(given_ids)), None)
    differences = check.differences(expectation, seen(*shown, listed=listed))
    exact = sorted(shown) == sorted(given_ids) and listed == len(given_ids)
    assert (differences == []) == exact


def test_a_mig_instance_is_known_by_its_own_uuid() -> None:
    given = check.expected({**PAIR, "GPUALLOC_GPUS": "1", "GPUALLOC_DEVICE_IDS": f"MIG-{C.upper()}"})
    assert check.differences(given, seen(C)) == []
    assert check.differences(given, seen(A)) == [f"CUDA shows GPU-{A}"]
    assert check.report(given, seen(C))["devices"][0]["uuid"] == f"MIG-{C.upper()}"


def test_a_device_that_does_not_compute_fails_the_check() -> None:
    view = seen(A, B)
    view["tensorflow"]["devices"][1]["error"] = "the matrix product is wrong"
    assert check.differences(check.expected(PAIR), view) == ["/device:GPU:1: the matrix product is wrong"]


def test_names_that_disagree_mean_that_uuids_prove_nothing() -> None:
    view = seen(A, B)
    view["tensorflow"]["devices"][0]["model"] = "NVIDIA T400"
    assert check.differences(check.expected(PAIR), view) == [
        "/device:GPU:0 is NVIDIA T400 to TensorFlow and NVIDIA L40S to CUDA"
    ]


@pytest.mark.parametrize(
    ("view", "problem", "cause"),
    [
        (seen(loaded=False), "TensorFlow lists no GPUs, gpualloc gave 2", "no NVIDIA driver in this container"),
        ({**seen(A), "container": [A, B]}, f"CUDA shows GPU-{A}\n", "CUDA_VISIBLE_DEVICES hides GPUs"),
        ({**seen(), "container": [A, B]}, "CUDA shows no device", "CUDA_VISIBLE_DEVICES hides GPUs"),
        (seen(A, B, C), "TensorFlow lists 3 GPUs, gpualloc gave 2", "is it `privileged`"),
        (seen(A, C), f"CUDA shows GPU-{A}, GPU-{C}", "the container is older than the compose file"),
        ({**seen(A), "container": None}, "TensorFlow lists 1 GPU, gpualloc gave 2", "a GPU has gone"),
        (seen(A, B, listed=1), "TensorFlow lists 1 GPU, gpualloc gave 2", "TensorFlow cannot use what CUDA shows"),
        (seen(A, B, listed=0, cuda_build=False), "TensorFlow lists no GPUs", "build it with `tensorflow[and-cuda]`"),
        (seen(A, B, listed=0, version=None, error="No module"), "  No module", "build it with `tensorflow[and-cuda]`"),
    ],
)
def test_every_difference_has_its_likely_cause(view: dict[str, Any], problem: str, cause: str) -> None:
    given = check.expected(PAIR)
    text = check.explain(given, view, check.differences(given, view), {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert text.startswith("worker-train does not see exactly the GPUs that gpualloc gave it:\n")
    assert problem in text
    assert cause in text.partition("likely cause: ")[2]
    assert f"given: GPU-{A}, GPU-{B}" in text
    assert "CUDA_VISIBLE_DEVICES=0,1" in text


def test_a_rehearsal_without_a_driver_counts_and_says_so() -> None:
    given, view = check.expected(PAIR), seen(listed=2, loaded=False)
    assert check.differences(given, view, stand_in=2) == []
    text = check.describe(check.report(given, view, stand_in=2))
    assert text.startswith("worker-train: REHEARSAL, logical CPU devices stand in for its GPUs")
    assert "exactly" not in text
    wrong = check.differences(given, seen(listed=3, loaded=False), stand_in=3)
    assert wrong == ["TensorFlow lists 3 stand-in devices, gpualloc gave 2"]


# ---- the probe as a process, with a driver library and a TensorFlow made for it


@pytest.fixture(scope="module")
def standins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build libcuda.so.1 and lay out a TensorFlow; skip where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the stand-in for libcuda with")
    folder = tmp_path_factory.mktemp("standins")
    here = Path(__file__).parent
    library = folder / "libcuda.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, here / "standin_cuda.c"], check=True
    )
    shutil.copy(here / "standin_tensorflow.py", folder / "tensorflow.py")
    smi = folder / "nvidia-smi"
    smi.write_text(
        '#!/bin/sh\n[ "$1" = -L ] || exit 1\n'
        + "".join(f"echo 'GPU {n}: NVIDIA L40S (UUID: GPU-{uuid})'\n" for n, uuid in enumerate([A, B]))
    )
    smi.chmod(0o755)
    return folder


@pytest.fixture
def worker(standins: Path) -> dict[str, str]:
    """Return the environment of a worker that sees its two GPUs."""
    devices = ",".join(uuid.replace("-", "") for uuid in (A, B))
    return {
        **PAIR,
        "PATH": f"{standins}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(standins),
        "PYTHONPATH": f"{standins}{os.pathsep}{DAGS}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "STANDIN_CUDA": devices,
        "STANDIN_TENSORFLOW": tensorflow(),
    }


def tensorflow(number: int = 2, **more: Any) -> str:
    """Return the settings of a TensorFlow that lists so many of the stand-in's devices."""
    return json.dumps({"models": [f"Stand-in {ordinal}" for ordinal in range(number)], **more})


def run_check(env: dict[str, str]) -> tuple[int, str]:
    """Run the check as one would by hand in the container."""
    done = subprocess.run(
        [sys.executable, "-m", "gpualloc_check"], env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_worker_that_sees_its_gpus_passes(worker: dict[str, str]) -> None:
    code, text = run_check({**worker, "CUDA_VISIBLE_DEVICES": "0,1", "GPUALLOC_MEMORY_MIB": "8192"})
    assert code == 0, text
    assert "worker-train sees exactly its 2 GPUs, 8192 MiB of each (TensorFlow 0.0-standin)" in text
    assert f"/device:GPU:1: Stand-in 1, 24576 MiB, GPU-{B}, matrix product in " in text


def test_the_report_is_what_the_task_returns(worker: dict[str, str]) -> None:
    report = check.check_allocation(env=worker)
    assert json.loads(json.dumps(report)) == report, "XCom keeps JSON"
    assert [device["uuid"] for device in report["devices"]] == [f"GPU-{A}", f"GPU-{B}"]
    assert all(device["matmul_seconds"] > 0 for device in report["devices"])


@pytest.mark.parametrize("visible", ["2", "", "0,0", "0,7,1"])
def test_a_host_index_in_cuda_visible_devices_is_found_out(worker: dict[str, str], visible: str) -> None:
    number = 1 if visible == "0,7,1" else 0
    env = {**worker, "CUDA_VISIBLE_DEVICES": visible, "STANDIN_TENSORFLOW": tensorflow(number)}
    code, text = run_check(env)
    assert code == 1
    assert f"CUDA_VISIBLE_DEVICES={visible}\n" in text
    assert "CUDA_VISIBLE_DEVICES hides GPUs that are in the container" in text


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("memory", "/device:GPU:1: matrix product: failed to allocate memory"),
        ("elsewhere", "/device:GPU:1: the matrix product ran on /job:localhost/replica:0/task:0/device:CPU:0"),
        ("wrong", "/device:GPU:1: the matrix product is wrong"),
    ],
)
def test_each_gpu_has_to_multiply(worker: dict[str, str], fault: str, message: str) -> None:
    code, text = run_check({**worker, "STANDIN_TENSORFLOW": tensorflow(faults={"/device:GPU:1": fault})})
    assert code == 1
    assert f"  {message}\n" in text
    assert "/device:GPU:0" not in text


def test_a_gpu_that_tensorflow_lists_but_will_not_use_is_a_failure(worker: dict[str, str]) -> None:
    code, text = run_check({**worker, "STANDIN_TENSORFLOW": tensorflow(usable=1)})
    assert (code, "  /device:GPU:1: not usable\n" in text) == (1, True)


def test_a_probe_that_dies_is_a_failed_check(worker: dict[str, str]) -> None:
    code, text = run_check({**worker, "STANDIN_TENSORFLOW": "{"})
    assert code == 1
    assert "the probe ended with 1 before it could say what it sees" in text
    assert "JSONDecodeError" in text, "with the end of what it printed"


def test_without_a_driver_the_probe_says_so(worker: dict[str, str], tmp_path: Path) -> None:
    # An empty file in the library's place: what is there cannot be loaded, whatever the host has.
    (tmp_path / "libcuda.so.1").touch()
    env = {**worker, "LD_LIBRARY_PATH": str(tmp_path), "STANDIN_TENSORFLOW": tensorflow(0)}
    code, text = run_check(env)
    assert code == 1
    assert "there is no NVIDIA driver in this container (no NVIDIA driver library: " in text
