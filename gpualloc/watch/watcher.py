"""The state machine: what to do when, told the time and what was seen. It reads no clock and does nothing itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.durations import shown_duration
from gpualloc.watch.events import Event
from gpualloc.watch.facts import REMARKS, Picture, View, facts_of
from gpualloc.watch.settle import Settler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.errors import Diagnostic
    from gpualloc.model import Inventory

FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 300.0
"""What fails is tried again after so long, then twice as long, and so on, up to the second. What does not fit is
planned again after the second: memory may have become free, which is no change of a device."""

CLOSE_LOOK_S = 1.0
"""While something may be about to change, it is looked at so often."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How often to look, and how long a change must hold, in seconds."""

    interval_s: float = 30.0
    settle_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Move:
    """A worker that gets other devices: their UUIDs, and why. ``old`` is empty where it had none on this machine."""

    worker: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of planning. ``changed``: the file would change; ``written``: the files that did.

    ``pins``: workers that get devices and had none, or only such as this machine does not have.

    ``placed`` workers sit where the file says, ``displaced`` ones have no device or wait for the file to be written.
    """

    changed: bool = False
    written: tuple[str, ...] = ()
    moves: tuple[Move, ...] = ()
    pins: tuple[Move, ...] = ()
    unplaced: tuple[tuple[str, str], ...] = ()
    placed: int = 0
    displaced: int = 0


@dataclass(slots=True)
class _Task:
    """Something to be done: when it is due, and how often it has failed since it was first wanted."""

    due: float | None = None
    failures: int = 0

    def want(self, now: float) -> None:
        self.due, self.failures = now, 0

    def done(self) -> None:
        self.due, self.failures = None, 0

    def failed(self, now: float) -> float:
        wait = min(FIRST_RETRY_S * 2.0**self.failures, LONGEST_RETRY_S)
        self.failures += 1
        self.due = now + wait
        return wait


@dataclass(slots=True)
class Counts:
    """What has happened so far."""

    looks: int = 0
    changes: int = 0
    plans: int = 0
    written: int = 0
    moves: int = 0
    commands: int = 0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("look", "plan", "command"), 0))


class Watcher:
    """Told what is seen, says what to do. Times are seconds of one clock that only goes forward.

    ``view`` may be replaced at any time; ``commands`` tells whether there is a command to run.
    """

    def __init__(self, view: View, timing: Timing, *, commands: bool) -> None:
        self.view = view
        self.timing = timing
        self.counts = Counts()
        self.last_good: float | None = None
        self.outcome = Outcome()
        self.inventory: Inventory | None = None
        self._commands = commands
        self._settler = Settler(timing.settle_s)
        self._picture = Picture()
        self._trouble: tuple[str, ...] = ()
        self._plan = _Task()
        self._command = _Task()
        self._running = False
        self._touched: set[str] = set()
        self._told: Any = None

    # ---- what is seen

    def look(self, now: float, seen: Inventory) -> list[Event]:
        """Take a reading. The first one is taken as it is, and planned for at once."""
        self.counts.looks += 1
        self.last_good = now
        events = self._back()
        facts = facts_of(seen, self.view)
        before = self.inventory
        if before is None:
            self._settler.start(facts)
            self._plan.want(now)
        else:
            self._settler.observe(now, facts)
        self._picture.see(seen, self._settler.settled)
        names = self._settler.accept(now)
        self.inventory = self._picture.inventory(self._settler.settled)
        if before is not None and names:
            events += self._changed(now, before, self.inventory, names)
        return events

    def _back(self) -> list[Event]:
        if not self._trouble:
            return []
        self._trouble = ()
        return [Event("look-back", "the GPUs can be seen again")]

    def _changed(self, now: float, before: Inventory, after: Inventory, names: Sequence[Any]) -> list[Event]:
        found = self.view.changes(before, after)
        events = []
        for change in found:
            touched = self.view.touched(change, before)
            self._touched |= set(touched)
            whom = f"; it touches {', '.join(touched)}" if touched else ""
            data = {"code": change.code, "uuids": list(change.uuids), "workers": list(touched)}
            events.append(Event("change", change.detail + whom, data))
        self.counts.changes += len(events)
        if any(name[-1] not in REMARKS for name in names):
            self._plan.want(now)
        return events

    def blind(self, now: float, why: Sequence[Diagnostic]) -> list[Event]:
        """Take that the GPUs cannot be seen. Nothing is concluded from it; each reason is told once."""
        self.counts.failures["look"] += 1
        self._settler.forget()
        codes = tuple(diagnostic.code for diagnostic in why)
        if codes == self._trouble:
            return []
        self._trouble = codes
        since = "" if self.last_good is None else f" (last seen {shown_duration(now - self.last_good)} ago)"
        text = "; ".join(diagnostic.summary for diagnostic in why)
        return [Event("look-failed", f"{text}{since}", {"codes": list(codes)})]

    # ---- what to do

    def plan_due(self, now: float) -> bool:
        """Tell whether to plan now, for ``inventory``."""
        return self._plan.due is not None and self._plan.due <= now and not self._trouble

    def planned(self, now: float, outcome: Outcome) -> list[Event]:
        """Take what came of planning."""
        self.counts.plans += 1
        self.outcome = outcome
        first, self._plan = self._plan, _Task()
        if outcome.unplaced:
            self._plan = _Task(due=now + LONGEST_RETRY_S)
        told = (outcome.changed, outcome.moves, outcome.pins, outcome.unplaced)
        events = []
        if outcome.written or told != self._told or first.failures:
            events = _plan_events(outcome)
        self._told = told
        self.counts.written += bool(outcome.written)
        self.counts.moves += len(outcome.moves) if outcome.written else 0
        wanted = not outcome.unplaced and (bool(self._touched) or (outcome.changed and bool(events)))
        if self._commands and (outcome.written or wanted):
            self._command.want(now)
        self._touched.clear()
        return events

    def plan_failed(self, now: float, why: Sequence[Diagnostic]) -> list[Event]:
        """Take that planning or writing failed; it is tried again."""
        self.counts.failures["plan"] += 1
        wait = self._plan.failed(now)
        text = "; ".join(f"{d.where}: {d.summary}" if d.where else d.summary for d in why)
        data = {"codes": [diagnostic.code for diagnostic in why], "retry_s": wait}
        return [Event("plan-failed", f"{text}; again in {shown_duration(wait)}", data)]

    def command_due(self, now: float) -> bool:
        """Tell whether to start the command now."""
        return self._command.due is not None and self._command.due <= now and not self._running

    def command_started(self) -> None:
        """Take that the command runs. A change from now on runs it once more."""
        self._running = True
        self._command.due = None

    def command_ended(self, now: float, error: str | None) -> list[Event]:
        """Take that the command has ended. With an ``error`` it is tried again, unless it is due anyway."""
        self._running = False
        self.counts.commands += 1
        if error is None:
            if self._command.due is None:
                self._command.done()
            return [Event("command-done", "the command has done its work")]
        self.counts.failures["command"] += 1
        if self._command.due is not None:
            return [Event("command-failed", f"the command {error}; another change has come, so it runs again")]
        wait = self._command.failed(now)
        data = {"error": error, "retry_s": wait}
        return [Event("command-failed", f"the command {error}; again in {shown_duration(wait)}", data)]

    # ---- when

    def look_in(self) -> float:
        """Return in how many seconds to look again."""
        if self._settler.due() is None:
            return self.timing.interval_s
        return min(self.timing.interval_s, CLOSE_LOOK_S, max(self.timing.settle_s / 5, 0.05))

    def due_in(self, now: float) -> float | None:
        """Return in how many seconds something is to be done, whatever is seen; None where nothing is."""
        dues = [
            task.due
            for task, held_up in ((self._plan, bool(self._trouble)), (self._command, self._running))
            if task.due is not None and not held_up
        ]
        return max(min(dues) - now, 0.0) if dues else None


def _plan_events(outcome: Outcome) -> list[Event]:
    events = []
    for move in outcome.moves:
        data: dict[str, Any] = {"worker": move.worker, "from": list(move.old), "to": list(move.new)}
        kind, verb = ("moved", "moved") if outcome.written else ("would-move", "would be moved")
        reason = move.reason.removeprefix("moved: ")
        events.append(Event(kind, f"{move.worker} {verb}: {reason}", data | {"reason": move.reason}))
    for pin in outcome.pins:
        data = {"worker": pin.worker, "from": list(pin.old), "to": list(pin.new), "reason": pin.reason}
        kind, verb = ("pinned", "pinned") if outcome.written else ("would-pin", "would be pinned")
        events.append(Event(kind, f"{pin.worker} {verb}: {pin.reason}", data))
    for worker, hint in outcome.unplaced:
        events.append(Event("unplaced", f"{worker} does not fit: {hint}", {"worker": worker, "hint": hint}))
    if outcome.written:
        files = list(outcome.written)
        events.append(Event("written", f"wrote {', '.join(files)}", {"files": files}))
    elif outcome.unplaced:
        events.append(Event("planned", "nothing was written: not every worker fits", {"changed": outcome.changed}))
    elif outcome.changed:
        events.append(Event("planned", "the file would change: gpualloc apply writes it", {"changed": True}))
    else:
        events.append(Event("planned", "everybody stays where they are", {"changed": False}))
    return events
