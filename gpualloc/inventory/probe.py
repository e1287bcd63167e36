"""Asks NVML one thing at a time: a query that fails leaves its fact unknown, and is told of once.

The module that speaks to NVML is given, never imported here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.errors import Diagnostic, Place
from gpualloc.inventory import health
from gpualloc.inventory.cpulist import ranges

if TYPE_CHECKING:
    from collections.abc import Collection

    from gpualloc.model import HealthIssue

PLACE = Place("nvml")
MIB = 1 << 20

_LOST = "restart the host; if it is lost again, look at its power and its seat"
_SLOW = "see whether `nvidia-smi` is as slow, and what the kernel's log says: dmesg | grep NVRM"

_SLOW_S = 3.0
"""Queries take milliseconds; where persistence mode is off, the first one on a GPU takes a second or two."""


class QueryError(Exception):
    """A query failed: NVML's code (None where the answer could not be understood), and why, in words."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(slots=True)
class Probe:
    """Asks, and remembers what could not be had: by fact, query and reason, the indices of the GPUs concerned.

    ``slowest``: how long each query took to answer, in seconds, when it took longest.
    """

    nvml: Any
    failures: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)
    dead: dict[int, HealthIssue] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)

    def call(self, query: str, *args: Any, **kwargs: Any) -> Any:
        """Make one query. Raises ``QueryError``."""
        function = getattr(self.nvml, query, None)
        if function is None:
            raise QueryError(self.nvml.NVML_ERROR_FUNCTION_NOT_FOUND, "this version of pynvml does not have it")
        start = time.monotonic()
        try:
            return function(*args, **kwargs)
        except self.nvml.NVMLError as error:
            raise QueryError(error.value, str(error)) from None
        except ValueError as error:  # text that is not UTF-8
            raise QueryError(None, str(error)) from None
        finally:
            self.slowest[query] = max(self.slowest.get(query, 0.0), time.monotonic() - start)

    def ask(self, gpu: int, fact: str, query: str, *args: Any, quiet: Collection[int] = (), **kwargs: Any) -> Any:
        """Make one query about a GPU, for the fact named; None where it fails.

        A failure with one of the ``quiet`` codes is an answer: the GPU has no such thing. A GPU that NVML says is lost
        or needs a reset is asked no more.
        """
        if gpu in self.dead:
            return None
        try:
            return self.call(query, *args, **kwargs)
        except QueryError as error:
            if error.code not in quiet:
                self.fail(gpu, fact, query, error)
            return None

    def fail(self, gpu: int, fact: str, query: str, error: QueryError) -> None:
        """Remember a failure, and what it says of the whole GPU."""
        if error.code == self.nvml.NVML_ERROR_GPU_IS_LOST:
            self.dead[gpu] = health.GPU_LOST
        elif error.code == self.nvml.NVML_ERROR_RESET_REQUIRED:
            self.dead[gpu] = health.RESET_REQUIRED
        else:
            self.note(gpu, fact, query, error.reason)

    def note(self, gpu: int, fact: str, query: str, reason: str) -> None:
        """Remember that a fact of a GPU could not be had."""
        indices = self.failures.setdefault((fact, query, reason), [])
        if gpu not in indices:
            indices.append(gpu)

    def note_host(self, fact: str, query: str, reason: str) -> None:
        """Remember that a fact of the host could not be had."""
        self.failures.setdefault((fact, query, reason), [])

    def warnings(self) -> tuple[Diagnostic, ...]:
        """Return one warning for each failure, whatever the number of GPUs."""
        lost = [
            _warning("nvml-gpu-lost", f"GPU {index}: {issue.detail}; facts of it that are missing are unknown", _LOST)
            for index, issue in sorted(self.dead.items())
        ]
        unknown = [
            _warning("nvml-query", f"{fact} unknown{_on(indices)}: {query} says {reason}")
            for (fact, query, reason), indices in self.failures.items()
        ]
        slow = [
            _warning("nvml-slow", f"{query} took {seconds:.1f} s to answer: a GPU may be in trouble", _SLOW)
            for query, seconds in self.slowest.items()
            if seconds > _SLOW_S
        ]
        return (*lost, *unknown, *slow)


def as_text(answer: str | bytes) -> str:
    """Return text as text: pynvml decodes what a query returns, but not what stands in a struct."""
    return answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer


def _on(indices: list[int]) -> str:
    if not indices:
        return ""
    return f" on GPU{'' if len(indices) == 1 else 's'} {ranges(sorted(indices))}"


def _warning(code: str, summary: str, hint: str | None = None) -> Diagnostic:
    return Diagnostic(code, summary, PLACE, hint, "warning")
