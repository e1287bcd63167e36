"""Findings whose usual mend does not apply: a hint must hold for the policy and the machine at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result

    Run = Callable[..., Result]

MACHINE = ("--inventory", "sim:4xl40s")


@pytest.mark.parametrize(("value", "name"), [("true", "GPU-"), ('"True"', "GPU-"), ('"false"', "0"), ("no", "0")])
def test_privileged_may_be_text(run: Run, tmp_path: Path, value: str, name: str) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(f"services:\n  web: {{image: i, gpus: [{{count: 1}}], privileged: {value}}}\n")
    assert run("apply", "-y", *MACHINE).code == 0
    assert f'CUDA_VISIBLE_DEVICES: "{name}' in path.read_text()
    assert run("check", *MACHINE).code == 0


def test_a_policy_that_writes_no_variable_mends_no_privileged_container(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("version: 1\nwrite: {cuda_visible_devices: none}\n")
    (tmp_path / "compose.yaml").write_text("services:\n  web: {image: i, gpus: [{count: 1}], privileged: true}\n")
    assert run("apply", "-y", "--policy", "./own.yaml", *MACHINE).code == 0
    found = run("check", "--policy", "./own.yaml", *MACHINE)
    assert found.code == 1
    assert "[cuda-sees-more]" in found.out
    assert "drop privileged" in found.out
    assert "apply mends it" not in found.out


def test_indices_stay_on_wsl2(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text('services:\n  web: {image: i, gpus: [{device_ids: ["0", "1"]}]}\n')
    assert run("apply", "-y", "--inventory", "sim:wsl2").code == 0
    assert run("check", "--inventory", "sim:wsl2").code == 0
