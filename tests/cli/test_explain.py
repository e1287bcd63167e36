"""Explanations and what-if, from the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gpualloc.inventory import load
from gpualloc.planning import Options, explain_plan, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result

    Run = Callable[..., Result]

L40S = ("--inventory", "sim:4xl40s")
SHARING = "services:\n  a: {image: i, x-gpualloc: {memory: 10GiB}}\n  b: {image: i, x-gpualloc: {memory: 10GiB}}\n"
WHOLE = "services:\n  a: {image: i, gpus: [{count: 1}]}\n"


def test_every_device_has_one_verdict_and_the_alternative_its_cost(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(SHARING)
    options = Options(inventory=("sim:4xl40s",))
    planned = make_plan(options, {}, tmp_path)
    gpus = [gpu.uuid for gpu in load(["sim:4xl40s"]).inventory.hosts[0].gpus]
    for explanation in explain_plan(planned, options, None):
        assert [v.uuid for v in explanation.verdicts] == gpus
        assert [v.code for v in explanation.verdicts] == ["chosen", "open", "open", "open"]
        assert explanation.alternative is not None
        assert explanation.alternative.devices == (gpus[1],)
        # the two workers are alike: both go to the next device together, and nothing is lost
        assert explanation.alternative.costs == ()
    result = run("plan", *L40S, "--explain", "a")
    assert result.code == 0
    assert result.out.startswith("a: GPU 0")
    assert "equally good" in result.out
    assert "b:" not in result.out


def test_the_cost_of_the_alternative_is_told_tier_by_tier(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(WHOLE)
    assert run("apply", "--yes", *L40S).code == 0
    result = run("plan", *L40S, "--explain")
    assert "at the cost of moves 1 instead of 0" in result.out


def test_an_unplaced_worker_is_explained_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  a: {image: i, x-gpualloc: {memory: 100GiB}}\n")
    result = run("plan", *L40S, "--explain")
    assert result.code == 3
    assert "a: does not fit" in result.out
    assert "100 GiB" in result.out


def test_who_could_wait_instead_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  a: {image: i, x-gpualloc: {memory: 30GiB}, scale: 5}\n")
    result = run("plan", *L40S, "--explain", "a-4")
    assert result.code == 3
    assert "next best: a worker that waits in its place, equally good; the order of names decided" in result.out
    assert "bus id" not in result.out


def test_an_unknown_worker(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(WHOLE)
    result = run("plan", *L40S, "--explain", "b")
    assert result.code == 2
    assert "the workers are a" in result.err


@pytest.mark.parametrize(("text", "role", "more"), [(WHOLE, "a", 3), (SHARING, "b", 14)])
def test_capacity(run: Run, tmp_path: Path, text: str, role: str, more: int) -> None:
    # 46068 MiB hold four workers of 10 GiB: sixteen in all, two of them here already
    (tmp_path / "compose.yaml").write_text(text)
    result = run("capacity", role, *L40S)
    assert result.code == 0
    assert f"{role}: {more} more would fit" in result.out


def test_without_a_gpu(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(WHOLE)
    first = json.loads(run("plan", *L40S, "--format", "json").out)["placements"][0]["devices"][0]["uuid"]
    other = json.loads(run("plan", *L40S, "--without", first, "--format", "json").out)
    assert other["placements"][0]["devices"][0]["uuid"] != first
    unknown = run("plan", *L40S, "--without", "index:9")
    assert unknown.code == 2
    assert "index:9" in unknown.err
