from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpualloc.model import DeviceRef, Inventory, PlanWarning, Refusal, Tier, Unplaced
from gpualloc.render.screen import Screen
from gpualloc.render.table import plan_table
from tests.render.samples import (
    PROVEN,
    busy_plan,
    check_snapshot,
    inventory,
    mig_instance,
    placement,
    plan,
    two_hosts,
    uuid,
    workstation,
)

if TYPE_CHECKING:
    from gpualloc.model import Plan

PIPE = Screen()


def summary(of: Plan, on: Inventory) -> str:
    return plan_table(of, on, PIPE).splitlines()[-1]


def characters(text: str) -> Counter[str]:
    return Counter(re.sub(r"\x1b\[[\d;]*m|\s", "", text))


@pytest.mark.parametrize("width", [None, 80, 50])
def test_every_kind_of_row(width: int | None) -> None:
    check_snapshot(f"plan-{width or 'pipe'}", plan_table(busy_plan(), inventory(8), Screen(width)))


def test_colour() -> None:
    check_snapshot("plan-colour", plan_table(busy_plan(), inventory(8), Screen(80, colour=True)))


def test_colour_only_adds_escapes() -> None:
    coloured = plan_table(busy_plan(), inventory(8), Screen(colour=True))
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plan_table(busy_plan(), inventory(8), PIPE)
    assert "\x1b" in coloured


def test_hosts_are_named_where_there_are_several() -> None:
    several = plan(
        placement("a", 0, 1, 2, host="gpu01"),
        placement("b", 3, host="gpu02", at=1),
        replace(placement("c", 2, host="gpu02", at=1), action="move", previous=(uuid(3),)),
        unplaced=(
            Unplaced(
                "d",
                (
                    Refusal("memory", tuple(uuid(i, at) for at in (0, 1) for i in range(3)), "needs 80 GiB"),
                    Refusal("taken", (uuid(3), "GPU-12345678-1111-2222-3333-444444444444"), "exclusive"),
                ),
                "",
            ),
        ),
    )
    check_snapshot("plan-hosts", plan_table(several, two_hosts(), PIPE))


def test_mig_instances() -> None:
    first, second = mig_instance(2, 7), mig_instance(2, 9, 1)
    sliced = plan(
        replace(placement("a", host="desk"), devices=(DeviceRef(first.uuid, 2),)),
        replace(
            placement("b", host="desk"), devices=(DeviceRef(second.uuid, 2),), action="move", previous=(first.uuid,)
        ),
        placement("c", 0, 1, host="desk"),
        unplaced=(Unplaced("d", (Refusal("mig_profile", (first.uuid, second.uuid, uuid(3)), "not 3g.20gb"),), ""),),
    )
    check_snapshot("plan-mig", plan_table(sliced, workstation(), PIPE))


def test_a_device_that_is_not_in_the_inventory_keeps_its_index() -> None:
    assert "a       GPU 5    exclusive  + pin\n" in plan_table(plan(placement("a", 5)), inventory(1), PIPE)


def test_sixteen_gpus_fit_eighty_columns() -> None:
    wide = plan(
        *(placement(f"airflow-worker-gpu-training-{n + 1}", n) for n in range(12)),
        replace(
            placement("whole-machine", *range(0, 16, 2)), action="move", previous=tuple(map(uuid, range(1, 16, 2)))
        ),
        unplaced=(Unplaced("big", (Refusal("memory", tuple(map(uuid, range(16))), "needs 80 GiB, 40 GiB free"),), ""),),
    )
    for screen in (Screen(80), Screen(80, colour=True)):
        text = re.sub(r"\x1b\[[\d;]*m", "", plan_table(wide, inventory(16), screen))
        assert max(map(len, text.splitlines())) <= 80
    check_snapshot("plan-sixteen", plan_table(wide, inventory(16), Screen(80)))


