"""A role divided into a service for each worker: in the text, and back.

The role's block becomes the first worker's, in place, and copies of it follow. The names in other services' lists
follow along. What the block itself must change is recorded (``Divided``), so that ``unsplit`` gives the role back; the
copies and the names need no record.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import is_merge, members, merge_sources, plain, same
from gpualloc.compose.document import Alias, Document, Entry, Mapping, Node, parse, resolve, walk
from gpualloc.compose.patch import patch
from gpualloc.compose.record import unseal
from gpualloc.compose.references import added, name_span, normal, removed, renamed, without_anchors
from gpualloc.compose.restore import undo
from gpualloc.compose.route import Divided, Gone, Inverse, find_service, own
from gpualloc.compose.splice import Splice, apply_splices, cut, line_after
from gpualloc.errors import GpuallocError, Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.record import Record
    from gpualloc.compose.route import Edit, Path

REPLICAS: tuple[Path, ...] = (("deploy", "replicas"), ("scale",))
"""Where Compose has the number of a service's containers."""


@dataclass(frozen=True, slots=True)
class Division:
    """What is to become of a role in its file. ``wanted``: the numbers of its workers.

    ``edits`` turn the role's service into the first worker's, and ``taken`` are the entries to take away from it; both
    are empty where it is one already. ``copies``: by number, the edits that tell a new copy from the first worker's.
    """

    role: str
    wanted: tuple[int, ...]
    edits: tuple[Edit, ...] = ()
    taken: tuple[Path, ...] = ()
    copies: MappingType[int, tuple[Edit, ...]] = field(default_factory=dict)


def worker_name(role: str, number: int) -> str:
    """Return the name of a worker, and of its service once the role is divided."""
    return f"{role}-{number}"


def present(document: Document, record: Record, role: str) -> list[int]:
    """Return the numbers of a divided role's workers that have a service: one that gpualloc made, and still there."""
    return [n for n in _known(record, role) if find_service(document, worker_name(role, n)) is not None]


def _known(record: Record, role: str) -> list[int]:
    """Return the numbers of a role's workers that gpualloc made a service for, there or not."""
    pattern = re.compile(rf"{re.escape(role)}-([1-9][0-9]*)\Z")
    found = (pattern.match(name) for name in record.services)
    return sorted(int(match[1]) for match in found if match is not None)


def workers_of(document: Document, record: Record, divisions: Iterable[Division], role: str) -> list[str]:
    """Return the names of a role's services in a file's text after divisions were carried out on it."""
    for division in divisions:
        if division.role == role:
            return [worker_name(role, n) for n in division.wanted]
    return [worker_name(role, n) for n in present(document, record, role)]


# --------------------------------------------------------------------------------------------------------------------
# There


def divide(document: Document, record: Record, divisions: Iterable[Division]) -> tuple[Document, dict[str, Divided]]:
    """Carry out divisions on a file's text without its pins. Returns the new text, and the roles that are divided now.

    Raises GpuallocError: ``replicas-split`` for what cannot be divided, and what ``patch`` raises.
    """
    roles = dict(record.roles)
    for division in divisions:
        role = division.role
        if role in roles:
            numbers, known = present(document, record, role), _known(record, role)
            roles[role] = replace(roles[role], replicas=len(division.wanted))
        else:
            document, roles[role] = _isolate(document, division)
            numbers = known = [1]
        document = _rescale(document, numbers, known, division)
    return document, roles


def _isolate(before: Document, division: Division) -> tuple[Document, Divided]:
    """Turn a role's service into its first worker's."""
    role, first = division.role, worker_name(division.role, 1)
    document, gone = _take_away(before, role, division.taken)
    _prove(before, document, role, {role: role})
    document, inverses = patch(document, division.edits) if division.edits else (document, {})
    edited = document
    document = _rename(document, role, first)
    _prove(edited, document, role, {first: role})
    return document, Divided(len(division.wanted), inverses.get(role) or Inverse(), gone)


def _rename(document: Document, old: str, new: str) -> Document:
    entry = _entry(document, old)
    splices = [Splice(*name_span(document, entry.key, old), new), *renamed(document, old, new)]
    return parse(apply_splices(document.text, splices), document.file)


def _entry(document: Document, service: str) -> Entry:
    entry = find_service(document, service)
    if entry is None:
        hint = "write the service out under services:"
        raise fail("replicas-split", f"{service} is not written out in this file", Place(document.file), hint)
    return entry


def _rescale(before: Document, numbers: Sequence[int], known: Sequence[int], division: Division) -> Document:
    """Bring the services of a role, now ``numbers``, to those wanted. ``known``: with those that people removed."""
    role, wanted = division.role, division.wanted
    if not any(n in wanted for n in numbers):
        hint = "restore the file from version control, or gpualloc reset"
        raise fail("replicas-split", f"the service {worker_name(role, wanted[0])} is gone", Place(before.file), hint)
    leaving = [n for n in known if n not in wanted]
    staying = [n for n in numbers if n in wanted]
    fresh = [n for n in wanted if n not in numbers]
    document = _without(before, role, leaving, staying)
    document = _with(document, role, staying, fresh)
    if leaving or fresh:
        services = {worker_name(role, n): worker_name(role, n if n in staying else staying[0]) for n in wanted}
        _prove(before, document, role, services)
    edits = [edit for n in fresh for edit in division.copies.get(n, ())]
    return patch(document, edits)[0] if edits else document


