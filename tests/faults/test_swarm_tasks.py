"""Tasks of a stack on its nodes: a running worker's own task is nobody else's, and another stack's is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.faults.bench import PROJECT, Bench, machine
from tests.inventory.docker_text import facts

if TYPE_CHECKING:
    from tests.cli.running import Result

SERVICES = """\
  train:
    image: i
    gpus: [{count: 2}]
  serve:
    image: i
    x-gpualloc: {memory: 10GiB}
    deploy: {replicas: 2}
"""


def task(bench: Bench, pid: int, stack: str, service: str, ids: list[str]) -> None:
    """Let a task run that holds devices and uses none of their memory yet."""
    labels = {"com.docker.stack.namespace": stack, "com.docker.swarm.service.name": f"{stack}_{service}"}
    env = [f"NVIDIA_VISIBLE_DEVICES={','.join(ids)}"]
    bench.containers.append(facts(f"{pid:064x}", pid, labels, Runtime="nvidia", env=env))
    bench.engine()


def stacked(bench: Bench, *args: str) -> Result:
    return bench.run(*args, "--swarm", "stack.yaml")


def started(bench: Bench) -> dict[str, list[str]]:
    """Write the stack, and let it run; return where its workers are."""
    bench.fake.describe(machine("4xl40s"))
    bench.project(SERVICES)
    assert stacked(bench, "apply", "-y").code == 0
    placements: list[dict[str, Any]] = json.loads(stacked(bench, "plan", "--format", "json").out)["placements"]
    at = {p["worker"]: [device["uuid"] for device in p["devices"]] for p in placements}
    for pid, (worker, ids) in enumerate(at.items(), start=100):
        task(bench, pid, PROJECT, worker, ids)
    return at


def test_running_tasks_stay(bench: Bench) -> None:
    started(bench)
    result = stacked(bench, "check")
    assert (result.code, result.out) == (0, "no findings\n"), result.out + result.err
    assert "nothing to write" in stacked(bench, "plan").out


def test_another_stacks_task_is_foreign(bench: Bench) -> None:
    at = started(bench)
    task(bench, 200, "other", "train", at["train"][:1])
    result = stacked(bench, "check")
    assert result.code == 1
    assert "other/train" in result.out
    assert "train would move" in result.out or "train is pinned" in result.out
