"""Values that policies and ``x-gpualloc`` are made of: memory sizes, compute capabilities, globs."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

from gpualloc.errors import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gpualloc.errors import Place

# --------------------------------------------------------------------------------------------------------------------
# Memory

_MIB = 1 << 20
_UNITS = {
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "PiB": 1 << 50,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "PB": 10**15,
}

MEMORY_PATTERN = rf"^([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?) ?({'|'.join(_UNITS)})$"
"""A memory size as text. Nine digits keep even the largest within 64 bits of MiB."""

_NUMBER_AND_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*)")


def parse_memory(value: object, where: Place | None = None) -> int:
    """Return a memory size in MiB, rounded up: ``12GiB``, ``1.5 GiB``, ``24GB``.

    KiB, MiB, GiB, TiB and PiB are powers of 1024; kB, MB, GB, TB and PB are powers of 1000. A unit is required, and
    its case counts: Docker reads ``12gb`` as 12 GiB, everybody else as 12 GB.

    Raises GpuallocError (``memory-size``) at ``where``.
    """
    match = re.fullmatch(MEMORY_PATTERN[1:-1], value) if isinstance(value, str) else None
    if match:
        number, unit = match.groups()
        return ceil(Fraction(number) * _UNITS[unit] / _MIB)
    summary = f"a memory size is a number with a unit, not {shown(value)}"
    return _bad_memory(summary, value, where)


def _bad_memory(summary: str, value: object, where: Place | None) -> int:
    number, unit = "12", ""
    if match := _NUMBER_AND_UNIT.fullmatch(str(value)):
        number, unit = match.groups()
    if len(number) > 9:
        number = "12"
    if not unit:
        hint = f"name the unit: {number}GiB" if number == "12" else f"name the unit: {number}GiB, {number}MiB"
    elif unit[0].upper() in "KMGTP" and unit[1:].lower() in {"", "b", "i", "ib"}:
        letter = unit[0].upper()
        hint = f"write {number}{letter}iB (1024s) or {number}{'k' if letter == 'K' else letter}B (1000s)"
    else:
        hint = "write it as 12GiB; the units are " + listed(_UNITS, "and")
    raise fail("memory-size", summary, where, hint)


def format_memory(mib: int) -> str:
    """Return the shortest text that :func:`parse_memory` reads as just this many MiB."""
    for unit, size in (("TiB", 1 << 20), ("GiB", 1 << 10)):
        if mib and mib % size == 0:
            return f"{mib // size}{unit}"
    return f"{mib}MiB"


# --------------------------------------------------------------------------------------------------------------------
# Compute capability

Capability = tuple[int, int]
"""A CUDA compute capability: major, minor."""

CapabilitySpec = tuple[tuple[str, Capability], ...]
"""Conditions that must all hold: operator and capability."""

_OPERATORS: dict[str, Callable[[Capability, Capability], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}

_CLAUSE = r" *(>=|<=|==|>|<)? *([0-9]{1,3})(?:\.([0-9]{1,3}))? *"
CAPABILITY_PATTERN = f"^{_CLAUSE}(?:,{_CLAUSE})*$"
"""Conditions on the compute capability, joined by commas."""


@lru_cache(maxsize=64)
def parse_capability_spec(spec: str, where: Place | None = None) -> CapabilitySpec:
    """Return the conditions of a spec such as ``>=8.0``, ``>=7.5,<9`` or ``8.9`` (which means ``==8.9``).

    Raises GpuallocError (``capability-spec``) at ``where`` for text that is no spec, or that nothing can meet.
    """
    conditions: list[tuple[str, Capability]] = []
    for clause in spec.split(","):
        match = re.fullmatch(_CLAUSE, clause)
        if not match:
            raise fail(
                "capability-spec",
                f"not a condition on the compute capability: {shown(spec)}",
                where,
                'write ">=8.0", ">=7.5,<9.0" or "8.9"; the operators are >=, >, ==, <=, <',
            )
        conditions.append((match[1] or "==", (int(match[2]), int(match[3] or 0))))
    if not _can_hold(conditions):
        raise fail(
            "capability-spec",
            f"no compute capability meets {shown(spec)}: its conditions contradict each other",
            where,
            'conditions joined by commas must all hold, as in ">=7.5,<9.0"',
        )
    return tuple(conditions)


def _can_hold(conditions: Iterable[tuple[str, Capability]]) -> bool:
    """Whether some (major, minor) meets all conditions: the lowest one allowed is below the first one too high."""
    low, too_high = (0, 0), (1_000_000, 0)
    for sign, (major, minor) in conditions:
        here, after = (major, minor), (major, minor + 1)
        if sign in {">=", ">", "=="}:
            low = max(low, after if sign == ">" else here)
        if sign in {"<=", "<", "=="}:
            too_high = min(too_high, here if sign == "<" else after)
    return low < too_high


def capability_matches(spec: str, capability: str | None) -> bool:
    """Whether a device's compute capability (``8.9``; None: unknown, which meets no condition) meets the spec.

    Compared by number, so that 12.0 is above 8.9. Raises GpuallocError for a bad spec.
    """
    conditions = parse_capability_spec(spec)
    match = re.fullmatch(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?", capability or "")
    if not match:
        return False
    actual = (int(match[1]), int(match[2] or 0))
    return all(_OPERATORS[sign](actual, wanted) for sign, wanted in conditions)


# --------------------------------------------------------------------------------------------------------------------
# Globs

_BRACKETS = r"\[(?:!?\][^\]]*|![^\]]+|[^\]!][^\]]*)\]"
GLOB_PATTERN = rf"^(?:[^\[]|{_BRACKETS})+$"
"""A glob as :mod:`fnmatch` has it, not empty, each ``[`` closed (fnmatch would take an open one literally)."""

_GLOB = re.compile(GLOB_PATTERN[1:-1], re.DOTALL)
_WILD = re.compile(rf"{_BRACKETS}|[*?]", re.DOTALL)


def is_glob(text: str) -> bool:
    """Whether text is a well-formed glob; a plain name is one."""
    return bool(_GLOB.fullmatch(text))


def specificity(glob: str) -> tuple[bool, int, int, str]:
    """Return a key that sorts globs from the most general to the most specific.

    A name without wildcards is the most specific, then what has more literal characters, then what has fewer
    wildcards. The text itself decides between equals, so that the order in a file never matters.
    """
    wildcards = len(_WILD.findall(glob))
    return (not wildcards, len(_WILD.sub("", glob)), -wildcards, glob)


# --------------------------------------------------------------------------------------------------------------------
# Words for messages


def shown(value: object) -> str:
    """Return a value as messages show it, shortened: text in double quotes, the rest as YAML writes it."""
    if isinstance(value, str):
        text = value if len(value) <= 60 else value[:57] + "…"
        return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) + '"'
    if isinstance(value, (Mapping, list, tuple)):
        return "a mapping" if isinstance(value, Mapping) else "a list"
    # Python refuses to print integers of more than some thousands of digits
    if isinstance(value, int) and value.bit_length() > 200:
        return "a number of more than 60 digits"
    words = {None: "nothing", True: "true", False: "false"}
    text = next((word for known, word in words.items() if value is known), str(value))
    return text if len(text) <= 60 else text[:57] + "…"


def listed(words: Iterable[str], joint: str = "or") -> str:
    """Return words as prose: ``a, b or c``."""
    *rest, last = words
    return f"{', '.join(rest)} {joint} {last}" if rest else last


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was probably meant, or None."""
    from difflib import get_close_matches  # noqa: PLC0415  # only when something is wrong

    by_lower = {k.lower(): k for k in known}
    matches = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[matches[0]] if matches else None
