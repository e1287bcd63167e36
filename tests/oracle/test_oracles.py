"""The oracles themselves: worked examples, two ways to one answer, and a check that notices what is wrong."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from gpualloc.model import (
    DeviceRef,
    Exclude,
    Gpu,
    GpuCount,
    Host,
    Inventory,
    Link,
    Placement,
    Policy,
    Process,
    Request,
    Sharing,
    Solution,
    Tier,
    Unplaced,
    Worker,
    Write,
)
from tests.oracle import brute, cpsat, instances
from tests.oracle.objective import TIERS, Choice, Outcome, tier_names
from tests.oracle.rules import Case, read_case

POLICY = Policy(
    name="worked",
    description="",
    strategy="pack",
    stability="keep",
    topology="prefer",
    sharing=Sharing("memory", "exclusive", 8, Fraction(1, 20)),
    exclude=Exclude(unhealthy=False, busy=False, busy_above_mib=1024, display=False, gpus=()),
    reserve=0,
    limit=None,
    write=Write("uuid", "ordinal", (), ()),
    ignore=(),
    roles=(),
    sha256="",
)


def gpu(index: int, total: int | None = 16384, *, used: int = 0, processes: tuple[Process, ...] = ()) -> Gpu:
    return Gpu(
        uuid=f"GPU-{index}",
        index=index,
        name="Tesla T4",
        pci_bus_id=f"00000000:{index + 1:02X}:00.0",
        memory_total_mib=total,
        memory_reserved_mib=384,
        memory_used_mib=used,
        compute_capability="7.5",
        numa_node=index // 2,
        cpu_affinity=None,
        display_active=False,
        compute_mode="default",
        mig=None,
        health=(),
        processes=processes,
    )


def machine(*gpus: Gpu, links: tuple[Link, ...] = ()) -> Inventory:
    return Inventory("snapshot", (Host("one", None, None, gpus, links),))


def role(name: str, count: int = 1, least: int = 1, most: int | None = 1, **rest: object) -> Request:
    workers = tuple(Worker(f"{name}-{n}", n) for n in range(1, count + 1))
    return replace(Request(name, workers, GpuCount(least, most)), **rest)  # type: ignore[arg-type]  # fields by name


def test_two_that_share_use_one_device() -> None:
    # Usable: (16384 - 384) x 0.95 = 15200 MiB: two of 7600 fill it, a third needs another device.
    requests = (role("a", 3, memory_mib=7600),)
    values = brute.best(machine(gpu(0), gpu(1), gpu(2)), requests, POLICY)
    assert (values["placed"], values["devices_used"], values["used_memory_total"]) == (3, 2, 2 * 16384)


def test_spread_levels_the_load_in_steps_of_a_twentieth() -> None:
    # 4000 of 15200 is 26.3 %, so 30 %; beside 1000 MiB of someone's it would be 32.9 %, so 35 %.
    policy = replace(POLICY, strategy="spread")
    values = brute.best(machine(gpu(0, used=1000), gpu(1)), (role("a", memory_mib=4000),), policy)
    assert values["peak_load"] == Fraction(3, 10)
    assert values["sum_sq_load"] == Fraction(1000, 15200) ** 2 + Fraction(4000, 15200) ** 2
    assert values["numa_sum_sq"] == (Fraction(5000, 15200) / 2) ** 2


def test_grants_are_divided_fairly() -> None:
    values = brute.best(machine(*map(gpu, range(4))), (role("a", 3, 1, None),), POLICY)
    assert (values["placed"], values["granted"], values["grant_vector"]) == (3, 4, (1, 1, 2))


def test_the_closest_pair_is_chosen() -> None:
    links = (Link("GPU-0", "GPU-1", 0, "SYS"), Link("GPU-0", "GPU-2", 4, "NODE"), Link("GPU-1", "GPU-2", 2, None))
    inventory = machine(gpu(0), gpu(1), gpu(2), links=links)
    assert brute.best(inventory, (role("a", 1, 2, 2),), POLICY)["link_score"] == 420
    lesser = machine(gpu(0), gpu(1), gpu(2), links=(*links, Link("GPU-2", "GPU-0", 1, "PIX")))
    assert brute.best(lesser, (role("a", 1, 2, 2),), POLICY)["link_score"] == 200


def test_who_may_stay_stays() -> None:
    held = replace(role("a"), workers=(Worker("a", 1, ("GPU-1",)),))
    lost = replace(role("b"), workers=(Worker("b", 1, ("GPU-9",)),))
    values = brute.best(machine(gpu(0), gpu(1)), (held, lost), POLICY)
    assert (values["placed"], values["moves"]) == (2, 1)
    assert brute.best(machine(gpu(0), gpu(1)), (lost,), POLICY)["moves"] == 0, "another machine: nothing was pinned"


def test_memory_of_unknown_owner_is_foreign_unless_the_file_pins_the_device() -> None:
    busy = gpu(0, used=4000, processes=(Process(1, 4000, None),))
    assert brute.best(machine(busy), (role("a"),), POLICY)["placed"] == 0
    pinned = replace(role("a"), workers=(Worker("a", 1, ("0",)),))
    assert brute.best(machine(busy), (pinned,), POLICY)["placed"] == 1


def test_unknown_memory_fails_every_filter_on_memory() -> None:
    unknown = machine(gpu(0, total=None))
    assert brute.best(unknown, (role("a", memory_mib=1),), POLICY)["placed"] == 0
    assert brute.best(unknown, (role("a", min_memory_mib=1),), POLICY)["placed"] == 0
    assert brute.best(unknown, (role("a"),), POLICY)["placed"] == 1


def test_workers_pinned_by_hand_to_one_device_share_it() -> None:
    by_hand = [
        replace(role(name), workers=(Worker(name, 1, ("GPU-0",)),), hand_pinned=True) for name in ("a", "b", "c")
    ]
    case = read_case(machine(gpu(0)), tuple(by_hand), POLICY, None)
    assert [job.shares for job in case.jobs] == [{0: Fraction(1, 3)}] * 3
    assert brute.best_of(case)[1]["moves"] == 0


@pytest.mark.parametrize("size", [instances.MIXED, instances.SINGLE])
def test_both_oracles_agree(size: instances.Size) -> None:
    proven = 0
    for seed in range(60):
        instance = instances.seeded(seed, size)
        case = read_case(instance.inventory, instance.requests, instance.policy, instance.project)
        answer = cpsat.best_of(case)
        proven += answer.complete
        assert answer.verdict(brute.best_of(case)[1]) in ("equal", "no worse"), instance.text()
    assert proven >= 50


# --------------------------------------------------------------------------------------------------------------------


def told(case: Case, choice: Choice) -> Solution:
    """Return the solution that says what an assignment is."""
    outcome = Outcome(case, choice)
    placements = []
    for _, job, held in outcome.placed:
        devices = [case.devices[d] for d in sorted(held)]
        refs = tuple(DeviceRef(device.uuid, device.gpu.index) for device in devices)
        action = "pin" if not job.has_previous else "keep" if held == job.previous else "move"
        number = int(job.name.rsplit("-", 1)[1])
        placements.append(
            Placement(job.name, job.role, number, devices[0].host, refs, None, job.exclusive, action, None, "")  # type: ignore[arg-type]  # an action
        )
    unplaced = [Unplaced(j.name, (), "") for j, held in zip(case.jobs, choice, strict=True) if held is None]
    tiers = []
    for name in tier_names(case):
        value = TIERS[name][1](outcome)
        plain = float(value) if isinstance(value, Fraction) else value
        tiers.append(Tier(name, TIERS[name][0], plain, plain, proven=True))
    return Solution(tuple(placements), tuple(unplaced), tuple(tiers), ())


INVENTORY = machine(*map(gpu, range(3)))
REQUESTS = (role("a", 2, memory_mib=8000), role("b", anti_affinity=("a",)))


def wrong(solution: Solution, policy: Policy = POLICY) -> list[str]:
    return brute.validate(INVENTORY, REQUESTS, policy, solution)


def solution_of(*choice: set[int] | None) -> Solution:
    case = read_case(INVENTORY, REQUESTS, POLICY, None)
    return told(case, tuple(frozenset(held) if held is not None else None for held in choice))


def test_a_right_solution_passes() -> None:
    assert wrong(solution_of({0}, {1}, {2})) == []
    assert wrong(solution_of({0}, None, None)) == []


def test_capacity_is_checked() -> None:
    assert wrong(solution_of({0}, {0}, {2})) == ["GPU-0: handed out beyond its capacity"]


def test_company_is_checked() -> None:
    assert "GPU-1: an exclusive worker is not alone" in wrong(solution_of({0}, {1}, {1}))
    assert "GPU-1: b-1 beside a" in wrong(solution_of({0}, {1}, {1}))


def test_limit_and_reserve_are_checked() -> None:
    whole = solution_of({0}, {1}, {2})
    assert wrong(whole, replace(POLICY, limit=2)) == ["limit: 3 devices"]
    assert wrong(whole, replace(POLICY, reserve=1)) == ["reserve: one has 0 free devices"]


def test_values_are_recomputed() -> None:
    whole = solution_of({0}, {1}, {2})
    first = replace(whole.objective[0], value=2)
    assert wrong(replace(whole, objective=(first, *whole.objective[1:]))) == [
        "placed: reported 2, is 3",
    ]


def test_nobody_is_forgotten() -> None:
    whole = solution_of({0}, {1}, {2})
    assert "workers placed or not" in wrong(replace(whole, placements=whole.placements[1:]))[0]
