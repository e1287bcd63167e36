"""What connects the parts: readings come in from the looker, and what the watcher says is done."""

from __future__ import annotations

import contextlib
import queue
import shlex
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from gpualloc.durations import parse_duration
from gpualloc.errors import Diagnostic, GpuallocError, fail
from gpualloc.inventory.events import GpuEvent, GpuEvents
from gpualloc.model import Reading
from gpualloc.watch.command import Command, parse_command
from gpualloc.watch.events import Event
from gpualloc.watch.looker import Looker
from gpualloc.watch.metrics import Metrics, gpu_states, parse_address
from gpualloc.watch.site import Manner, Site
from gpualloc.watch.watcher import Timing, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from gpualloc.planning import Options

_POLL_S = 0.2
"""A running command is looked after so often."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to watch. ``command`` is an argument list; ``events``: whether to let the driver tell of errors."""

    timing: Timing = field(default_factory=Timing)
    manner: Manner = field(default_factory=Manner)
    command: tuple[str, ...] = ()
    command_timeout_s: float = 300.0
    metrics: tuple[str, int] | None = None
    events: bool = True


def settings_of(params: Mapping[str, Any]) -> Settings:
    """Return the settings for what the command line says. Raises GpuallocError for what cannot be understood."""
    if params["partial"] and not params["apply"]:
        raise fail("usage", "--partial is about what --apply writes", None, "give --apply too")
    timing = Timing(
        interval_s=parse_duration(params["interval"], "--interval"),
        settle_s=parse_duration(params["settle"], "--settle"),
    )
    return Settings(
        timing=timing,
        manner=Manner(apply=params["apply"], partial=params["partial"]),
        command=parse_command(params["command"]) if params["command"] is not None else (),
        command_timeout_s=parse_duration(params["exec_timeout"], "--exec-timeout"),
        metrics=parse_address(params["metrics"]) if params["metrics"] is not None else None,
        events=params["events"],
    )


class _Stop:
    """Stands in the queue for the wish to end."""


_Heard = Reading | tuple[Diagnostic, ...] | tuple[GpuEvent, ...] | _Stop


