"""A YAML file as text with a tree over it: every node knows the characters it stands on.

PyYAML's parser gives the events, and their marks are code point offsets into the text, with CRLF and astral characters
alike. The tree is built here rather than by PyYAML's composer because an alias must keep its own place (the composer
hands out the anchored node), and because an edit needs to know where a block really ends: PyYAML's end mark of a block
collection runs on to the next token, past comments and blank lines.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

from gpualloc.errors import GpuallocError, Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 8 * 1024 * 1024
"""Larger files are refused: the largest real compose files are a few hundred kB."""

MAX_DEPTH = 200
"""Deeper nesting is refused; Compose's own schema is about ten levels deep."""

MAX_EXPANDED = 2_000_000
"""Nodes a document may have once its aliases are followed; more is an alias bomb."""


@dataclass(slots=True, eq=False)
class Scalar:
    """A scalar; ``plain`` if unquoted. ``start`` includes an anchor or tag, ``end`` is past the last character."""

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


Node = Union[Scalar, Mapping, Sequence, Alias]
Collection = Union[Mapping, Sequence]


@dataclass(slots=True, eq=False)
class Document:
    """A compose file: its name as the user gave it, its text without byte order mark, and a tree per YAML document."""

    file: str
    text: str
    roots: list[Node]
    line_starts: list[int]

    def place(self, offset: int, path: str = "") -> Place:
        """Return the line and column (both from 1) of an offset into the text."""
        line = bisect.bisect_right(self.line_starts, offset)
        return Place(self.file, line, offset - self.line_starts[line - 1] + 1, path)

    def at(self, node: Node, path: str = "") -> Place:
        """Return where a node stands."""
        return self.place(node.start, path)

    def source(self, node: Node) -> str:
        """Return the characters a node stands on."""
        return self.text[node.start : node.end]

    @property
    def newline(self) -> str:
        """The file's line ending, by its first line."""
        end = self.text.find("\n")
        return "\r\n" if end > 0 and self.text[end - 1] == "\r" else "\n"

    def line_start(self, offset: int) -> int:
        """Return the offset at which the line holding ``offset`` starts."""
        return self.line_starts[bisect.bisect_right(self.line_starts, offset) - 1]

    def line_end(self, offset: int) -> int:
        """Return the offset of the line ending after ``offset``, before its CR or LF, or the end of the text."""
        end = self.text.find("\n", offset)
        if end < 0:
            return len(self.text)
        return end - 1 if end > offset and self.text[end - 1] == "\r" else end

    def column(self, offset: int) -> int:
        """Return the column of an offset, counted from 0."""
        return offset - self.line_start(offset)


