"""Local stand-ins for what a service inherits, so that an edit touches no node that another service sees.

A value that comes through an alias or a merge key becomes the service's own: a mapping that merges the anchor where
that will do, else a copy of the block.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpualloc.compose import emit
from gpualloc.compose.data import digest, is_empty, is_merge, members, merge_sources, plain
from gpualloc.compose.document import (
    Alias,
    Document,
    Mapping,
    Node,
    Scalar,
    Sequence,
    block_header,
    parse,
    resolve,
    walk,
)
from gpualloc.compose.route import Inherited, own, services_of
from gpualloc.compose.splice import Splice, apply_splices, insert_flow, line_after, reindent
from gpualloc.errors import fail

if TYPE_CHECKING:
    from collections.abc import Mapping as MappingType
    from collections.abc import Sequence as Seq

    from gpualloc.compose.route import Edit, Inverse, Path

_ENVIRONMENT = ("environment",)
_ROUNDS = 32
"""Localising one level can reveal another behind it; paths are shorter than this."""


def localise(document: Document, edits: Seq[Edit], inverses: MappingType[str, Inverse]) -> Document:
    """Return the document with a local stand-in for everything on the edits' paths that is inherited.

    Raises GpuallocError (``cannot-edit``) where the file's shape leaves no place for one.
    """
    for _ in range(_ROUNDS):
        localiser = _Localiser(document, edits)
        found: dict[tuple[str, Path], _StandIn] = {}
        for edit in edits:
            stand_in = localiser.localise(edit)
            if stand_in is not None:
                found.setdefault((edit.service, stand_in.path), stand_in)
        if not found:
            break
        for (service, path), stand_in in found.items():
            if stand_in.original is not None:
                inverses[service].remember(path, stand_in.original)
            if stand_in.inherited is not None:
                inverses[service].inherits.setdefault(path, stand_in.inherited)
        document = parse(apply_splices(document.text, [s.splice for s in found.values()]), document.file)
    return document


@dataclass(frozen=True, slots=True)
class _StandIn:
    """A splice that makes one level of a path the service's own, and how it is undone."""

    path: Path
    splice: Splice
    inherited: Inherited | None = None
    original: str | None = None


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a stand-in goes: the column of its key, an offset near it, and whether that is in flow style.

    ``inline``: behind a dash, where a block starts on the same line, at ``column``.
    """

    column: int
    offset: int
    in_flow: bool
    inline: bool = False


@dataclass(frozen=True, slots=True)
class _Block:
    """The text of a stand-in: behind a key, or with ``below`` from the end of the key's line on.

    Without a digest it follows the anchor it merges. ``tag`` goes first, with a space before it.
    """

    text: str
    below: bool
    digest: str | None
    tag: str = ""


@dataclass(slots=True)
class AnchorIndex:
    """Which node an alias would stand for: per YAML document and name, the anchors in the order of the text."""

    starts: list[int] = field(default_factory=list)
    by_name: list[dict[str, list[Scalar | Mapping | Sequence]]] = field(default_factory=list)

    @classmethod
    def of(cls, document: Document) -> AnchorIndex:
        """Return the index of a document."""
        index = cls()
        for root in document.roots:
            names: dict[str, list[Scalar | Mapping | Sequence]] = {}
            for node in walk(root):
                if not isinstance(node, Alias) and node.anchor:
                    names.setdefault(node.anchor, []).append(node)
            index.starts.append(root.start)
            index.by_name.append(names)
        return index

    def find(self, name: str, before: int) -> Scalar | Mapping | Sequence | None:
        """Return the node that an alias of this name at an offset would stand for."""
        number = bisect.bisect_right(self.starts, before) - 1
        nodes = self.by_name[number].get(name, []) if number >= 0 else []
        return next((node for node in reversed(nodes) if node.start < before), None)


class _Localiser:
    """Finds what an edit's path inherits, and writes the stand-in."""

    def __init__(self, document: Document, edits: Seq[Edit]) -> None:
        self.document = document
        self.style = emit.style_of(document)
        self.anchors = AnchorIndex.of(document)
        self.edited: dict[int, str] = {}
        for service, key in dict.fromkeys((edit.service, str(edit.path[0])) for edit in edits if len(edit.path) > 1):
            _, services = services_of(document, service)
            entry = services.entry(service)
            value = entry.value if entry is not None else None
            block = value.entry(key) if isinstance(value, Mapping) else None
            if block is not None:
                self.edited.update((id(node), service) for node in walk(block.value))

    def localise(self, edit: Edit) -> _StandIn | None:
        """Return the first level of the path that is not the service's own, as a splice; None where all of it is."""
        root, services = services_of(self.document, edit.service)
        if isinstance(root, Mapping) and isinstance(root.index["services"].value, Alias):
            hint = "write the services out under services:; nothing was written"
            raise fail("cannot-edit", "services is an alias", self.document.at(root.index["services"].value), hint)
        entry = services.entry(edit.service)
        if entry is None:
            return self.merged_service(services, edit.service)
        node: Node = entry.value
        if isinstance(node, Alias):
            return self.aliased_service(services, node, self.document.column(entry.key.start))
        for depth in range(len(edit.path) - 1):
            path = edit.path[: depth + 1]
            child = own(node, path[-1:])
            if child is None:
                return self.merged(node, path, edit.service) if isinstance(node, Mapping) else None
            if isinstance(child, Alias):
                return self.aliased(node, child, path, edit.service)
            node = child
        return self.flattened(node, edit)

    def merged_service(self, services: Mapping, service: str) -> _StandIn:
        """Give a service that a merge key brings into ``services`` an entry of its own."""
        inherited = members(services)[service]
        block = self.stand_in(inherited, self.end_of(services), service, merge=True)
        return _StandIn((), self.insert(services, service, block), Inherited(None, block.digest))

    def aliased_service(self, services: Mapping, alias: Alias, column: int) -> _StandIn | None:
        """Let a service that is an alias merge the anchor instead."""
        if not isinstance(resolve(alias), Mapping) or is_empty(alias):
            return None
        block = self.merge(alias.name, _Spot(column, alias.start, services.flow), "")
        splice = self.replace(alias, block)
        return _StandIn((), splice, Inherited(self.document.text[alias.start : splice.end], None))

    def aliased(self, parent: Node, alias: Alias, path: Path, service: str) -> _StandIn | None:
        """Give a mapping or sequence a value of its own in the place of an alias."""
        if is_empty(alias):
            return None
        if isinstance(parent, Mapping):
            start = parent.index[str(path[-1])].key.start
            spot = _Spot(self.document.column(start), alias.start, parent.flow)
        elif isinstance(parent, Sequence):
            start = alias.start
            spot = _Spot(self.document.column(start), start, parent.flow, inline=True)
        else:
            return None
        block = self.stand_in(alias, spot, service, merge=path == _ENVIRONMENT)
        splice = self.replace(alias, block)
        return _StandIn(path, splice, Inherited(self.document.text[start : splice.end], block.digest))

    def merged(self, parent: Mapping, path: Path, service: str) -> _StandIn | None:
        """Give a mapping its own entry for what a merge key brings into it; None where that is nothing."""
        step = str(path[-1])
        inherited = members(parent).get(step)
        if inherited is None or is_empty(inherited):
            return None
        block = self.stand_in(inherited, self.end_of(parent), service, merge=path == _ENVIRONMENT)
        return _StandIn(path, self.insert(parent, step, block), Inherited(None, block.digest))

    def flattened(self, node: Node, edit: Edit) -> _StandIn | None:
        """Write a mapping without its merge keys where one of them supplies the key that an edit must remove."""
        if edit.replaces is None or not isinstance(node, Mapping):
            return None
        merged = (source for entry in node.entries if is_merge(entry.key) for source in merge_sources(entry.value))
        if not any(edit.replaces in members(source) for source in merged):
            return None
        start, end = node.entries[0].key.start, node.entries[-1].value.end
        original = self.document.source(node)
        pairs = [
            f"{emit.key(key, self.style)}: {emit.flow_copy(self.document, value, self.style)}"
            for key, value in members(node).items()
        ]
        text = ", ".join(pairs) if node.flow else self.break_line(self.document.column(start)).join(pairs)
        return _StandIn(edit.path[:-1], Splice(start, end, text), original=original)

    def end_of(self, parent: Mapping) -> _Spot:
        return _Spot(self.document.column(parent.entries[0].key.start), parent.end, parent.flow)

    def break_line(self, column: int) -> str:
        return self.style.newline + " " * column

    def insert(self, parent: Mapping, step: str, block: _Block) -> Splice:
        text = f"{emit.key(step, self.style)}:{block.tag}{'' if block.below else ' '}{block.text}"
        if parent.flow:
            return insert_flow(self.document, parent, [text])
        column = self.document.column(parent.entries[0].key.start)
        offset = line_after(self.document, parent.end, column)
        return Splice(offset, offset, self.break_line(column) + text, 2 * column)

    def replace(self, alias: Alias, block: _Block) -> Splice:
        """Put a stand-in in the place of an alias: a block goes below its key, and a comment stays beside that."""
        start, end = alias.start, alias.end
        if not block.below:
            return Splice(start, end, f"{block.tag} {block.text}".lstrip(" "))
        while self.document.text[start - 1] == " ":
            start -= 1
        comment = self.document.text[end : self.document.line_end(end)]
        if not comment.lstrip().startswith("#"):
            comment = ""
        return Splice(start, end + len(comment), block.tag + comment + block.text)

    def stand_in(self, node: Node, at: _Spot, service: str, *, merge: bool) -> _Block:
        """Return what follows ``key:`` for an inherited value: a merge of its anchor, or a copy."""
        real = resolve(node)
        name = real.anchor
        mergeable = isinstance(real, Mapping) and self.edited.get(id(real), service) == service
        if merge and mergeable and name and self.anchors.find(name, at.offset) is real:
            return self.merge(name, at, _tag(real))
        block = self.copy(real, at) if not at.in_flow and self.can_be_copied(real, at.offset) else None
        text = emit.flow_copy(self.document, real, self.style)
        return block or _Block(text, below=False, digest=digest(plain(real)))

    def merge(self, name: str, at: _Spot, tag: str) -> _Block:
        """Return a mapping of nothing but a merge key."""
        merged = f"<<: *{name}"
        if at.in_flow:
            return _Block(f"{{{merged}}}", below=False, digest=None, tag=tag)
        return _Block(self.break_line(at.column + self.style.step) + merged, below=True, digest=None, tag=tag)

    def can_be_copied(self, node: Node, offset: int) -> bool:
        """Return whether a block's text means the same at ``offset``.

        Its aliases may stand for other nodes there, since names can be given twice; and a block scalar at its end takes
        blank lines, or the end of the file, for its own.
        """
        inner = list(walk(node))
        last = inner[-1]
        if isinstance(last, Scalar) and last.style in {"|", ">"}:
            header = block_header(self.document.source(last))
            if (
                header is None
                or "+" in header["indicators"]
                or self.document.line_ends[-1] > self.document.line_starts[-1]
            ):
                return False
        aliases = (one for one in inner if isinstance(one, Alias))
        return all(self.anchors.find(alias.name, offset) is resolve(alias) for alias in aliases)

    def copy(self, node: Scalar | Mapping | Sequence, at: _Spot) -> _Block | None:
        """Return a block collection's source, re-indented to stand in another place; None for other nodes."""
        tag = _tag(node)
        if isinstance(node, Mapping) and not node.flow and node.entries:
            column = at.column + self.style.step
            start = node.entries[0].key.start
        elif isinstance(node, Sequence) and not node.flow and node.items:
            column = at.column + self.style.dash
            start = emit.dash(self.document, node, 0)
        else:
            return None
        if at.inline:
            text = self.without_anchors(node, start, at.column)
            return None if tag else _Block(text, below=False, digest=digest(plain(node)))
        text = self.break_line(column) + self.without_anchors(node, start, column)
        return _Block(text, below=True, digest=digest(plain(node)), tag=tag)

    def without_anchors(self, node: Mapping | Sequence, start: int, column: int) -> str:
        """Return a block's source from ``start`` on, re-indented, its anchors left behind: they are defined once."""
        text = self.document.text[start : node.end]
        removals: list[Splice] = []
        for inner in walk(node):
            if inner is node or isinstance(inner, Alias) or not inner.anchor:
                continue
            at = self.document.text.index(f"&{inner.anchor}", inner.start)
            end = at + len(inner.anchor) + 1
            first = inner.entries[0].key.start if isinstance(inner, Mapping) and not inner.flow else end
            alone = not self.document.text[end:first].strip()
            if alone and self.document.column(first) == self.document.column(at):
                end = first  # the anchor had a line of its own, behind a dash
            elif self.document.text[end : end + 1] == " ":
                end += 1
            elif self.document.text[at - 1] == " ":
                at -= 1
            removals.append(Splice(at - start, end - start, ""))
        return reindent(apply_splices(text, removals), column - self.document.column(start))


def _tag(node: Node) -> str:
    """Return a node's tag, where it is one of those that Compose gives a meaning, to stand behind a colon."""
    return f" {node.tag}" if isinstance(node, (Mapping, Sequence)) and node.tag in {"!override", "!reset"} else ""
