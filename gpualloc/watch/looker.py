"""Looks at the machine in a thread of its own, so that a driver that hangs holds up nothing else."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from gpualloc.errors import Diagnostic, GpuallocError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.inventory.events import GpuEvent, GpuEvents
    from gpualloc.model import Reading

_SLICE_S = 0.5
"""The driver is waited for in slices, between which the thread sees that it is to end or to look earlier."""


class Looker(threading.Thread):
    """Reads the machine when it is due, and when the driver tells of an event.

    ``tell`` is called with a reading, with the reasons why there is none, or with events, from this thread. ``listen``
    opens the driver's events, None where there are none to be had.
    """

    def __init__(
        self,
        read: Callable[[], Reading],
        tell: Callable[[Reading | tuple[Diagnostic, ...] | tuple[GpuEvent, ...]], None],
        listen: Callable[[], GpuEvents] | None,
        interval_s: float,
    ) -> None:
        super().__init__(name="looker", daemon=True)
        self._read = read
        self._tell = tell
        self._listen = listen
        self._interval_s = interval_s
        self._due = time.monotonic()
        self._ended = threading.Event()
        self._events: GpuEvents | None = None
        self._heard_of: frozenset[str] = frozenset()

    def look_in(self, seconds: float) -> None:
        """Look in so many seconds at the latest."""
        self._due = min(self._due, time.monotonic() + seconds)

    def end(self) -> None:
        """Let the thread end at its next step."""
        self._ended.set()

    def run(self) -> None:
        """Look, and wait, until told to end."""
        try:
            while not self._ended.is_set():
                left = self._due - time.monotonic()
                if left <= 0:
                    self._due = time.monotonic() + self._interval_s
                    self._look()
                else:
                    self._wait(min(left, _SLICE_S))
        finally:
            self._close()

    def _look(self) -> None:
        try:
            reading = self._read()
        except GpuallocError as error:
            self._close()
            self._tell(error.diagnostics)
            return
        except Exception as error:  # noqa: BLE001 - a thread that dies in silence would watch nothing
            self._close()
            reason = getattr(error, "strerror", None) or error
            hint = "see what `gpualloc inventory` says; if it works, please report this"
            self._tell((Diagnostic("look-failed", f"the GPUs cannot be read: {reason}", hint=hint),))
            return
        self._hear(frozenset(gpu.uuid for host in reading.inventory.hosts for gpu in host.gpus))
        self._tell(reading)

    def _hear(self, uuids: frozenset[str]) -> None:
        """Listen to the GPUs that there are now."""
        if self._listen is None or (self._events is not None and uuids == self._heard_of):
            return
        self._close()
        try:
            self._events = self._listen()
        except GpuallocError:  # the next look will tell why
            return
        self._heard_of = uuids

    def _wait(self, seconds: float) -> None:
        if self._events is None or not self._events.listening:
            self._ended.wait(seconds)
            return
        from gpualloc.inventory.events import EventsLostError  # noqa: PLC0415 - only with a driver that has events

        try:
            happened = self._events.wait(seconds)
        except EventsLostError:
            self._close()
            self._due = time.monotonic()
            return
        if happened:
            self._tell(happened)
            self._due = time.monotonic()

    def _close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None