def resolve(node: Node) -> Scalar | Mapping | Sequence:
    """Follow aliases to the node they stand for."""
    while isinstance(node, Alias):
        node = node.target
    return node


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and everything written inside it, aliases not followed."""
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
    """Parse a compose file's text.

    Raises GpuallocError: ``yaml`` for what is not YAML, ``yaml-key`` for duplicate or non-scalar keys, ``yaml-alias``
    for cycles and bombs, ``yaml-depth``, ``file-size``.
    """
    import yaml  # noqa: PLC0415 - not needed by commands that read no compose file

    if len(text) > MAX_BYTES:
        raise fail("file-size", f"the file has {len(text):,} characters", Place(file), _size_hint())
    starts = [0]
    position = text.find("\n")
    while position >= 0:
        starts.append(position + 1)
        position = text.find("\n", position + 1)
    document = Document(file, text, [], starts)
    try:
        _Builder(document, yaml).build()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(document, error) from None
    except yaml.reader.ReaderError as error:
        where = document.place(text.find(chr(error.character)) if isinstance(error.character, int) else 0)
        raise fail("yaml", f"not YAML: {error.reason}", where, "remove the control character") from None
    _check_expansion(document)
    return document


def _size_hint() -> str:
    return f"gpualloc reads compose files up to {MAX_BYTES // (1024 * 1024)} MiB; is this the right file?"


class _Builder:
    """Builds the trees from the parser's events, with a stack, so that nesting cannot exhaust Python's own."""

    def __init__(self, document: Document, yaml) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - the module, imported late
        self.document = document
        self.yaml = yaml
        self.anchors: dict[str, Node] = {}
        self.stack: list[Collection] = []
        self.keys: list[Scalar | None] = []

    def build(self) -> None:
        yaml = self.yaml
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        for event in yaml.parse(self.document.text, Loader=loader):
            start, end = event.start_mark.index, event.end_mark.index
            kind = type(event)
            if kind is yaml.ScalarEvent:
                style = event.style if event.style in ("'", '"', "|", ">") else None
                if style in ("|", ">"):
                    end = self.block_scalar_end(start, end)
                self.add(Scalar(start, end, event.value, style, event.anchor, event.tag), event.anchor)
            elif kind is yaml.MappingStartEvent:
                self.push(Mapping(start, end, bool(event.flow_style), anchor=event.anchor, tag=event.tag))
            elif kind is yaml.SequenceStartEvent:
                self.push(Sequence(start, end, bool(event.flow_style), anchor=event.anchor, tag=event.tag))
            elif kind is yaml.AliasEvent:
                self.alias(event.anchor, start, end)
            elif kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
                self.pop(end)
            elif kind is yaml.DocumentStartEvent:
                self.anchors.clear()

    def block_scalar_end(self, start: int, end: int) -> int:
        """Return the end of a block scalar's last line: trailing blank lines are its own only under ``+``."""
        text = self.document.text[start:end]
        if "+" in text.split("\n", 1)[0].split("#", 1)[0]:
            return end - 1 if text.endswith("\n") else end
        return start + len(text.rstrip())

    def alias(self, name: str, start: int, end: int) -> None:
        target = self.anchors.get(name)
        where = self.document.place(start)
        if target is None:
            raise fail("yaml-alias", f"the alias *{name} has no anchor before it", where, f"define &{name} further up")
        if any(target is open_ for open_ in self.stack):
            raise fail("yaml-alias", f"the alias *{name} contains itself", where, "Compose cannot load such a file")
        self.add(Alias(start, end, name, target), None)

    def add(self, node: Node, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = node
        if not self.stack:
            self.document.roots.append(node)
            return
        parent = self.stack[-1]
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif self.keys[-1] is None:
            self.keys[-1] = self.key(parent, node)
        else:
            parent.append(Entry(self.keys[-1], node))
            self.keys[-1] = None

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
        return Scalar(node.start, node.end, scalar.value, scalar.style)

    def push(self, node: Collection) -> None:
        self.add(node, node.anchor)
        self.stack.append(node)
        self.keys.append(None)
        if len(self.stack) > MAX_DEPTH:
            raise fail("yaml-depth", f"nested more than {MAX_DEPTH} levels deep", self.document.at(node), _size_hint())

    def pop(self, end: int) -> None:
        node = self.stack.pop()
        self.keys.pop()
        if node.flow:
            node.end = end
        elif isinstance(node, Mapping):
            node.end = node.entries[-1].value.end if node.entries else node.end
        else:
            node.end = node.items[-1].end if node.items else node.end


def _syntax_error(document: Document, error: Exception) -> GpuallocError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = document.place(mark.index) if mark else Place(document.file)
    problem = getattr(error, "problem", None) or str(error)
    line = document.text[document.line_start(mark.index) : document.line_end(mark.index)] if mark else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in problem:
        return fail("yaml", "a tab indents this line", where, "YAML is indented with spaces only")
    return fail("yaml", f"not YAML: {problem}", where, "`docker compose config` reads the same file: does it agree?")


def _check_expansion(document: Document) -> None:
    """Refuse documents whose aliases multiply: sizes are summed once per node, so the check itself is linear."""
    sizes: dict[int, int] = {}
    for root in document.roots:
        order = list(walk(root))
        for node in reversed(order):
            if isinstance(node, Mapping):
                size = 1 + sum(1 + sizes[id(e.value)] for e in node.entries)
            elif isinstance(node, Sequence):
                size = 1 + sum(sizes[id(i)] for i in node.items)
            else:
                size = 1
            sizes[id(node)] = size
        # An anchor always stands before its aliases, so one pass in document order can add what they stand for.
        _check_aliases(document, order, sizes)


def _check_aliases(document: Document, order: list[Node], sizes: dict[int, int]) -> None:
    expanded: dict[int, int] = {}
    aliases = [n for n in order if isinstance(n, Alias)]
    total = sizes[id(order[0])] if order else 0
    starts = [a.start for a in aliases]
    for alias in aliases:
        target = resolve(alias)
        if id(target) not in expanded:
            first, last = bisect.bisect_left(starts, target.start), bisect.bisect_left(starts, target.end)
            inner = sum(expanded[id(resolve(a))] for a in aliases[first:last])
            expanded[id(target)] = sizes[id(target)] + inner
        total += expanded[id(target)]
        if total > MAX_EXPANDED:
            raise fail(
                "yaml-alias",
                f"following the aliases gives more than {MAX_EXPANDED:,} nodes",
                document.at(alias),
                "such a file is an alias bomb; Compose refuses it too",
            )
