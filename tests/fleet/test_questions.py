"""What can be asked about several hosts, and what is about one only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.fleet.machines import save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result

    Run = Callable[..., Result]

PROJECT = """\
services:
  train: {image: x, gpus: [{count: 4}]}
  serve: {image: x, x-gpualloc: {memory: 10GiB}, deploy: {replicas: 2}}
"""
FLEET = ("--inventory", "fleet")


@pytest.fixture
def fleet(tmp_path: Path, run: Run) -> Run:
    save(tmp_path / "fleet", "gpu-a", "gpu-b", "gpu-c")
    (tmp_path / "compose.yaml").write_text(PROJECT)
    return run


def test_explanations_name_the_host_of_each_device(fleet: Run) -> None:
    lines = fleet("plan", "--explain", "train", *FLEET).out.splitlines()
    assert lines[0] == "train: GPU 0-3 on gpu-b"
    assert sum("GPU 0-3 on gpu-b " in line and " chosen " in line for line in lines) == 1
    (free,) = [line for line in lines if " open " in line]
    assert "GPU 0-3 on gpu-c" in free
    assert "next best: GPU 0-3 on gpu-c" in lines[-1]


@pytest.mark.parametrize(("way", "name"), [("--swarm", "stack.yaml"), ("--per-host", "hosts")])
def test_usage_and_capacity_go_by_what_was_written(fleet: Run, way: str, name: str) -> None:
    assert fleet("apply", "-y", *FLEET, way, name).code == 0
    placed = json.loads(fleet("plan", "--format", "json", *FLEET, way, name).out)["placements"]
    result = fleet("usage", "--format", "json", *FLEET, way, name)
    assert result.code == 0, result.err
    found = {one["worker"]: [d["uuid"] for d in one["devices"]] for one in json.loads(result.out)["workers"]}
    assert found == {p["worker"]: [d["uuid"] for d in p["devices"]] for p in placed}
    table = fleet("usage", *FLEET, way, name).out
    assert "GPU 0 on gpu-a     10 GiB" in table
    result = fleet("capacity", "train", *FLEET, way, name)
    assert (result.code, result.out.splitlines()[0]) == (0, "train: 1 more would fit, beside 1 worker placed")


def test_what_stops_the_next_is_told_of_the_role_that_was_asked_about(fleet: Run) -> None:
    # 4 fit on a GPU with 44 GiB, and train has one host's
    first, *stops = fleet("capacity", "serve", *FLEET).out.splitlines()
    assert first == "serve: 30 more would fit, beside 2 workers placed"
    assert any("needs 10 GiB" in line for line in stops)
    assert not any("needs 4 devices" in line for line in stops)


@pytest.mark.parametrize("command", ["verify", "watch", "reset"])
@pytest.mark.parametrize("way", ["--swarm", "--per-host"])
def test_a_command_about_one_host_says_what_does_its_job_for_several(fleet: Run, command: str, way: str) -> None:
    result = fleet(command, way, "made")
    assert result.code == 2
    assert f"error: {way}: gpualloc {command} is about one host [one-host-only]" in result.err
    assert "hint: " in result.err


@pytest.mark.parametrize(
    "args",
    [("--node-map", "gpu-a=n1"), ("--swarm-mode", "generic"), ("--main", "gpu-a"), ("--main", "x", "--swarm", "s")],
)
def test_an_option_without_the_one_it_belongs_to_is_an_error(fleet: Run, args: tuple[str, ...]) -> None:
    result = fleet("plan", *FLEET, *args)
    assert result.code == 2
    assert f"{args[0]} says nothing without" in result.err
