"""Values in the shapes that ``docker stack`` takes: it knows one shape where Compose knows several.

Source: docker/cli ``cli/compose/schema/data/config_schema_v3.13.json`` and ``cli/compose/loader/loader.go``. After
variables are replaced Compose turns texts into the numbers and booleans that a key wants, and so does this.
"""

from __future__ import annotations

import math
import re
from typing import Any

_YES = frozenset(("y", "yes", "true", "on", "1"))
_NO = frozenset(("n", "no", "false", "off", "0"))
_LONG_UNITS = {"d": 24, "w": 7 * 24}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d|w)")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?\s*", re.IGNORECASE)
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def text(value: Any) -> str:
    """Return a scalar as a string, as Compose does for keys that hold strings."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and math.isfinite(value):
        return str(int(value))
    return str(value)


def boolean(value: Any) -> Any:
    """Return a boolean; what is none is left for Docker to refuse."""
    word = str(value).lower()
    return True if word in _YES else False if word in _NO else value


def integer(value: Any) -> Any:
    """Return a whole number, octal as ``0440`` where it is written so; what is none is left for Docker to refuse."""
    if isinstance(value, str):
        word = value.strip()
        try:
            return int(word, 8) if re.fullmatch(r"0[0-7]+", word) else int(word, 0)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def number(value: Any) -> Any:
    """Return a number; what is none is left for Docker to refuse."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return value
    return int(found) if found.is_integer() else found


def duration(value: Any) -> str:
    """Return a duration as Go's ``time.ParseDuration`` reads it, which knows no days or weeks."""
    word = text(value).strip()
    parts = _DURATION.findall(word)
    if not parts or "".join(n + unit for n, unit in parts) != word:
        return word
    return "".join(
        f"{text(float(n) * _LONG_UNITS[unit])}h" if unit in _LONG_UNITS else f"{n}{unit}" for n, unit in parts
    )


def size(value: Any) -> int | None:
    """Return an amount of memory in bytes, as ``64m`` and ``1.5gb`` are written (docker/go-units ``RAMInBytes``)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.fullmatch(str(value))
    return int(float(found[1]) * _SIZES[found[2].lower()]) if found else None


def texts(value: Any) -> list[str]:
    """Return a list of strings, from one or several."""
    return [text(item) for item in (value if isinstance(value, list) else [value]) if item is not None]


def unique(value: Any) -> list[str]:
    """Return a list of strings, each once: docker stack refuses some lists that name a thing twice."""
    return list(dict.fromkeys(texts(value)))


def once(items: list[Any]) -> list[Any]:
    """Return a list's items, each once."""
    return [item for number, item in enumerate(items) if item not in items[:number]]


def command(value: Any) -> Any:
    """Return a command: a string, or a list of strings."""
    return texts(value) if isinstance(value, list) else text(value)


def mapping(value: Any) -> dict[str, Any]:
    """Return labels or the like as a mapping to strings; ``name`` without a value has an empty one."""
    if isinstance(value, dict):
        return {str(k): "" if v is None else text(v) for k, v in value.items()}
    pairs = (text(item).partition("=") for item in value or ())
    return {name: content for name, _, content in pairs}


def hosts(value: Any) -> list[str]:
    """Return ``extra_hosts`` as ``name:address``; Compose also takes ``name=address``, and mappings to lists."""
    if isinstance(value, dict):
        return [f"{name}:{address}" for name, each in value.items() for address in texts(each)]
    return once([re.sub(r"\A([^:=]+)=", r"\1:", text(item)) for item in value or ()])


def names(value: Any) -> list[str]:
    """Return a list of names, from a list or from a mapping whose values say more."""
    return once([str(name) for name in value or ()])
