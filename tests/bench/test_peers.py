"""The peers' rules against their published formulas, worked out by hand or taken from their own tests."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from bench.peers import PEERS, besteffort, fragmentation, hami, scored
from bench.peers.state import State, first_fit, one_by_one
from bench.suite import policy
from gpualloc.inventory import load
from gpualloc.model import GpuCount, Inventory, Request, Sharing, Worker
from tests.oracle.rules import Case, Job, read_case

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.peers.state import Chooser

QUARTER_MIB = 46068 // 4
"""A quarter of an L40S."""


def request(role: str, workers: int = 1, gpus: int = 1, memory: int | None = None) -> Request:
    names = [role] if workers == 1 else [f"{role}-{n}" for n in range(1, workers + 1)]
    return Request(
        role=role,
        workers=tuple(Worker(name, n) for n, name in enumerate(names, 1)),
        gpus=GpuCount(gpus, gpus),
        memory_mib=memory,
    )


def case(machines: Sequence[str], *requests: Request) -> Case:
    inventory = load([f"sim:{name}" for name in machines]).inventory
    return read_case(inventory, requests, policy(Sharing("memory", "exclusive", 8, Fraction(0))), None)


def pairs(links: dict[tuple[int, int], int]) -> Callable[[int, int], int]:
    return lambda a, b: links.get((min(a, b), max(a, b)), 0)


# ---- HAMi


@pytest.mark.parametrize(
    ("parts", "score"),
    [
        # the figures of HAMi's own TestComputeScore
        (((2, 10), (1, 4), (2048, 8192)), 7),
        (((5, 10), (4, 4), (3072, 8192)), Fraction("18.75")),
        (((5, 10), (5, 4), (3072, 8192)), Fraction("21.25")),
    ],
)
def test_hami_score(parts: tuple[tuple[int, int], ...], score: Fraction) -> None:
    assert hami.parts_score(*parts) == score


def test_hami_scores_a_device_with_the_request_added() -> None:
    one = case(["4xl40s"], request("shared", 2, memory=QUARTER_MIB), request("whole"))
    state = State(one)
    shared, _, whole = one.jobs
    assert hami.device_score(state, shared, 0) == 10 * (Fraction(1, 8) + 0 + Fraction(1, 4))
    assert hami.device_score(state, whole, 0) == 10 * (Fraction(1, 8) + 1 + 1)
    state.place(shared, [0])
    assert hami.device_score(state, shared, 0) == 10 * (Fraction(2, 8) + 0 + Fraction(2, 4))
    assert hami.node_score(state, "4xl40s") == 10 * (Fraction(1, 32) + 0 + Fraction(1, 16))


def test_hami_binpack_fills_and_spread_levels_within_a_numa_node() -> None:
    one = case(["4xl40s"], request("shared", 3, memory=QUARTER_MIB))
    assert [sorted(held or ()) for held in one_by_one(one, hami.binpack)] == [[0], [0], [0]]
    # NUMA comes before the score: the devices 2 and 3 of the second node, and then 2 again while 0 is idle
    assert [sorted(held or ()) for held in one_by_one(one, hami.spread)] == [[2], [3], [2]]


# ---- go-gpuallocator: the expected sets of its own tests


DGX_1V = case(["dgx-1v"], request("any")).pair_score
RTX_8000 = pairs({(0, 3): 200, (1, 2): 200, (0, 1): 20, (0, 2): 10, (1, 3): 10, (2, 3): 20})


@pytest.mark.parametrize(
    ("pair", "free", "size", "expected"),
    [
        (DGX_1V, (0, 2, 4, 5), 2, (4, 5)),
        (DGX_1V, (0, 4, 5, 6), 2, (5, 6)),
        (DGX_1V, (0, 1, 3), 2, (0, 3)),
        (DGX_1V, (0, 1, 4), 2, (0, 4)),
        (DGX_1V, tuple(range(8)), 2, (0, 3)),
        (DGX_1V, (1, 2, 4, 5, 6, 7), 2, (1, 2)),
        (DGX_1V, (4, 5, 6, 7), 2, (4, 7)),
        (DGX_1V, tuple(range(8)), 4, (0, 1, 2, 3)),
        (DGX_1V, (4, 5, 6, 7), 4, (4, 5, 6, 7)),
        (DGX_1V, tuple(range(8)), 8, tuple(range(8))),
        (DGX_1V, tuple(range(8)), 1, (0,)),
        (RTX_8000, (0, 1, 2, 3), 2, (0, 3)),
        (RTX_8000, (1, 2), 2, (1, 2)),
    ],
)
def test_best_set(pair: Callable[[int, int], int], free: tuple[int, ...], size: int, expected: tuple[int, ...]) -> None:
    assert besteffort.best_set(free, size, pair) == expected


def test_best_set_needs_enough_devices() -> None:
    assert besteffort.best_set((0, 1), 3, RTX_8000) is None


def test_best_set_gives_up_the_best_pair_for_the_best_division() -> None:
    # 0-1 is the best pair, but takes both partners away: 100 + 0 against 90 + 90
    chain = pairs({(0, 1): 100, (0, 2): 90, (1, 3): 90})
    assert besteffort.best_set((0, 1, 2, 3), 2, chain) == (0, 2)


@pytest.mark.parametrize(
    ("devices", "size", "count"),
    [(4, 2, 3), (4, 3, 4), (4, 4, 1), (8, 2, 105), (8, 4, 35), (8, 3, 280), (6, 4, 15)],
)
def test_every_division_comes_once(devices: int, size: int, count: int) -> None:
    found = list(besteffort.partitions(tuple(range(devices)), size, devices % size))
    assert len(found) == len({frozenset(map(frozenset, one)) for one in found}) == count
    for one in found:
        assert sorted(d for part in one for d in part) == list(range(devices))
        assert sum(len(part) != size for part in one) <= 1


def test_shared_devices_go_by_the_number_of_workers() -> None:
    one = case(["4xl40s"], request("whole"), request("shared", 2, memory=QUARTER_MIB))
    assert one_by_one(one, besteffort.best_effort) == (frozenset({0}), frozenset({1}), frozenset({1}))


# ---- Nomad and Kubernetes


@pytest.mark.parametrize(
    ("amounts", "score"),
    [
        # the cases of Nomad's own TestScoreFitBinPack, the last by hand: 20 - 2 x 10^0.5
        (((2048, 2048), (4096, 4096)), 18.0),
        (((0, 2048), (0, 4096)), 0.0),
        (((1024, 2048), (2048, 4096)), 13.675444679663241),
    ],
)
def test_nomad_fit(amounts: tuple[tuple[int, int], ...], score: float) -> None:
    assert scored.fit_bin_pack(amounts) == pytest.approx(score)


def test_nomad_bounds_the_score_of_an_overfull_node() -> None:
    assert scored.fit_bin_pack(((4096, 2048), (8192, 4096))) == 18.0


@pytest.mark.parametrize(
    ("amounts", "most", "least"),
    [
        (((3000, 4000), (5000, 10000)), 62, 37),  # (75 + 50) / 2, (25 + 50) / 2
        (((0, 4000), (0, 10000)), 0, 100),
        (((6000, 10000), (10000, 50000)), 40, 60),
        (((5, 4), (0, 10)), 50, 50),  # more than there is: all of it for one, nothing left for the other
        (((0, 0), (5, 10)), 25, 25),
    ],
)
def test_kubernetes_scores(amounts: tuple[tuple[int, int], ...], most: int, least: int) -> None:
    assert scored.most_allocated(amounts) == most
    assert scored.least_allocated(amounts) == least


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (scored.fit_bin_pack, [{0}, {0}, {0}]),
        (scored.most_allocated, [{0}, {0}, {0}]),
        (scored.least_allocated, [{0}, {1}, {2}]),
    ],
)
def test_scores_choose(score: Callable[[scored.Amounts], float], expected: list[set[int]]) -> None:
    one = case(["4xl40s"], request("shared", 3, memory=QUARTER_MIB))
    assert [set(held or ()) for held in one_by_one(one, scored.by_score(score))] == expected


# ---- FGD and Gandiva


def job(role: str, low: int, shares: dict[int, Fraction], *, exclusive: bool = False) -> Job:
    return Job(
        name=role,
        role=role,
        request=request(role, gpus=low),
        low=low,
        high=low,
        elastic=False,
        exclusive=exclusive,
        shares=shares,
        has_previous=False,
        previous=None,
    )


def test_fragmentation() -> None:
    left = {0: 500, 1: 1000}
    shared = job("shared", 1, {0: Fraction(3, 5), 1: Fraction(3, 5)})
    double = job("double", 2, {0: Fraction(1), 1: Fraction(1)}, exclusive=True)
    elsewhere = job("elsewhere", 1, {7: Fraction(1, 10)})
    # one fits on device 1 and finds 500 of no use; the others cannot come at all, so that all 1500 are
    assert fragmentation.fragmentation(left, [(shared, 1.0)]) == 500
    assert fragmentation.fragmentation(left, [(double, 1.0)]) == 1500
    assert fragmentation.fragmentation(left, [(elsewhere, 1.0)]) == 1500
    assert fragmentation.fragmentation(left, [(shared, 0.5), (double, 0.25), (elsewhere, 0.25)]) == 1000


@pytest.mark.parametrize(("before", "after", "score"), [(0, 0, 50), (1000, 0, 73), (0, 1000, 26), (0, 8000, 0)])
def test_gradient_score(before: float, after: float, score: int) -> None:
    assert fragmentation.gradient_score(before, after) == score


def test_gradient_descent_completes_a_device() -> None:
    # half and half make a whole; beside the quarters, a half would leave a quarter that no half can use
    one = case(["4xl40s"], request("half", 3, memory=2 * QUARTER_MIB), request("whole", 2))
    state = State(one)
    half, second, third, *_ = one.jobs
    state.place(half, [1])
    chosen = fragmentation.gradient_descent(state, second)
    assert chosen == [1]
    state.place(second, chosen)
    assert fragmentation.gradient_descent(state, third) == [0]


@pytest.mark.parametrize(
    ("on_node", "left", "score"),
    [
        ({"share-gpu"}, 4000, 87),  # 25 x 4000 / 8000 + 75
        ({"share-gpu", "2-gpu"}, 4000, 62),
        (set(), 8000, 25),
        ({"2-gpu"}, 2000, 18),
    ],
)
def test_gandiva_score(on_node: set[str], left: int, score: int) -> None:
    assert fragmentation.affinity_score("share-gpu", on_node, left) == score


def test_gandiva_keeps_groups_apart() -> None:
    one = case(["4xl40s", "4xa100-pcie-bridged"], request("pair", gpus=2), request("shared", 2, memory=8192))
    hosts = [{one.devices[d].host for d in held or ()} for held in one_by_one(one, fragmentation.gandiva)]
    assert len(hosts[0]) == len(hosts[1]) == 1
    assert hosts[1] == hosts[2] != hosts[0]


# ---- what they have in common


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_workers_with_good_devices_stay_and_lost_ones_are_replaced(peer: tuple[str, str, Chooser]) -> None:
    inventory = load(["sim:4xl40s"]).inventory
    uuids = [gpu.uuid for gpu in inventory.hosts[0].gpus]
    stays = Request("stays", (Worker("stays", 1, (uuids[3],)),), GpuCount(1, 1))
    lost = Request("lost", (Worker("lost", 1, ("GPU-gone",)),), GpuCount(1, 1))
    held = one_by_one(read_case(inventory, (lost, stays), policy(), None), peer[2])
    assert held[1] == frozenset({3})
    assert held[0] is not None
    assert held[0] < {0, 1, 2}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_who_does_not_fit_is_left_out(peer: tuple[str, str, Chooser]) -> None:
    one = case(["1xrtx3090"], request("whole"), request("shared", memory=1024), request("pair", gpus=2))
    assert one_by_one(one, peer[2]) == (frozenset({0}), None, None)


def test_first_fit_fills_in_order() -> None:
    one = case(["4xl40s"], request("shared", 5, memory=QUARTER_MIB), request("whole"))
    assert [set(held or ()) for held in one_by_one(one, first_fit)] == [{0}, {0}, {0}, {0}, {1}, {2}]


def test_no_more_workers_on_a_device_than_the_policy_allows() -> None:
    inventory: Inventory = load(["sim:4xl40s"]).inventory
    rules = policy(Sharing("memory", "exclusive", 2, Fraction(0)))
    one = read_case(inventory, (request("shared", 3, memory=1024),), rules, None)
    assert [set(held or ()) for held in one_by_one(one, first_fit)] == [{0}, {0}, {1}]
