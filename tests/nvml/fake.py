"""The fake NVML in use: built once, describing a machine, loaded by the real pynvml.

In another process (the most real way)::

    def test_it(fake_nvml: FakeNvml) -> None:
        fake_nvml.describe(Machine.from_inventory(document).fail("nvmlDeviceGetName", Code.UNKNOWN, gpu=1))
        done = subprocess.run([sys.executable, "-m", "gpualloc", "inventory"], env=fake_nvml.env())

In this one, under ``with fake_nvml.loaded():``. Either way ``describe`` may be called again at any time; the next
query sees the new machine.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.nvml.machine import Code, Event, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.nvml.machine import JsonMap

__all__ = ["Code", "Event", "FakeNvml", "Machine"]

VARIABLE = "GPUALLOC_FAKE_NVML"


class FakeNvml:
    """A built library and the description it answers from. ``directory`` is this one's own."""

    def __init__(self, library: Path, directory: Path) -> None:
        self.library = library
        self.path = directory / "nvml.json"
        self._written = 0

    def describe(self, machine: Machine | JsonMap) -> FakeNvml:
        """Put a machine in place of the one before, at once."""
        description = machine.description if isinstance(machine, Machine) else machine
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
        # The library knows a new description by its file's time, whose clock may tick too slowly for two in a row.
        self._written = max(time.time_ns(), self._written + 1)
        os.utime(draft, ns=(self._written, self._written))
        draft.replace(self.path)
        return self

    def unload_driver(self) -> FakeNvml:
        """Let there be no driver: without a description every query says that it is not loaded."""
        self.path.unlink(missing_ok=True)
        return self

    def env(self) -> dict[str, str]:
        """Return this process's environment for one that is to load the library in place of NVIDIA's."""
        found = os.environ.get("LD_LIBRARY_PATH")
        where = str(self.library.parent)
        return os.environ | {VARIABLE: str(self.path), "LD_LIBRARY_PATH": f"{where}:{found}" if found else where}

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Let pynvml in this process use the library, as if it had loaded it by its name."""
        import pynvml  # noqa: PLC0415 -- a heavy import, for the tests that load it here

        library, variable = pynvml.nvmlLib, os.environ.get(VARIABLE)
        pynvml.nvmlLib = ctypes.CDLL(str(self.library))
        pynvml._nvmlGetFunctionPointer_cache.clear()
        os.environ[VARIABLE] = str(self.path)
        try:
            yield
        finally:
            os.environ[VARIABLE] = ""  # nothing is described any more: no shutdown can be told to fail
            while not pynvml.nvmlLib.nvmlShutdown():
                pass
            pynvml.nvmlLib = library
            pynvml._nvmlGetFunctionPointer_cache.clear()
            os.environ.pop(VARIABLE)
            if variable is not None:
                os.environ[VARIABLE] = variable
