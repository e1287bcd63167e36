"""Entries that are taken away from services, and put back: where they stood, with their text."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from gpualloc.compose.data import is_merge, members, merge_sources
from gpualloc.compose.document import Alias, Document, Entry, Mapping, Node, parse, walk
from gpualloc.compose.route import Gone, find_service, own
from gpualloc.compose.splice import Splice, apply_splices
from gpualloc.errors import fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.route import Path


def removable(document: Document, service: str, path: Path) -> bool:
    """Return whether an entry of a service can be taken away: written in its own block, with nothing behind it."""
    entry = find_service(document, service)
    if entry is None or own(entry.value, path) is None:
        return False
    node: Node = entry.value
    nodes = [node]
    for step in path:
        if not isinstance(node, Mapping) or node.tag or _merges(node, str(step)):
            return False
        node = node.index[str(step)].value
        nodes.append(node)
    whole = _whole(entry, path)
    return len(whole) > 0 and not _leans(document, entry, whole) and not _used(document, nodes)


def _leans(document: Document, service: Entry, path: Path) -> bool:
    """Return whether the entry before, in flow style, needs this one's comma: it ends at its colon."""
    parent, _ = _parent(service, path)
    if parent is None or not parent.flow:
        return False
    index = next(n for n, e in enumerate(parent.entries) if e.key.value == path[-1])
    return index > 0 and document.text[parent.entries[index - 1].value.end - 1] == ":"


def _used(document: Document, nodes: Iterable[Node]) -> bool:
    anchored = {id(node) for node in nodes if not isinstance(node, Alias) and node.anchor}
    if not anchored:
        return False
    return any(isinstance(n, Alias) and id(n.target) in anchored for root in document.roots for n in walk(root))


def _merges(mapping: Mapping, key: str) -> bool:
    sources = (s for entry in mapping.entries if is_merge(entry.key) for s in merge_sources(entry.value))
    return any(key in members(source) for source in sources)


def _whole(entry: Entry, path: Path) -> Path:
    """Return the path of what must go for nothing empty to be left; the empty path is the service itself."""
    while path:
        parent = own(entry.value, path[:-1])
        if isinstance(parent, Mapping) and len(parent.entries) > 1:
            break
        path = path[:-1]
    return path


def take_away(
    document: Document, paths: MappingType[str, Sequence[Path]]
) -> tuple[Document, dict[str, tuple[Gone, ...]]]:
    """Take entries away from services. Returns what went, by service, in the order given.

    Raises GpuallocError (``replicas-split``) where one shares its line with something else.
    """
    gone: dict[str, tuple[Gone, ...]] = dict.fromkeys(paths, ())
    for step in zip_longest(*([(service, path) for path in each] for service, each in paths.items())):
        splices: list[Splice] = []
        for service, path in filter(None, step):
            entry = find_service(document, service)
            if entry is not None:
                splice, what = _taken(document, entry, _whole(entry, path))
                splices.append(splice)
                gone[service] += (what,)
        document = parse(apply_splices(document.text, splices), document.file)
    return document, gone


def _taken(document: Document, service: Entry, path: Path) -> tuple[Splice, Gone]:
    parent, holder = _parent(service, path)
    if parent is None:
        hint = f"write {'.'.join(map(str, path))} into the service itself, not behind an alias"
        summary = f"its {path[0]} is not written in the service itself"
        raise fail("replicas-split", summary, document.at(service.key), hint)
    index = next(n for n, e in enumerate(parent.entries) if e.key.value == path[-1])
    entry = parent.entries[index]
    before = parent.entries[index - 1] if index else None
    after = before.key.value if before is not None else None
    if parent.flow:
        if before is not None:
            start, end = before.value.end, entry.value.end
        else:
            start, end = entry.key.start, parent.entries[1].key.start
        return Splice(start, end, ""), Gone(path, after, None, document.text[start:end])
    line = document.line_start(entry.key.start)
    if document.text[line : entry.key.start].strip():
        hint = "write each key on a line of its own"
        raise fail("replicas-split", f"{path[-1]} cannot be taken away", document.at(entry.key), hint)
    start, end = document.previous_end(line), document.line_end(entry.value.end)
    anchor = before.value.end if before is not None else holder.key.start
    lines = (document.place(line).line or 0) - (document.place(anchor).line or 0) - 1
    return Splice(start, end, ""), Gone(path, after, lines, document.text[start:end])


def _parent(service: Entry, path: Path) -> tuple[Mapping | None, Entry]:
    """Return the mapping that holds a path's last step, and the entry whose value it is."""
    holder = service
    for step in path[:-1]:
        found = holder.value.entry(str(step)) if isinstance(holder.value, Mapping) else None
        if found is None:
            return None, holder
        holder = found
    return (holder.value if isinstance(holder.value, Mapping) and holder.value.entries else None), holder


def put_back(document: Document, gone: MappingType[str, Sequence[Gone]]) -> Document:
    """Return a document with what was taken away from services where it stood; not where people have rewritten that."""
    for step in zip_longest(*([(service, what) for what in reversed(each)] for service, each in gone.items())):
        splices: list[Splice] = []
        for service, what in filter(None, step):
            entry = find_service(document, service)
            offset = _place(document, entry, what) if entry is not None else None
            if offset is not None:
                splices.append(Splice(offset, offset, what.text))
        document = parse(apply_splices(document.text, splices), document.file) if splices else document
    return document


def _place(document: Document, service: Entry, gone: Gone) -> int | None:
    parent, holder = _parent(service, gone.path)
    if parent is None or parent.entry(str(gone.path[-1])) is not None:
        return None
    before = parent.entry(gone.after) if gone.after is not None else None
    if gone.lines is None or parent.flow:
        if gone.lines is not None or not parent.flow:
            return None
        return before.value.end if before is not None else parent.entries[0].key.start
    if gone.after is None:
        first = document.line_start(parent.entries[0].key.start)
        return _down(document, document.line_end(holder.key.start), gone.lines, first)
    if before is not None:
        return _down(document, document.line_end(before.value.end), gone.lines)
    return document.line_end(parent.end)


def _down(document: Document, offset: int, lines: int, limit: int | None = None) -> int:
    """Return the end of the line so many lines further down: no further than ``limit``, or blank and comment lines."""
    for _ in range(lines):
        line = document.next_line(offset)
        text = document.text[line : document.line_end(line)].strip()
        past = bool(text) and text[0] != "#" if limit is None else line >= limit
        if past or line == len(document.text):
            break
        offset = document.line_end(line)
    return offset
