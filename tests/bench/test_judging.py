"""The suite, its judge, and the sizes that time is measured at."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from bench import yardsticks
from bench.evaluate import BrokenPlanError, evaluate, placements_of
from bench.fleet import ROLES, SIZES, Size, faults, fleet
from bench.peers import PEERS
from bench.peers.state import first_fit, one_by_one
from bench.suite import INSTANCES, instance, policy, suite
from gpualloc.inventory import load
from gpualloc.model import DeviceRef, GpuCount, Placement, Request, Sharing, Worker
from gpualloc.solve import solve
from tests.oracle.rules import read_case

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.model import Strategy

INVENTORY = load(["sim:4xa100-pcie-bridged", "sim:4xl40s"]).inventory
A100, L40S = (tuple(gpu.uuid for gpu in host.gpus) for host in INVENTORY.hosts)
REQUESTS = (
    Request("pair", (Worker("pair", 1),), GpuCount(2, 2), min_link="NVLINK"),
    Request("shared", tuple(Worker(f"shared-{n}", n) for n in (1, 2, 3)), GpuCount(1, 1), memory_mib=16384),
    Request("whole", (Worker("whole", 1, (L40S[3],)),), GpuCount(1, 1), model="*L40S"),
)
CASE = read_case(INVENTORY, REQUESTS, policy(Sharing("memory", "exclusive", 2, Fraction(0))), None)


def placed(worker: str, host: str, *devices: tuple[str, int], exclusive: bool = True) -> Placement:
    return Placement(
        worker=worker,
        service=worker.partition("-")[0],
        replica=1,
        host=host,
        devices=tuple(DeviceRef(uuid, index) for uuid, index in devices),
        memory_mib=None if exclusive else 16384,
        exclusive=exclusive,
        action="pin",
        previous=None,
        reason="",
    )


NVLINKED = next(
    (a, b)
    for a in range(4)
    for b in range(a + 1, 4)
    if any({link.a, link.b} == {A100[a], A100[b]} and link.nvlink for link in INVENTORY.hosts[0].links)
)
GOOD = (
    placed("pair", "4xa100-pcie-bridged", *((A100[n], n) for n in NVLINKED)),
    placed("shared-1", "4xl40s", (L40S[0], 0), exclusive=False),
    placed("shared-2", "4xl40s", (L40S[0], 0), exclusive=False),
    placed("shared-3", "4xl40s", (L40S[1], 1), exclusive=False),
    placed("whole", "4xl40s", (L40S[2], 2)),
)
FREE_A100 = next(n for n in range(4) if n not in NVLINKED)


def test_what_a_plan_is_worth() -> None:
    verdict = evaluate(CASE, GOOD)
    assert verdict.metrics == {
        "placed": 5,
        "devices_used": 5,
        "peak_load": 1,
        "link_score": 1200,
        "moves": 1,
    }
    fewer = evaluate(CASE, GOOD[:-1])
    assert verdict.compare(fewer) == ("placed", 1)
    assert fewer.compare(verdict) == ("placed", -1)
    stays = evaluate(CASE, (*GOOD[:-1], placed("whole", "4xl40s", (L40S[3], 3))))
    assert stays.compare(verdict) == ("moves", 1)
    assert verdict.compare(verdict) == ("", 0)


@pytest.mark.parametrize(
    ("plan", "fault"),
    [
        ((*GOOD, placed("nobody", "4xl40s", (L40S[3], 3))), "nobody asked"),
        ((*GOOD, GOOD[0]), "placed twice"),
        ((replace(GOOD[4], devices=(DeviceRef("GPU-x", 0),)),), "not there"),
        ((replace(GOOD[4], devices=()),), "no device"),
        ((replace(GOOD[0], devices=GOOD[0].devices[:1] * 2),), "one twice"),
        ((replace(GOOD[0], devices=GOOD[0].devices[:1]),), "1 devices"),
        ((replace(GOOD[4], host="4xa100-pcie-bridged"),), "not on 4xa100"),
        ((replace(GOOD[4], devices=(DeviceRef(L40S[2], 0),)),), "index of another"),
        ((replace(GOOD[4], exclusive=False),), "against what was asked"),
        ((placed("whole", "4xa100-pcie-bridged", (A100[0], 0)),), "filter"),
        (
            (placed("pair", "4xa100-pcie-bridged", (A100[NVLINKED[0]], NVLINKED[0]), (A100[FREE_A100], FREE_A100)),),
            "min_link",
        ),
        ((GOOD[1], GOOD[2], replace(GOOD[3], devices=GOOD[1].devices)), "beyond its capacity|max_workers"),
        ((GOOD[4], replace(GOOD[1], devices=GOOD[4].devices)), "not alone"),
        ((placed("pair", "4xl40s", (L40S[0], 0), (A100[0], 0)),), "not on 4xl40s"),
    ],
)
def test_the_judge_rejects(plan: tuple[Placement, ...], fault: str) -> None:
    with pytest.raises(BrokenPlanError, match=fault):
        evaluate(CASE, plan)


def test_memory_beyond_a_device_is_rejected() -> None:
    requests = (Request("big", tuple(Worker(f"big-{n}", n) for n in (1, 2)), GpuCount(1, 1), memory_mib=24576),)
    case = read_case(INVENTORY, requests, policy(), None)
    plan = [placed(f"big-{n}", "4xl40s", (L40S[0], 0), exclusive=False) for n in (1, 2)]
    with pytest.raises(BrokenPlanError, match="beyond its capacity"):
        evaluate(case, plan)


def test_the_suite_is_always_the_same() -> None:
    assert instance(7) == instance(7)
    assert suite(5) == [instance(number) for number in range(5)]
    everything = suite()
    assert len(everything) == INSTANCES == 300
    assert len({one.name for one in everything}) == INSTANCES
    assert sum(one.changed for one in everything) == INSTANCES / 3
    for one in everything:
        names = [worker.name for request in one.requests for worker in request.workers]
        assert len(names) == len(set(names)) > 0


def test_after_a_change_somebody_has_lost_a_device() -> None:
    for one in suite(60):
        there = {
            uuid
            for host in one.inventory.hosts
            for gpu in host.gpus
            for uuid in (gpu.uuid, *(part.uuid for part in gpu.mig or ()))
        }
        pinned = {uuid for request in one.requests for worker in request.workers for uuid in worker.pinned or ()}
        assert bool(pinned - there) == one.changed


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_keeps_the_hard_rules(peer: tuple[str, str, Callable[..., object]]) -> None:
    for one in suite(60):
        case = read_case(one.inventory, one.requests, one.policy, None)
        evaluate(case, placements_of(case, one_by_one(case, peer[2])))  # type: ignore[arg-type] # a Peer is a tuple


@pytest.mark.parametrize("strategy", ["pack", "spread"])
@pytest.mark.parametrize("number", [0, 2, 3, 4])
def test_gpualloc_is_never_behind(number: int, strategy: Strategy) -> None:
    one = instance(number).under(strategy)
    case = read_case(one.inventory, one.requests, one.policy, None)
    ours = evaluate(case, solve(one.inventory, one.requests, one.policy).placements)
    for peer in PEERS:
        if peer.strategy == strategy:
            theirs = evaluate(case, placements_of(case, one_by_one(case, peer.choose)))
            tier, sign = ours.compare(theirs)
            assert sign >= 0, f"{peer.name} is better in {tier}"


# ---- sizes


@pytest.mark.parametrize(
    ("name", "devices", "workers", "roles"),
    [("8", 8, 16, 6), ("16", 16, 60, 6), ("mig", 112, 200, 15), ("40a", 16, 40, 9), ("125", 1000, 2000, 12)],
)
def test_sizes(name: str, devices: int, workers: int, roles: int) -> None:
    size = SIZES[name]()
    assert (size.devices, size.workers, len(size.requests)) == (devices, workers, roles)


def test_a_fleet_is_three_tenths_in_use_and_a_fifth_of_its_roles_wants_several_devices() -> None:
    size = fleet(125, 2000)()
    in_use = {uuid for request in size.requests for worker in request.workers for uuid in worker.pinned or ()}
    assert 0.29 < len(in_use) / size.devices < 0.32
    assert len({gpu.name for host in size.inventory.hosts for gpu in host.gpus}) > 2
    assert sum(role.gpus > 1 for role in ROLES) * 5 >= len(ROLES)
    before = [
        placed(worker.name, _host_of(size, worker.pinned[0]), *((uuid, 0) for uuid in worker.pinned))
        for request in size.requests
        for worker in request.workers
        if worker.pinned
    ]
    assert not faults(size, before)


def _host_of(size: Size, uuid: str) -> str:
    return next(host.name for host in size.inventory.hosts if any(gpu.uuid == uuid for gpu in host.gpus))


def test_faults_of_a_large_plan_are_found() -> None:
    size = Size(INVENTORY, REQUESTS, policy(Sharing("memory", "exclusive", 2, Fraction(0))))
    assert faults(size, GOOD) == []
    broken: list[tuple[tuple[Placement, ...], str]] = [
        ((*GOOD, GOOD[0]), "twice"),
        ((replace(GOOD[4], devices=(DeviceRef("GPU-x", 0),)),), "not there"),
        ((replace(GOOD[0], devices=GOOD[0].devices[:1]),), "not 2 devices"),
        ((replace(GOOD[4], host="4xa100-pcie-bridged"),), "not 1 devices of"),
        ((placed("whole", "4xa100-pcie-bridged", (A100[0], 0)),), "the wrong model"),
        ((GOOD[1], GOOD[2], replace(GOOD[3], devices=GOOD[1].devices)), "more than it holds"),
        ((GOOD[4], replace(GOOD[1], devices=GOOD[4].devices)), "more than it holds"),
    ]
    for plan, fault in broken:
        found = faults(size, plan)
        assert len(found) == 1
        assert fault in found[0]


def test_yardsticks_agree_on_what_fits() -> None:
    size = Size(INVENTORY, REQUESTS, policy(Sharing("memory", "exclusive", 2, Fraction(0))))
    unpinned = replace(size, requests=(REQUESTS[1], replace(REQUESTS[2], workers=(Worker("whole", 1),))))
    plain = yardsticks.cp_sat(unpinned)
    greedy = yardsticks.first_fit(unpinned)
    assert (plain.placed, plain.devices_used) == (4, 3)
    assert plain.note == "7 of 7 tiers proven"
    assert (greedy.placed, greedy.devices_used) == (4, 3)


@pytest.mark.parametrize("number", [0, 1, 3, 4])
def test_the_plain_model_finds_the_same_optimum(number: int) -> None:
    one = instance(number)
    # what the plain model knows: hosts of one model each, roles without MIG profiles and host names
    hosts = tuple(host for host in one.inventory.hosts if len({(gpu.name, gpu.mig) for gpu in host.gpus}) == 1)
    requests = tuple(replace(request, host=None, min_memory_mib=None) for request in one.requests)
    size = Size(replace(one.inventory, hosts=hosts), requests, policy())
    case = read_case(size.inventory, size.requests, size.policy, None)
    ours = evaluate(case, solve(size.inventory, size.requests, size.policy).placements)
    theirs = yardsticks.cp_sat(size, 60)
    assert theirs.note == "7 of 7 tiers proven"
    assert theirs.placed == ours.metrics["placed"]
    assert theirs.devices_used == ours.metrics["devices_used"]


def test_first_fit_is_no_better_than_the_choice_of_first_devices() -> None:
    size = SIZES["8"]()
    case = read_case(size.inventory, size.requests, size.policy, None)
    verdict = evaluate(case, placements_of(case, one_by_one(case, first_fit)))
    result = yardsticks.first_fit(size)
    assert (result.placed, result.devices_used) == (verdict.metrics["placed"], verdict.metrics["devices_used"])