def watch(
    options: Options,
    settings: Settings,
    environ: Mapping[str, str],
    cwd: Path,
    tell: Callable[[Event, datetime], None],
) -> None:
    """Watch until SIGTERM or SIGINT, telling of everything that happens.

    Raises GpuallocError where the project or the policy cannot be used at the start, or the metrics' address. A machine
    that cannot be read, then or later, is waited for.
    """
    heard: queue.SimpleQueue[_Heard] = queue.SimpleQueue()
    with _signals(lambda: heard.put(_Stop())):
        _Loop(options, settings, environ, cwd, tell, heard).run()


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the signals that end a program end it in its own time; a put into a SimpleQueue is safe in a handler."""
    before = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Loop:
    def __init__(
        self,
        options: Options,
        settings: Settings,
        environ: Mapping[str, str],
        cwd: Path,
        tell: Callable[[Event, datetime], None],
        heard: queue.SimpleQueue[_Heard],
    ) -> None:
        self._settings = settings
        self._tell = tell
        self._heard = heard
        self._site = Site(options, environ, cwd, settings.manner)
        self._watcher: Watcher | None = None
        self._command = Command(settings.command, cwd, settings.command_timeout_s)
        self._started = time.monotonic()
        self._blind: tuple[Diagnostic, ...] = ()
        self._warned: frozenset[Diagnostic] = frozenset()
        listen = GpuEvents if settings.events and options.inventory in {(), ("nvml",)} else None
        self._looker = Looker(self._site.read, heard.put, listen, settings.timing.interval_s)
        self._metrics = Metrics(settings.metrics, self._age) if settings.metrics else None

    def _age(self) -> float:
        """Return the seconds since the last good look; since the start, where there was none."""
        good = self._watcher.last_good if self._watcher else None
        return time.monotonic() - (self._started if good is None else good)

    def run(self) -> None:
        self._say(Event("started", "watching", {"apply": self._settings.manner.apply}))
        self._looker.start()
        try:
            while True:
                for heard in self._next():
                    if isinstance(heard, _Stop):
                        self._say(Event("stopped", "told to end"))
                        return
                    self._take(heard)
                self._work()
        finally:
            self._looker.end()
            self._command.stop()
            if self._metrics is not None:
                self._metrics.close()

    def _say(self, *events: Event) -> None:
        for event in events:
            self._tell(event, datetime.now(timezone.utc))

    def _next(self) -> list[_Heard]:
        """Wait for something to be heard or to be due, and return what was heard."""
        waits = [_POLL_S] if self._command.running else []
        due = self._watcher.due_in(time.monotonic()) if self._watcher else None
        waits += [due] if due is not None else []
        found: list[_Heard] = []
        try:
            found.append(self._heard.get(timeout=min(waits) if waits else None))
            while True:
                found.append(self._heard.get_nowait())
        except queue.Empty:
            return found

    def _take(self, heard: Reading | tuple[Diagnostic, ...] | tuple[GpuEvent, ...]) -> None:
        if isinstance(heard, Reading):
            self._seen(heard)
            return
        why = tuple(item for item in heard if isinstance(item, Diagnostic))
        if why:
            self._not_seen(why)
        for item in heard:
            if isinstance(item, GpuEvent) and item.xid is not None:
                issue = self._site.happened(item.uuid, item.xid)
                data = {"uuid": item.uuid, "xid": item.xid, "fatal": issue.fatal}
                self._say(
                    Event("xid", f"{item.uuid}: {issue.detail}{'' if issue.fatal else ', which is harmless'}", data)
                )

    def _seen(self, reading: Reading) -> None:
        reading = self._site.with_xids(reading)
        warnings = reading.warnings
        now = time.monotonic()
        try:
            view = self._site.view(reading)
        except GpuallocError as error:
            if self._watcher is None:
                raise
            warnings += error.diagnostics  # the project as it was is still watched; a plan will say what is wrong
            view = self._watcher.view
        self._warn(warnings)
        if self._watcher is None:
            self._watcher = Watcher(view, self._settings.timing, commands=bool(self._settings.command))
        self._watcher.view = view
        self._say(*self._watcher.look(now, reading.inventory))
        self._looker.look_in(self._watcher.look_in())

    def _not_seen(self, why: tuple[Diagnostic, ...]) -> None:
        if any(diagnostic.code == "nvml-no-driver" for diagnostic in why):
            self._site.forget_xids()
        if self._watcher is not None:
            self._say(*self._watcher.blind(time.monotonic(), why))
        elif self._blind != why:
            self._blind = why
            codes = [diagnostic.code for diagnostic in why]
            self._say(Event("look-failed", "; ".join(diagnostic.summary for diagnostic in why), {"codes": codes}))

    def _warn(self, warnings: tuple[Diagnostic, ...]) -> None:
        """Tell of each warning when it comes, and again only after it has been away."""
        for warning in warnings:
            if warning not in self._warned:
                place = f"{warning.where}: " if warning.where else ""
                self._say(Event("warning", f"{place}{warning.summary}", {"code": warning.code}))
        self._warned = frozenset(warnings)

    def _work(self) -> None:
        """Do what is due."""
        watcher = self._watcher
        if watcher is None:
            return
        now = time.monotonic()
        if watcher.plan_due(now) and watcher.inventory is not None:
            try:
                outcome = self._site.plan(watcher.inventory)
            except GpuallocError as error:
                self._say(*watcher.plan_failed(time.monotonic(), error.diagnostics))
            else:
                self._say(*watcher.planned(time.monotonic(), outcome))
                if outcome.written:
                    with contextlib.suppress(GpuallocError):  # edited meanwhile: the next look tells what is wrong
                        watcher.view = self._site.view(Reading(watcher.inventory))
        self._run_command(watcher)
        if self._metrics is not None and watcher.inventory is not None:
            states = gpu_states(watcher.view.devices(watcher.inventory), watcher.view.pins(watcher.inventory).uuids())
            self._metrics.tell(watcher.counts, watcher.outcome, states)

    def _run_command(self, watcher: Watcher) -> None:
        ended, error = self._command.poll(time.monotonic())
        if ended:
            self._say(*watcher.command_ended(time.monotonic(), error))
        if not watcher.command_due(time.monotonic()):
            return
        watcher.command_started()
        problem = self._command.start(time.monotonic())
        if problem is not None:
            self._say(*watcher.command_ended(time.monotonic(), problem))
        else:
            self._say(Event("command", f"runs {shlex.join(self._command.arguments)}"))
