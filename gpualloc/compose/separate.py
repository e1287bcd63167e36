"""Mappings that others see, moved one level down so that a service's edits stand beside them.

    environment: &env          environment:
      A: "1"              ->    <<: &env
                                 A: "1"
                                CUDA_VISIBLE_DEVICES: "0"

Whoever uses the anchor sees what it saw before. Where the indentation leaves a column for the merge key between the
key and its block, the block's own lines stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpualloc.compose.data import is_merge, members
from gpualloc.compose.document import Alias, Document, Mapping, Node, Sequence, parse, resolve, walk
from gpualloc.compose.route import find_service, item_index, own
from gpualloc.compose.splice import Splice, apply_splices, reindent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence as Seq

    from gpualloc.compose.document import Entry
    from gpualloc.compose.route import Edit, Path

_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")


@dataclass(slots=True)
class _Uses:
    """Where anchored nodes are used: as a value or item, or in mappings that merge them."""

    direct: dict[int, list[Alias]] = field(default_factory=dict)
    merging: dict[int, list[tuple[Alias, Mapping]]] = field(default_factory=dict)
    merge_lists: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Written:
    """What all edits together do: nodes they throw away, and keys they give to mappings, by identity."""

    replaced: set[int]
    keys: set[tuple[int, str]]


def shared(document: Document, edits: Seq[Edit]) -> dict[tuple[str, Path], None]:
    """Return the mappings that edits would change and others see, as service and path; all paths must be local."""
    uses = _uses(document)
    if not uses.direct and not uses.merging:
        return {}
    written = _Written(
        {id(node) for edit in edits for node in _replaced(document, edit)},
        {key for edit in edits if (key := _new_key(document, edit)) is not None},
    )
    found: dict[tuple[str, Path], None] = {}
    for edit in edits:
        path = _shared(document, edit, uses, written)
        if path is not None:
            found[edit.service, path] = None
    return found


def _uses(document: Document) -> _Uses:
    uses = _Uses()
    for root in document.roots:
        for node in walk(root):
            if isinstance(node, Mapping):
                for entry in node.entries:
                    _note(uses, node, entry)
            elif isinstance(node, Sequence) and id(node) not in uses.merge_lists:
                for item in node.items:
                    if isinstance(item, Alias):
                        uses.direct.setdefault(id(resolve(item)), []).append(item)
    return uses


def _note(uses: _Uses, mapping: Mapping, entry: Entry) -> None:
    value = entry.value
    if not is_merge(entry.key):
        if isinstance(value, Alias):
            uses.direct.setdefault(id(resolve(value)), []).append(value)
        return
    uses.merge_lists.add(id(value))
    for source in value.items if isinstance(value, Sequence) else [value]:
        if isinstance(source, Alias):
            uses.merging.setdefault(id(resolve(source)), []).append((source, mapping))


def _replaced(document: Document, edit: Edit) -> Iterator[Node]:
    """Yield the nodes that an edit throws away."""
    entry = find_service(document, edit.service)
    parent = own(entry.value, edit.path[:-1]) if entry is not None else None
    step = edit.path[-1]
    if isinstance(parent, Mapping):
        for key in (edit.replaces, step):
            old = parent.entry(str(key)) if key is not None else None
            if old is not None:
                yield from walk(old.value)
                return
    elif isinstance(parent, Sequence) and (index := item_index(parent, step)) is not None:
        yield from walk(parent.items[index])


def _new_key(document: Document, edit: Edit) -> tuple[int, str] | None:
    """Return the mapping that gets a key of its own by an edit, by identity, and the key."""
    entry = find_service(document, edit.service)
    node: Node | None = entry.value if entry is not None else None
    for step in edit.path:
        if isinstance(node, Mapping) and node.entry(str(step)) is None:
            return id(node), str(step)
        node = own(node, (step,)) if node is not None else None
    return None


def _shared(document: Document, edit: Edit, uses: _Uses, written: _Written) -> Path | None:
    """Return the path of the mapping to move down, for the outermost node on an edit's path that others see."""
    entry = find_service(document, edit.service)
    node: Node | None = entry.value if entry is not None else None
    for depth, step in enumerate(edit.path):
        if node is None or isinstance(node, Alias):
            return None
        if node.anchor and _seen(node, step, uses, written):
            return _movable(document, edit, depth)
        node = own(node, (step,))
    thrown_away = (other for other in _replaced(document, edit) if not isinstance(other, Alias) and other.anchor)
    if any(alias for other in thrown_away for alias in _aliases(other, uses) if id(alias) not in written.replaced):
        return _movable(document, edit, len(edit.path) - 1)
    return None


def _aliases(node: Node, uses: _Uses) -> Iterator[Alias]:
    yield from uses.direct.get(id(node), ())
    yield from (alias for alias, _ in uses.merging.get(id(node), ()))


def _seen(node: Node, step: str | int, uses: _Uses, written: _Written) -> bool:
    """Return whether someone else would see a change below ``step`` of an anchored node."""
    if any(id(alias) not in written.replaced for alias in uses.direct.get(id(node), ())):
        return True
    if not isinstance(node, Mapping):
        return False
    key = str(step)
    mine = members(node).get(key)
    mappings = (mapping for _, mapping in uses.merging.get(id(node), ()))
    return any(members(m).get(key) is mine and (id(m), key) not in written.keys for m in mappings)


