"""Fixtures for tests that read a machine through NVML: import them into a ``conftest.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.nvml.fake import FakeNvml
from tests.nvml.toolchain import CannotBuildError, build

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built once a session; skips where it cannot be built."""
    try:
        return build(tmp_path_factory.mktemp("nvml"))
    except CannotBuildError as error:
        pytest.skip(f"the fake NVML needs building: {error}")


@pytest.fixture
def fake_nvml(nvml_library: Path, tmp_path: Path) -> FakeNvml:
    """A fake NVML of this test's own; no driver is there until a machine is described."""
    return FakeNvml(nvml_library, tmp_path)
