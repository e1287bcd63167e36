"""The hash of what a plan rests on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpualloc.inventory import digest, load
from gpualloc.model import HealthIssue, Inventory, Link, Process
from tests.inventory.strategies import inventories

if TYPE_CHECKING:
    from gpualloc.model import Gpu, Host


def reordered(inventory: Inventory, draw: Any) -> Inventory:
    def host(one: Host) -> Host:
        flipped = [replace(link, a=link.b, b=link.a) if draw(st.booleans()) else link for link in one.links]
        return replace(
            one, gpus=draw(st.permutations([gpu(g) for g in one.gpus])), links=draw(st.permutations(flipped))
        )

    def gpu(one: Gpu) -> Gpu:
        mig = None if one.mig is None else draw(st.permutations(one.mig))
        return replace(one, mig=mig, health=draw(st.permutations(one.health)))

    return replace(inventory, hosts=draw(st.permutations([host(one) for one in inventory.hosts])))


@given(st.data())
def test_order_changes_nothing(data: st.DataObject) -> None:
    inventory = data.draw(inventories())
    assert digest(reordered(inventory, data.draw)) == digest(inventory)


def machine(name: str = "a100-mig") -> Inventory:
    return load([f"sim:{name}"]).inventory


def with_gpu(**facts: Any) -> Inventory:
    inventory = machine()
    (host,) = inventory.hosts
    return replace(inventory, hosts=(replace(host, gpus=(replace(host.gpus[0], **facts), *host.gpus[1:])),))


def with_host(**facts: Any) -> Inventory:
    inventory = machine()
    return replace(inventory, hosts=(replace(inventory.hosts[0], **facts),))


A, B = (gpu.uuid for gpu in machine().hosts[0].gpus)
MIG = machine().hosts[0].gpus[0].mig or ()


@pytest.mark.parametrize(
    "other",
    [
        with_gpu(uuid="GPU-other"),
        with_gpu(index=5),
        with_gpu(memory_total_mib=40960),
        with_gpu(memory_total_mib=None),
        with_gpu(mig=None),
        with_gpu(mig=()),
        with_gpu(mig=MIG[1:]),
        with_gpu(mig=(replace(MIG[0], uuid="MIG-other"), *MIG[1:])),
        with_gpu(mig=(replace(MIG[0], profile="7g.80gb"), *MIG[1:])),
        with_gpu(mig=(replace(MIG[0], memory_total_mib=None), *MIG[1:])),
        with_gpu(health=(HealthIssue("gpu_lost", fatal=True, detail=""),)),
        with_host(links=()),
        with_host(links=(Link(A, B, 12, None),)),
        with_host(links=(Link(A, B, 0, "PXB"),)),
        with_host(links=(Link(A, B, None, "SYS"),)),
        replace(machine(), hosts=()),
    ],
)
def test_what_a_plan_rests_on_changes_it(other: Inventory) -> None:
    assert digest(other) != digest(machine())


@pytest.mark.parametrize(
    "other",
    [
        with_gpu(memory_used_mib=12345),
        with_gpu(processes=(Process(1, 2, None),)),
        with_gpu(health=(HealthIssue("recovery_action", fatal=False, detail=""),)),
        with_host(driver="999"),
        replace(machine(), source="snapshot"),
        # nothing known of a link is the same as no link
        with_host(links=(*machine().hosts[0].links, Link(A, A, None, None))),
    ],
)
def test_what_it_does_not_rest_on_changes_nothing(other: Inventory) -> None:
    assert digest(other) == digest(machine())


def test_the_words_of_a_fatal_issue_change_nothing() -> None:
    one, two = (with_gpu(health=(HealthIssue("ecc_uncorrected", fatal=True, detail=text),)) for text in ("1", "2"))
    assert digest(one) == digest(two) != digest(machine())


def test_which_gpus_share_a_host_counts() -> None:
    inventory = machine("4xl40s")
    (host,) = inventory.hosts
    inventory = replace(inventory, hosts=(replace(host, links=()),))
    halves = (
        replace(host, name="a", gpus=host.gpus[:2], links=()),
        replace(host, name="b", gpus=host.gpus[2:], links=()),
    )
    assert digest(replace(inventory, hosts=halves)) != digest(inventory)


def test_it_is_a_sha256_that_does_not_change_between_versions() -> None:
    # saved plans hold it: when this test fails, every saved plan becomes stale
    assert digest(machine("1xrtx3090")) == "cacf4818f42fe8cd27410fe3ee8042612d1d3da3ed03f66212a23f25860b699d"