names = st.text("abcxyz-_.0123456789", min_size=1, max_size=70)
sentences = st.text("abcdefgh ,.:()\x1b\u202e\n日本", max_size=150)
devices = st.sets(st.integers(0, 15), min_size=1)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    placements = [
        replace(
            placement(draw(names), *sorted(draw(devices))),
            exclusive=draw(st.booleans()),
            memory_mib=draw(st.none() | st.integers(1, 10**6)),
            action=draw(st.sampled_from(("pin", "keep", "move", "resize"))),
            previous=draw(st.none() | devices.map(lambda indices: tuple(map(uuid, sorted(indices))))),
        )
        for _ in range(draw(st.integers(0, 4)))
    ]
    refusals = st.builds(Refusal, names, devices.map(lambda indices: tuple(map(uuid, sorted(indices)))), sentences)
    unplaced = draw(
        st.lists(st.builds(Unplaced, names, st.lists(refusals, max_size=3).map(tuple), sentences), max_size=3)
    )
    warnings = draw(
        st.lists(st.builds(PlanWarning, names, sentences, st.lists(names, max_size=3).map(tuple)), max_size=3)
    )
    return plan(*placements, unplaced=tuple(unplaced), warnings=tuple(warnings))


@settings(max_examples=40, deadline=None)
@given(plans(), st.integers(40, 120))
def test_a_terminal_says_what_a_pipe_says_within_its_width(some: Plan, width: int) -> None:
    piped = plan_table(some, inventory(16), PIPE)
    shown = plan_table(some, inventory(16), Screen(width))
    assert characters(shown) == characters(piped)
    assert all(len(line) <= width for line in shown.splitlines() if line.isascii())
    if max(map(len, piped.splitlines())) <= width and piped.isascii():
        assert shown == piped
    coloured = plan_table(some, inventory(16), Screen(width, colour=True))
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == shown


@settings(max_examples=40, deadline=None)
@given(plans())
def test_names_and_sentences_never_reach_the_terminal_as_controls(some: Plan) -> None:
    for screen in (PIPE, Screen(60)):
        assert not set(plan_table(some, inventory(16), screen)) & {"\x1b", "\u202e", "\r"}


def test_summary_of_a_plan_that_fits() -> None:
    kept = [replace(placement(f"w-{n}", 1), action="keep") for n in range(1, 5)]
    six = plan(placement("a", 0), placement("b", 0), *kept)
    assert summary(six, inventory(4)) == "6 workers on 2 of 4 GPUs · 2 pinned, 4 kept · optimal"


def test_summary_counts_what_does_not_fit() -> None:
    one = plan(placement("a", 0), unplaced=(Unplaced("b", (), ""),))
    assert summary(one, inventory(1)) == "1 of 2 workers on 1 of 1 GPU · 1 pinned, 1 does not fit · optimal"


def test_summary_of_a_plan_that_changes_nothing() -> None:
    kept = plan(replace(placement("a", 0), action="keep"), changed=False)
    assert summary(kept, inventory(2)) == "1 worker on 1 of 2 GPUs · 1 kept · optimal · nothing to write"


def test_summary_without_workers() -> None:
    assert plan_table(plan(objective=(), changed=False), inventory(2), PIPE) == "No worker asks for a GPU.\n"


@pytest.mark.parametrize(
    ("tier", "said"),
    [
        (Tier("peak_load", "min", 0.55, 0.5, proven=False), "peak_load 0.55 is not proven, at best 0.5"),
        (Tier("link_score", "max", 300, None, proven=False), "link_score 300 is not proven, no bound"),
        (
            Tier("grant_vector", "max", (1, 2), (2, 2), proven=False),
            "grant_vector (1, 2) is not proven, at best (2, 2)",
        ),
    ],
)
def test_summary_names_the_first_tier_that_is_not_proven(tier: Tier, said: str) -> None:
    last = Tier("device_size", "max", 1, None, proven=False)
    assert f"· {said}" in summary(plan(placement("a", 0), objective=(tier, last)), inventory(2))
    below = summary(plan(placement("a", 0), objective=(*PROVEN, tier, last)), inventory(2))
    assert below.endswith(f" · optimal down to devices_used; {said}")


def test_summary_says_that_time_cut_the_search() -> None:
    assert summary(plan(placement("a", 0), reproducible=False), inventory(2)).endswith(
        " · optimal · cut off by time, so another run may differ"
    )


def test_many_workers_stopped_by_the_same_are_told_once() -> None:
    many = plan(unplaced=tuple(Unplaced(f"w-{n}", (Refusal("limit", (), "none left"),), "raise it") for n in range(99)))
    text = plan_table(many, inventory(1), PIPE)
    assert text.startswith("w-0, w-1, w-2, w-3, w-4, w-5, w-6, w-7, w-8 and 90 more do not fit:\n")
    assert text.count("none left") == 1
