"""What people see: the plans of the shipped machines, reasons, refusals, hints, warnings."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gpualloc.errors import GpuallocError
from gpualloc.model import Container, GpuCount, HealthIssue, Inventory, Link, MigInstance, Process
from gpualloc.solve import SolveOptions, solve
from tests.solve.worlds import PROJECT, World, gpu, inventory, machine, policy, relaxed, role, worlds

if TYPE_CHECKING:
    from random import Random

    from gpualloc.model import Placement, Solution


def places(solution: Solution) -> dict[str, list[int]]:
    return {p.worker: [d.index for d in p.devices] for p in solution.placements}


def placement(solution: Solution, worker: str) -> Placement:
    return next(p for p in solution.placements if p.worker == worker)


def value(solution: Solution, tier: str) -> object:
    return next(t.value for t in solution.objective if t.name == tier)


def test_three_services_get_three_gpus() -> None:
    solution = solve(machine("4xl40s"), [role(name) for name in "abc"], policy())
    assert places(solution) == {"a": [0], "b": [1], "c": [2]}
    assert all(p.exclusive and p.memory_mib is None and p.action == "pin" for p in solution.placements)


def test_six_do_not_fit_on_four_and_the_hint_names_default_memory() -> None:
    solution = solve(machine("4xl40s"), [role(name) for name in "abcdef"], policy())
    assert [u.worker for u in solution.unplaced] == ["e", "f"]
    for unplaced in solution.unplaced:
        assert [(r.code, len(r.devices), r.detail) for r in unplaced.reasons] == [
            ("taken", 4, "taken by a, b, c and 1 more")
        ]
        assert "default_memory" in unplaced.hint


def test_six_with_memory_fit_on_two_and_spread_over_four() -> None:
    requests = [role(name, memory_mib=10240) for name in "abcdef"]
    packed = solve(machine("4xl40s"), requests, policy())
    assert value(packed, "devices_used") == 2
    assert not packed.unplaced
    level = solve(machine("4xl40s"), requests, policy(strategy="spread"))
    held = [d.index for p in level.placements for d in p.devices]
    assert sorted(held.count(index) for index in range(4)) == [1, 1, 2, 2]
    assert value(level, "peak_load") == 0.45


def test_two_plain_services_share_under_a_sharing_policy() -> None:
    solution = solve(machine("4xl40s"), [role("a"), role("b")], policy({"default_memory": "share"}))
    assert places(solution) == {"a": [0], "b": [0]}
    assert placement(solution, "a").memory_mib == 46068 // 8


def test_links_are_chosen_jointly() -> None:
    solution = solve(machine("dgx-1v"), [role("t", 4, (2, 2))], policy())
    assert sorted(d for held in places(solution).values() for d in held) == list(range(8))
    # four disjoint pairs with two NVLinks each: whoever chooses pair by pair from the first GPU on misses it
    assert all(p.reason == "2 GPUs joined by NV2" for p in solution.placements)


def test_elastic_services_divide_the_machine() -> None:
    alone = solve(machine("8xrtx4090"), [role("x", gpus=(1, None))], policy())
    assert places(alone) == {"x": list(range(8))}
    three = solve(machine("8xrtx4090"), [role(name, gpus=(1, None)) for name in "xyz"], policy())
    assert value(three, "granted") == 8
    assert value(three, "grant_vector") == (2, 3, 3)


def test_who_is_well_stays_and_who_lost_a_gpu_moves() -> None:
    machines = inventory(*(gpu(n) for n in range(4)))
    requests = [
        role("a", pinned=[("GPU-3",)]),
        role("b", pinned=[("GPU-9",)]),
        role("c", pinned=[("1",)]),
        role("d"),
    ]
    solution = solve(machines, requests, policy())
    assert places(solution) == {"a": [3], "b": [0], "c": [1], "d": [2]}
    assert [p.action for p in solution.placements] == ["keep", "move", "keep", "pin"]
    assert placement(solution, "a").reason == "keeps its device"
    assert placement(solution, "b").reason.startswith("moved: GPU-9 is gone")
    assert placement(solution, "b").previous == ("GPU-9",)
    assert placement(solution, "c").previous == ("GPU-1",)
    assert value(solution, "moves") == 1


def test_a_file_from_another_machine_is_pinned_anew() -> None:
    solution = solve(inventory(gpu(0), gpu(1)), [role("a", pinned=[("GPU-9",)])], policy())
    assert [(p.action, p.previous) for p in solution.placements] == [("pin", None)]


def test_a_new_plan_forgets_the_old_one() -> None:
    machines = inventory(*(gpu(n) for n in range(4)))
    requests = [role("a", pinned=[("GPU-3",)])]
    assert places(solve(machines, requests, policy(), options=SolveOptions(replan=True))) == {"a": [0]}
    assert places(solve(machines, requests, policy(stability="ignore"))) == {"a": [0]}
    assert places(solve(machines, requests, policy(stability="prefer"))) == {"a": [3]}


def test_growing_and_shrinking_is_a_resize() -> None:
    machines = inventory(*(gpu(n) for n in range(4)))
    grown = solve(machines, [role("a", gpus=(2, 2), pinned=[("GPU-0",)])], policy())
    assert [p.action for p in grown.placements] == ["resize"]
    shrunk = solve(machines, [role("a", gpus=(1, 1), pinned=[("GPU-0", "GPU-1")])], policy())
    assert [p.action for p in shrunk.placements] == ["resize"]


@pytest.mark.parametrize(
    "written", ["GPU-2", "2", "00000000:03:00.0", "0000:03:00.0", "03:00.0", "nvidia.com/gpu=2", "nvidia.com/gpu=GPU-2"]
)
def test_every_way_to_name_a_gpu(written: str) -> None:
    solution = solve(inventory(*(gpu(n) for n in range(4))), [role("a", pinned=[(written,)])], policy())
    assert [(p.action, p.previous) for p in solution.placements] == [("keep", ("GPU-2",))]


def test_a_mig_instance_by_number_and_by_the_start_of_its_uuid() -> None:
    parts = tuple(MigInstance(f"MIG-{n}x", n, 0, "1g.5gb", 4864) for n in (7, 8, 9))
    machines = inventory(gpu(0, mig=parts))
    for written in ("0:1", "MIG-8", "nvidia.com/gpu=0:1"):
        solution = solve(machines, [role("a", pinned=[(written,)])], policy())
        assert [(p.action, p.previous) for p in solution.placements] == [("keep", ("MIG-8x",))]


def test_mig_instances_are_for_hosts_that_have_nothing_else() -> None:
    part = MigInstance("MIG-1", 1, 0, "3g.20gb", 19968)
    mixed = inventory(gpu(0, mig=(part,)), gpu(1))
    assert places(solve(mixed, [role("a", 2)], policy())) == {"a-1": [1]}
    only = inventory(gpu(0, mig=(part,)))
    assert [d.uuid for p in solve(only, [role("a")], policy()).placements for d in p.devices] == ["MIG-1"]
    asked = solve(mixed, [role("a", mig_profile="3g.20gb")], policy())
    assert [d.uuid for p in asked.placements for d in p.devices] == ["MIG-1"]
    two = solve(only, [role("a", gpus=(2, 2))], policy())
    assert two.unplaced[0].reasons[0].code == "mig_count"


def test_services_pinned_by_hand_to_one_gpu_share_it() -> None:
    machines = inventory(gpu(0), gpu(1))
    requests = [role(name, pinned=[("GPU-0",)], hand_pinned=True) for name in "ab"]
    solution = solve(machines, requests, policy())
    assert places(solution) == {"a": [0], "b": [0]}
    assert [p.memory_mib for p in solution.placements] == [20480, 20480]
    assert [(w.code, w.workers) for w in solution.warnings] == [("shared_by_hand", ("a", "b"))]


def test_whose_memory_it_is() -> None:
    theirs = Process(1, 4000, Container("c1", "other", "web"))
    ours = Process(2, 4000, Container("c2", PROJECT, "a"))
    nobodys = Process(3, 4000, None)
    machines = inventory(
        gpu(0, processes=(theirs,), memory_used_mib=4000),
        gpu(1, processes=(ours,), memory_used_mib=4000),
        gpu(2, processes=(nobodys,), memory_used_mib=4000),
        gpu(3, memory_used_mib=4000),
    )
    solution = solve(machines, [role("a", 4)], policy(), project=PROJECT)
    assert places(solution) == {"a-1": [1]}
    codes = {r.code: r for r in solution.unplaced[0].reasons}
    assert codes["busy"].devices == ("GPU-0", "GPU-2", "GPU-3")
    assert "other/web" in codes["busy"].detail
    pinned = solve(machines, [role("a", pinned=[("GPU-2",)])], policy(), project=PROJECT)
    assert [p.action for p in pinned.placements] == ["keep"]
    shared = solve(machines, [role("a", memory_mib=40000)], policy(), project=PROJECT)
    assert places(shared) == {"a": [1]}


def test_a_little_foreign_memory_is_not_busy_but_not_given_out() -> None:
    machines = inventory(gpu(0, memory_used_mib=500))
    assert places(solve(machines, [role("a")], policy())) == {"a": [0]}
    full = solve(machines, [role("a", memory_mib=40960)], policy())
    assert full.unplaced[0].reasons[0].code == "memory"


def test_nothing_is_known_about_unknown_memory() -> None:
    machines = inventory(gpu(0, memory_total_mib=None))
    assert places(solve(machines, [role("a")], policy())) == {"a": [0]}
    for request in (role("a", memory_mib=1), role("a", min_memory_mib=1)):
        assert solve(machines, [request], policy()).unplaced
    assert solve(machines, [role("a")], policy({"default_memory": "share"})).unplaced
    assert not solve(machines, [role("a")], policy({"mode": "count", "default_memory": "share"})).unplaced


@pytest.mark.parametrize(
    ("changes", "rules", "code"),
    [
        ({"compute_mode": "prohibited"}, policy(), "compute_mode"),
        ({"display_active": True}, policy(exclude={"display": True}), "display"),
        ({"health": (HealthIssue("xid", fatal=True, detail=""),)}, policy(exclude={"unhealthy": True}), "unhealthy"),
        ({}, policy(exclude={"gpus": ("index:0",)}), "excluded"),
        ({}, policy(exclude={"gpus": ("name:*A100*",)}), "excluded"),
        ({}, policy(limit=0), "limit"),
        ({}, policy(reserve=1), "reserve"),
    ],
)
def test_why_a_gpu_is_not_given(changes: dict[str, object], rules: object, code: str) -> None:
    solution = solve(inventory(gpu(0, **changes)), [role("a")], rules)  # type: ignore[arg-type]  # a policy
    assert [r.code for r in solution.unplaced[0].reasons] == [code]


@pytest.mark.parametrize(
    ("wishes", "code"),
    [
        ({"model": "*H100*"}, "model"),
        ({"min_memory_mib": 50000}, "min_memory"),
        ({"memory_mib": 50000}, "memory"),
        ({"compute_capability": ">=9.0"}, "compute_capability"),
        ({"host": "there*"}, "host"),
        ({"mig_profile": "1g.5gb"}, "kind"),
        ({"gpus": (3, 3)}, "count"),
        ({"gpus": (2, 2), "min_link": "NVLINK"}, "min_link"),
    ],
)
def test_why_a_request_does_not_fit(wishes: dict[str, object], code: str) -> None:
    machines = inventory(gpu(0), gpu(1), links=(Link("GPU-0", "GPU-1", 0, "SYS"),))
    solution = solve(machines, [role("a", **wishes)], policy())  # type: ignore[arg-type]  # as role takes them
    assert [(r.code, r.devices) for r in solution.unplaced[0].reasons] == [(code, ("GPU-0", "GPU-1"))]


def test_who_would_not_fit_alone_is_not_told_that_others_are_there() -> None:
    pairs = [(0, 1), (2, 3)]
    links = tuple(Link(f"GPU-{a}", f"GPU-{b}", 4 if (a, b) in pairs else 0, "SYS") for b in range(4) for a in range(b))
    machines = inventory(*(gpu(n) for n in range(4)), links=links)
    small = role("small", 4, memory_mib=30000)
    wide = role("wide", gpus=(4, 4), priority=-1)
    for request, code in (
        (wide, "taken"),
        (replace(wide, min_link="NVLINK"), "min_link"),
        (replace(wide, gpus=GpuCount(5, 5)), "count"),
    ):
        (unplaced,) = solve(machines, [small, request], policy()).unplaced
        assert [r.code for r in unplaced.reasons] == [code]


def test_hints_name_the_smallest_change() -> None:
    machines = inventory(*(gpu(n) for n in range(2)), links=(Link("GPU-0", "GPU-1", 0, "PXB"),))

    def hint(*requests: object, rules: object = None) -> str:
        solution = solve(machines, requests, rules or policy())  # type: ignore[arg-type]  # as solve takes them
        return solution.unplaced[0].hint

    assert hint(role("a", 2), rules=policy(limit=1)).startswith("raise limit to 2")
    assert hint(role("a", 2), rules=policy(reserve=1)).startswith("lower reserve to 0")
    assert hint(role("a", gpus=(2, 2), min_link="PIX")).startswith("drop min_link to PXB")
    assert hint(role("a", 3, memory_mib=30 * 1024)).startswith("free 20 GiB on GPU 0")
    assert "drop model" in hint(role("a", model="*H100*"))
    assert "more device" in hint(role("a", 3, exclusive=True))


def test_affinity_brings_together_and_keeps_apart() -> None:
    machines = inventory(*(gpu(n) for n in range(3)))
    together = solve(
        machines,
        [role("a", memory_mib=1000, affinity=("b",)), role("b", memory_mib=1000)],
        policy(strategy="spread"),
    )
    assert places(together) == {"a": [0], "b": [0]}
    circle = solve(
        machines,
        [role("a", memory_mib=1000, affinity=("b",)), role("b", memory_mib=1000, affinity=("a",))],
        policy(strategy="spread"),
    )
    assert places(circle) == {"a": [0], "b": [0]}
    apart = solve(machines, [role("a", 4, memory_mib=1000, anti_affinity=("a",))], policy())
    assert places(apart) == {"a-1": [0], "a-2": [1], "a-3": [2]}
    assert apart.unplaced[0].reasons[0].code == "anti_affinity"
    alone = solve(machines, [role("a", affinity=("b",)), role("b")], policy())
    assert {r.code for u in alone.unplaced for r in u.reasons} == {"affinity"}


def test_priority_decides_who_stays_out() -> None:
    requests = [role("a"), role("b", priority=5), role("c", priority=-1)]
    solution = solve(inventory(gpu(0), gpu(1)), requests, policy())
    assert [u.worker for u in solution.unplaced] == ["c"]
    assert value(solution, "placed") == (1, 1, 0)


def test_contradictions_are_errors() -> None:
    machines = inventory(gpu(0), gpu(1))
    for rules, options, code in (
        (policy(exclude={"gpus": ("GPU-9",)}), SolveOptions(), "unknown-gpu"),
        (policy(exclude={"gpus": ("index:7",)}), SolveOptions(), "unknown-gpu"),
        (policy(), SolveOptions(without=("GPU-9",)), "unknown-gpu"),
    ):
        with pytest.raises(GpuallocError) as caught:
            solve(machines, [role("a")], rules, options=options)
        assert [d.code for d in caught.value.diagnostics] == [code]
    with pytest.raises(GpuallocError) as caught:
        solve(machines, [role("a", affinity=("nobody",))], policy())
    assert [d.code for d in caught.value.diagnostics] == ["unknown-role"]


def test_wsl2_offers_all_or_nothing() -> None:
    two = inventory(gpu(0), gpu(1), platform="wsl2")
    with pytest.raises(GpuallocError) as caught:
        solve(two, [role("a")], policy())
    assert [d.code for d in caught.value.diagnostics] == ["wsl2-subset"]
    assert places(solve(two, [role("a", gpus=(1, None))], policy())) == {"a": [0, 1]}
    assert places(solve(inventory(gpu(0), platform="wsl2"), [role("a")], policy())) == {"a": [0]}


def test_doing_without_a_gpu_is_losing_it() -> None:
    machines = inventory(gpu(0), gpu(1))
    solution = solve(machines, [role("a", pinned=[("GPU-0",)])], policy(), options=SolveOptions(without=("index:0",)))
    assert [(p.action, p.previous, p.devices[0].uuid) for p in solution.placements] == [("move", ("GPU-0",), "GPU-1")]


def test_a_talking_role_split_over_nvlink_is_warned_of() -> None:
    solution = solve(machine("dgx-a100"), [role("t", 2), role("u")], policy())
    assert [(w.code, w.workers) for w in solution.warnings] == [("split_nvlink_role", ("t-1", "t-2"))]


def test_other_warnings() -> None:
    machines = inventory(
        gpu(0, numa_node=0, health=(HealthIssue("xid", fatal=True, detail=""),)),
        gpu(1, numa_node=1),
    )
    solution = solve(machines, [role("a", gpus=(2, 2), memory_mib=40900)], policy())
    assert {w.code for w in solution.warnings} == {"memory_near_size", "numa_split", "unhealthy_device"}


@pytest.mark.parametrize("memory", [1, 2**30])
def test_extreme_memory(memory: int) -> None:
    solution = solve(machine("4xl40s"), [role("a", 12, memory_mib=memory)], policy())
    assert len(solution.placements) == (12 if memory == 1 else 0)


def test_nothing_at_all() -> None:
    empty = Inventory("snapshot", ())
    solution = solve(empty, [role("a")], policy())
    assert [(u.worker, [r.code for r in u.reasons]) for u in solution.unplaced] == [("a", ["no_devices"])]
    assert solve(machine("4xl40s"), [], policy()).placements == ()


def test_a_hundred_priorities() -> None:
    requests = [role(f"r{n}", priority=n) for n in range(100)]
    solution = solve(machine("8xrtx4090"), requests, policy())
    assert sorted(p.worker for p in solution.placements) == [f"r{n}" for n in range(92, 100)]
    assert all(tier.proven for tier in solution.objective)


def test_headroom_and_share_are_exact() -> None:
    machines = inventory(gpu(0, memory_total_mib=10007))
    rules = policy({"default_memory": "share", "max_workers_per_gpu": 7, "headroom": Fraction(1, 3)})
    assert len(solve(machines, [role("a", 7)], rules).placements) == 7
    assert len(solve(machines, [role("a", 8)], rules).placements) == 7


def shuffled(world: World, r: Random) -> World:
    machines, requests, rules = world
    hosts = [
        replace(
            host,
            gpus=tuple(r.sample(host.gpus, len(host.gpus))),
            links=tuple(r.sample(host.links, len(host.links))),
        )
        for host in r.sample(machines.hosts, len(machines.hosts))
    ]
    mixed = [replace(request, workers=tuple(r.sample(request.workers, len(request.workers)))) for request in requests]
    return replace(machines, hosts=tuple(hosts)), tuple(r.sample(mixed, len(mixed))), rules


@settings(relaxed, max_examples=60)
@given(worlds(6, 8), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(world: World, r: Random) -> None:
    machines, requests, rules = world
    plain = solve(machines, requests, rules, project=PROJECT)
    machines, requests, rules = shuffled(world, r)
    assert solve(machines, requests, rules, project=PROJECT) == plain


@settings(relaxed, max_examples=60)
@given(worlds(6, 8))
def test_planning_again_moves_nobody(world: World) -> None:
    machines, requests, rules = world
    rules = replace(rules, stability="keep")
    requests = tuple(replace(request, hand_pinned=False) for request in requests)
    fit = {p.worker for p in solve(machines, requests, rules, project=PROJECT).placements}
    requests = tuple(
        replace(request, workers=tuple(worker for worker in request.workers if worker.name in fit))
        for request in requests
    )
    first = solve(machines, requests, rules, project=PROJECT)
    held = {p.worker: tuple(d.uuid for d in p.devices) for p in first.placements}
    assume(set(held) == fit)  # a pin that went with its worker may have made memory foreign, and a device busy
    pinned = [
        replace(request, workers=tuple(replace(worker, pinned=held[worker.name]) for worker in request.workers))
        for request in requests
    ]
    again = solve(machines, pinned, rules, project=PROJECT)
    assert {p.action for p in again.placements} <= {"keep"}
    assert {p.worker: tuple(d.uuid for d in p.devices) for p in again.placements} == held


def test_more_devices_than_any_host_has_are_named_at_once() -> None:
    solution = solve(machine("dgx-a100"), [role("a", gpus=(1000, 1000))], policy())
    assert solution.unplaced[0].hint == "ask for 8 instead of 1000 devices per worker of a"


def test_a_hundred_priorities_are_kept_in_order() -> None:
    requests = [role(f"r{n:02}", priority=n) for n in range(100)]
    solution = solve(machine("dgx-a100"), requests, policy())
    assert [placement.worker for placement in solution.placements] == [f"r{n}" for n in range(92, 100)]
    assert solution.objective[0].value == (1,) * 8 + (0,) * 92
    assert solution.objective[0].proven
    assert all(unplaced.hint for unplaced in solution.unplaced)


def test_who_may_stay_does_not_give_way_to_who_waits() -> None:
    # one device for two: the one in place is the later by name
    held = role("b", pinned=[("GPU-0",)], memory_mib=30_000)
    solution = solve(inventory(gpu(0)), [role("a", memory_mib=30_000), held], policy())
    assert [placement.worker for placement in solution.placements] == ["b"]
    assert [tier.name for tier in solution.objective][:3] == ["placed", "moves", "granted"]
