"""YAML text in random styles: nodes that carry every choice of layout, and how they are written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Raw:
    """A scalar or alias, as it stands in the text."""

    text: str
    value: Any = None


@dataclass
class Lines:
    """A block scalar: its indicator (``|``, ``>-``, ``|2+``, …) and lines; ``indent`` is relative to the parent."""

    indicator: str
    lines: list[str]
    indent: int


@dataclass
class Pair:
    """An entry: the key as written, its value, comment lines above and a comment behind."""

    key: str
    value: Node
    above: list[str] = field(default_factory=list)
    behind: str = ""


@dataclass
class Map:
    """A mapping. ``step``: spaces from its key; ``own_line``: anchor and tag stand on a line of their own."""

    pairs: list[Pair]
    flow: bool = False
    spread: bool = False
    step: int = 2
    anchor: str = ""
    tag: str = ""
    own_line: bool = False
    below: list[str] = field(default_factory=list)


@dataclass
class Seq:
    """A sequence. ``step``: spaces from its key to the dash."""

    items: list[Node]
    flow: bool = False
    spread: bool = False
    step: int = 2
    anchor: str = ""
    tag: str = ""
    own_line: bool = False
    below: list[str] = field(default_factory=list)


Node = Raw | Lines | Map | Seq


def properties(node: Node) -> str:
    """Return a node's tag and anchor as written."""
    if isinstance(node, (Map, Seq)):
        return " ".join(filter(None, (f"&{node.anchor}" if node.anchor else "", node.tag)))
    return ""


def flow(node: Node, column: int) -> str:
    """Return a node in flow style; a spread one has a line for each child, at ``column`` plus two."""
    if isinstance(node, Raw):
        return node.text
    if isinstance(node, Lines):
        return json.dumps("\n".join(node.lines))
    head = properties(node)
    if isinstance(node, Map):
        parts = [f"{p.key}: {flow(p.value, column + 2)}" for p in node.pairs]
        ends = "{}"
    else:
        parts = [flow(item, column + 2) for item in node.items]
        ends = "[]"
    if node.spread and parts:
        line = "\n" + " " * (column + 2)
        body = line + f",{line}".join(parts) + "\n" + " " * column
    else:
        body = ", ".join(parts)
    return f"{head} {ends[0]}{body}{ends[1]}".lstrip()


def is_block(node: Node) -> bool:
    """Return whether a node is written on lines below its key."""
    return (isinstance(node, Map) and bool(node.pairs) and not node.flow) or (
        isinstance(node, Seq) and bool(node.items) and not node.flow
    )


def _comment_lines(comments: list[str], column: int) -> Iterator[str]:
    for comment in comments:
        # "" is an empty line; a leading > is for each two spaces deeper, < for column 0.
        depth = len(comment) - len(comment.lstrip(">"))
        text = comment.lstrip("><")
        at = 0 if comment.startswith("<") else column + 2 * depth
        yield " " * at + text if text else ""


def block(node: Node, column: int) -> Iterator[str]:
    """Yield a block collection's lines, its keys or dashes at ``column``."""
    if isinstance(node, Map):
        for pair in node.pairs:
            yield from _comment_lines(pair.above, column)
            first, *rest = child(pair.value, column, pair.behind)
            yield " " * column + f"{pair.key}:{first}"
            yield from rest
        yield from _comment_lines(node.below, column)
    elif isinstance(node, Seq):
        for item in node.items:
            if isinstance(item, Map) and is_block(item) and not properties(item) and not item.pairs[0].above:
                lines = list(block(item, column + 2))
                yield " " * column + "- " + lines[0][column + 2 :]
                yield from lines[1:]
            else:
                first, *rest = child(item, column, "")
                yield " " * column + "-" + first
                yield from rest
        yield from _comment_lines(node.below, column)


def child(node: Node, column: int, behind: str) -> Iterator[str]:
    """Yield what follows ``key:`` or a dash at ``column``: the rest of that line, then whole lines."""
    comment = f"  {behind}" if behind else ""
    if isinstance(node, Lines):
        yield f" {node.indicator}{comment}"
        yield from (" " * (column + node.indent) + line if line else "" for line in node.lines)
    elif is_block(node) and isinstance(node, (Map, Seq)):
        head = properties(node)
        inner = column + node.step
        if head and node.own_line:
            yield comment
            yield " " * max(inner, column + 1) + head
        else:
            yield (f" {head}" if head else "") + comment
        yield from block(node, inner)
    else:
        text = flow(node, column)
        yield (f" {text}" if text else "") + comment


def plain(node: Node, resolve: Callable[[str], Any]) -> Any:
    """Return what a tree without merge keys means; used for files that are JSON."""
    if isinstance(node, Raw):
        return resolve(node.text)
    if isinstance(node, Lines):
        return "\n".join(node.lines)
    if isinstance(node, Map):
        return {pair.key.strip("\"'"): plain(pair.value, resolve) for pair in node.pairs}
    return [plain(item, resolve) for item in node.items]
