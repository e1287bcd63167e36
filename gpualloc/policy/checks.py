"""Strict checks of values read from YAML: each problem is kept, with its place and a hint; all are raised at once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from gpualloc.errors import Diagnostic, GpuallocError
from gpualloc.policy.values import closest, is_glob, listed, parse_memory, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gpualloc.errors import Place

    PlaceOf = Callable[[str], Place]
    """Where the value at a path stands; paths as :func:`joined` writes them, the empty path is the whole."""

Prefix = Literal["policy", "ask"]
"""What the codes begin with: problems of a policy, or of what a worker asks for."""

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

INTEGER_TEXT = r"^-?(?:0|[1-9][0-9]{0,5})$"
"""A whole number as text: what ``${N:-2}`` gives once interpolated."""

BOUND = 999_999
"""No count or priority is larger, either way: far above any fleet, and small enough for exact arithmetic."""

_NOT_BOOLEAN = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


_MORE: dict[Prefix, str] = {
    "policy": "gpualloc policy show base prints every key with a value that is right",
    "ask": "gpualloc schema x-gpualloc tells what each key takes",
}


def joined(path: str, key: str | int) -> str:
    """Return the path of a key or of a list index below ``path``: ``a.b``, ``a[0]``, ``a["b*"]``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{json.dumps(key, ensure_ascii=False)}]"
    return f"{path}.{key}" if path else key


class Checker:
    """Checks values and collects what is wrong.

    Each check returns the value it was asked for, or a stand-in of the same type when it reported a problem: the
    caller reads everything, calls :meth:`finish`, and never gets to use a stand-in.
    """

    def __init__(self, prefix: Prefix, place: PlaceOf, place_of_key: PlaceOf | None = None) -> None:
        """Take the prefix of the codes, and where values (and keys, if known apart) stand."""
        self._prefix = prefix
        self._more = _MORE[prefix]
        self._place = place
        self._place_of_key = place_of_key or place
        self.problems: list[Diagnostic] = []

    def finish(self) -> None:
        """Raise all problems found so far as one GpuallocError, in the order of the text, if there are any."""
        if self.problems:
            raise GpuallocError(*sorted(self.problems, key=_position))

    def report(self, kind: str, path: str, what: str, hint: str | None = None, *, at_key: bool = False) -> None:
        """Record one problem at a path; its code is the checker's prefix and ``kind``.

        Where what is wrong says all that there is to say here, the hint is where to see what is right.
        """
        where = (self._place_of_key if at_key else self._place)(path)
        name = where.path or path
        summary = f"{name}: {what}" if name else what
        self.problems.append(Diagnostic(f"{self._prefix}-{kind}", summary, where, hint or self._more))

    def mapping(self, value: object, path: str, keys: Sequence[str], hints: Mapping[str, str] | None = None) -> Any:
        """Check for a mapping with no keys but these; ``hints`` says what to do about some that people try."""
        if not isinstance(value, Mapping):
            self.report("type", path, f"must be a mapping, not {shown(value)}", f"its keys are {listed(keys, 'and')}")
            return {}
        for key in value:
            if key in keys:
                continue
            if hint := (hints or {}).get(key):
                pass
            elif isinstance(key, str) and (meant := closest(key, keys)):
                hint = f"did you mean {meant}?"
            else:
                hint = f"the keys here are {listed(keys, 'and')}"
            self.report("key", joined(path, str(key)), "unknown key", hint, at_key=True)
        return value

    def choice(self, value: object, path: str, options: Sequence[str], hint: str | None = None) -> Any:
        """Check for one of a few words."""
        if isinstance(value, str) and value in options:
            return value
        if isinstance(value, str) and (meant := closest(value, options)):
            hint = f"did you mean {meant}?"
        self.report("value", path, f"must be {listed(options)}, not {shown(value)}", hint)
        return options[0]

    def boolean(self, value: object, path: str, *, text: bool = False) -> bool:
        """Check for true or false; with ``text`` also as a string, as interpolation leaves it."""
        if isinstance(value, bool):
            return value
        if text and isinstance(value, str) and value in {"true", "false"}:
            return value == "true"
        hint = None
        if isinstance(value, str):
            if word := _NOT_BOOLEAN.get(value.lower()):
                hint = f"write {word}"
            elif value.lower() in {"true", "false"}:
                hint = f"write {value.lower()} without quotes"
        self.report("type", path, f"must be true or false, not {shown(value)}", hint)
        return False

    def integer(self, value: object, path: str, low: int, *, high: int = BOUND, text: bool = False) -> int:
        """Check for a whole number within bounds; with ``text`` also as a string, as interpolation leaves it."""
        if text and isinstance(value, str) and re.fullmatch(INTEGER_TEXT[1:-1], value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            hint = None
            if isinstance(value, float) and value.is_integer() and abs(value) <= BOUND:
                hint = f"write {int(value)}"
            elif isinstance(value, str) and re.fullmatch(INTEGER_TEXT[1:-1], value):
                hint = f"write {value} without quotes"
            self.report("type", path, f"must be a whole number, not {shown(value)}", hint)
            return low
        if not low <= value <= high:
            limits = f"at least {low}" if value < low else f"at most {high}"
            self.report("value", path, f"must be {limits}, not {shown(value)}")
            return low
        return value

    def text(self, value: object, path: str, hint: str | None = None) -> str:
        """Check for text that is not empty."""
        if isinstance(value, str) and value:
            return value
        if isinstance(value, str):
            self.report("value", path, "must not be empty", hint)
        else:
            if hint is None and isinstance(value, (bool, int, float)):
                hint = f'put it in quotes: "{shown(value)}"'
            self.report("type", path, f"must be text, not {shown(value)}", hint)
        return "-"

    def glob(self, value: object, path: str) -> str:
        """Check for a glob that is well-formed."""
        if isinstance(value, str) and value and not is_glob(value):
            hint = "close it, or write [[] for the character itself; *, ? and [abc] are the wildcards"
            self.report("value", path, f"a [ is never closed in {shown(value)}", hint)
            return "-"
        return self.text(value, path)

    def memory(self, value: object, path: str, *, zero: bool = False) -> int:
        """Check for a memory size; returns MiB."""
        try:
            mib = parse_memory(value)
        except GpuallocError as error:
            problem = error.diagnostics[0]
            self.report("memory", path, problem.summary, problem.hint)
            return 1
        if mib == 0 and not zero:
            self.report("value", path, "must be more than 0")
            return 1
        return mib

    def items(self, value: object, path: str, example: str) -> list[Any]:
        """Check for a list without duplicates; ``example`` is what a hint shows."""
        if not isinstance(value, (list, tuple)):
            hint = f"write a list: [{json.dumps(value, ensure_ascii=False)}]" if isinstance(value, str) else None
            self.report("type", path, f"must be a list, not {shown(value)}", hint or f"for example [{example}]")
            return []
        seen: list[object] = []
        for number, item in enumerate(value):
            if item in seen:
                self.report("value", joined(path, number), f"{shown(item)} is listed twice", "keep one")
            seen.append(item)
        return seen


def _position(problem: Diagnostic) -> tuple[str, int, int]:
    where = problem.where
    return (where.file, where.line or 0, where.column or 0) if where else ("", 0, 0)
