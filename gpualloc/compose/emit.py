"""Plain values as YAML text, in the style of the file they go into."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import Tagged, members, scalar_value
from gpualloc.compose.document import Mapping, Scalar, Sequence, resolve, walk

if TYPE_CHECKING:
    from gpualloc.compose.document import Document, Node

_WORD = re.compile(r"[A-Za-z_]+\Z")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_LIST_ITEM = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[A-Za-z0-9_.,/+-]*\Z")
_FLOW_ITEM = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[A-Za-z0-9_./+-]*\Z")
_DASHES = re.compile(r"[ \t]*(?:-[ \t]+)*(?P<last>-)")
_NOT_BARE = re.compile(r"[,\[\]{}]|: | #|:$")
_RESERVED = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))
# Source: YAML 1.1 c-printable, less the line breaks that only YAML 1.1 has, and the byte order mark.
_UNPRINTABLE = re.compile("[^ -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Style:
    """How a file is laid out: spaces per level, spaces before a dash under its key, line ending, and quote.

    ``json``: the file is JSON, and must stay so.
    """

    step: int
    dash: int
    newline: str
    quote: str = '"'
    json: bool = False


PLAIN = Style(2, 2, "\n")
"""The style of a new file."""


def style_of(document: Document) -> Style:
    """Return the style that most of a file's block collections follow; two spaces, where it shows none."""
    steps: Counter[int] = Counter()
    dashes: Counter[int] = Counter()
    quotes: Counter[str] = Counter()
    for root in document.roots:
        for node in walk(root):
            if isinstance(node, Scalar):
                if node.style in {"'", '"'}:
                    quotes[node.style] += 1
            elif isinstance(node, Mapping) and not node.flow:
                _count_indents(document, node, steps, dashes)
    step = _most(steps, 2)
    quote = "'" if quotes["'"] > quotes['"'] else '"'
    is_json = bool(document.roots) and all(map(_is_json, document.roots))
    return Style(max(step, 1), max(_most(dashes, step), 0), document.newline, quote, is_json)


def _is_json(root: Node) -> bool:
    return isinstance(root, Mapping) and root.flow and all(entry.key.style == '"' for entry in root.entries)


def _count_indents(document: Document, node: Mapping, steps: Counter[int], dashes: Counter[int]) -> None:
    column = document.column(node.entries[0].key.start) if node.entries else 0
    for entry in node.entries:
        value = entry.value
        if isinstance(value, Mapping) and not value.flow and value.entries:
            steps[document.column(value.entries[0].key.start) - column] += 1
        elif isinstance(value, Sequence) and not value.flow and value.items:
            dashes[dash_column(document, value) - column] += 1


def _most(counts: Counter[int], otherwise: int) -> int:
    return max(sorted(counts), key=lambda k: counts[k]) if counts else otherwise


def dash_column(document: Document, sequence: Sequence) -> int:
    """Return the column, from 0, of a block sequence's dashes."""
    return document.column(dash(document, sequence, 0))


def dash(document: Document, sequence: Sequence, index: int) -> int:
    """Return the offset of the dash before an item of a block sequence."""
    end = sequence.items[index].start
    start = document.line_start(end)
    while True:
        found = _DASHES.match(document.text, start, end)
        if found is not None:
            return found.start("last")
        # The item starts on a line after its dash, perhaps behind comments.
        end = document.previous_end(start)
        start = document.line_start(end)


def scalar(value: Any, style: Style) -> str:
    """Return a scalar as YAML, quoted unless it is a plain word or a number."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if _WORD.match(value) and value.lower() not in _RESERVED and not style.json:
        return str(value)
    return quoted(value, style.quote)


def quoted(text: str, quote: str) -> str:
    """Return a string in quotes; in double ones, whatever was asked for, where single ones cannot hold it."""
    if quote == "'" and not _UNPRINTABLE.search(text):
        return "'" + text.replace("'", "''") + "'"
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def key(name: str, style: Style = PLAIN) -> str:
    """Return a mapping key as YAML."""
    bare = _KEY.match(name) and name.lower() not in _RESERVED and not style.json
    return name if bare else quoted(name, '"')


def like(text: str, model: Node | None, *, in_flow: bool) -> str:
    """Return an environment item quoted as another one is; bare only where nothing in it can be misread."""
    style = model.style if isinstance(model, Scalar) else None
    if style in {"'", '"'}:
        return quoted(text, style)
    bare = _FLOW_ITEM if in_flow else _LIST_ITEM
    return text if bare.match(text) else quoted(text, '"')


def flow(value: Any, style: Style = PLAIN) -> str:
    """Return a value in flow style, on one line."""
    if isinstance(value, Tagged):
        return f"{value.tag} {flow(value.value, style)}"
    if isinstance(value, dict):
        return "{" + ", ".join(pair(k, v, style) for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(flow(v, style) for v in value) + "]"
    return scalar(value, style)


def flow_copy(document: Document, node: Node, style: Style) -> str:
    """Return a node in flow style, merge keys applied, with its scalars as they are written."""
    real = resolve(node)
    tag = f"{real.tag} " if real.tag in {"!override", "!reset"} else ""
    if isinstance(real, Mapping):
        parts = [f"{key(k, style)}: {flow_copy(document, v, style)}" for k, v in members(real).items()]
        return f"{tag}{{{', '.join(parts)}}}"
    if isinstance(real, Sequence):
        return f"{tag}[{', '.join(flow_copy(document, item, style) for item in real.items)}]"
    if real.plain:
        bare = real.value and not _NOT_BARE.search(real.value) and "\n" not in document.source(real)
        return tag + (real.value if bare else flow(scalar_value(real), style))
    return tag + quoted(real.value, real.style if real.style == "'" else '"')


def pair(name: str, value: Any, style: Style) -> str:
    """Return ``name: value`` in flow style."""
    return f"{key(name, style)}: {flow(value, style)}"


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
        return [f"{key(name)}:{tag}", *(" " * style.dash + line for item in value for line in item_lines(item, style))]
    return [f"{key(name)}:{tag} {flow(value, style)}"]


def item_lines(item: Any, style: Style) -> list[str]:
    """Return one item of a block sequence as lines, the first with its dash at column 0."""
    if not isinstance(item, dict) or not item:
        return [f"- {flow(item, style)}"]
    inner = [line for k, v in item.items() for line in entry_lines(k, v, style)]
    return [f"- {inner[0]}", *(f"  {line}" for line in inner[1:])]
