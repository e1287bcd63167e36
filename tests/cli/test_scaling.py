"""Replicas from the command line: what a user sees while a role's number goes up and down."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result

    Run = Callable[..., Result]

MACHINE = ("--inventory", "sim:8xrtx4090")
TEXT = """\
services:
  worker:
    image: i
    ports: ["8000:80"]
    deploy:
      replicas: 4
      resources:
        reservations:
          devices:
            - capabilities: [gpu]
              count: 1
  api:
    image: j
    depends_on: [worker]
"""
ORPHANS = "docker compose up -d --remove-orphans"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "compose.yaml"
    found.write_text(TEXT)
    return found


def test_up_and_down_and_back(run: Run, path: Path) -> None:
    assert "error: worker has 4 replicas, which all get the same GPUs [replicas-share]" in run("check", *MACHINE).out
    first = run("apply", "-y", *MACHINE)
    assert first.code == 0
    assert "note: worker-2 publishes host port 8001" in first.out
    assert f"worker is no longer a service: {ORPHANS} ends what still runs of it" in first.err
    assert run("check", *MACHINE).code == 0
    again = run("apply", "-y", *MACHINE)
    assert "nothing to write" in again.err
    assert "port" not in again.out
    down = run("apply", "-y", "--scale", "worker=2", *MACHINE)
    assert f"worker-3, worker-4 are no longer services: {ORPHANS}" in down.err
    assert "depends_on: [worker-1, worker-2]" in path.read_text()
    assert "nothing to write" in run("apply", "-y", *MACHINE).err
    up = run("apply", "-y", "--scale", "worker=6", *MACHINE)
    assert " 2 kept" in up.out
    assert up.out.count("+ pin") == 4
    back = run("reset", "-y")
    assert back.code == 0
    assert "worker-1, worker-2, worker-3, worker-4, worker-5, worker-6 are no longer services" in back.err
    assert path.read_text() == TEXT


def test_a_plan_with_another_number_is_saved_and_applied(run: Run, path: Path) -> None:
    assert run("plan", "--scale", "worker=2", "-o", "plan.json", *MACHINE).code == 0
    plan = json.loads((path.parent / "plan.json").read_text())
    assert plan["inputs"]["scale"] == {"worker": 2}
    assert [(p["worker"], p["service"], p["replica"]) for p in plan["placements"]] == [
        ("worker-1", "worker", 1),
        ("worker-2", "worker", 2),
    ]
    assert run("apply", "-y", "plan.json").code == 0
    assert "  worker-2:\n" in path.read_text()
    assert "  worker-3:\n" not in path.read_text()


def test_what_if_leaves_the_file_alone(run: Run, path: Path) -> None:
    assert run("plan", "--scale", "worker=9", *MACHINE).code == 3
    assert path.read_text() == TEXT


def test_check_tells_of_another_number(run: Run, path: Path) -> None:
    run("apply", "-y", *MACHINE)
    path.write_text(path.read_text().replace("{replicas: 4,", "{replicas: 5,"))
    found = run("check", *MACHINE)
    assert found.code == 1
    assert "worker has 4 services, and 5 are asked for [replicas-differ]" in found.out
    assert "worker has 4 services, and 1 is asked for" in run("check", "--scale", "worker=1", *MACHINE).out
    assert run("check", "--scale", "worker=4", *MACHINE).code == 0
    many = run("check", "--scale", "worker=9", *MACHINE)
    assert "worker-9 does not fit" in many.out


def test_check_looks_at_each_worker(run: Run, path: Path) -> None:
    run("apply", "-y", *MACHINE)
    text = path.read_text()
    first, second = (text.split("device_ids: [")[n].split("]")[0] for n in (1, 2))
    path.write_text(text.replace(second, first))
    assert "is given twice: to worker-1, worker-2" in run("check", *MACHINE).out
    third = text.index("  worker-3:")
    path.write_text(text[:third] + text[third:].replace('CUDA_VISIBLE_DEVICES: "0"', 'CUDA_VISIBLE_DEVICES: "2"', 1))
    assert "leaves worker-3 no GPU at all" in run("check", *MACHINE).out


def test_the_override_form(run: Run, path: Path) -> None:
    over = ("--override", "gpu.yaml", *MACHINE)
    first = run("apply", "-y", *over)
    assert first.code == 0
    assert "worker is no longer a service" in first.err
    assert run("check", *over).code == 0
    assert "nothing to write" in run("apply", "-y", *over).err
    down = run("apply", "-y", "--scale", "worker=2", *over)
    assert "worker-3, worker-4 are no longer services" in down.err
    assert run("check", *over).code == 0
    assert "nothing to write" in run("apply", "-y", *over).err
    up = run("apply", "-y", "--scale", "worker=4", *over)
    assert " 2 kept" in up.out
    assert "x-gpualloc" not in (path.parent / "gpu.yaml").read_text()
    assert path.read_text() == TEXT
    back = run("reset", "-y", "--override", "gpu.yaml")
    assert back.code == 0
    assert "worker-1, worker-2, worker-3, worker-4 are no longer services" in back.err
    assert not (path.parent / "gpu.yaml").exists()


@pytest.mark.parametrize("scale", ["worker", "worker=", "=2", "worker=-1", "worker=two", "worker=1.5"])
def test_a_scale_that_is_none(run: Run, path: Path, scale: str) -> None:
    result = run("plan", "--scale", scale, *MACHINE)
    assert result.code == 2
    assert "ROLE=N" in result.err
    assert path.read_text() == TEXT


@pytest.mark.parametrize(
    ("scale", "why"),
    [
        (["worker=0"], "at least one worker"),
        (["api=2"], "no role is so named"),
        (["worker=2", "worker=3"], "names a role twice"),
    ],
)
def test_a_scale_that_cannot_be(run: Run, path: Path, scale: list[str], why: str) -> None:
    result = run("plan", *(word for text in scale for word in ("--scale", text)), *MACHINE)
    assert result.code == 2
    assert why in result.err
    assert path.read_text() == TEXT


def test_a_file_beside_this_one(run: Run, path: Path) -> None:
    path.write_text(TEXT.replace("image: i\n", "image: i\n    x-gpualloc: {memory: 4GiB}\n"))
    run("apply", "-y", *MACHINE)
    other = path.parent / "other"
    other.mkdir()
    path.rename(other / "compose.yaml")
    path.write_text("services:\n  mine:\n    image: i\n    x-gpualloc: {memory: 15GiB}\n")
    together = run("plan", "--beside", "other", *MACHINE)
    assert "mine    GPU 1" in together.out
    path.write_text(path.read_text().replace("15GiB", "2GiB"))
    assert "mine    GPU 0" in run("plan", "--beside", "other", *MACHINE).out


def test_policies_name_the_role(run: Run, path: Path) -> None:
    (path.parent / "policies").mkdir()
    (path.parent / "policies" / "shared.yaml").write_text("version: 1\nroles: {worker: {memory: 4GiB}}\n")
    assert run("apply", "-y", "--policy", "shared", *MACHINE).code == 0
    again = run("plan", "--policy", "shared", *MACHINE)
    assert again.code == 0
    assert "so named" not in again.err
    assert "4 workers on 1 of 8 GPUs" in again.out
    (path.parent / "policies" / "none.yaml").write_text("version: 1\nignore: [worker]\n")
    ignored = run("plan", "--policy", "none", *MACHINE)
    assert "worker keeps its pins" in ignored.err


def test_aliases_that_are_no_list_are_refused(run: Run, path: Path) -> None:
    text = TEXT.replace("    image: i\n", "    image: i\n    networks: {default: {aliases: 5}}\n")
    path.write_text(text)
    refused = run("apply", "-y", *MACHINE)
    assert refused.code == 2
    assert "its aliases in default are no list [replicas-split]" in refused.err
    assert path.read_text() == text
