"""Plain values as YAML text, in the style of the file they go into."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import Tagged
from gpualloc.compose.document import Mapping, Sequence, walk

if TYPE_CHECKING:
    from gpualloc.compose.document import Document

_WORD = re.compile(r"[A-Za-z_]+\Z")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_LIST_ITEM = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[A-Za-z0-9_.,/+-]*\Z")
_RESERVED = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))


@dataclass(frozen=True, slots=True)
class Style:
    """How a file is laid out: spaces per level, spaces before a dash under its key, and the line ending."""

    step: int
    dash: int
    newline: str


def style_of(document: Document) -> Style:
    """Return the style that most of a file's block collections follow; two spaces, where it shows none."""
    steps: dict[int, int] = {}
    dashes: dict[int, int] = {}
    for root in document.roots:
        for node in walk(root):
            if not isinstance(node, Mapping) or node.flow or not node.entries:
                continue
            column = document.column(node.entries[0].key.start)
            for entry in node.entries:
                value = entry.value
                if isinstance(value, Mapping) and not value.flow and value.entries:
                    offset = document.column(value.entries[0].key.start) - column
                    steps[offset] = steps.get(offset, 0) + 1
                elif isinstance(value, Sequence) and not value.flow and value.items:
                    offset = dash_column(document, value) - column
                    dashes[offset] = dashes.get(offset, 0) + 1
    step = max(sorted(steps), key=lambda k: steps[k]) if steps else 2
    dash = max(sorted(dashes), key=lambda k: dashes[k]) if dashes else step
    return Style(max(step, 1), max(dash, 0), document.newline)


def dash_column(document: Document, sequence: Sequence) -> int:
    """Return the column, from 0, of a block sequence's dashes."""
    first = sequence.items[0].start
    start = document.line_start(first)
    dash = document.text.rfind("-", start, first)
    if dash < 0:  # the item starts on a line after its dash
        dash = document.text.rfind("-", 0, first)
    return document.column(dash)


def scalar(value: Any) -> str:
    """Return a scalar as YAML, quoted unless it is a plain word or a number."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if _WORD.match(value) and value.lower() not in _RESERVED:
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def key(name: str) -> str:
    """Return a mapping key as YAML."""
    return name if _KEY.match(name) and name.lower() not in _RESERVED else json.dumps(name, ensure_ascii=False)


def list_item(text: str) -> str:
    """Return an item of an environment list as YAML: bare where nothing in it can be misread."""
    return text if _LIST_ITEM.match(text) else json.dumps(text, ensure_ascii=False)


def flow(value: Any) -> str:
    """Return a value in flow style, on one line."""
    if isinstance(value, Tagged):
        return f"{value.tag} {flow(value.value)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key(k)}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(flow(v) for v in value) + "]"
    return scalar(value)


def entry_lines(name: str, value: Any, style: Style) -> list[str]:
    """Return ``name: value`` in block style as lines without line ending, the first at column 0.

    Lists of scalars and empty collections are written in flow style, everything else in block style.
    """
    tag = ""
    if isinstance(value, Tagged):
        tag, value = f" {value.tag}", value.value
    if isinstance(value, dict) and value:
        inner = [line for k, v in value.items() for line in entry_lines(k, v, style)]
        return [f"{key(name)}:{tag}", *(" " * style.step + line for line in inner)]
    if isinstance(value, list) and any(isinstance(v, dict) and v for v in value):
        lines = [f"{key(name)}:{tag}"]
        for item in value:
            inner = [line for k, v in item.items() for line in entry_lines(k, v, style)]
            lines.append(" " * style.dash + "- " + inner[0])
            lines.extend(" " * style.dash + "  " + line for line in inner[1:])
        return lines
    return [f"{key(name)}:{tag} {flow(value)}"]
