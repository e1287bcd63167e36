"""A YAML file as text with a tree over it: every node knows the characters it stands on.

PyYAML's parser gives the events, and their marks are code point offsets into the text, with CRLF and astral characters
alike. The tree is built here rather than by PyYAML's composer because an alias must keep its own place (the composer
hands out the anchored node), and because an edit needs to know where a block really ends: PyYAML's end mark of a block
collection runs on to the next token, past comments and blank lines.
"""

from __future__ import annotations

import bisect
import gc
import re
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.errors import GpuallocError, Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

MAX_BYTES = 8 * 1024 * 1024
"""Larger files are refused: the largest real compose files are a few hundred kB."""

MAX_DEPTH = 200
"""Deeper nesting is refused, aliases followed; Compose's own schema is about ten levels deep."""

MAX_EXPANDED = 2_000_000
"""Nodes a document may have once its aliases are followed; more is an alias bomb."""

BREAKS = "\n\r\x85\u2028\u2029"
"""What libyaml, and so Compose's YAML library, takes for the end of a line (libyaml yaml_private.h, IS_BREAK)."""

_BREAK = re.compile(f"\r\n|[{BREAKS}]")
_COLON = re.compile(r"[ \t]*:")
_BLOCK = frozenset("|>")
_QUOTES = frozenset("'\"")
_BLOCK_HEADER = re.compile(r"(?:[&!]\S*[ \t]+)*[|>](?P<indicators>[-+0-9]*)")


@dataclass(slots=True, eq=False)
class Scalar:
    """A scalar; ``plain`` if unquoted. ``start`` includes an anchor or tag, ``end`` is past the last character.

    A block scalar ends with its last line, without the line ending; trailing blank lines are its own under ``+``.
    """

    start: int
    end: int
    value: str
    style: str | None
    anchor: str | None = None
    tag: str | None = None

    @property
    def plain(self) -> bool:
        """Whether YAML gives it a type by its looks."""
        return self.style is None


@dataclass(slots=True, eq=False)
class Entry:
    """A key with its value."""

    key: Scalar
    value: Node


@dataclass(slots=True, eq=False)
class Mapping:
    """A mapping, in block or flow style. ``end`` is the end of its last entry, or past the closing brace."""

    start: int
    end: int
    flow: bool
    entries: list[Entry] = field(default_factory=list)
    anchor: str | None = None
    tag: str | None = None
    index: dict[str, Entry] = field(default_factory=dict)

    def entry(self, key: str) -> Entry | None:
        """Return the entry that is written in this mapping itself, not merged into it."""
        return self.index.get(key)

    def append(self, entry: Entry) -> None:
        """Add an entry; its key must be new."""
        self.entries.append(entry)
        self.index[entry.key.value] = entry


@dataclass(slots=True, eq=False)
class Sequence:
    """A sequence, in block or flow style."""

    start: int
    end: int
    flow: bool
    items: list[Node] = field(default_factory=list)
    anchor: str | None = None
    tag: str | None = None


@dataclass(slots=True, eq=False)
class Alias:
    """A reference to an anchored node."""

    start: int
    end: int
    name: str
    target: Node


Node = Scalar | Mapping | Sequence | Alias
Collection = Mapping | Sequence


