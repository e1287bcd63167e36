"""The orders everything is sorted into before the first decision, so that the order of the input never matters."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"(\d+)")

NaturalKey = tuple[tuple[str | int, ...], str]


def natural(name: str) -> NaturalKey:
    """Return a sort key under which ``w-2`` comes before ``w-10``."""
    return tuple(int(part) if part.isdecimal() else part for part in _DIGITS.split(name)), name
