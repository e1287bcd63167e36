"""Builds the fake NVML: a ``libnvidia-ml.so.1`` with NVML's own signatures that answers from a description."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

SOURCES = Path(__file__).parent / "library"
LIBRARY = "libnvidia-ml.so.1"


class CannotBuildError(Exception):
    """The library cannot be built here; the message says what is missing."""


def compiler() -> str:
    """Path of the C compiler: ``$CC``, else ``cc`` or ``gcc``."""
    for name in (os.environ.get("CC"), "cc", "gcc"):
        if name and (path := shutil.which(name)):
            return path
    raise CannotBuildError("no C compiler: install gcc, or set CC")


def header() -> Path:
    """Path of NVML's header, from the package ``nvidia-nvml-dev``."""
    try:
        files = metadata.files("nvidia-nvml-dev") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if path.name == "nvml.h" and path.is_file():
            return path
    raise CannotBuildError("no nvml.h: install the package nvidia-nvml-dev")


def build(into: Path, *flags: str) -> Path:
    """Compile the library into the directory ``into``, and return its path; ``flags`` are for the compiler.

    Raises ``CannotBuildError`` off Linux and where compiler or header are missing, ``RuntimeError`` where compiling
    fails.
    """
    if sys.platform != "linux":
        raise CannotBuildError("it is a library for Linux")
    library = into / LIBRARY
    command = [compiler(), "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Wmissing-prototypes", "-fvisibility=hidden"]
    command += ["-shared", "-fPIC", "-pthread", f"-Wl,-soname,{LIBRARY}", *flags]
    command += ["-isystem", str(header().parent), "-o", str(library), *map(str, sorted(SOURCES.glob("*.c")))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the fake NVML does not compile:\n{done.stderr}")
    return library
