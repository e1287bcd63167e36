"""Typed getters over data parsed from JSON or YAML: every wrong value is an error that names its path.

A reader wraps the parsed data once, ``Value(data, document)``, and takes it apart with the getters:

    fields = root.fields(required=("name", "gpus"), optional=("platform",))
    name = fields["name"].text()
    gpus = tuple(read_gpu(item) for item in fields["gpus"].items())

Paths are written as in ``hosts[0].gpus[2].uuid``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gpualloc.errors import Diagnostic, GpuallocError, Place

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Sequence

T = TypeVar("T")
Choice = TypeVar("Choice", bound=str)

_LONGEST_SHOWN = 60
_VOWELS = ("a", "e", "i", "o", "u")


@dataclass(frozen=True, slots=True)
class Document:
    """What is read: its name in messages, the first part of its error codes, and how a place in it is found.

    ``kind`` is ``inventory``, ``policy`` or ``plan``: errors carry codes such as ``inventory-missing-key``. ``locate``
    takes a route (keys and list positions from the root) and gives line and column, both counted from 1, or None.
    ``hint`` is given with errors that have none of their own: how to get a document that is right.
    """

    file: str
    kind: str
    locate: Callable[[tuple[str | int, ...]], tuple[int, int] | None] | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """A parsed value and the way to it from the root of its document. Every getter raises ``GpuallocError``."""

    raw: Any
    document: Document
    parent: Value | None = None
    key: str | int = ""

    @property
    def route(self) -> tuple[str | int, ...]:
        """The keys and list positions from the root of the document to this value."""
        steps: list[str | int] = []
        value = self
        while value.parent is not None:
            steps.append(value.key)
            value = value.parent
        return tuple(reversed(steps))

    @property
    def path(self) -> str:
        """The route in the form ``hosts[0].gpus[2].uuid``; empty for the root."""
        return written(self.route)

    def error(self, what: str, summary: str, hint: str | None = None) -> GpuallocError:
        """Return the error ``<kind>-<what>`` about this value, to be raised by the caller. The path is added."""
        return self._error_at(self.route, what, summary, hint)

    def _error_at(self, route: tuple[str | int, ...], what: str, summary: str, hint: str | None) -> GpuallocError:
        path = written(route)
        found = self.document.locate(route) if self.document.locate else None
        line, column = found or (None, None)
        # A place with a line shows that, one without shows its path: the message has the path either way.
        text = f"{path}: {summary}" if line is not None and path else summary
        place = Place(self.document.file, line, column, path)
        return GpuallocError(Diagnostic(f"{self.document.kind}-{what}", text, place, hint or self.document.hint))

    def type_error(self, expected: str) -> GpuallocError:
        """Return the error for a value of the wrong type, to be raised by the caller."""
        return self.error("type", f"must be {expected}, not {_kind(self.raw)}")

    # Mappings and lists

    def fields(self, required: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Value]:
        """Return the values of a mapping with exactly these keys; optional ones only where they are present."""
        raw = self._mapping()
        for key in raw:
            if key not in required and key not in optional:
                raise self._unknown_key(key, (*required, *optional))
        for key in required:
            if key not in raw:
                raise self._error_at((*self.route, key), "missing-key", "required", None)
        return {key: Value(value, self.document, self, key) for key, value in raw.items()}

    def at(self, *route: str | int) -> Value:
        """Return the value further in, along keys and list positions that are known to be there."""
        value = self
        for step in route:
            value = Value(value.raw[step], self.document, value, step)
        return value

    def entries(self) -> tuple[tuple[str, Value], ...]:
        """Return keys and values of a mapping whose keys are free, in the document's order."""
        return tuple((key, Value(value, self.document, self, key)) for key, value in self._mapping().items())

    def items(self) -> tuple[Value, ...]:
        """Return the items of a list."""
        if not isinstance(self.raw, list):
            raise self.type_error("a list")
        return tuple(Value(item, self.document, self, position) for position, item in enumerate(self.raw))

    def _mapping(self) -> dict[str, Any]:
        if not isinstance(self.raw, dict):
            raise self.type_error("a mapping")
        for key in self.raw:
            if not isinstance(key, str):
                raise self.error("type", f"keys must be strings, not {_kind(key)}", "put it in quotes")
        return self.raw

    def _unknown_key(self, key: str, known: Sequence[str]) -> GpuallocError:
        import difflib  # noqa: PLC0415 - only a mistake pays for it

        close = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(sorted(known))}"
        return self._error_at((*self.route, key), "unknown-key", "unknown key", hint)

    # Scalars

    def text(self, pattern: re.Pattern[str] | None = None, expected: str = "a string", *, empty: bool = False) -> str:
        """Return a string that is not empty (unless it may be) and, given a pattern, matches the whole of it."""
        if not isinstance(self.raw, str):
            raise self.type_error(expected)
        if (not self.raw and not empty) or (pattern is not None and pattern.fullmatch(self.raw) is None):
            raise self.error("value", f"must be {expected if self.raw else 'filled in'}, not {_shown(self.raw)}")
        if not self.raw.isascii() and any("\ud800" <= c <= "\udfff" for c in self.raw):
            raise self.error("value", "half of a surrogate pair is not text")
        return self.raw

    def integer(self, minimum: int | None = None, maximum: int | None = None) -> int:
        """Return a whole number within the bounds, both inclusive. ``true`` and ``1.0`` are not whole numbers."""
        if type(self.raw) is not int:
            raise self.type_error("a whole number")
        if minimum is not None and self.raw < minimum:
            raise self.error("value", f"must be at least {minimum}, not {_shown(self.raw)}")
        if maximum is not None and self.raw > maximum:
            raise self.error("value", f"must be at most {maximum}, not {_shown(self.raw)}")
        return self.raw

    def boolean(self) -> bool:
        """Return true or false."""
        if not isinstance(self.raw, bool):
            raise self.type_error("true or false")
        return self.raw

    def choice(self, options: Sequence[Choice]) -> Choice:
        """Return one of a few words."""
        for option in options:
            if self.raw == option:
                return option
        if not isinstance(self.raw, str):
            raise self.type_error(f"one of {', '.join(options)}")
        raise self.error("value", f"must be one of {', '.join(options)}, not {_shown(self.raw)}")

    def or_none(self, read: Callable[[Value], T]) -> T | None:
        """Return None for null, else what ``read`` makes of this value."""
        return None if self.raw is None else read(self)


def written(route: Sequence[str | int]) -> str:
    """Write a route as a path: ``hosts[0].gpus[2].uuid``, ``roles["trainer*"].gpus``."""
    path = ""
    for step in route:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step and all(c.isalnum() or c in "_-" for c in step):
            path += f".{step}" if path else step
        else:
            path += f"[{_shown(step)}]"
    return path


def _kind(raw: object) -> str:
    """Name the type of a parsed value in the words of JSON and YAML."""
    if raw is None or isinstance(raw, bool):
        return _shown(raw)
    if isinstance(raw, str | int | float):
        return f"the {'string' if isinstance(raw, str) else 'number'} {_shown(raw)}"
    if isinstance(raw, list | dict):
        return "a list" if isinstance(raw, list) else "a mapping"
    name = type(raw).__name__
    return f"{'an' if name.startswith(_VOWELS) else 'a'} {name}"


def _shown(raw: object) -> str:
    """Show a scalar as written in JSON, cut short where it is long."""
    import json  # noqa: PLC0415 - only a mistake pays for it

    try:
        text = json.dumps(raw, ensure_ascii=False).encode("utf-8", "replace").decode()
    except ValueError:  # Python does not write out whole numbers of many thousand digits
        return "one of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
