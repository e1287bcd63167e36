"""The map of the host above a plan: every worker in its place, whatever the screen."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpualloc.inventory import load, shipped
from gpualloc.model import DeviceRef, HealthIssue, Host, Inventory, Link, Unplaced
from gpualloc.render.map import plan_map
from gpualloc.render.places import Held, islands, places_after, places_before
from gpualloc.render.screen import Screen
from tests.render.samples import busy_plan, check_snapshot, gpu, inventory, machine, mig_instance, placement, plan, uuid

if TYPE_CHECKING:
    from gpualloc.model import PcieLevel, Plan

PIPE = Screen()
HELD = {uuid(7): Held(20480, ("llm/server",))}


def two_switches() -> Inventory:
    """Eight GPUs in two NUMA nodes, two switches in each, NVLink between the two of a switch."""
    gpus = tuple(gpu(index) for index in range(8))
    links = tuple(
        Link(a.uuid, b.uuid, 4 if a.index // 2 == b.index // 2 else 0, _level(a.index, b.index))
        for a, b in combinations(gpus, 2)
    )
    return Inventory("sim", (Host("rack1", None, None, gpus, links),))


def _level(a: int, b: int) -> PcieLevel:
    return "PIX" if a // 2 == b // 2 else "NODE" if a // 4 == b // 4 else "SYS"


def drawn(of: Plan, on: Inventory, screen: Screen = PIPE, held: dict[str, Held] | None = None) -> str:
    return plan_map(of, on, held or {}, screen)


def words(text: str) -> Counter[str]:
    """Return the words of a text less its bars, which are shorter on a narrow screen."""
    return Counter(re.sub(r"\[[^\]]*\]|\s", "", text))


@pytest.mark.parametrize("screen", [PIPE, Screen(80), Screen(200), Screen(80, colour=True)])
def test_every_terminal_of_eighty_columns_says_what_a_pipe_says(screen: Screen) -> None:
    text = re.sub(r"\x1b\[[\d;]*m", "", drawn(busy_plan(), inventory(8), screen, HELD))
    assert Counter(text.split()) == Counter(drawn(busy_plan(), inventory(8), PIPE, HELD).split())


def test_every_kind_of_bar() -> None:
    check_snapshot("map-pipe", drawn(busy_plan(), inventory(8), PIPE, HELD))
    check_snapshot("map-80", drawn(busy_plan(), inventory(8), Screen(80), HELD))
    check_snapshot("map-50", drawn(busy_plan(), inventory(8), Screen(50), HELD))
    check_snapshot("map-colour", drawn(busy_plan(), inventory(8), Screen(80, colour=True), HELD))


def test_devices_stand_by_island_switch_and_node() -> None:
    check_snapshot("map-groups", drawn(plan(placement("a", 6, 7, host="rack1")), two_switches()))


def test_only_what_changes_has_a_row_and_the_rest_is_counted() -> None:
    some = plan(replace(placement("stays", 0), action="keep"), placement("new", 1))
    above, _, below = drawn(some, inventory(2)).partition("\n\n")
    assert "stays" in above
    assert "new" in above
    assert "stays" not in below
    assert "+ pin" in below
    assert below.endswith("2 workers on 2 of 2 GPUs · 1 pinned, 1 kept · optimal\n")


def test_where_nothing_changes_there_is_the_map_and_the_summary() -> None:
    some = plan(replace(placement("stays", 0), action="keep"), changed=False)
    assert "action" not in drawn(some, inventory(1))
    assert "nothing to write" in drawn(some, inventory(1))


def test_without_placements_there_is_no_map() -> None:
    assert drawn(plan(objective=(), changed=False), inventory(2)) == "No worker asks for a GPU.\n"
    assert drawn(plan(unplaced=(Unplaced("w", (), ""),)), inventory(2)).startswith("w does not fit:")


def test_sixteen_gpus_fit_eighty_columns() -> None:
    sixteen = plan(
        *(placement(f"airflow-worker-gpu-training-{n + 1}", n) for n in range(12)),
        *(replace(placement(f"a-worker-with-a-long-name-{n}", 13), exclusive=False, memory_mib=4096) for n in range(8)),
    )
    text = drawn(sixteen, inventory(16), Screen(80))
    assert max(map(len, text.splitlines())) <= 80
    check_snapshot("map-sixteen", text)


def test_a_share_of_the_memory_is_that_share_of_the_bar() -> None:
    half = plan(replace(placement("w", 0), exclusive=False, memory_mib=20480))
    bar = re.search(r"\[([^\]]*)\]", drawn(half, inventory(1)))
    assert bar is not None
    used, _, free = bar.group(1).partition("|")
    assert abs(len(used) + 1 - len(free)) <= 1


def test_bars_are_as_long_as_the_devices_are_large() -> None:
    host = machine(2)
    small = replace(host.gpus[1], memory_total_mib=10240)
    of = plan(placement("w", 0))
    text = drawn(of, Inventory("sim", (replace(host, gpus=(host.gpus[0], small)),)))
    large, little = (len(bar) for bar in re.findall(r"\[([^\]]*)\]", text))
    assert little == large // 4


def test_what_is_unknown_is_not_zero() -> None:
    host = machine(1)
    unknown = Inventory("nvml", (replace(host, gpus=(replace(host.gpus[0], memory_total_mib=None),)),))
    assert "? of ?" in drawn(plan(placement("w", 0)), unknown)
    assert "? of 40 GiB" in drawn(plan(replace(placement("w", 0), exclusive=False)), inventory(1))


def test_mig_instances_and_unfit_gpus() -> None:
    host = machine(2)
    split = replace(host.gpus[0], mig=(mig_instance(0, 7), mig_instance(0, 9)))
    sick = replace(host.gpus[1], health=(HealthIssue("row_remap_pending", fatal=True, detail=""),))
    of = plan(replace(placement("w"), devices=(DeviceRef(mig_instance(0, 9).uuid, 0),)))
    text = drawn(of, Inventory("sim", (replace(host, gpus=(split, sick)),)))
    assert re.search(r"^0 gi 9 +MIG 1g.5gb .*\bw\b", text, re.MULTILINE)
    assert re.search(r"^1 .*row_remap_pending$", text, re.MULTILINE)


def test_more_hosts_than_are_drawn_are_counted() -> None:
    hosts = tuple(machine(1, f"gpu{n}", host=n) for n in range(9))
    of = plan(*(placement(f"w-{n}", 0, host=f"gpu{n}", at=n) for n in range(6)))
    text = drawn(of, Inventory("snapshot", hosts))
    assert "not drawn: 2 hosts more with workers, 3 hosts without" in text
    assert text.count("1 GPU, ") == 4


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_machine_has_every_device_in_one_row(name: str) -> None:
    on = load((f"sim:{name}",)).inventory
    host = on.hosts[0]
    devices = [part for g in host.gpus for part in (g.mig or [g])]
    here = tuple(
        replace(placement(f"w-{n}", host=host.name), devices=(DeviceRef(d.uuid, 0),)) for n, d in enumerate(devices)
    )
    text = drawn(plan(*here), on, Screen(80))
    assert len(re.findall(r"\[[^\]]*\]", text)) == len(devices)
    assert max(map(len, text.splitlines())) <= 80


def test_a_worker_was_where_the_file_had_it() -> None:
    moved = plan(replace(placement("w", 1), action="move", previous=("0", uuid(3), "GPU-gone")))
    on = inventory(4)
    (before,) = places_before(moved, on, on.hosts, {})
    (after,) = places_after(moved, on.hosts, {})
    assert [place.gpu.index for place in before.places if place.stays] == [0, 3]
    assert before.gone == (("GPU-gone", ("w",)),)
    assert [place.gpu.index for place in after.places if place.stays] == [1]


def test_islands_are_what_nvlink_joins_directly_or_through_others() -> None:
    gpus = tuple(gpu(index) for index in range(5))
    links = (Link(uuid(0), uuid(1), 2, "PIX"), Link(uuid(4), uuid(1), 1, "SYS"), Link(uuid(2), uuid(3), 0, "PIX"))
    found = islands(Host("h", None, None, gpus, links))
    assert [[g.index for g in island] for island in found] == [[0, 1, 4]]


names = st.text("abcxyz-_.0123456789\x1b\u202e日", min_size=1, max_size=40)


@st.composite
def full_devices(draw: st.DrawFn) -> Plan:
    """Return a plan with any number of sharing workers on each of four devices, which may be more than fits."""
    found = []
    for index in range(4):
        for _ in range(draw(st.integers(0, 12))):
            share = draw(st.none() | st.integers(1, 50_000))
            worker = placement(draw(names), index)
            found.append(replace(worker, exclusive=draw(st.booleans()), memory_mib=share))
    return plan(*found)


@settings(max_examples=40, deadline=None)
@given(full_devices(), st.integers(40, 120), st.integers(0, 60_000))
def test_bars_have_their_length_and_no_name_is_lost(some: Plan, width: int, foreign: int) -> None:
    held = {uuid(0): Held(foreign)} if foreign else {}
    piped = drawn(some, inventory(4), PIPE, held)
    if some.solution.placements:
        bars = re.findall(r"^.*?\[(.*?)\]  ", piped, re.MULTILINE)
        assert len({sum(2 if c == "日" else 1 for c in bar) for bar in bars}) == 1
        for stay in some.solution.placements:
            shown = stay.worker.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
            assert shown in piped.partition("\n\n")[0]
    narrow = drawn(some, inventory(4), Screen(width), held)
    assert all(len(line) <= width for line in narrow.splitlines() if line.isascii())
    coloured = drawn(some, inventory(4), Screen(width, colour=True), held)
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == narrow
    assert not set(narrow) & {"\x1b", "\u202e"}
    assert not any(line.endswith(" ") for line in (narrow + piped).splitlines())
