"""Running commands in this process, as the console script would."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from gpualloc.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = "Callable[..., Result]"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Return a function that runs ``gpualloc ARGS…`` in the test's folder."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith(("COMPOSE_", "GPUALLOC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "stdin", io.StringIO())

    def call(*args: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["gpualloc", *args])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Result(caught.value.code, out, err)

    return call
