"""The record that lets a file be restored: one top-level ``x-gpualloc`` mapping at its end.

For every service that was edited it holds how to undo the edits. What the plain inverse does anyway is left out:
``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER`` go, and ``device_ids`` of N becomes ``count: N``. So most services
have an empty entry. ``$`` is doubled in the recorded text, since Compose interpolates it.

A re-plan reads the restored text, so it sees the requests as people wrote them, and writes from there: applying twice
changes nothing because it does the same edits to the same text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.compose import emit
from gpualloc.compose.data import Tagged, is_merge, members, merge_sources, plain
from gpualloc.compose.document import Alias, Document, Entry, Mapping, Node, Sequence, parse, resolve, walk
from gpualloc.compose.patch import (
    Inverse,
    Path,
    Splice,
    apply_splices,
    environment_name,
    path_text,
    same,
    service_entry,
)
from gpualloc.errors import GpuallocError, Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as MappingType

KEY = "x-gpualloc"
VERSION = "1.0"
OWNED = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""Environment variables that the plain inverse removes."""

DEVICE_LISTS: tuple[Path, ...] = (("deploy", "resources", "reservations", "devices"), ("gpus",))
"""Where device requests stand in a service."""

_STEP = re.compile(r'\[(\d+)\]|\.?("(?:[^"\\]|\\.)*"|[^.\[\]"]+)')


@dataclass(frozen=True, slots=True)
class Record:
    """What a file's ``x-gpualloc`` mapping says, by service."""

    services: dict[str, Inverse] = field(default_factory=dict)


def append(document: Document, inverses: MappingType[str, Inverse]) -> Document:
    """Return the document with the record of these edits at its end.

    A file without a final newline gets none, so that removing the record gives the same bytes back.
    """
    services = {name: _entry(document, name, inverse) for name, inverse in inverses.items()}
    root = document.roots[-1]
    if not isinstance(root, Mapping):
        raise fail("compose-shape", "the last document is not a mapping", Place(document.file))
    style = emit.style_of(document)
    if root.flow:
        offset = root.entries[-1].value.end
        text = f', "{KEY}": ' + emit.flow({"version": VERSION, "services": services})
        return parse(apply_splices(document.text, [Splice(offset, offset, text)]), document.file)
    indent = " " * document.column(root.entries[0].key.start)
    lines = [
        f"{KEY}:  # kept by gpualloc: what `gpualloc reset` needs to restore this file",
        " " * style.step + f'version: "{VERSION}"',
        " " * style.step + "services:",
        *(" " * (2 * style.step) + f"{emit.key(name)}: {emit.flow(entry)}" for name, entry in services.items()),
    ]
    block = style.newline.join(indent + line for line in lines)
    offset = _document_end(document)
    body = document.text[:offset]
    if body.endswith("\n"):
        text = body + block + style.newline + document.text[offset:]
    else:
        text = body + style.newline + block + document.text[offset:]
    return parse(text, document.file)


def _document_end(document: Document) -> int:
    """Return where a new last top-level key goes: before a final ``...``, else at the end of the text."""
    marker = re.search(r"^\.\.\.[ \t]*\r?\n?\Z", document.text, re.MULTILINE)
    return marker.start() if marker else len(document.text)


def restore(document: Document) -> tuple[Document, Record]:
    """Return the document as it was before gpualloc, and the record it held (an empty one where there was none).

    Edits that people made elsewhere stay. Raises GpuallocError (``record``) for a record that cannot be read.
    """
    root = document.roots[-1] if document.roots else None
    entry = root.entry(KEY) if isinstance(root, Mapping) else None
    if entry is None or not isinstance(root, Mapping):
        return document, Record()
    record = read(document, entry)
    splices: list[Splice] = []
    for name, inverse in record.services.items():
        service = _find(document, name)
        if service is not None:
            splices += _undo(document, service, inverse)
    splices.append(_removal(document, root, entry))
    document = parse(apply_splices(document.text, splices), document.file)
    splices = []
    for name, inverse in record.services.items():
        service = _find(document, name)
        if service is not None:
            splices += _disinherit(document, service, inverse)
    return (parse(apply_splices(document.text, splices), document.file) if splices else document), record


def read(document: Document, entry: Entry) -> Record:
    """Read the record strictly. Raises GpuallocError (``record``)."""
    data = plain(entry.value)
    if not isinstance(data, dict) or set(data) != {"version", "services"} or not isinstance(data["services"], dict):
        raise _bad(document, entry, "the top-level x-gpualloc is gpualloc's own record, and this is none")
    if data["version"] != VERSION:
        raise _bad(document, entry, f"the record has version {data['version']!r}, this gpualloc reads {VERSION!r}")
    services = {}
    for name, value in data["services"].items():
        if not isinstance(value, dict) or not set(value) <= {"original", "inherits"}:
            raise _bad(document, entry, f"the record of {name!r} is damaged")
        parts = [value.get("original", {}), value.get("inherits", {})]
        if not all(isinstance(p, dict) and all(v is None or isinstance(v, str) for v in p.values()) for p in parts):
            raise _bad(document, entry, f"the record of {name!r} is damaged")
        original, inherits = ({_path(k): _undouble(v) for k, v in part.items()} for part in parts)
        services[str(name)] = Inverse(original, inherits)
    return Record(services)


