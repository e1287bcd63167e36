"""The same plan whatever the order of services, of GPUs, and of dictionary keys."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpualloc.compose.project import ProjectOptions
from gpualloc.inventory import load
from gpualloc.inventory.snapshot import dump
from gpualloc.planning import Options, make_plan
from gpualloc.render.plan_json import dump as plan_text

if TYPE_CHECKING:
    from pathlib import Path

MACHINES = ("4xl40s", "mixed-5090-4090", "dgx-1v", "a100-mig", "4xa100-pcie-bridged")


@st.composite
def asks(draw: st.DrawFn) -> dict[str, Any]:
    ask: dict[str, Any] = {"gpus": draw(st.sampled_from([1, 1, 1, 2, {"min": 1, "max": 3}]))}
    if draw(st.booleans()):
        ask["memory"] = draw(st.sampled_from(["6GiB", "10GiB", "20GiB"]))
    if draw(st.integers(0, 4)) == 0:
        ask["priority"] = draw(st.integers(1, 3))
    if draw(st.integers(0, 5)) == 0:
        ask["min_memory"] = "30GiB"
    return ask


def shuffled(value: Any, order: random.Random) -> Any:
    """The same data with every mapping's keys in another order."""
    if isinstance(value, dict):
        items = list(value.items())
        order.shuffle(items)
        return {key: shuffled(item, order) for key, item in items}
    if isinstance(value, list):
        return [shuffled(item, order) for item in value]
    return value


def shuffled_machine(machine: str, order: random.Random) -> str:
    data = json.loads(dump(load([f"sim:{machine}"]).inventory))
    for host in data["hosts"]:
        order.shuffle(host["gpus"])
        order.shuffle(host["links"])
        host["links"] = [
            link | ({"a": link["b"], "b": link["a"]} if order.random() < 0.5 else {}) for link in host["links"]
        ]
    return json.dumps(shuffled(data, order))


@pytest.mark.parametrize("policy", ["base", "dev", "prod"])
@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_the_input_does_not_matter(tmp_path: Path, policy: str, data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from(MACHINES))
    services = {
        f"w{n}": {"image": "i", "x-gpualloc": ask}
        for n, ask in enumerate(data.draw(st.lists(asks(), min_size=1, max_size=7)))
    }
    order = random.Random(data.draw(st.integers(0, 2**32)))  # noqa: S311 - no secret
    plans = []
    for shuffle in (False, True, True):
        document: dict[str, Any] = {"services": services}
        gpus = dump(load([f"sim:{machine}"]).inventory)
        if shuffle:
            document, gpus = shuffled(document, order), shuffled_machine(machine, order)
        (tmp_path / "compose.yaml").write_text(json.dumps(document))
        (tmp_path / "gpus.json").write_text(gpus)
        options = Options(ProjectOptions(), (str(tmp_path / "gpus.json"),), policy=policy)
        plan = json.loads(plan_text(make_plan(options, {}, tmp_path).plan))
        plan["inputs"].pop("compose")
        plans.append(plan)
    assert plans[0] == plans[1] == plans[2]