@dataclass(slots=True, eq=False)
class Document:
    """A compose file: its name as the user gave it, its text without byte order mark, and a tree per YAML document.

    ``line_starts`` and ``line_ends`` hold offsets, one per line. ``end`` is where the last YAML document ends: at its
    ``...`` if it has one, else at the end of the text.
    """

    file: str
    text: str
    roots: list[Node]
    line_starts: list[int]
    line_ends: list[int]
    end: int

    def place(self, offset: int, path: str = "") -> Place:
        """Return the line and column (both from 1) of an offset into the text."""
        line = self._line(offset)
        return Place(self.file, line + 1, offset - self.line_starts[line] + 1, path)

    def at(self, node: Node, path: str = "") -> Place:
        """Return where a node stands."""
        return self.place(node.start, path)

    def source(self, node: Node) -> str:
        """Return the characters a node stands on."""
        return self.text[node.start : node.end]

    @property
    def newline(self) -> str:
        """The file's line ending, by its first line."""
        if len(self.line_starts) < 2:
            return "\n"
        return self.text[self.line_ends[0] : self.line_starts[1]]

    def _line(self, offset: int) -> int:
        return bisect.bisect_right(self.line_starts, offset) - 1

    def line_start(self, offset: int) -> int:
        """Return the offset at which the line holding ``offset`` starts."""
        return self.line_starts[self._line(offset)]

    def line_end(self, offset: int) -> int:
        """Return the offset at which the line holding ``offset`` ends, before its line ending."""
        return self.line_ends[self._line(offset)]

    def next_line(self, offset: int) -> int:
        """Return the offset at which the line after the one holding ``offset`` starts, or the end of the text."""
        line = self._line(offset) + 1
        return self.line_starts[line] if line < len(self.line_starts) else len(self.text)

    def previous_end(self, offset: int) -> int:
        """Return the offset at which the line before the one holding ``offset`` ends; 0 for the first line."""
        line = self._line(offset)
        return self.line_ends[line - 1] if line else 0

    def column(self, offset: int) -> int:
        """Return the column of an offset, counted from 0."""
        return offset - self.line_start(offset)


def resolve(node: Node) -> Scalar | Mapping | Sequence:
    """Follow aliases to the node they stand for."""
    while isinstance(node, Alias):
        node = node.target
    return node


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and everything written inside it, aliases not followed, in the order of the text."""
    stack: list[Node] = [node]
    while stack:
        current = stack.pop()
        yield current
        if isinstance(current, Mapping):
            for entry in reversed(current.entries):
                stack += (entry.value, entry.key)
        elif isinstance(current, Sequence):
            stack += reversed(current.items)


def parse(text: str, file: str) -> Document:
    """Parse a compose file's text; within ``parsing_once``, the same text only once.

    Raises GpuallocError: ``yaml`` for what is not YAML, ``yaml-key`` for duplicate or non-scalar keys, ``yaml-alias``
    for cycles and bombs, ``yaml-depth``, ``file-size``.
    """
    known = _PARSED.get()
    if known is None:
        return _parse(text, file)
    document = known.get((text, file))
    if document is None:
        document = known[text, file] = _parse(text, file)
    return document


_PARSED: ContextVar[dict[tuple[str, str], Document] | None] = ContextVar("parsed", default=None)


@contextmanager
def parsing_once(*documents: Document) -> Iterator[None]:
    """Parse no text twice: edits are undone to prove that they can be, which gives the texts they were made to.

    ``documents`` are known from the start. The garbage collector waits: it would walk all the trees again and again.
    """
    token = _PARSED.set({(document.text, document.file): document for document in documents})
    try:
        with without_collector():
            yield
    finally:
        _PARSED.reset(token)


def _parse(text: str, file: str) -> Document:
    import yaml  # noqa: PLC0415 - not needed by commands that read no compose file

    if len(text) > MAX_BYTES:
        raise fail("file-size", f"the file has {len(text):,} characters", Place(file), _size_hint())
    starts, ends = [0], []
    for match in _BREAK.finditer(text):
        ends.append(match.start())
        starts.append(match.end())
    ends.append(len(text))
    document = Document(file, text, [], starts, ends, len(text))
    try:
        with without_collector():
            _Builder(document, yaml).build()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(document, error) from None
    except yaml.reader.ReaderError as error:
        where = document.place(text.find(chr(error.character)) if isinstance(error.character, int) else 0)
        raise fail("yaml", f"not YAML: {error.reason}", where, "remove the control character") from None
    return document


@contextmanager
def without_collector() -> Iterator[None]:
    """Keep the garbage collector out while trees grow: it would walk all of them again and again, and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def block_header(source: str) -> re.Match[str] | None:
    """Match the header of a block scalar: ``indicators`` is what follows ``|`` or ``>``. None for other nodes."""
    return _BLOCK_HEADER.match(source)


