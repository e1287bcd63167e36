"""Cutting and pasting in a document's text, with the care that YAML's layout needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.compose import emit
from gpualloc.compose.document import BREAKS, Alias, Mapping, Scalar, Sequence, walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Sequence as Seq

    from gpualloc.compose.document import Collection, Document, Node

_LINE = re.compile(f"(\r\n|[{BREAKS}])( *)(?=[^{BREAKS}])")
_COMMENT = re.compile(f"(?:(?<=[ \t{BREAKS}])|^)#[^{BREAKS}]*")


@dataclass(frozen=True, slots=True)
class Splice:
    """Replace the characters from ``start`` to ``end``. ``depth`` orders insertions at one offset: deepest first."""

    start: int
    end: int
    text: str
    depth: int = 0


def apply_splices(text: str, splices: Iterable[Splice]) -> str:
    """Return the text with all splices applied; overlapping ones are a ValueError."""
    parts: list[str] = []
    position = 0
    for splice in sorted(splices, key=lambda s: (s.start, s.end, -s.depth)):
        if splice.start < position:
            raise ValueError("splices overlap")
        parts += (text[position : splice.start], splice.text)
        position = splice.end
    parts.append(text[position:])
    return "".join(parts)


def line_after(document: Document, offset: int, column: int) -> int:
    """Return where a new line at ``column`` goes, after what ends at ``offset``: past the comments that belong to that.

    A comment line that is indented deeper than the new line belongs to what stands above it.
    """
    position = document.line_end(offset)
    line = position
    while (start := document.next_line(line)) > line:
        end = document.line_end(start)
        text = document.text[start:end]
        content = text.lstrip(" ")
        if content.startswith("#") and len(text) - len(content) > column:
            position = end
        elif content.strip() or end == len(document.text):
            break
        line = start
    return position


def insert_flow(document: Document, node: Collection, pieces: Seq[str]) -> Splice:
    """Return the splice that adds pieces at the end of a flow collection, on lines of their own where it has those."""
    if isinstance(node, Mapping):
        spans = [(entry.key.start, entry.value.start, entry.value.end) for entry in node.entries]
    else:
        spans = [(item.start, item.start, item.end) for item in node.items]
    if not spans:
        offset = node.end - 1
        return Splice(offset, offset, ", ".join(pieces))
    start, value, end = spans[-1]
    indent = document.text[document.line_start(start) : start]
    rest = document.text[end : document.line_end(end)].strip(" \t,")
    own_lines = not indent.strip() and not rest and document.line_start(start) > node.start
    separator = f",{document.newline}{indent}" if own_lines else ", "
    space = " " if value == end else ""  # after a key without value, the comma would be read as part of it
    return Splice(end, end, space + "".join(separator + piece for piece in pieces), 1)


def cut(document: Document, parent: Collection, gone: Seq[bool], kept: Seq[Seq[str]]) -> Iterator[Splice]:
    """Yield the splices that remove some, not all, children of a collection.

    ``gone`` says which; ``kept`` holds for each the comments that stay behind, on lines of their own.
    """
    if isinstance(parent, Mapping):
        spans = [(entry.key.start, entry.value.end) for entry in parent.entries]
    else:
        spans = [(item.start, item.end) for item in parent.items]
    first = gone.index(False)
    shares_line = bool(document.text[document.line_start(spans[0][0]) : spans[0][0]].strip())
    together = first and (parent.flow or (isinstance(parent, Mapping) and shares_line))
    if together:  # what stays moves up to where the collection starts
        yield Splice(spans[0][0], spans[first][0], "")
    for index in range(first if together else 0, len(spans)):
        if not gone[index]:
            continue
        start, end = spans[index]
        if parent.flow:
            gap = document.text[spans[index - 1][1] : start]
            # a key without value needs a blank behind its colon, or what follows would be read as part of it
            rest = " " if document.text[spans[index - 1][1] - 1] == ":" else ""
            yield Splice(spans[index - 1][1], end, gap.replace(",", "", 1).rstrip(" ") if "#" in gap else rest)
            continue
        if isinstance(parent, Sequence):
            start = emit.dash(document, parent, index)
        line = document.line_start(start)
        lead = document.newline + " " * (start - line)
        text = "".join(lead + comment for comment in kept[index])
        yield Splice(document.previous_end(line), document.line_end(end), text)


def reindent(text: str, shift: int) -> str:
    """Return a block with all lines but the first moved sideways: to the left no further than they can go.

    Lines of blanks move too: they may be part of a block scalar. Empty lines stay empty.
    """
    if shift >= 0:
        return _LINE.sub(lambda match: f"{match[1]}{' ' * shift}{match[2]}", text)
    return _LINE.sub(lambda match: f"{match[1]}{match[2][-shift:]}", text)


def comments(document: Document, nodes: Iterable[Node], start: int, end: int) -> Iterator[str]:
    """Yield the comments between ``start`` and ``end``, given the nodes that stand there."""
    leaves = (leaf for node in nodes for leaf in walk(node) if isinstance(leaf, (Scalar, Alias)))
    spans = sorted((leaf.start, leaf.end) for leaf in leaves)
    position = start
    for leaf_start, leaf_end in [*spans, (end, end)]:
        if leaf_start > position:
            gap = document.text[position : min(leaf_start, end)]
            yield from (match[0].rstrip() for match in _COMMENT.finditer(gap))
        position = max(position, leaf_end)