def _bad(document: Document, entry: Entry, summary: str) -> GpuallocError:
    hint = "put requests into the services; if the record was edited by hand, restore it from version control"
    return fail("record", summary, document.at(entry.key), hint)


def _path(text: str) -> Path:
    import json  # noqa: PLC0415 - only for names with dots or brackets, but needed before the loop

    steps: list[str | int] = []
    for match in _STEP.finditer(text):
        index, name = match.groups()
        steps.append(int(index) if index is not None else json.loads(name) if name.startswith('"') else name)
    return tuple(steps)


def _undouble(text: str | None) -> str | None:
    return None if text is None else text.replace("$$", "$")


# --------------------------------------------------------------------------------------------------------------------
# Making an entry short


def _entry(document: Document, service: str, inverse: Inverse) -> dict[str, Any]:
    """Return a service's entry of the record, without what the plain inverse does anyway."""
    defaults = _defaults(document, service_entry(document, service))
    original = dict(inverse.original)
    for path, (default, current) in defaults.items():
        if _covered(path, inverse.original):
            continue
        wanted = inverse.original.get(path, current)
        if wanted == default:
            original.pop(path, None)
        else:
            original[path] = wanted
    result: dict[str, Any] = {}
    for name, part in (("original", original), ("inherits", inverse.inherits)):
        if part:
            result[name] = {path_text(p): None if t is None else t.replace("$", "$$") for p, t in part.items()}
    return result


def _defaults(document: Document, service: Entry) -> dict[Path, tuple[str | None, str]]:
    """Return what the plain inverse would touch in a service: by path, what it puts there and what stands there."""
    result: dict[Path, tuple[str | None, str]] = {}
    environment = _own(service.value, ("environment",))
    if isinstance(environment, Mapping):
        for entry in environment.entries:
            if entry.key.value in OWNED:
                result["environment", entry.key.value] = None, document.text[entry.key.start : entry.value.end]
    elif isinstance(environment, Sequence):
        for item in environment.items:
            name = environment_name(item)
            if name in OWNED and not isinstance(item, Alias):
                result["environment", name] = None, document.source(item)
    for path in DEVICE_LISTS:
        devices = _own(service.value, path)
        for index, item in enumerate(devices.items if isinstance(devices, Sequence) else ()):
            ids = item.entry("device_ids") if isinstance(item, Mapping) else None
            if ids is not None and isinstance(ids.value, Sequence):
                count = f"count: {len(ids.value.items)}"
                result[(*path, index, "device_ids")] = count, document.text[ids.key.start : ids.value.end]
    return result


def _covered(path: Path, original: MappingType[Path, str | None]) -> bool:
    return any(path[:n] in original for n in range(1, len(path)))


def _own(node: Node, path: Path) -> Node | None:
    """Return the node at a path that is written in place, with no alias or merge key on the way."""
    for step in path:
        if isinstance(node, Mapping) and isinstance(step, str):
            entry = node.entry(step)
            if entry is None:
                return None
            node = entry.value
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
        else:
            return None
    return node


def _find(document: Document, service: str) -> Entry | None:
    try:
        return service_entry(document, service)
    except GpuallocError:
        return None  # the service was removed by hand: nothing of it is left to restore


# --------------------------------------------------------------------------------------------------------------------
# Undoing


def _undo(document: Document, service: Entry, inverse: Inverse) -> Iterator[Splice]:
    wanted: dict[Path, str | None] = dict(inverse.original)
    for path, (default, _) in _defaults(document, service).items():
        if path not in wanted and not _covered(path, inverse.original):
            wanted[path] = default
    removed = {path for path, text in wanted.items() if text is None}
    for path, text in wanted.items():
        if text is not None:
            span = _span(service, path)
            if span is not None:
                yield Splice(*span, text)
    if removed:
        splices: list[Splice] = []
        if _prune(document, service.value, (), removed, splices):
            removed.clear()  # nothing but our own keys: the service itself is left for its owner to remove
        else:
            yield from splices


def _span(service: Entry, path: Path) -> tuple[int, int] | None:
    parent = _own(service.value, path[:-1])
    step = path[-1]
    if isinstance(parent, Mapping) and isinstance(step, str):
        entry = parent.entry(step)
        return (entry.key.start, entry.value.end) if entry else None
    if isinstance(parent, Sequence):
        index = _index(parent, step)
        return (parent.items[index].start, parent.items[index].end) if index is not None else None
    return None