def _movable(document: Document, edit: Edit, depth: int) -> Path | None:
    """Return the path of the innermost mapping, at most ``depth`` steps down, below which an edit can start anew.

    That is one that stands as the value of a key, and from which the edit removes nothing.
    """
    entry = find_service(document, edit.service)
    for length in range(depth, -1, -1):
        if length == len(edit.path) - 1 and edit.replaces is not None:
            continue
        if length and isinstance(edit.path[length - 1], int):
            continue
        node = own(entry.value, edit.path[:length]) if entry is not None else None
        if isinstance(node, Mapping):
            return edit.path[:length]
    return None


def outermost(found: dict[tuple[str, Path], None]) -> dict[tuple[str, Path], None]:
    """Leave out what lies inside another mapping that is moved."""
    return {
        (service, path): None
        for service, path in found
        if not any((service, path[:length]) in found for length in range(len(path)))
    }


def move_down(document: Document, found: dict[tuple[str, Path], None]) -> tuple[Document, dict[tuple[str, Path], str]]:
    """Move mappings below merge keys of their own. Returns what stood between each key and its mapping's content."""
    splices: list[Splice] = []
    headers: dict[tuple[str, Path], str] = {}
    for service, path in outermost(found):
        entry = _entry(document, service, path)
        if entry is None or not isinstance(entry.value, Mapping):
            continue
        node = entry.value
        content = _content_start(document, node)
        header = document.text[entry.key.end : content]
        headers[service, path] = header
        splices += _flow(entry, node, content, document) if node.flow else _block(entry, node, content, document)
    return (parse(apply_splices(document.text, splices), document.file) if splices else document), headers


def _entry(document: Document, service: str, path: Path) -> Entry | None:
    entry = find_service(document, service)
    if entry is None or not path:
        return entry
    parent = own(entry.value, path[:-1])
    return parent.entry(str(path[-1])) if isinstance(parent, Mapping) else None


def _content_start(document: Document, node: Mapping) -> int:
    """Return where a mapping's content starts: past the brace, or at the first key."""
    if not node.flow:
        return node.entries[0].key.start
    properties = _PROPERTIES.match(document.text, node.start, node.end)
    return (properties.end() if properties else node.start) + 1


def _flow(entry: Entry, node: Mapping, content: int, document: Document) -> Iterator[Splice]:
    anchor = _properties(node)
    head = _without_anchor(document.text[entry.key.end : content - 1], node.anchor)
    yield Splice(entry.key.end, content, f"{head}{{<<: {anchor}{{")
    yield Splice(node.end, node.end, "}", 2)


def _block(entry: Entry, node: Mapping, content: int, document: Document) -> Iterator[Splice]:
    outer = document.column(entry.key.start)
    line = document.line_start(content)
    column = outer + 1
    indent = document.column(content)
    head = _without_anchor(document.text[entry.key.end : line], node.anchor)
    anchor = f" {_properties(node)}".rstrip(" ")
    shift = max(column + 1 - indent, 0)
    text = f"{head}{' ' * column}<<:{anchor}{document.newline}{' ' * (indent + shift)}"
    yield Splice(entry.key.end, content, text)
    if shift:
        yield Splice(content, node.end, reindent(document.text[content : node.end], shift))


def _properties(node: Mapping) -> str:
    """Return the anchor that goes with a mapping, and its tag, which those who use the anchor see too."""
    tag = f"{node.tag} " if node.tag in {"!override", "!reset"} else ""
    return f"&{node.anchor} {tag}" if node.anchor else ""


def _without_anchor(head: str, anchor: str | None) -> str:
    """Return the text between a key and its mapping without the anchor, and without a line that held nothing else."""
    if anchor is None:
        return head
    name = re.escape(anchor)
    alone = re.sub(rf"(?m)^[ \t]*&{name}[ \t]*(?:\r\n|[\n\r])", "", head, count=1)
    if alone != head:
        return alone
    first = re.sub(rf"(?m)^([ \t]*)&{name}[ \t]+", r"\1", head, count=1)
    return first if first != head else re.sub(rf"[ \t]*&{name}(?=\s|$)", "", head, count=1)


def move_up(document: Document, wrapped: dict[tuple[str, Path], str]) -> Document:
    """Undo ``move_down`` where nothing but the moved mapping is left; one that people added keys beside stays."""
    splices: list[Splice] = []
    for (service, path), header in wrapped.items():
        entry = _entry(document, service, path)
        node = entry.value if entry is not None else None
        if entry is None or not isinstance(node, Mapping) or len(node.entries) != 1:
            continue
        inner = node.entries[0].value
        if not is_merge(node.entries[0].key) or not isinstance(inner, Mapping):
            continue
        content = _content_start(document, inner)
        splices.append(Splice(entry.key.end, content, header))
        if inner.flow:
            splices.append(Splice(inner.end, node.end, ""))
            continue
        shift = len(header) - max(header.rfind("\n"), header.rfind("\r")) - 1 - document.column(content)
        if shift:
            splices.append(Splice(content, inner.end, reindent(document.text[content : inner.end], shift)))
    return parse(apply_splices(document.text, splices), document.file) if splices else document
