"""A stack file as the previous placement: a fleet that loses, empties and gains hosts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.fleet.machines import save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result


WORKERS = "services:\n  w: {image: x, gpus: [{count: 1}], deploy: {replicas: 5}}\n"


def apply(run: Callable[..., Result], *more: str) -> Result:
    return run("apply", "-y", "--inventory", "fleet", "--swarm", "stack.yaml", *more)


def homes(folder: Path) -> dict[str, str]:
    data = yaml.safe_load((folder / "stack.yaml").read_text())
    return {name: each["devices"][0] for name, each in data["x-gpualloc"]["workers"].items()}


def test_applying_twice_changes_nothing(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b", "gpu-c")
    (tmp_path / "compose.yaml").write_text(WORKERS)
    first = apply(run)
    assert (first.code, "wrote stack.yaml" in first.err) == (0, True)
    again = apply(run)
    assert "nothing to write" in again.err
    assert (tmp_path / "compose.yaml").read_text() == WORKERS


@pytest.mark.parametrize("how", ["lost", "drained"])
def test_a_host_that_goes_moves_its_workers_alone(tmp_path: Path, run: Callable[..., Result], how: str) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b", "gpu-c")
    (tmp_path / "compose.yaml").write_text(WORKERS)
    apply(run)
    before = homes(tmp_path)
    old = yaml.safe_load((tmp_path / "stack.yaml").read_text())["services"]
    there = json.loads((tmp_path / "fleet" / "gpu-a.json").read_text())
    gone = {gpu["uuid"] for gpu in there["hosts"][0]["gpus"]}
    if how == "lost":
        (tmp_path / "fleet" / "gpu-a.json").unlink()
    result = apply(run, *(("--drain", "gpu-a") if how == "drained" else ()))
    assert result.code == 0, result.err
    after = homes(tmp_path)
    assert {w for w in before if before[w] in gone} == {w for w in before if before[w] != after[w]} != set()
    assert not gone & set(after.values())
    assert len(set(after.values())) == 5
    new = yaml.safe_load((tmp_path / "stack.yaml").read_text())["services"]
    assert {w for w in old if old[w] != new[w]} == {w for w in before if before[w] in gone}  # Swarm restarts no other
    why = json.loads(run("plan", "--inventory", "fleet", "--swarm", "stack.yaml", "--format", "json").out)
    assert {p["action"] for p in why["placements"]} == {"keep"}


def test_a_drained_host_is_the_reason_that_is_given(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b")
    (tmp_path / "compose.yaml").write_text("services: {w: {image: x, gpus: all}}")
    apply(run)
    host = yaml.safe_load((tmp_path / "stack.yaml").read_text())["x-gpualloc"]["workers"]["w"]["host"]
    args = ("--inventory", "fleet", "--swarm", "stack.yaml", "--format", "json")
    (placement,) = json.loads(run("plan", *args, "--drain", host).out)["placements"]
    assert placement["reason"].startswith(f"moved: {host} is drained")
    refused = run("plan", *args, "--drain", "gpu-z")
    assert (refused.code, "no host is called gpu-z" in refused.err) == (2, True)


def test_a_host_that_comes_moves_nobody(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-b")
    (tmp_path / "compose.yaml").write_text(WORKERS.replace("replicas: 5", "replicas: 4"))
    apply(run)
    before = homes(tmp_path)
    save(tmp_path / "fleet", "gpu-a")
    assert "nothing to write" in apply(run).err
    apply(run, "--scale", "w=6")
    after = homes(tmp_path)
    assert {w: after[w] for w in before} == before
    assert len(after) == 6
    assert "nothing to write" in apply(run).err  # the number stays
    assert len(homes(tmp_path)) == 6


def test_check_reads_the_stack(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b")
    (tmp_path / "compose.yaml").write_text(WORKERS)
    apply(run)
    good = run("check", "--inventory", "fleet", "--swarm", "stack.yaml")
    assert (good.code, good.out) == (0, "no findings\n")
    (tmp_path / "fleet" / "gpu-a.json").unlink()
    lost = run("check", "--inventory", "fleet", "--swarm", "stack.yaml")
    assert lost.code == 1
    assert "[lost-device]" in lost.out
    assert "stack.yaml" in lost.out


def test_check_finds_a_stack_that_is_not_current(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b")
    (tmp_path / "compose.yaml").write_text(WORKERS)
    apply(run)
    (tmp_path / "compose.yaml").write_text(WORKERS.replace("image: x", "image: y"))
    stale = run("check", "--inventory", "fleet", "--swarm", "stack.yaml")
    assert (stale.code, "stack.yaml: error: it is not what gpualloc apply would write" in stale.out) == (1, True)
    (tmp_path / "compose.yaml").write_text(WORKERS.replace("replicas: 5", "replicas: 6"))
    more = run("check", "--inventory", "fleet", "--swarm", "stack.yaml")
    assert (more.code, "w-6 is not pinned: the files made before do not have it" in more.out) == (1, True)


def test_a_saved_plan_becomes_the_same_stack(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b")
    (tmp_path / "compose.yaml").write_text(WORKERS)
    assert run("plan", "--inventory", "fleet", "--swarm", "stack.yaml", "-o", "plan.json").code == 0
    assert run("apply", "-y", "plan.json", "--swarm", "stack.yaml").code == 0
    saved = (tmp_path / "stack.yaml").read_text()
    (tmp_path / "stack.yaml").unlink()
    apply(run)
    assert (tmp_path / "stack.yaml").read_text() == saved


def test_files_that_are_no_stack_of_gpualloc_are_not_touched(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b")
    (tmp_path / "compose.yaml").write_text(WORKERS)
    (tmp_path / "stack.yaml").write_text("services: {}\n")
    refused = apply(run)
    assert (refused.code, "[override-foreign]" in refused.err) == (2, True)
    (tmp_path / "stack.yaml").unlink()
    apply(run)
    text = (tmp_path / "stack.yaml").read_text()
    (tmp_path / "stack.yaml").write_text(text.replace("workers:", "walkers:"))
    broken = apply(run)
    assert (broken.code, "[record]" in broken.err) == (2, True)
    both = apply(run, "--override", "o.yaml")
    assert (both.code, "[several-forms]" in both.err) == (2, True)
