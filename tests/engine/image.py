"""Images for containers without a registry: busybox, and busybox with the Python that runs the tests."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

APPLETS = ("sh", "env", "cat", "ls", "sleep", "tr", "true", "kill")
LEFT_OUT = frozenset(("test", "idlelib", "lib2to3", "site-packages", "dist-packages", "ensurepip"))


def busybox(program: Path) -> bytes:
    """Return a root file system with busybox alone, as a tar archive."""
    return _archive(program, python=False)


def with_python(program: Path) -> bytes:
    """Return a root file system with busybox, and this Python under the paths it has here, as ``python3``."""
    return _archive(program, python=True)


def _archive(program: Path, *, python: bool) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        archive.add(program, "bin/busybox")
        for applet in APPLETS:
            _link(archive, f"bin/{applet}", "busybox")
        if python:
            executable = Path(sys.executable).resolve()
            for file in _python_files(executable):
                archive.add(file, str(file).lstrip("/"))
            _link(archive, "usr/bin/python3", str(executable))
    return buffer.getvalue()


def _link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def _python_files(executable: Path) -> Iterator[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    binaries = [executable]
    for path in sorted(library.rglob("*")):
        parts = path.relative_to(library).parts
        if path.is_file() and not LEFT_OUT & set(parts) and not parts[0].startswith("config-"):
            yield path
            binaries += [path] if path.suffix == ".so" else []
    yield executable
    yield from sorted(_libraries(binaries))


def _libraries(binaries: list[Path]) -> set[Path]:
    """Return every shared library that binaries are linked against, the loader included."""
    listing = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    return {Path(name) for name in re.findall(r"(/\S+) \(0x", listing)}
