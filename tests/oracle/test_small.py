"""On small instances the plan is as good as the best of all assignments, tier by tier, and says so."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.long_runs import share
from tests.oracle import instances
from tests.oracle.judge import beside_brute

quick = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False)


@settings(quick, max_examples=100)
@given(instances.instances(instances.MIXED))
def test_mixed(instance: instances.Instance) -> None:
    assert beside_brute(instance) is None


@settings(quick, max_examples=50)
@given(instances.instances(instances.SINGLE))
def test_one_device_each(instance: instances.Instance) -> None:
    assert beside_brute(instance) is None


@pytest.mark.long
@settings(quick, max_examples=share(1400))
@given(instances.instances(instances.MIXED))
def test_mixed_long(instance: instances.Instance) -> None:
    assert beside_brute(instance) is None


@pytest.mark.long
@settings(quick, max_examples=share(600))
@given(instances.instances(instances.SINGLE))
def test_one_device_each_long(instance: instances.Instance) -> None:
    assert beside_brute(instance) is None