def _without(document: Document, role: str, leaving: Sequence[int], staying: Sequence[int]) -> Document:
    """Remove workers' services, and their names from other services' lists."""
    if not leaving:
        return document
    names = [worker_name(role, n) for n in leaving]
    splices = removed(document, names, [worker_name(role, n) for n in staying])
    document = parse(apply_splices(document.text, splices), document.file)
    for services in _services(document):
        gone = [entry.key.value in names for entry in services.entries]
        if not any(gone):
            continue
        if services.flow:
            splices = list(cut(document, services, gone, [()] * len(gone)))
        else:
            ours = {worker_name(role, n) for n in (*leaving, *staying)}
            splices = [_removal(document, services, n, ours) for n, lost in enumerate(gone) if lost]
        return parse(apply_splices(document.text, splices), document.file)
    return document


def _removal(document: Document, services: Mapping, index: int, ours: set[str]) -> Splice:
    """Return the splice that removes a copy, with what stands between it and the copy before it."""
    entry = services.entries[index]
    column = document.column(entry.key.start)
    line = document.line_start(entry.key.start)
    start = document.previous_end(line)
    if index and services.entries[index - 1].key.value in ours:
        start = line_after(document, services.entries[index - 1].value.end, column)
    end = line_after(document, entry.value.end, column)
    if not index:  # the first of all: it goes with its own line ending
        return Splice(line, document.next_line(end), "")
    return Splice(start, end, "")


def _services(document: Document) -> list[Mapping]:
    found = []
    for root in reversed(document.roots):
        entry = root.entry("services") if isinstance(root, Mapping) else None
        if entry is not None and isinstance(entry.value, Mapping):
            found.append(entry.value)
    return found


def _with(document: Document, role: str, staying: Sequence[int], fresh: Sequence[int]) -> Document:
    """Add copies of the lowest worker's service, each after the next lower one, and their names to lists."""
    if not fresh:
        return document
    model = worker_name(role, staying[0])
    followers: dict[str, list[str]] = {worker_name(role, n): [] for n in staying}
    for number in fresh:
        before = [n for n in staying if n < number]
        followers[worker_name(role, before[-1] if before else staying[0])].append(worker_name(role, number))
    services = next(s for s in _services(document) if s.entry(model) is not None)
    splices = added(document, list(followers), followers)
    for name, names in followers.items():
        if names and (entry := services.entry(name)) is not None:
            splices.append(_copies(document, services, model, entry, names))
    return parse(apply_splices(document.text, splices), document.file)


def _copies(document: Document, services: Mapping, model: str, after: Entry, names: Sequence[str]) -> Splice:
    entry = services.index[model]
    start, end = name_span(document, entry.key, model)
    head = without_anchors(document, [entry.key], entry.key.start, start)
    inner = list(walk(entry.value))
    if services.flow:
        tail = without_anchors(document, inner, end, entry.value.end)
        return Splice(after.value.end, after.value.end, "".join(f", {head}{name}{tail}" for name in names))
    line = document.line_start(entry.key.start)
    if document.text[line : entry.key.start].strip():
        hint = "write the service's name first on its line"
        raise fail("replicas-split", f"there is no place for copies of {model}", document.at(entry.key), hint)
    tail = without_anchors(document, inner, end, document.line_end(entry.value.end))
    column = entry.key.start - line
    lead = document.newline * (2 if _spaced(document, services) else 1) + " " * column
    offset = line_after(document, after.value.end, column)
    return Splice(offset, offset, "".join(f"{lead}{head}{name}{tail}" for name in names))


def _spaced(document: Document, services: Mapping) -> bool:
    """Return whether most services stand apart from the one before by a blank line."""
    blank = 0
    pairs = list(zip(services.entries, services.entries[1:], strict=False))
    for one, two in pairs:
        between = document.text[document.line_end(one.value.end) : document.line_start(two.key.start)]
        blank += any(not line.strip() for line in between.splitlines()[1:])
    return 2 * blank > len(pairs)


# --------------------------------------------------------------------------------------------------------------------
# Entries that are taken away


def removable(document: Document, service: str, path: Path) -> bool:
    """Return whether an entry of a service can be taken away: written in its own block, with nothing behind it."""
    entry = find_service(document, service)
    if entry is None or own(entry.value, path) is None:
        return False
    used = {id(n.target) for root in document.roots for n in walk(root) if isinstance(n, Alias)}
    node: Node = entry.value
    for step in path:
        if not isinstance(node, Mapping) or id(node) in used or node.tag or _merges(node, str(step)):
            return False
        node = node.index[str(step)].value
    return id(node) not in used and len(_whole(entry, path)) > 0


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