def _index(sequence: Sequence, step: str | int) -> int | None:
    if isinstance(step, int):
        return step if step < len(sequence.items) else None
    return next((i for i, item in enumerate(sequence.items) if environment_name(item) == step), None)


def _prune(document: Document, node: Node, path: Path, removed: set[Path], splices: list[Splice]) -> bool:
    """Collect the splices that remove paths below a node. Returns whether the node is left empty and must go itself."""
    if not any(p[: len(path)] == path for p in removed):
        return False
    if isinstance(node, Mapping):
        keys: list[Path] = [(*path, entry.key.value) for entry in node.entries]
        children = [entry.value for entry in node.entries]
    elif isinstance(node, Sequence):
        names = {
            _index(node, p[len(path)]): p[len(path)] for p in removed if p[: len(path)] == path and len(p) > len(path)
        }
        keys = [(*path, names.get(i, i)) for i in range(len(node.items))]
        children = list(node.items)
    else:
        return False
    inner: list[list[Splice]] = [[] for _ in children]
    gone = [k in removed or _prune(document, c, k, removed, s) for k, c, s in zip(keys, children, inner, strict=True)]
    if all(gone):
        return True
    for index, one in enumerate(gone):
        if one:
            splices.append(_cut(document, node, index, gone))
        else:
            splices += inner[index]
    return False


def _removal(document: Document, root: Mapping, entry: Entry) -> Splice:
    """Return the splice that removes the record, and only it."""
    if root.flow:
        index = root.entries.index(entry)
        return _cut(document, root, index, [i == index for i in range(len(root.entries))])
    start = document.line_start(entry.key.start)
    end = document.line_end(entry.value.end)
    if end < len(document.text):
        return Splice(start, document.text.index("\n", end) + 1, "")
    return Splice(max(start - len(document.newline), 0), end, "")


def _cut(document: Document, parent: Mapping | Sequence, index: int, gone: list[bool]) -> Splice:
    """Return the splice that removes one child; ``gone`` says which children go with it."""
    if isinstance(parent, Mapping):
        spans = [(e.key.start, e.value.end) for e in parent.entries]
    else:
        spans = [(i.start, i.end) for i in parent.items]
    start, end = spans[index]
    if parent.flow:
        if index < gone.index(False):
            return Splice(start, spans[index + 1][0], "")
        return Splice(spans[index - 1][1], end, "")
    line = document.line_start(start)
    before = document.text[line:start]
    if isinstance(parent, Mapping) and before.strip():  # the first key of a list item: "- key: value"
        return Splice(start, spans[index + 1][0], "")
    previous = document.line_end(line - 1) if line else 0
    if line and document.text[line - 2 : line] == "\r\n":
        previous = line - 2
    elif line:
        previous = line - 1
    return Splice(previous, document.line_end(end), "")


def _disinherit(document: Document, service: Entry, inverse: Inverse) -> Iterator[Splice]:
    """Remove local stand-ins that still say what would be inherited; one that people changed is theirs now."""
    for path, text in inverse.inherits.items():
        parent, step = (_own(service.value, path[:-1]), path[-1]) if path else (None, "")
        if not path:
            node, start = service.value, service.value.start
        elif isinstance(parent, Mapping) and isinstance(step, str):
            entry = parent.entry(step)
            if entry is None:
                continue
            node, start = entry.value, entry.key.start
        elif isinstance(parent, Sequence) and isinstance(step, int) and step < len(parent.items):
            node, start = parent.items[step], parent.items[step].start
        else:
            continue
        if text is None:
            inherited = _merged(parent, str(step)) if isinstance(parent, Mapping) else None
        else:
            inherited = _anchored(document, text.rpartition("*")[2].strip(), start)
        if inherited is None or not same(plain(inherited), _untagged(node)):
            continue
        if text is None and isinstance(parent, Mapping):
            index = next(i for i, e in enumerate(parent.entries) if e.key.value == step)
            yield _cut(document, parent, index, [i == index for i in range(len(parent.entries))])
        elif not path and text is not None:
            first = start
            while document.text[first - 1] in " \r\n":
                first -= 1
            yield Splice(first, node.end, f" {text}")
        elif text is not None:
            yield Splice(start, node.end, text)


def _untagged(node: Node) -> Any:
    value = plain(node)
    return value.value if isinstance(value, Tagged) else value


def _merged(parent: Mapping, step: str) -> Node | None:
    for entry in parent.entries:
        if is_merge(entry.key):
            for source in merge_sources(entry.value):
                found = members(source).get(step)
                if found is not None:
                    return found
    return None


def _anchored(document: Document, name: str, before: int) -> Node | None:
    found: Node | None = None
    for root in document.roots:
        for node in walk(root):
            if not isinstance(node, Alias) and node.anchor == name and node.start < before:
                found = resolve(node)
    return found
