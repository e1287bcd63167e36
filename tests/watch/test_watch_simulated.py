"""The watcher through simulated time: 20,000 looks, 500 changes, and flaps between them."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpualloc.errors import Diagnostic
from gpualloc.inventory import load
from gpualloc.model import Container, GpuCount, HealthIssue, Inventory, Process, Request, Worker
from gpualloc.policy.load import load as load_policy
from gpualloc.solve import solve
from gpualloc.watch.facts import View
from gpualloc.watch.watcher import FIRST_RETRY_S, LONGEST_RETRY_S, Move, Outcome, Timing, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.model import Gpu
    from gpualloc.watch.events import Event

MACHINE = load(["sim:4xl40s"]).inventory
(HOST,) = MACHINE.hosts
UUIDS = [gpu.uuid for gpu in HOST.gpus]
TIMING = Timing(interval_s=5, settle_s=10)
SICK = HealthIssue("row_remap_pending", fatal=True, detail="memory rows wait to be remapped")
HOT = HealthIssue("thermal_slowdown", fatal=False, detail="too hot")


def drawn(seed: int) -> random.Random:
    """Chance that repeats."""
    return random.Random(seed)  # noqa: S311 - simulations, not secrets


@dataclass
class World:
    """A machine that things happen to, as it really is."""

    gone: set[str] = field(default_factory=set)
    sick: set[str] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)
    order: list[str] = field(default_factory=lambda: list(UUIDS))

    def inventory(self, noise: random.Random) -> Inventory:
        """What is read of it; memory in use is never the same twice."""
        gpus = {gpu.uuid: gpu for gpu in HOST.gpus}
        there = [uuid for uuid in self.order if uuid not in self.gone]
        seen = tuple(self._gpu(gpus[uuid], index, noise) for index, uuid in enumerate(there))
        links = tuple(link for link in HOST.links if {link.a, link.b} <= set(there))
        return Inventory("nvml", (replace(HOST, gpus=seen, links=links),))

    def _gpu(self, gpu: Gpu, index: int, noise: random.Random) -> Gpu:
        ours = Process(100 + index, noise.randrange(500, 20_000), Container("a", "shop", "w"))
        theirs = Process(900, noise.randrange(8_000, 20_000), Container("b", "else", "train"))
        holders = (ours, theirs) if gpu.uuid in self.taken else (ours,)
        return replace(
            gpu,
            index=index,
            health=(SICK,) if gpu.uuid in self.sick else (),
            processes=holders,
            memory_used_mib=sum(process.used_mib or 0 for process in holders),
        )

    def state(self) -> dict[str, tuple[int, bool, bool]]:
        there = [uuid for uuid in self.order if uuid not in self.gone]
        return {uuid: (n, uuid in self.sick, uuid in self.taken) for n, uuid in enumerate(there)}

    def change(self, chance: random.Random) -> None:
        kind = chance.choice(["gone", "sick", "taken", "order"])
        if kind == "order":
            a, b = chance.sample([n for n, uuid in enumerate(self.order) if uuid not in self.gone], 2)
            self.order[a], self.order[b] = self.order[b], self.order[a]
            return
        which: set[str] = getattr(self, kind)
        visible = [uuid for uuid in UUIDS if kind == "gone" or uuid not in self.gone]
        mended = [uuid for uuid in visible if uuid in which]
        which ^= {chance.choice(mended if len(mended) >= 2 else visible)}  # most of the machine is well

    def copy(self) -> World:
        return World(set(self.gone), set(self.sick), set(self.taken), list(self.order))


def state_of(inventory: Inventory) -> dict[str, tuple[int, bool, bool]]:
    (host,) = inventory.hosts
    return {
        gpu.uuid: (
            gpu.index,
            bool(gpu.health),
            any(p.container and p.container.project == "else" for p in gpu.processes),
        )
        for gpu in host.gpus
    }


def view(*pinned: tuple[str, ...], policy: str = "prod") -> View:
    requests = tuple(
        Request(role=f"w{n}", workers=(Worker(f"w{n}", 1, ids or None),), gpus=GpuCount(1, 1))
        for n, ids in enumerate(pinned)
    )
    chosen = load_policy(policy, cwd=Path("/nowhere"), compose_dir=Path("/nowhere"))
    assert isinstance(chosen.sharing.headroom, Fraction)
    return View("shop", chosen, requests)


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


class Simulation:
    """A watcher whose plans are all written, whose command always works, and who looks when it says it will."""

    def __init__(self, world: World) -> None:
        self.watcher = Watcher(view((UUIDS[0],), (UUIDS[1],)), TIMING, commands=True)
        self.world = world
        self.noise = drawn(8)
        self.now = self.spent = 0.0
        self.looks = self.commands = 0
        self.plans: list[dict[str, tuple[int, bool, bool]]] = []
        self.rss: list[float] = []

    def look(self, seen: World | None = None, step: float | None = None) -> list[Event]:
        """Look once, do what is due, and let time pass until the next look."""
        reading, watcher = (seen or self.world).inventory(self.noise), self.watcher
        start = time.process_time()
        events = watcher.look(self.now, reading)
        if watcher.plan_due(self.now):
            self.plans.append(state_of(watcher.inventory or MACHINE))
            watcher.planned(self.now, Outcome(changed=True, written=("compose.yaml",), placed=2))
        if watcher.command_due(self.now):
            watcher.command_started()
            watcher.command_ended(self.now, None)
            self.commands += 1
        self.spent += time.process_time() - start
        self.looks += 1
        if self.looks in {1000, 20_000}:
            self.rss.append(rss_mib())
        self.now += step or watcher.look_in()
        return events

    def hold(self, seconds: float, seen: World | None = None) -> list[Event]:
        """Let things be as they are for a while."""
        events, end = [], self.now + seconds
        while self.now < end:
            events += self.look(seen)
        return events

    def outage(self, seconds: float) -> None:
        """Let the driver be away for a while."""
        why = [Diagnostic("nvml-no-driver", "the driver is not loaded")]
        assert [event.kind for event in self.watcher.blind(self.now, why)] == ["look-failed"]
        self.now += seconds
        assert [event.kind for event in self.look(step=TIMING.interval_s)] == ["look-back"]


def test_no_change_is_missed_and_no_flap_is_believed(capsys: pytest.CaptureFixture[str]) -> None:
    chance, world = drawn(7), World()
    sim = Simulation(world)
    flaps = outages = 0
    sim.look()
    assert sim.plans == [world.state()]
    for number in range(500):
        world.change(chance)
        told = sim.hold(2 * TIMING.settle_s + 1)
        assert "change" in [event.kind for event in told], number
        assert len(sim.plans) == number + 2
        assert sim.plans[-1] == world.state(), number
        for _ in range(chance.randrange(3)):  # what comes and goes within the settle time
            flap = world.copy()
            flap.change(chance)
            flaps += 1
            assert sim.hold(TIMING.settle_s - 1, flap) == []
            assert sim.look() == []
        if chance.random() < 0.2:  # and what cannot be seen for a while
            outages += 1
            sim.outage(300)
        while sim.looks < 40 * (number + 1):
            assert sim.look(step=TIMING.interval_s) == []
    assert sim.looks >= 20_000
    assert len(sim.plans) == sim.commands == 501
    share = sim.spent / (sim.looks * Timing().interval_s) * 100
    with capsys.disabled():
        print(  # noqa: T201 - what was counted and measured
            f"\n{sim.looks} looks, 500 changes, {flaps} flaps, {outages} outages: {len(sim.plans)} plans; "
            f"RSS {sim.rss[0]:.1f} MiB, then {sim.rss[1]:.1f} MiB; {sim.spent / sim.looks * 1000:.2f} ms a look, "
            f"{share:.4f} % of a core at the default interval, without what the driver takes"
        )
    assert sim.rss[1] - sim.rss[0] < 8
    assert share < 1


def ticks(watcher: Watcher, seen: Callable[[float], Inventory], start: float, end: float, step: float) -> list[Event]:
    """Look every ``step`` seconds, and take whatever plan is due as one that changed nothing."""
    events, now = [], start
    while now <= end:
        events += watcher.look(now, seen(now))
        if watcher.plan_due(now):
            events += watcher.planned(now, Outcome())
        now += step
    return events


def test_a_gpu_that_flaps_every_second_never_settles_and_hides_nobody_else() -> None:
    noise = drawn(1)
    watcher = Watcher(view((UUIDS[2],)), TIMING, commands=False)

    def seen(now: float) -> Inventory:
        world = World()
        if int(now) % 2:
            world.gone.add(UUIDS[2])  # and those after it are renumbered each time
        if now > 60:
            world.sick.add(UUIDS[0])
        return world.inventory(noise)

    events = ticks(watcher, seen, 0, 200, 1)
    assert [event.data["code"] for event in events if event.kind == "change"] == ["unhealthy"]
    assert watcher.counts.plans == 2  # the first one, and the one for what is really wrong
    assert watcher.inventory is not None
    assert len(watcher.inventory.hosts[0].gpus) == 4


def test_what_happens_together_is_one_change() -> None:
    noise = drawn(1)
    watcher = Watcher(view(()), TIMING, commands=False)

    def seen(now: float) -> Inventory:
        world = World()
        world.gone |= {uuid for n, uuid in enumerate(UUIDS[:3]) if now > 20 + 3 * n}
        return world.inventory(noise)

    events = ticks(watcher, seen, 0, 100, 1)
    assert watcher.counts.plans == 2
    assert [event.data["code"] for event in events if event.kind == "change"] == [
        *["gone"] * 3,
        "renumbered",
    ]


def test_what_was_on_its_way_when_the_driver_went_must_hold_anew() -> None:
    noise = drawn(1)
    watcher = Watcher(view(()), TIMING, commands=False)
    away = World(gone={UUIDS[0]})
    watcher.look(0, World().inventory(noise))
    watcher.planned(0, Outcome())
    watcher.look(1, away.inventory(noise))
    why = [Diagnostic("nvml-no-driver", "the driver is not loaded")]
    assert [event.text for event in watcher.blind(5, why)] == ["the driver is not loaded (last seen 4 s ago)"]
    assert watcher.blind(10, why) == []  # told once
    assert [event.kind for event in watcher.blind(12, [Diagnostic("nvml-failed", "NVML")])] == ["look-failed"]
    assert [event.kind for event in watcher.look(20, away.inventory(noise))] == ["look-back"]
    assert not watcher.plan_due(20)
    assert [event.data["code"] for event in watcher.look(30, away.inventory(noise))] == ["gone", "renumbered"]
    assert watcher.plan_due(30)


def test_while_nothing_can_be_seen_nothing_is_planned() -> None:
    watcher = Watcher(view(()), TIMING, commands=True)
    watcher.look(0, MACHINE)
    watcher.blind(1, [Diagnostic("nvml-no-driver", "the driver is not loaded")])
    assert not watcher.plan_due(100)
    assert watcher.due_in(100) is None
    watcher.look(101, MACHINE)
    assert watcher.plan_due(101)


def test_a_remark_is_told_and_plans_nothing() -> None:
    watcher = Watcher(view((UUIDS[0],)), TIMING, commands=True)
    hot = replace(HOST, gpus=(replace(HOST.gpus[0], health=(HOT,)), *HOST.gpus[1:]))
    events = ticks(watcher, lambda now: Inventory("nvml", (hot if now else HOST,)), 0, 20, 5)
    assert [(e.data["code"], e.data["workers"]) for e in events if e.kind == "change"] == [("degraded", ["w0"])]
    assert watcher.counts.plans == 1
    assert not watcher.command_due(20)


def test_foreign_memory_counts_where_it_crowds_out_what_is_pinned() -> None:
    """On a device that is not busy: less than ``busy_above``, but no room for the worker any more."""
    policy = load_policy("base", cwd=Path("/nowhere"), compose_dir=Path("/nowhere"))
    policy = replace(policy, exclude=replace(policy.exclude, busy_above_mib=20_000))
    request = Request(role="w", workers=(Worker("w", 1, (UUIDS[0],)),), gpus=GpuCount(1, 1), memory_mib=32_000)
    watcher = Watcher(View("shop", policy, (request,)), TIMING, commands=False)

    def seen(now: float) -> Inventory:
        used = 5_000 if now < 30 else 15_000
        theirs = Process(9, used, Container("b", None, None))
        gpu = replace(HOST.gpus[0], processes=(theirs,), memory_used_mib=used)
        return Inventory("nvml", (replace(HOST, gpus=(gpu, *HOST.gpus[1:])),))

    ticks(watcher, seen, 0, 25, 5)
    assert watcher.counts.plans == 1
    ticks(watcher, seen, 30, 60, 5)
    assert watcher.counts.plans == 2


# What is done


def test_a_plan_that_fails_is_tried_again_and_then_less_often() -> None:
    watcher = Watcher(view(()), TIMING, commands=False)
    watcher.look(0, MACHINE)
    now, waits = 0.0, []
    for _ in range(9):
        assert watcher.plan_due(now)
        (event,) = watcher.plan_failed(now, [Diagnostic("locked", "another gpualloc is writing")])
        assert event.kind == "plan-failed"
        waits.append(event.data["retry_s"])
        assert not watcher.plan_due(now + waits[-1] - 0.1)
        assert watcher.due_in(now) == waits[-1]
        now += waits[-1]
    assert waits == [min(FIRST_RETRY_S * 2**n, LONGEST_RETRY_S) for n in range(9)]
    assert [event.kind for event in watcher.planned(now, Outcome())] == ["planned"]
    assert watcher.due_in(now) is None
    assert watcher.counts.failures["plan"] == 9


def test_what_does_not_fit_is_planned_again_and_told_once() -> None:
    watcher = Watcher(view(()), TIMING, commands=True)
    watcher.look(0, MACHINE)
    short = Outcome(unplaced=(("w0", "free 3 GiB on GPU 0"),), displaced=1)
    assert [event.kind for event in watcher.planned(0, short)] == ["unplaced", "planned"]
    assert not watcher.command_due(0)  # nothing was written, and what is missing cannot start
    assert watcher.due_in(0) == LONGEST_RETRY_S
    assert watcher.planned(300, short) == []
    assert [event.kind for event in watcher.planned(600, Outcome(placed=1))] == ["planned"]
    assert watcher.due_in(600) is None


def changed(watcher: Watcher, now: float, gone: str) -> None:
    """Let a GPU be gone, and plan."""
    noise = drawn(1)
    for moment in (now, now + TIMING.settle_s):
        watcher.look(moment, World(gone={gone}).inventory(noise))
    assert watcher.plan_due(now + TIMING.settle_s)


MOVE = Move("w0", (UUIDS[0],), (UUIDS[1],), "moved: it is gone; GPU 1 for itself")


@pytest.mark.parametrize(
    ("gone", "outcome", "runs"),
    [
        (0, Outcome(changed=True, written=("compose.yaml",), moves=(MOVE,)), True),  # written
        (0, Outcome(changed=True, moves=(MOVE,)), True),  # not to be written: somebody should
        (3, Outcome(), False),  # a spare is gone, and nobody cares
        (0, Outcome(), True),  # its worker stays there, but may have fallen over
        (0, Outcome(unplaced=(("w0", "no"),)), False),
    ],
)
def test_the_command_runs_for_changes_that_concern_the_project(gone: int, outcome: Outcome, *, runs: bool) -> None:
    watcher = Watcher(view((UUIDS[0],)), TIMING, commands=True)
    watcher.look(0, MACHINE)
    watcher.planned(0, Outcome())
    assert not watcher.command_due(0)
    changed(watcher, 10, UUIDS[gone])
    watcher.planned(20, outcome)
    assert watcher.command_due(20) == runs


def test_a_command_that_fails_is_tried_again_until_it_works() -> None:
    watcher = Watcher(view((UUIDS[0],)), TIMING, commands=True)
    watcher.look(0, MACHINE)
    watcher.planned(0, Outcome(written=("f",)))
    now, waits = 0.0, []
    for _ in range(8):
        assert watcher.command_due(now)
        watcher.command_started()
        assert not watcher.command_due(now + 1000)  # it runs
        assert watcher.due_in(now) is None
        (event,) = watcher.command_ended(now, "ended with 1")
        assert event.kind == "command-failed"
        waits.append(event.data["retry_s"])
        now += waits[-1]
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    watcher.command_started()
    assert [event.kind for event in watcher.command_ended(now, None)] == ["command-done"]
    assert watcher.due_in(now) is None
    assert not watcher.command_due(now + 1e6)


def test_a_change_while_the_command_runs_runs_it_once_more() -> None:
    watcher = Watcher(view((UUIDS[0],)), TIMING, commands=True)
    watcher.look(0, MACHINE)
    watcher.planned(0, Outcome(written=("f",)))
    watcher.command_started()
    changed(watcher, 10, UUIDS[0])
    watcher.planned(20, Outcome(written=("f",), moves=(MOVE,)))
    assert not watcher.command_due(20)
    (event,) = watcher.command_ended(30, "ended with 1")
    assert "runs again" in event.text
    assert watcher.command_due(30)
    watcher.command_started()
    watcher.command_ended(31, None)
    assert not watcher.command_due(1e6)


def test_the_settled_machine_gives_the_same_plan_as_the_one_seen() -> None:
    """What is put together from settled facts is a machine like any other."""
    chance, noise = drawn(3), drawn(4)
    project = view((UUIDS[0],), (UUIDS[3],), ())
    watcher = Watcher(project, TIMING, commands=False)
    world, now = World(), 0.0
    for _ in range(12):
        for _ in range(8):
            seen = world.inventory(noise)
            watcher.look(now, seen)
            now += 5
        assert watcher.inventory is not None
        settled, real = (
            solve(machine, project.requests, project.policy, project="shop") for machine in (watcher.inventory, seen)
        )
        assert [(p.worker, p.devices, p.action) for p in settled.placements] == [
            (p.worker, p.devices, p.action) for p in real.placements
        ]
        world.change(chance)
