"""Reads JSON text strictly: duplicate keys, NaN and broken syntax are errors with line and column.

The standard library's parser does the reading. Places are looked up only when there is a mistake to report, by a slow
second pass over the text, so that good documents do not pay for it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

from gpualloc.errors import GpuallocError, Place, fail
from gpualloc.strict import Document, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

Route = tuple[str | int, ...]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_CONSTANTS = ("NaN", "Infinity", "-Infinity")


def load(text: str, file: str, kind: str, hint: str | None = None) -> Value:
    """Parse JSON text into a value for the typed getters; ``kind`` begins the error codes (``<kind>-json``).

    ``hint`` is given with every error that has none of its own.

    Raises ``GpuallocError`` for text that is not JSON (RFC 8259), for a key given twice in one object, and for numbers
    that JSON does not have (NaN, Infinity) or that Python does not convert (whole numbers of thousands of digits).
    """
    text = text.removeprefix("\ufeff")

    def broken(summary: str, line: int, column: int) -> GpuallocError:
        return fail(f"{kind}-json", summary, Place(file, line, column), hint)

    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise broken("the file is empty", 1, 1) from None
        summary = f"not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        raise broken(summary, error.lineno, error.colno) from None
    except RecursionError:
        raise broken("nested too deeply to be read", 1, 1) from None
    except _DuplicateKeyError:
        key, offset = _duplicate(text)
        summary = f"the key {json.dumps(key, ensure_ascii=False)} is given twice"
        raise broken(summary, *_position(text, offset)) from None
    except ValueError:
        raise broken("not valid JSON: no such number", *_position(text, _odd_number(text))) from None
    return Value(data, Document(file, kind, lambda route: _locate(text, route), hint))


class _DuplicateKeyError(Exception):
    """An object has a key twice; the parser's hook does not know where."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise _DuplicateKeyError
    return mapping


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _position(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset, both counted from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _locate(text: str, route: Route) -> tuple[int, int]:
    """Where the value at a route stands; for one that is missing, where the nearest that should hold it stands."""
    best, best_depth = 0, -1
    for found, offset, is_key in _walk(text):
        depth = len(found)
        if not is_key and depth > best_depth and found == route[:depth]:
            best, best_depth = offset, depth
            if depth == len(route):
                break
    return _position(text, best)


def _duplicate(text: str) -> tuple[str, int]:
    """Find the first key that its object already has: the key and its offset."""
    seen: set[Route] = set()
    for route, offset, is_key in _walk(text):
        if is_key and route in seen:
            return str(route[-1]), offset
        if is_key:
            seen.add(route)
    raise AssertionError("the parser saw a duplicate key")  # pragma: no cover - the two passes read the same text


def _odd_number(text: str) -> int:
    """Find the offset of the first constant or number that has no place in a JSON document."""
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word in _CONSTANTS:
            return token.start()
        if word[0] in "-0123456789":
            try:
                json.loads(word)
            except ValueError:
                return token.start()
    return 0


def _walk(text: str) -> Iterator[tuple[Route, int, bool]]:
    """Yield the route and offset of every key (True) and every value (False) of a text that holds to the syntax."""
    stack: list[str | int] = []
    in_list: list[bool] = []
    expect_key = False
    for token in _TOKEN.finditer(text):
        word, offset = token.group(), token.start()
        if word in "]}":
            in_list.pop()
            stack.pop()
            expect_key = False
        elif word == ",":
            if in_list[-1]:
                stack[-1] = int(stack[-1]) + 1
            else:
                expect_key = True
        elif word == ":":
            expect_key = False
        elif expect_key:
            stack[-1] = json.loads(word)
            yield tuple(stack), offset, True
        else:
            yield tuple(stack), offset, False
            if word in "[{":
                in_list.append(word == "[")
                stack.append(0)
                expect_key = word == "{"
