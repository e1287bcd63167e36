"""The same input gives the same plan, whatever the order in which its parts are listed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpualloc.model import Inventory, Link, Solution
from tests.long_runs import share
from tests.oracle import instances
from tests.oracle.judge import plan

ROOT = Path(__file__).resolve().parents[2]
quick = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False)


def shuffled(instance: instances.Instance, seed: int) -> instances.Instance:
    """Return the instance with everything that has no order listed in another one."""
    rng = random.Random(seed)  # noqa: S311  # an order, not a secret

    def mixed(items: tuple[instances.T, ...]) -> tuple[instances.T, ...]:
        return tuple(rng.sample(items, len(items)))

    def turned(link: Link) -> Link:
        return replace(link, a=link.b, b=link.a) if rng.random() < 0.5 else link

    hosts = [
        replace(
            host,
            gpus=mixed(tuple(replace(g, processes=mixed(g.processes), mig=g.mig and mixed(g.mig)) for g in host.gpus)),
            links=mixed(tuple(turned(link) for link in host.links)),
        )
        for host in instance.inventory.hosts
    ]
    requests = [replace(request, workers=mixed(request.workers)) for request in instance.requests]
    inventory = Inventory(instance.inventory.source, mixed(tuple(hosts)))
    return replace(instance, inventory=inventory, requests=mixed(tuple(requests)))


def facts(solution: Solution) -> tuple[object, ...]:
    """Return what a plan says, by worker."""
    placements = sorted(solution.placements, key=lambda placement: placement.worker)
    return placements, sorted(solution.unplaced, key=lambda unplaced: unplaced.worker), solution.objective


@settings(quick, max_examples=50)
@given(instances.instances(instances.MIXED), st.integers(0, 2**32))
def test_mixed(instance: instances.Instance, seed: int) -> None:
    assert facts(plan(shuffled(instance, seed))) == facts(plan(instance))


@pytest.mark.parametrize("seed", range(1, 4))
def test_middle(seed: int) -> None:
    instance = instances.seeded(seed, instances.MIDDLE)
    assert facts(plan(shuffled(instance, seed))) == facts(plan(instance))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(share(20)))
def test_ten_orders(seed: int) -> None:
    instance = instances.seeded(100 + seed, instances.MIDDLE)
    first = facts(plan(instance))
    for order in range(10):
        assert facts(plan(shuffled(instance, order))) == first


def test_hash_seeds() -> None:
    script = (
        "from tests.oracle.instances import MIDDLE, MIXED, seeded\n"
        "from tests.oracle.judge import plan\n"
        "print([plan(seeded(s, size)) for s in range(1, 4) for size in (MIXED, MIDDLE)])\n"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert len(answers) == 1