def _size_hint() -> str:
    return f"gpualloc reads compose files up to {MAX_BYTES // (1024 * 1024)} MiB; is this the right file?"


@dataclass(slots=True, eq=False)
class _Open:
    """A collection whose end has not been read yet. ``size`` and ``depth`` count its content, aliases followed."""

    node: Collection
    key: Scalar | None = None
    size: int = 1
    depth: int = 0


class _Builder:
    """Builds the trees from the parser's events, with a stack, so that nesting cannot exhaust Python's own."""

    def __init__(self, document: Document, yaml: ModuleType) -> None:
        self.document = document
        self.yaml = yaml
        self.anchors: dict[str, Node] = {}
        self.extents: dict[int, tuple[int, int]] = {}
        self.stack: list[_Open] = []

    def build(self) -> None:
        yaml = self.yaml
        scalar = yaml.ScalarEvent
        handlers = {
            yaml.MappingStartEvent: self.mapping,
            yaml.SequenceStartEvent: self.sequence,
            yaml.AliasEvent: self.alias,
            yaml.MappingEndEvent: self.close,
            yaml.SequenceEndEvent: self.close,
            yaml.DocumentStartEvent: self.document_start,
            yaml.DocumentEndEvent: self.document_end,
        }
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(self.document.text)
        try:
            while True:
                event = loader.get_event()
                kind = type(event)
                if kind is scalar:
                    self.scalar(event, event.start_mark.index, event.end_mark.index)
                elif kind in handlers:
                    handlers[kind](event, event.start_mark.index, event.end_mark.index)
                elif kind is yaml.StreamEndEvent:
                    return
        finally:
            loader.dispose()

    def document_start(self, _event: object, _start: int, _end: int) -> None:
        self.anchors.clear()
        self.document.end = len(self.document.text)

    def document_end(self, event: Any, start: int, _end: int) -> None:
        if event.explicit:
            self.document.end = start

    def scalar(self, event: Any, start: int, end: int) -> None:
        style = event.style
        if style in _BLOCK:
            end = _block_scalar_end(self.document, start, end, event.value)
        elif style not in _QUOTES:
            style = None
        node = Scalar(start, end, event.value, style, event.anchor, event.tag)
        if event.anchor:
            self.anchors[event.anchor] = node
            self.extents[id(node)] = 1, 0
        if not self.stack:
            self.document.roots.append(node)
            return
        # What follows is put() and count() for the commonest case: most of a file is scalars in mappings.
        parent = self.stack[-1]
        holder = parent.node
        parent.size += 1
        if isinstance(holder, Sequence):
            holder.items.append(node)
        elif parent.key is None:
            parent.key = node if node.tag is None and node.value not in holder.index else self.key(holder, node)
        else:
            if start == end:
                self.settle(parent.key, node)
            entry = Entry(parent.key, node)
            holder.entries.append(entry)
            holder.index[parent.key.value] = entry
            parent.key = None

    def mapping(self, event: Any, start: int, end: int) -> None:
        self.open(Mapping(start, end, bool(event.flow_style), anchor=event.anchor, tag=event.tag))

    def sequence(self, event: Any, start: int, end: int) -> None:
        self.open(Sequence(start, end, bool(event.flow_style), anchor=event.anchor, tag=event.tag))

    def open(self, node: Collection) -> None:
        if node.anchor:
            self.anchors[node.anchor] = node
        self.add(node, 0, 0)
        self.stack.append(_Open(node))
        if len(self.stack) > MAX_DEPTH:
            raise self.too_deep(node)

    def close(self, _event: object, _start: int, end: int) -> None:
        done = self.stack.pop()
        node = done.node
        if done.size > 1:
            done.depth = max(done.depth, 1)
        if node.flow:
            node.end = end
        elif isinstance(node, Mapping):
            node.end = node.entries[-1].value.end if node.entries else node.end
        else:
            node.end = node.items[-1].end if node.items else node.end
        if node.anchor:
            self.extents[id(node)] = done.size, done.depth
        if self.stack:
            self.count(node, done.size, done.depth)

    def alias(self, event: Any, start: int, end: int) -> None:
        name = event.anchor
        target = self.anchors.get(name)
        where = self.document.place(start)
        if target is None:
            raise fail("yaml-alias", f"the alias *{name} has no anchor before it", where, f"define &{name} further up")
        if id(target) not in self.extents:
            raise fail("yaml-alias", f"the alias *{name} contains itself", where, "Compose cannot load such a file")
        self.add(Alias(start, end, name, target), *self.extents[id(target)])

    def add(self, node: Node, size: int, depth: int) -> None:
        if not self.stack:
            self.document.roots.append(node)
            return
        parent = self.stack[-1]
        if isinstance(parent.node, Sequence):
            parent.node.items.append(node)
        elif parent.key is None:
            parent.key = self.key(parent.node, node)
        else:
            parent.node.append(Entry(parent.key, node))
            parent.key = None
        self.count(node, size, depth)

    def settle(self, key: Scalar, node: Scalar) -> None:
        """Put a value that is not there behind its colon: the parser marks it by what comes next."""
        colon = _COLON.match(self.document.text, key.end)
        node.start = node.end = colon.end() if colon else key.end

    def count(self, node: Node, size: int, depth: int) -> None:
        """Add what a node holds, aliases followed, to the collection it stands in, and refuse bombs."""
        parent = self.stack[-1]
        parent.size += size
        parent.depth = max(parent.depth, depth + 1)
        if parent.size > MAX_EXPANDED:
            raise fail(
                "yaml-alias",
                f"following the aliases gives more than {MAX_EXPANDED:,} nodes",
                self.document.at(node),
                "such a file is an alias bomb; Compose refuses it too",
            )
        if len(self.stack) + depth > MAX_DEPTH:
            raise self.too_deep(node)

    def too_deep(self, node: Node) -> GpuallocError:
        return fail("yaml-depth", f"nested more than {MAX_DEPTH} levels deep", self.document.at(node), _size_hint())

    def key(self, parent: Mapping, node: Node) -> Scalar:
        scalar = resolve(node)
        if not isinstance(scalar, Scalar):
            raise fail("yaml-key", "a key must be a plain name", self.document.at(node), "Compose has no such keys")
        first = parent.entry(scalar.value)
        if first is not None:
            raise fail(
                "yaml-key",
                f"the key {scalar.value!r} stands twice in one mapping, first at {self.document.at(first.key)}",
                self.document.at(node),
                "keep one of the two" if scalar.value != "<<" else "write one key: <<: [*first, *second]",
            )
        return Scalar(
            node.start, node.end, scalar.value, scalar.style, anchor=scalar.anchor if node is scalar else None
        )


