"""What gpualloc says when something is wrong: one message type, one exception."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where in an input something stands: a file with a position, a path inside the document, or both.

    ``line`` and ``column`` count from 1. ``path`` is written as in ``hosts[0].gpus[2].uuid``.
    """

    file: str
    line: int | None = None
    column: int | None = None
    path: str = ""

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.file}:{self.line}:{self.column or 1}"
        return f"{self.file}: {self.path}" if self.path else self.file


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One message: a stable code, what is wrong in one line, where, and what to do about it."""

    code: str
    summary: str
    where: Place | None = None
    hint: str | None = None
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{place}{self.summary}{hint}"


class GpuallocError(Exception):
    """The input cannot be used. Carries at least one diagnostic; commands that meet it exit with 2."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("\n".join(str(d) for d in diagnostics))
        self.diagnostics = diagnostics


def fail(code: str, summary: str, where: Place | None = None, hint: str | None = None) -> GpuallocError:
    """Return the error for one diagnostic, to be raised by the caller."""
    return GpuallocError(Diagnostic(code, summary, where, hint))
