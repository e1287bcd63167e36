"""Calls that may hang: a driver in trouble can keep a query for minutes, where no signal gets through."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class HangsError(Exception):
    """A call has not come back; it is left to itself."""


class Patience:
    """Makes one call at a time, in a thread of its own, and waits for it so many ``seconds``.

    A call that has not come back is not made again beside itself: until it ends, every other one hangs at once. So
    however often one is made, no more than one thread is stuck.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._stuck: threading.Thread | None = None

    def call(self, function: Callable[[], _T]) -> _T:
        """Return what a function returns, or raise what it raises. Raises ``HangsError``."""
        if self._stuck is not None and self._stuck.is_alive():
            raise HangsError
        answers: list[_T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                answers.append(function())
            except BaseException as error:  # noqa: BLE001 - it is raised again where it is waited for
                errors.append(error)

        # a daemon, so that one that never ends does not keep the process from ending
        self._stuck = thread = threading.Thread(target=run, name="nvml", daemon=True)
        thread.start()
        thread.join(self.seconds)
        if thread.is_alive():
            raise HangsError
        self._stuck = None
        if errors:
            raise errors[0]
        return answers[0]