def _block_scalar_end(document: Document, start: int, end: int, value: str) -> int:
    """Return where a block scalar's last line ends; PyYAML's mark runs on past the blank lines after it."""
    header = block_header(document.text[start:end])
    first = document.next_line(start)
    content = value.rstrip("\n")
    if header is not None and "+" in header["indicators"]:
        # All that was read is content; the last line ending separates it from what follows.
        return document.previous_end(end) if document.line_start(end) == end else end
    if not content:
        return document.line_end(start)
    last = content[content.rfind("\n") + 1 :]
    position = end
    while position > first:
        line = document.line_start(position - 1)
        line_end = min(document.line_end(line), end)
        text = document.text[line:line_end]
        # A last line of blanks only, deeper than the block, is content; other blank lines are not.
        if text.strip(" \t") or (not last.strip(" \t") and len(text) > len(last) and text.endswith(last)):
            return line_end
        position = line
    return document.line_end(start)


def _syntax_error(document: Document, error: Exception) -> GpuallocError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = document.place(mark.index) if mark else Place(document.file)
    problem = getattr(error, "problem", None) or str(error)
    line = document.text[document.line_start(mark.index) : document.line_end(mark.index)] if mark else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in problem:
        return fail("yaml", "a tab indents this line", where, "YAML is indented with spaces only")
    return fail("yaml", f"not YAML: {problem}", where, "`docker compose config` reads the same file: does it agree?")
