"""Undoing: the text of a file as it was before gpualloc, with whatever people have changed since."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import Tagged, digest, is_merge, members, merge_sources, plain
from gpualloc.compose.document import Alias, Document, Entry, Mapping, Node, Sequence, parse, resolve, walk
from gpualloc.compose.localise import AnchorIndex
from gpualloc.compose.record import COMMENT, KEY, Record, bad, made_for_a_host, read, unseal
from gpualloc.compose.route import find_service, item_index, own, services_of
from gpualloc.compose.separate import move_up
from gpualloc.compose.splice import Splice, apply_splices, comments, cut
from gpualloc.errors import GpuallocError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.route import Inherited, Inverse, Path


_ALIASES = re.compile(r"(?:[:,\[{-]\s+|[\[{])\*([\w-]+)")
_ALIAS = re.compile(r"(?:^|[\s:])\*([^\s,\]}]+)(?=\s*(?:#.*)?$)")


def restore(document: Document, keep: frozenset[str] = frozenset()) -> tuple[Document, Record]:
    """Return the document as it was before gpualloc, and the record it held (an empty one where there was none).

    What was written into the services that ``keep`` names stays.

    Edits that people made elsewhere stay, and so do their comments on lines that go. Raises GpuallocError (``record``)
    for a record that cannot be read, or no longer fits the file.
    """
    found = _find(document)
    if found is None or made_for_a_host(document):
        return document, Record()
    _, entry = found
    record = read(document, entry)
    undone = {name: inverse for name, inverse in record.services.items() if name not in keep}
    try:
        return _restored(document, replace(record, services=undone)), record
    except (GpuallocError, ValueError) as error:
        reason = error.diagnostics[0].summary if isinstance(error, GpuallocError) else str(error)
        raise bad(document, entry, f"the record no longer fits the file: {reason}") from error


def _restored(document: Document, record: Record) -> Document:
    """Undo the edits, and remove the record last: what stands before it does not end the file."""
    document, splices = _undone(document, record.services)
    found = _find(document)
    if found is not None:
        splices += _removal(document, *found)
    return unseal(parse(apply_splices(document.text, splices), document.file), record.chomp)


def _find(document: Document) -> tuple[Mapping, Entry] | None:
    for root in reversed(document.roots):
        entry = root.entry(KEY) if isinstance(root, Mapping) else None
        if isinstance(root, Mapping) and entry is not None:
            return root, entry
    return None


def undo(document: Document, inverses: MappingType[str, Inverse]) -> Document:
    """Return the document with services' edits undone: recorded text put back, what was added removed.

    Raises ValueError or GpuallocError where the file has changed so that they cannot be.
    """
    document, splices = _undone(document, inverses)
    return parse(apply_splices(document.text, splices), document.file) if splices else document


def _undone(document: Document, inverses: MappingType[str, Inverse]) -> tuple[Document, list[Splice]]:
    """Undo edits from the inside out. Returns what is left to do to the document as splices."""
    splices = list(_undo_all(document, inverses))
    wrapped = {(name, path): text for name, inv in inverses.items() for path, text in inv.wrapped.items()}
    if not wrapped and not any(inverse.inherits for inverse in inverses.values()):
        return document, splices
    document = parse(apply_splices(document.text, splices), document.file)
    return move_up(_without_stand_ins(document, inverses), wrapped), []


def _undo_all(document: Document, inverses: MappingType[str, Inverse]) -> Iterator[Splice]:
    for name, inverse in inverses.items():
        service = find_service(document, name)
        if service is not None:
            yield from _undo(document, service, inverse)


def _removal(document: Document, root: Mapping, entry: Entry) -> Iterator[Splice]:
    """Yield the splices that remove the record, and only it."""
    if root.flow:
        gone = [other is entry for other in root.entries]
        yield from cut(document, root, gone, [()] * len(gone))
        return
    start = document.line_start(entry.key.start)
    end = document.line_end(entry.value.end)
    kept = [text for text in comments(document, [entry.key, entry.value], start, end) if text != COMMENT]
    lead = " " * (entry.key.start - start)
    if document.next_line(end) > end:
        text = "".join(lead + comment + document.newline for comment in kept)
        yield Splice(start, document.next_line(end), text)
    else:
        text = "".join(document.newline + lead + comment for comment in kept)
        yield Splice(document.previous_end(start), end, text)


# --------------------------------------------------------------------------------------------------------------------
# Values


def _undo(document: Document, service: Entry, inverse: Inverse) -> Iterator[Splice]:
    removed = {path for path, text in inverse.original.items() if text is None}
    for path, text in inverse.original.items():
        span = _span(service, path) if text is not None else None
        if span is not None and text is not None and _has_anchors(document, text, span[0].start):
            yield from _put_back(document, span, text)
    pruner = _Pruner(document, service, removed, inverse.filled)
    splices: list[Splice] = []
    # A service of nothing but our own keys stays as it is: it is left for its owner to remove.
    if removed and not pruner.prune(service.value, (), splices):
        yield from splices


def _has_anchors(document: Document, text: str, offset: int) -> bool:
    """Return whether the aliases in recorded text still have their anchors; what has none stays as it is."""
    names = _ALIASES.findall(text)
    if not names:
        return True
    anchors = AnchorIndex.of(document)
    return all(anchors.find(name, offset) is not None for name in names)


def _put_back(document: Document, nodes: tuple[Node, ...], text: str, known: str = "") -> Iterator[Splice]:
    """Yield the splices that put text in the place of an entry or item; comments people wrote in it stay below it.

    ``known``: text whose comments were copied here.
    """
    start, end = nodes[0].start, nodes[-1].end
    yield Splice(start, end, text)
    kept = [comment for comment in comments(document, nodes, start, end) if comment not in text + known]
    if kept:
        line = document.line_start(start)
        lead = document.newline + " " * (start - line)
        offset = document.line_end(end)
        yield Splice(offset, offset, "".join(lead + comment for comment in kept), 2 * (start - line))


def _span(service: Entry, path: Path) -> tuple[Node, ...] | None:
    """Return the nodes that stand at a path: a key and its value, or an item."""
    if not path:
        return service.key, service.value
    parent = own(service.value, path[:-1])
    step = path[-1]
    if isinstance(parent, Mapping):
        entry = parent.entry(str(step))
        return (entry.key, entry.value) if entry else None
    if isinstance(parent, Sequence):
        index = item_index(parent, step)
        return (parent.items[index],) if index is not None else None
    return None


@dataclass(frozen=True, slots=True)
class _Pruner:
    """Removes from a service what was added to it, and with it the mappings that were made to hold it."""

    document: Document
    service: Entry
    removed: set[Path]
    filled: dict[Path, str]

    def prune(self, node: Node, path: Path, splices: list[Splice]) -> bool:
        """Collect the splices for what is below a node. Returns whether nothing is left of it, so that it must go."""
        below = [p for p in self.removed if p[: len(path)] == path]
        if not below or not isinstance(node, (Mapping, Sequence)):
            return False
        if isinstance(node, Mapping):
            keys: list[Path] = [(*path, entry.key.value) for entry in node.entries]
            children: list[tuple[Node, Node]] = [(entry.key, entry.value) for entry in node.entries]
        else:
            names = {item_index(node, p[len(path)]): p[len(path)] for p in below if len(p) > len(path)}
            keys = [(*path, names.get(index, index)) for index in range(len(node.items))]
            children = [(item, item) for item in node.items]
        inner: list[list[Splice]] = [[] for _ in children]
        gone = [
            key in self.removed or self.prune(child[1], key, found)
            for key, child, found in zip(keys, children, inner, strict=True)
        ]
        if all(gone):
            return self.empty(path, splices)
        if any(gone):
            kept = [
                _comments_on(self.document, child) if lost else [] for child, lost in zip(children, gone, strict=True)
            ]
            splices += cut(self.document, node, gone, kept)
        splices += (splice for lost, found in zip(gone, inner, strict=True) if not lost for splice in found)
        return False

    def empty(self, path: Path, splices: list[Splice]) -> bool:
        """Put back an entry that was empty before. Returns whether there was none, so that it must go."""
        text = self.filled.get(path)
        nodes = _span(self.service, path)
        if text is None or nodes is None:
            return True
        splices += _put_back(self.document, nodes, text)
        return False


def _comments_on(document: Document, child: tuple[Node, Node]) -> list[str]:
    """Return the comments in a child's lines: gpualloc writes none there, so they are somebody's."""
    start, end = child[0].start, child[1].end
    return list(comments(document, dict.fromkeys(child), start, document.line_end(end)))


# --------------------------------------------------------------------------------------------------------------------
# Stand-ins


def _without_stand_ins(document: Document, inverses: MappingType[str, Inverse]) -> Document:
    """Remove local stand-ins that are as they were written; one that people changed is theirs now.

    Outer ones first, and again: one may be as it was only once those inside it are gone. Aliases go back before values
    that merge keys bring, which may be among them.
    """
    inherits = [(name, inverse.inherits) for name, inverse in inverses.items()]
    aliases = [(name, p, i) for name, part in inherits for p, i in part.items() if i.text is not None]
    merged = [(name, p, i) for name, part in inherits for p, i in part.items() if i.text is None]
    document, left = _remove_stand_ins(document, aliases)
    return _remove_stand_ins(document, [*left, *merged])[0]


_Waiting = list[tuple[str, "Path", "Inherited"]]


def _remove_stand_ins(document: Document, waiting: _Waiting) -> tuple[Document, _Waiting]:
    """Remove those that can go. Returns the document, and those that are left."""
    waiting = sorted(waiting, key=lambda one: len(one[1]))
    while waiting:
        anchors = AnchorIndex.of(document)
        splices: list[Splice] = []
        done: set[tuple[str, Path]] = set()
        for name, path, inherited in waiting:
            service = find_service(document, name)
            if service is None or any((name, path[:length]) in done for length in range(len(path))):
                continue
            found = list(_disinherit(document, service, path, inherited, anchors))
            if found:
                splices += found
                done.add((name, path))
        if not splices:
            break
        document = parse(apply_splices(document.text, splices), document.file)
        waiting = [
            (name, path, inherited)
            for name, path, inherited in waiting
            if not any((name, path[:length]) in done for length in range(len(path) + 1))
        ]
    return document, waiting


def _disinherit(
    document: Document, service: Entry, path: Path, inherited: Inherited, anchors: AnchorIndex
) -> Iterator[Splice]:
    nodes = _span(service, path)
    if nodes is None or not _untouched(nodes[-1], inherited):
        return
    if inherited.text is not None:
        alias = _ALIAS.search(inherited.text)
        target = anchors.find(alias[1], nodes[0].start) if alias else None
        if target is None:
            return
        if path:
            yield from _put_back(document, nodes, inherited.text, _sources(document, target))
        else:
            yield Splice(service.key.end, service.value.end, f": {inherited.text}")
        return
    key = str(path[-1]) if path else service.key.value
    parent = own(service.value, path[:-1]) if path else services_of(document, key)[1]
    source = _merged(parent, key) if isinstance(parent, Mapping) else None
    if isinstance(parent, Mapping) and source is not None:
        known = _sources(document, source)
        kept = [text for text in _comments_on(document, (nodes[0], nodes[-1])) if text not in known]
        gone = [entry.key.value == key for entry in parent.entries]
        yield from cut(document, parent, gone, [kept if lost else [] for lost in gone])


def _sources(document: Document, node: Node) -> str:
    """Return the text that a copy of a node was taken from: its own, and that of all that its aliases stand for."""
    seen: dict[int, str] = {}
    waiting = [node]
    while waiting:
        current = resolve(waiting.pop())
        if id(current) not in seen:
            seen[id(current)] = document.text[current.start : document.line_end(current.end)]
            waiting += (inner for inner in walk(current) if isinstance(inner, Alias))
    return "\n".join(seen.values())


def _untouched(node: Node, inherited: Inherited) -> bool:
    if inherited.digest is None:
        return isinstance(node, Mapping) and len(node.entries) == 1 and is_merge(node.entries[0].key)
    value: Any = plain(node)
    return inherited.digest in {digest(value), digest(value.value) if isinstance(value, Tagged) else None}


def _merged(mapping: Mapping, key: str) -> Node | None:
    """Return the value that merge keys still bring for a key."""
    for entry in mapping.entries:
        for source in merge_sources(entry.value) if is_merge(entry.key) else ():
            found = members(source).get(key)
            if found is not None:
                return resolve(found)
    return None
