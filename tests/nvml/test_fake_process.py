"""The library in a process of its own, where pynvml finds it by its name: loading, failing, changing, hanging."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nvml.fake import Code, FakeNvml, Machine
from tests.nvml.toolchain import CannotBuildError, build, compiler

HERE = Path(__file__).parent
ONE = {"DriverVersion": "550.54.15", "gpus": [{"UUID": "GPU-0", "Name": "NVIDIA L4"}]}
COUNT = "import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetCount())"


def python(fake: FakeNvml, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], env=fake.env(), check=False, capture_output=True, text=True)


def test_it_compiles_without_a_warning_and_defines_only_what_nvml_declares(
    nvml_library: Path,  # skips where it cannot be built
    tmp_path: Path,
) -> None:
    assert build(tmp_path, "-Werror").name == nvml_library.name


def test_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(CannotBuildError, match="no C compiler"):
        compiler()


def test_two_h100s_behind_an_nvswitch_answer_as_they_did(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe(json.loads((HERE / "machines" / "2xh100.json").read_text()))
    done = subprocess.run(
        [sys.executable, HERE / "transcript.py"], env=fake_nvml.env(), check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == (HERE / "machines" / "2xh100.txt").read_text().splitlines()


def test_without_the_library_pynvml_says_so(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    fake_nvml.describe(ONE)
    assert python(fake_nvml, COUNT).stdout == "1\n"
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"")  # stands before any real one, and cannot be loaded
    elsewhere = FakeNvml(tmp_path / "libnvidia-ml.so.1", tmp_path)
    assert "NVMLError_LibraryNotFound" in python(elsewhere, COUNT).stderr


def test_without_a_description_no_driver_is_loaded(fake_nvml: FakeNvml) -> None:
    assert "NVMLError_DriverNotLoaded" in python(fake_nvml, COUNT).stderr


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.DRIVER_NOT_LOADED, "NVMLError_DriverNotLoaded"),
        (Code.LIB_RM_VERSION_MISMATCH, "NVMLError_LibRmVersionMismatch"),
        (Code.NO_PERMISSION, "NVMLError_NoPermission"),
        (Code.UNKNOWN, "NVMLError_Unknown"),
    ],
)
def test_init_fails_by_code(fake_nvml: FakeNvml, code: Code, error: str) -> None:
    fake_nvml.describe(Machine(ONE).fail("nvmlInit", code))
    assert error in python(fake_nvml, COUNT).stderr


def test_a_description_that_cannot_be_read_is_said(fake_nvml: FakeNvml) -> None:
    fake_nvml.path.write_text('{"gpus": [}')
    done = python(fake_nvml, COUNT)
    assert "nvml.json: a value was expected" in done.stderr
    assert "NVMLError_Unknown" in done.stderr


def test_the_machine_changes_while_a_process_looks_at_it(fake_nvml: FakeNvml) -> None:
    """A GPU goes, comes back, and the driver is unloaded, under one handle that was taken before."""
    two = {"gpus": [*ONE["gpus"], {"UUID": "GPU-1", "Name": "NVIDIA L40S"}]}
    fake_nvml.describe(two)
    script = """
import sys, pynvml as n
n.nvmlInit()
gpu = n.nvmlDeviceGetHandleByIndex(1)
for _ in sys.stdin:
    try:
        print(n.nvmlDeviceGetCount(), n.nvmlDeviceGetName(gpu), n.nvmlDeviceGetIndex(gpu), flush=True)
    except n.NVMLError as error:
        print(type(error).__name__, flush=True)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, env=fake_nvml.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def look() -> str:
            process.stdin.write("look\n")  # type: ignore[union-attr]  # checked above
            process.stdin.flush()  # type: ignore[union-attr]  # checked above
            return process.stdout.readline().strip()  # type: ignore[union-attr]  # checked above

        assert look() == "2 NVIDIA L40S 1"
        fake_nvml.describe(Machine(two).remove(1))
        assert look() == "NVMLError_GpuIsLost"
        fake_nvml.describe(Machine(two).remove(0))
        assert look() == "1 NVIDIA L40S 0"
        fake_nvml.describe(Machine(two).lose(1))
        assert look() == "NVMLError_GpuIsLost"
        fake_nvml.unload_driver()
        assert look() == "NVMLError_DriverNotLoaded"
        fake_nvml.describe(two)
        assert look() == "2 NVIDIA L40S 1"
        process.stdin.close()


def test_a_query_hangs_before_it_answers(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe(Machine(ONE).hang("nvmlDeviceGetName", 0.5, gpu=0))
    script = """
import time, pynvml as n
n.nvmlInit()
gpu = n.nvmlDeviceGetHandleByIndex(0)
start = time.monotonic()
print(n.nvmlDeviceGetName(gpu))
print(time.monotonic() - start)
"""
    name, took = python(fake_nvml, script).stdout.splitlines()
    assert name == "NVIDIA L4"
    assert float(took) >= 0.5
