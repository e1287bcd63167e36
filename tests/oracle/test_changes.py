"""After a change as few workers move as can be; a change that touches nobody's devices moves nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.oracle import brute, instances
from tests.oracle.judge import plan
from tests.oracle.rules import read_case

if TYPE_CHECKING:
    from random import Random

    from gpualloc.model import Inventory, Request, Solution

SETTLED = ("placed", "moves", "evictions")
quick = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False)


def without(inventory: Inventory, uuid: str) -> Inventory:
    """The inventory after one GPU has gone."""
    hosts = tuple(
        replace(
            host,
            gpus=tuple(gpu for gpu in host.gpus if gpu.uuid != uuid),
            links=tuple(link for link in host.links if uuid not in {link.a, link.b}),
        )
        for host in inventory.hosts
    )
    return replace(inventory, hosts=hosts)


def asked(requests: tuple[Request, ...]) -> tuple[Request, ...]:
    """The requests as gpualloc's own: what shares by hand does so only while its pins are together."""
    return tuple(replace(request, hand_pinned=False) for request in requests)


def pinned(requests: tuple[Request, ...], solution: Solution) -> tuple[Request, ...]:
    """The requests as they stand in a file that the plan was applied to."""
    held = {p.worker: tuple(d.uuid for d in p.devices) for p in solution.placements}
    return tuple(
        replace(
            request,
            workers=tuple(replace(worker, pinned=held.get(worker.name)) for worker in request.workers),
        )
        for request in requests
    )


@settings(quick, max_examples=80)
@given(instances.instances(instances.MIXED), st.randoms(use_true_random=False))
def test_a_lost_gpu_moves_as_few_as_can_be(instance: instances.Instance, choice: Random) -> None:
    policy = replace(instance.policy, stability="keep", exclude=replace(instance.policy.exclude, gpus=()))
    first = replace(instance, policy=policy, requests=asked(instance.requests))
    solution = plan(first)
    gpus = [gpu for host in instance.inventory.hosts for gpu in host.gpus]
    assume(len(gpus) > 1 and solution.placements)
    gone = choice.choice(gpus)
    after = replace(first, inventory=without(first.inventory, gone.uuid), requests=pinned(first.requests, solution))
    again = plan(after)
    best = brute.best(after.inventory, after.requests, after.policy, after.project)
    case = read_case(after.inventory, after.requests, after.policy, after.project)
    values = brute.values_of(case, again)
    assert [values[name] for name in SETTLED] == [best[name] for name in SETTLED]


def idle(inventory: Inventory) -> Inventory:
    """The inventory with nothing running on it, so that whose memory it is cannot change with the pins."""
    hosts = tuple(
        replace(host, gpus=tuple(replace(gpu, processes=(), memory_used_mib=0) for gpu in host.gpus))
        for host in inventory.hosts
    )
    return replace(inventory, hosts=hosts)


@settings(quick, max_examples=80)
@given(instances.instances(instances.MIXED), st.randoms(use_true_random=False))
def test_losing_a_gpu_that_nobody_has_moves_nobody(instance: instances.Instance, choice: Random) -> None:
    policy = replace(instance.policy, stability="keep", reserve=0, exclude=replace(instance.policy.exclude, gpus=()))
    first = replace(instance, inventory=idle(instance.inventory), policy=policy, requests=asked(instance.requests))
    solution = plan(first)
    used = {d.uuid for p in solution.placements for d in p.devices}
    spare = [
        gpu
        for host in first.inventory.hosts
        for gpu in host.gpus
        if not {gpu.uuid, *(part.uuid for part in gpu.mig or ())} & used
    ]
    assume(spare and solution.placements)
    gone = choice.choice(spare)
    requests = pinned(first.requests, solution)
    again = plan(replace(first, inventory=without(first.inventory, gone.uuid), requests=requests))
    assert {p.worker: p.action for p in again.placements} == {p.worker: "keep" for p in solution.placements}
