from __future__ import annotations

import ast
import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpualloc.cuda import visible
from gpualloc.verify import look, probe
from tests.verify.standin import put_devices

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = Path(probe.__file__).read_text()
GPUS = [f"GPU-{n}0000000-0000-4000-8000-00000000000{n}" for n in range(1, 4)]
MIG = [f"MIG-{n}0000000-0000-4000-8000-00000000000{n}" for n in range(1, 3)]


def digits(uuid: str) -> str:
    return uuid[4:].replace("-", "")


def ask(cuda_library: Path | None, folder: Path, *words: str, **environ: str) -> dict[str, Any]:
    """Run the probe as ``docker exec`` would, and return its answer."""
    environment = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "STANDIN_GPUS": str(folder / "gpus"),
        "PYTHONPATH": str(folder / "packages"),
        **({"LD_LIBRARY_PATH": str(cuda_library.parent)} if cuda_library else {}),
        **environ,
    }
    words = ("-", "20", "--own-environment", *words)
    done = subprocess.run(
        [sys.executable, *words], input=SOURCE, env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    (line,) = (text for text in done.stdout.splitlines() if text.startswith(look.MARK))
    return dict(json.loads(line.removeprefix(look.MARK)))


def package(folder: Path, name: str, text: str) -> None:
    (folder / "packages").mkdir(exist_ok=True)
    (folder / "packages" / f"{name}.py").write_text(text)


def test_both_sides_mark_the_answer_alike() -> None:
    assert probe.MARK == look.MARK


def test_it_can_be_read_by_old_pythons_and_needs_nothing_installed() -> None:
    tree = ast.parse(SOURCE, feature_version=(3, 7))
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= set(sys.stdlib_module_names) | {"__future__"}


def test_devices_are_those_that_cuda_shows(cuda_library: Path, tmp_path: Path) -> None:
    put_devices(tmp_path / "gpus", GPUS)
    answer = ask(cuda_library, tmp_path, CUDA_VISIBLE_DEVICES="2,0")
    assert answer["cuda"] == {"loaded": True, "devices": [digits(GPUS[2]), digits(GPUS[0])], "error": None}
    assert answer["environment"] == {"CUDA_VISIBLE_DEVICES": "2,0"}
    assert answer["frameworks"] == {}


def test_no_device_and_no_driver_are_not_the_same(cuda_library: Path, tmp_path: Path) -> None:
    put_devices(tmp_path / "gpus", GPUS)
    answer = ask(cuda_library, tmp_path, CUDA_VISIBLE_DEVICES="3")
    assert answer["cuda"] == {"loaded": True, "devices": [], "error": "cuInit: CUDA_ERROR_NO_DEVICE (100)"}
    answer = ask(None, tmp_path)
    assert answer["cuda"]["loaded"] is False
    assert "libcuda.so.1" in answer["cuda"]["error"]


def test_a_crash_and_a_hang_in_cuda_are_answers(cuda_library: Path, tmp_path: Path) -> None:
    put_devices(tmp_path / "gpus", GPUS)
    assert ask(cuda_library, tmp_path, STANDIN_CUDA_CRASHES="1")["cuda"] == {"error": "it crashed with signal 6"}


def test_nvidia_smi_is_asked_where_it_is(tmp_path: Path) -> None:
    assert "error" in ask(None, tmp_path)["nvidia_smi"]
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "GPU 0: Stand-in (UUID: {GPUS[0]})" $1\n')
    program.chmod(0o755)
    assert ask(None, tmp_path)["nvidia_smi"] == {"text": f"GPU 0: Stand-in (UUID: {GPUS[0]}) -L\n"}
    program.write_text("#!/bin/sh\necho NVML: Driver/library version mismatch\nexit 18\n")
    assert ask(None, tmp_path)["nvidia_smi"] == {"error": "NVML: Driver/library version mismatch\n"}


TORCH = """
print("a greeting")
class version:
    cuda = "13.0"
class cuda:
    device_count = staticmethod(lambda: 2)
    class get_device_properties:
        def __init__(self, number):
            self.uuid = f"uuid-of-{number}"
__version__ = "2.9.0"
"""
TENSORFLOW = """
class config:
    list_physical_devices = staticmethod(lambda kind: ["one"] if kind == "GPU" else [])
class test:
    is_built_with_cuda = staticmethod(lambda: True)
__version__ = "2.20.0"
"""
JAX = """
import os
class Device:
    platform = "gpu"
local_devices = lambda: [Device()] if os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false" else []
__version__ = "0.8.0"
"""


def test_frameworks_are_asked_where_they_are_installed(tmp_path: Path) -> None:
    package(tmp_path, "torch", TORCH)
    package(tmp_path, "tensorflow", TENSORFLOW)
    package(tmp_path, "jax", JAX)
    frameworks = ask(None, tmp_path)["frameworks"]
    assert frameworks == {
        "torch": {"version": "2.9.0", "gpu_build": True, "count": 2, "uuids": ["uuid-of-0", "uuid-of-1"]},
        "tensorflow": {"version": "2.20.0", "gpu_build": True, "count": 1},
        "jax": {"version": "0.8.0", "gpu_build": None, "count": 1},
    }
    assert ask(None, tmp_path, "--no-frameworks")["frameworks"] == {}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("raise ImportError('libcudart.so.12: no such file')", "ImportError: libcudart.so.12: no such file"),
        ("import os; os.abort()", "it crashed with signal 6"),
        ("import sys; sys.exit(3)", "it ended"),
    ],
)
def test_a_framework_that_fails_is_an_answer(tmp_path: Path, text: str, error: str) -> None:
    package(tmp_path, "torch", text)
    assert ask(None, tmp_path)["frameworks"] == {"torch": {"error": error}}


