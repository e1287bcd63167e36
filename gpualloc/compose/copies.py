"""Copies of a service for the further workers of its role: put in and taken out of a file's text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.compose.document import Document, Entry, Mapping, parse, walk
from gpualloc.compose.references import added, name_span, removed, without_anchors
from gpualloc.compose.splice import Splice, apply_splices, cut, line_after
from gpualloc.errors import fail

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Mapping as MappingType


def worker_name(role: str, number: int) -> str:
    """Return the name of a worker, and of its service once the role is divided."""
    return f"{role}-{number}"


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of a divided role's services, by their numbers. At least one stays.

    Some of those that are to leave may be gone already, and are only named in lists.
    """

    role: str
    staying: tuple[int, ...]
    leaving: tuple[int, ...]
    fresh: tuple[int, ...]

    def names(self) -> Iterator[str]:
        """Yield the names of all of them."""
        yield from (worker_name(self.role, n) for n in (*self.staying, *self.leaving, *self.fresh))

    @property
    def model(self) -> str:
        """The service that copies are made of."""
        return worker_name(self.role, self.staying[0])


# --------------------------------------------------------------------------------------------------------------------
# Out


def without_copies(document: Document, changes: Sequence[Change]) -> Document:
    """Remove the services that are to leave, and their names from other services' lists."""
    leaving = {c.role: [worker_name(c.role, n) for n in c.leaving] for c in changes if c.leaving}
    if not leaving:
        return document
    staying = {c.role: [worker_name(c.role, n) for n in c.staying] for c in changes}
    splices = removed(document, leaving, staying)
    document = parse(apply_splices(document.text, splices), document.file) if splices else document
    owner = {name: change.role for change in changes for name in change.names()}
    names = {name for each in leaving.values() for name in each}
    splices = [splice for services in _services(document) for splice in _removals(document, services, names, owner)]
    return parse(apply_splices(document.text, splices), document.file) if splices else document


def _removals(document: Document, services: Mapping, names: set[str], owner: MappingType[str, str]) -> Iterator[Splice]:
    """Yield the splices that remove services, with what stands between each and the copy before it."""
    gone = [entry.key.value in names for entry in services.entries]
    if not any(gone):
        return
    if services.flow:
        yield from cut(document, services, gone, [()] * len(gone))
        return
    first = gone.index(False)
    if first:  # those before all others go with their own line endings
        start = document.line_start(services.entries[0].key.start)
        yield Splice(start, document.line_start(services.entries[first].key.start), "")
    for index in range(first, len(gone)):
        if not gone[index]:
            continue
        entry, before = services.entries[index], services.entries[index - 1]
        column = document.column(entry.key.start)
        start = document.previous_end(document.line_start(entry.key.start))
        if owner.get(before.key.value) == owner[entry.key.value]:
            start = line_after(document, before.value.end, column)
        yield Splice(start, line_after(document, entry.value.end, column), "")


def _services(document: Document) -> Iterator[Mapping]:
    for root in reversed(document.roots):
        entry = root.entry("services") if isinstance(root, Mapping) else None
        if entry is not None and isinstance(entry.value, Mapping):
            yield entry.value


# --------------------------------------------------------------------------------------------------------------------
# In


def with_copies(document: Document, changes: Sequence[Change]) -> Document:
    """Add copies of each role's lowest service, each after the next lower one, and name them in lists."""
    followers = {change.role: _followers(change) for change in changes if change.fresh}
    if not followers:
        return document
    # Names come first: a copy of a service that names others is to name the new ones too.
    splices = added(document, followers)
    document = parse(apply_splices(document.text, splices), document.file) if splices else document
    splices = []
    for services in _services(document):
        spaced = _spaced(document, services)
        for change in changes:
            if change.model not in services.index:
                continue
            for name, names in followers.get(change.role, {}).items():
                if names and (entry := services.entry(name)) is not None:
                    splices.append(_copies(document, services, change.model, entry, names, spaced=spaced))
    return parse(apply_splices(document.text, splices), document.file)


def _followers(change: Change) -> dict[str, list[str]]:
    """Return, for each service that stays, the new ones that follow it."""
    result: dict[str, list[str]] = {worker_name(change.role, n): [] for n in change.staying}
    for number in change.fresh:
        before = [n for n in change.staying if n < number]
        after = before[-1] if before else change.staying[0]
        result[worker_name(change.role, after)].append(worker_name(change.role, number))
    return result


def _copies(
    document: Document, services: Mapping, model: str, after: Entry, names: Sequence[str], *, spaced: bool
) -> Splice:
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
    lead = document.newline * (2 if spaced else 1) + " " * column
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
