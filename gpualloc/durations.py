"""Durations as people write them: ``30s``, ``5m``, ``1.5h``."""

from __future__ import annotations

import re

from gpualloc.errors import fail

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?(ms|s|m|h)")


def parse_duration(text: str, option: str) -> float:
    """Return a duration in seconds. Raises GpuallocError (``duration``) for what is none; ``option`` is who said it."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) == 0:
        summary = f"{option}: a duration is a number above 0 with a unit, not {text!r}"
        raise fail("duration", summary, None, "write it as 30s, 5m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def shown_duration(seconds: float) -> str:
    """Return a duration for people: ``45 s``, ``5 min``, ``1.5 h``."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.1f}".removesuffix(".0") + " s"