def test_a_framework_that_hangs_does_not_hang_the_rest(tmp_path: Path) -> None:
    package(tmp_path, "torch", "import time; time.sleep(600)")
    environment: Mapping[str, str] = {"PYTHONPATH": str(tmp_path / "packages"), "PATH": os.environ["PATH"]}
    words = [sys.executable, "-", "1", "--own-environment"]
    done = subprocess.run(words, input=SOURCE, env=environment, cwd="/", capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout.removeprefix(look.MARK))
    assert answer["frameworks"] == {"torch": {"error": "no answer in time"}}
    assert answer["cuda"]["loaded"] is False


ENTRIES = st.one_of(
    st.sampled_from(
        ["0", "1", "2", "3", "-1", "", "all", "none", "GPU-", "GPU-1", "GPU-2000", "GPU-dead", *GPUS, *MIG]
    ),
    st.integers(0, 12).map(str),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ENTRIES, max_size=5).map(",".join), st.integers(0, 3))
def test_the_stand_in_reads_cuda_visible_devices_as_the_model_does(
    cuda_library: Path, tmp_path_factory: pytest.TempPathFactory, value: str, count: int
) -> None:
    """Two readings of one rule, written apart: gpualloc's, and that of the stand-in which the engine tests rest on."""
    folder = tmp_path_factory.getbasetemp() / f"devices-{count}"
    put_devices(folder, GPUS[:count])
    library = ctypes.CDLL(str(cuda_library))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STANDIN_GPUS", str(folder))
        patch.setenv("CUDA_VISIBLE_DEVICES", value)
        library.cuInit(0)
    found = []
    number, identity = ctypes.c_int(), probe.Uuid()
    library.cuDeviceGetCount(ctypes.byref(number))
    for ordinal in range(number.value):
        handle = ctypes.c_int()
        library.cuDeviceGet(ctypes.byref(handle), ordinal)
        library.cuDeviceGetUuid_v2(ctypes.byref(identity), handle)
        found.append(bytes(identity.bytes).hex())
    assert found == [digits(uuid) for uuid in visible(value, GPUS[:count])]
