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


def test_a_parked_worker_is_told_of_as_parked(run: Run, tmp_path: Path) -> None:
    web = "{image: i, gpus: [{count: 3}], environment: {CUDA_VISIBLE_DEVICES: '7'}}"
    (tmp_path / "compose.yaml").write_text(f"services:\n  api: {web}\n  web: {web}\n")
    assert run("apply", "-y", "--partial", *MACHINE).code == 3
    found = run("check", *MACHINE)
    assert found.code == 1
    assert "web is parked: the file has no replica of it, since it did not fit [parked]" in found.out
    assert "gpualloc apply finds no device for it" in found.out
    assert "not-pinned" not in found.out
    assert "cuda-hides" not in found.out
    assert "gpualloc apply pins it to GPU" in run("check", "--policy", "dev", *MACHINE).out


def test_an_override_file_that_goes_is_said_to_be_removed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  web: {image: i, gpus: [{count: 1}]}\n")
    assert "wrote gpu.yaml" in run("apply", "-y", "--override", "gpu.yaml", *MACHINE).err
    assert "removed gpu.yaml" in run("reset", "-y", "--override", "gpu.yaml").err
    assert not (tmp_path / "gpu.yaml").exists()


@pytest.mark.parametrize("option", [("--without", "index:0"), ("--drain", "4xl40s")])
def test_a_saved_plan_is_stale_where_its_gpus_are_to_be_done_without(
    run: Run, tmp_path: Path, option: tuple[str, str]
) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("services:\n  web: {image: i, gpus: [{count: 1}]}\n")
    before = path.read_text()
    assert run("plan", "-o", "plan.json", *MACHINE).code == 0
    refused = run("apply", "-y", "plan.json", *option)
    assert refused.code == 2
    assert "web no longer fits where it was planned" in refused.err
    assert path.read_text() == before


def test_a_variable_that_the_host_passes_can_hide_gpus(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("services:\n  web: {image: i, gpus: [{count: 1}], environment: [CUDA_VISIBLE_DEVICES]}\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert "CUDA_VISIBLE_DEVICES=3 leaves web no GPU at all" in run("check", *MACHINE).out
    assert run("apply", "-y", *MACHINE).code == 0
    assert "CUDA_VISIBLE_DEVICES=0" in path.read_text()
    assert run("check", *MACHINE).code == 0
