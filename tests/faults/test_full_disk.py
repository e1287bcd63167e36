"""A disk that is full for real: a small file system, filled to the last page, with the project on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SIZE = 256 * 1024
ROLE = """\
  {name}:
    image: busybox
    deploy:
      resources:
        reservations:
          devices: [{{driver: nvidia, count: 1, capabilities: [gpu]}}]
"""
ONE = "services:\n" + "".join(ROLE.format(name=f"w{n}") for n in range(4)) + "# the end\n"
OTHER = "services:\n  w0:\n    environment:\n      CUDA_VISIBLE_DEVICES: '7'\n"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that is a file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int) -> None:
    """Fill a file system but for so many pages."""
    with pytest.raises(OSError, match="No space left"), (folder / "filler").open("wb", buffering=0) as stream:  # noqa: PT012 - it is filled until it fails
        while stream.write(b"x" * 4096) == 4096:
            pass
    size = (folder / "filler").stat().st_size
    with (folder / "filler").open("r+b") as stream:
        stream.truncate(size - 4096 * leave)


def gpualloc(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "gpualloc", *args]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(arguments, cwd=folder, env=env, capture_output=True, text=True, check=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "filler")


@pytest.mark.parametrize("leave", [0, 1, 2])
@pytest.mark.parametrize("command", ["apply", "reset"])
def test_the_files_are_whole_and_nothing_else_is_left(disk: Path, command: str, leave: int) -> None:
    """With no room at all, and with room for a part of what is to be written: two files, one of them large."""
    (disk / "compose.yaml").write_text(ONE + "# padding\n" * 1200)
    (disk / "compose.override.yaml").write_text(OTHER)
    apply = ("apply", "--yes", "--inventory", "sim:dgx-a100")
    if command == "reset":
        assert gpualloc(disk, *apply).returncode == 0
    before = {name: (disk / name).read_bytes() for name in names(disk)}
    fill(disk, leave)
    done = gpualloc(disk, *(apply if command == "apply" else ("reset", "--yes")))
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "cannot write: No space left on device [file-write]" in errors[0]
    assert "hint: free some space" in done.stderr
    assert {name: (disk / name).read_bytes() for name in names(disk)} == before
    (disk / "filler").unlink()
    done = gpualloc(disk, *(apply if command == "apply" else ("reset", "--yes")))
    assert done.returncode == 0, done.stderr
    assert {name: (disk / name).read_bytes() for name in names(disk)} != before
    assert names(disk) == ["compose.override.yaml", "compose.yaml"]


def test_an_override_file_that_finds_no_room_is_not_there(disk: Path) -> None:
    (disk / "compose.yaml").write_text(ONE)
    fill(disk, 0)
    done = gpualloc(disk, "apply", "--yes", "--inventory", "sim:dgx-a100", "--override", "gpu.yaml")
    assert done.returncode == 2, done.stderr
    assert "error: gpu.yaml: cannot write: No space left on device [file-write]" in done.stderr
    assert names(disk) == ["compose.yaml"]
    assert (disk / "compose.yaml").read_text() == ONE
