"""Airflow's own published compose files: a handful of lines change, and every inherited variable is still there."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.compose_oracle import config, differences, needs_compose

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.running import Result

CORPUS = Path(__file__).resolve().parents[2].parent / "shared" / "corpus"
FILES = sorted(CORPUS.glob("*apache_airflow*")) if CORPUS.is_dir() else []
POLICY = "version: 1\nroles: {airflow-worker: {gpus: 1}}\n"
OWNED = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")


@pytest.mark.skipif(not FILES, reason="the collection of real compose files is not beside this repository")
@needs_compose
@pytest.mark.parametrize("source", FILES, ids=lambda p: p.name)
def test_a_handful_of_lines_change(run: Callable[..., Result], tmp_path: Path, source: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_bytes(source.read_bytes())
    (tmp_path / "gpu.yaml").write_text(POLICY)
    before = config([path])
    text = path.read_text()
    assert run("apply", "--yes", "--inventory", "sim:4xl40s", "--policy", "./gpu.yaml").code == 0
    changed = [
        line
        for line in difflib.ndiff(text.splitlines(), path.read_text().splitlines())
        if line.startswith(("+ ", "- "))
    ]
    assert all(line.startswith("+ ") for line in changed)
    assert len(changed) <= 12
    assert changed[-1].startswith("+ x-gpualloc:")
    after = config([path])
    assert after.ok, after.stderr
    assert differences(before.data, after.data, owned=OWNED) == []
    worker = after.data["services"]["airflow-worker"]
    inherited = before.data["services"]["airflow-worker"]["environment"]
    assert inherited.items() <= worker["environment"].items()
    assert worker["environment"].keys() - inherited.keys() == set(OWNED)
    assert run("reset", "--yes").code == 0
    assert path.read_text() == text