def _take_away(document: Document, service: str, paths: Sequence[Path]) -> tuple[Document, tuple[Gone, ...]]:
    gone: list[Gone] = []
    for path in paths:
        entry = _entry(document, service)
        splice, what = _taken(document, entry, _whole(entry, path))
        document = parse(apply_splices(document.text, [splice]), document.file)
        gone.append(what)
    return document, tuple(gone)


def _taken(document: Document, service: Entry, path: Path) -> tuple[Splice, Gone]:
    parent, holder = _parent(service, path)
    if parent is None:
        raise fail("replicas-split", "there is nothing to take away", document.at(service.key))
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


def _put_back(document: Document, service: Entry, gone: Gone) -> Document:
    parent, holder = _parent(service, gone.path)
    if parent is None or parent.entry(str(gone.path[-1])) is not None:
        return document  # people have rewritten this place
    before = parent.entry(gone.after) if gone.after is not None else None
    if gone.lines is None or parent.flow:
        if gone.lines is not None or not parent.flow:
            return document
        offset = before.value.end if before is not None else parent.entries[0].key.start
    elif gone.after is None:
        first = document.line_start(parent.entries[0].key.start)
        offset = _down(document, document.line_end(holder.key.start), gone.lines, first)
    elif before is not None:
        offset = _down(document, document.line_end(before.value.end), gone.lines)
    else:
        offset = document.line_end(parent.end)
    return parse(apply_splices(document.text, [Splice(offset, offset, gone.text)]), document.file)


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


# --------------------------------------------------------------------------------------------------------------------
# And back


def unsplit(document: Document, record: Record) -> Document:
    """Return a file's text, without its pins, with its roles in one piece again: as it was before gpualloc.

    Copies go, with what people changed in them. Raises GpuallocError (``record``) where a record no longer fits.
    """
    try:
        for role, divided in reversed(record.roles.items()):
            numbers = present(document, record, role)
            if not numbers:
                continue
            document = _without(document, role, [n for n in _known(record, role) if n != numbers[0]], numbers[:1])
            document = _rename(document, worker_name(role, numbers[0]), role)
            document = undo(document, {role: divided.inverse})
            for gone in reversed(divided.gone):
                document = _put_back(document, _entry(document, role), gone)
        return unseal(document, record.chomp) if record.roles else document
    except (GpuallocError, ValueError) as error:
        reason = error.diagnostics[0].summary if isinstance(error, GpuallocError) else str(error)
        hint = "if the record was edited by hand, restore it from version control"
        raise fail("record", f"the record no longer fits the file: {reason}", Place(document.file), hint) from error


# --------------------------------------------------------------------------------------------------------------------
# Proof


def _prove(before: Document, after: Document, role: str, services: MappingType[str, str]) -> None:
    """Compare two versions of a file: but for a role's services, only how those are named in lists has changed.

    ``services``: those of the role now, each with the one from before that it must be like, but for its number of
    containers. Raises GpuallocError (``replicas-split``).
    """
    old, new = _data(before), _data(after)
    names = frozenset((*services, *services.values(), *(n for n in old.keys() ^ new.keys() if _is_worker(n, role))))
    for name in sorted((old.keys() | new.keys()) - names):
        alike = name in old and name in new
        if not alike or not same(normal(old[name], names, role), normal(new[name], names, role)):
            raise _unproven(after, role, name or "more than services")
    if names & new.keys() != services.keys():
        raise _unproven(after, role, role)
    for name, model in services.items():
        if not same(_counted(old[model]), _counted(new[name])):
            raise _unproven(after, role, name)


def _is_worker(name: str, role: str) -> bool:
    return name == role or bool(re.fullmatch(rf"{re.escape(role)}-[1-9][0-9]*", name))


def _data(document: Document) -> dict[str, Any]:
    """Return the plain data of every service, and under "" what else Compose reads."""
    result: dict[str, Any] = {"": []}
    for root in document.roots:
        for key, node in members(root).items() if isinstance(root, Mapping) else ():
            mapping = resolve(node)
            if key == "services" and isinstance(mapping, Mapping):
                result |= {name: plain(value) for name, value in members(mapping).items()}
            elif not key.startswith("x-"):
                result[""].append((key, plain(node)))
    return result


def _counted(data: Any) -> Any:
    """Return a service's data without the number of its containers."""
    if not isinstance(data, dict):
        return data
    result = {k: v for k, v in data.items() if k not in {"deploy", "scale"}}
    deploy = data.get("deploy")
    rest = {k: v for k, v in deploy.items() if k != "replicas"} if isinstance(deploy, dict) else deploy
    return result | ({"deploy": rest} if rest else {})


def _unproven(document: Document, role: str, what: str) -> GpuallocError:
    hint = "give it blocks of its own, without anchors that others use; nothing was written"
    return fail("replicas-split", f"dividing {role} would change {what} as well", Place(document.file), hint)
