"""The command that is run after a change: an argument list, never a shell's line, with a limit on its time."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING

from gpualloc.errors import fail

if TYPE_CHECKING:
    from pathlib import Path

_STDERR = 2

_GRACE_S = 5.0
"""How long a command that is told to end may take."""


def parse_command(text: str) -> tuple[str, ...]:
    """Return the arguments of a command written as one text, with quotes as a shell has them and nothing else of it.

    Raises GpuallocError (``exec``) for none, and for a quote that does not end.
    """
    try:
        arguments = tuple(shlex.split(text))
    except ValueError as error:
        raise fail("exec", f"--exec: {error}: {text}", None, "close the quote") from None
    if not arguments:
        raise fail("exec", "--exec: there is no command", None, "write it as --exec 'docker compose up -d'")
    return arguments


class Command:
    """A command that may be running. It is polled: nothing here waits."""

    def __init__(self, arguments: tuple[str, ...], cwd: Path, timeout_s: float) -> None:
        self.arguments = arguments
        self.timeout_s = timeout_s
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._ends: float = 0.0

    @property
    def running(self) -> bool:
        """Whether it was started and its end has not been told yet."""
        return self._process is not None

    def start(self, now: float) -> str | None:
        """Start it; return why it could not be started. Its output goes to stderr: stdout is for events."""
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's own command, as an argument list
                self.arguments,
                cwd=self._cwd,
                stdin=subprocess.DEVNULL,
                stdout=_STDERR,
                start_new_session=True,  # so that all it starts can be ended with it
            )
        except OSError as error:
            return f"cannot be run: {error.strerror}: {self.arguments[0]}"
        self._ends = now + self.timeout_s
        return None

    def poll(self, now: float) -> tuple[bool, str | None]:
        """Return whether it has ended, and what went wrong if something did. One that takes too long is ended."""
        process = self._process
        if process is None:
            return False, None
        code = process.poll()
        if code is None and now < self._ends:
            return False, None
        self._process = None
        if code is None:
            _end(process)
            return True, f"took longer than {self.timeout_s:g} s"
        if code == 0:
            return True, None
        return True, f"ended with {code}" if code > 0 else f"was ended by signal {-code}"

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            _end(self._process)
            self._process = None


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            continue
        break
