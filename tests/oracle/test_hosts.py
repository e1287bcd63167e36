"""Over two to four hosts a plan is as good as the oracles': every tier that speaks of hosts, and rules per host."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from tests.long_runs import share
from tests.oracle import instances
from tests.oracle.instances import FLEET, SMALL_FLEET, seeded
from tests.oracle.judge import beside_brute, beside_cpsat

quick = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False)


@settings(quick, max_examples=150)
@given(instances.instances(SMALL_FLEET))
def test_every_assignment_tried(instance: instances.Instance) -> None:
    assert 2 <= len(instance.inventory.hosts) <= 4
    assert beside_brute(instance) is None


@pytest.mark.parametrize("seed", [1, 2, 4, 6, 8])
def test_beside_cp_sat(seed: int) -> None:
    instance = seeded(seed, FLEET)
    assert 2 <= len(instance.inventory.hosts) <= 4
    _, verdict, message = beside_cpsat(instance, seconds=30)
    assert verdict in ("equal", "no worse"), message


@pytest.mark.long
@settings(quick, max_examples=share(800))
@given(instances.instances(SMALL_FLEET))
def test_every_assignment_tried_long(instance: instances.Instance) -> None:
    assert beside_brute(instance) is None


@pytest.mark.long
def test_beside_cp_sat_long(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts: Counter[str] = Counter()
    wrong = []
    for seed in range(5000, 5000 + share(100)):
        _, verdict, message = beside_cpsat(seeded(seed, FLEET), seconds=60)
        verdicts[verdict] += 1
        if verdict in ("worse", "better"):
            wrong.append(f"seed {seed}: {message}")
    with capsys.disabled():
        sys.stdout.write(f"\n2 to 4 hosts: verdicts {dict(verdicts)}\n")
    assert not wrong, "\n\n".join(wrong)
