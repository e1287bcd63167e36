"""The stand-in for CUDA's driver, built once, and a folder of devices for it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.nvml.toolchain import CannotBuildError, compiler

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = Path(__file__).parents[1] / "engine" / "standin" / "cuda.c"


@pytest.fixture(scope="session")
def cuda_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``libcuda.so.1`` that shows the devices of the folder STANDIN_GPUS; skips where it cannot be built."""
    library = tmp_path_factory.mktemp("cuda") / "libcuda.so.1"
    try:
        command = [compiler(), "-std=gnu11", "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    except CannotBuildError as error:
        pytest.skip(f"the stand-in for CUDA needs building: {error}")
    subprocess.run(command, check=True)
    return library


def put_devices(folder: Path, uuids: Sequence[str]) -> None:
    """Let a folder hold these devices, in this order."""
    folder.mkdir(exist_ok=True)
    for number, uuid in enumerate(uuids):
        (folder / f"{number:02}").write_text(f"{uuid}\n")
