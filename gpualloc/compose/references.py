"""Where services name others, and changing those names in the text: ``depends_on``, ``links``, ``volumes_from``.

A list of names may stand behind an anchor, for several services. All of them mean the same services by it, so it is
changed where it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.compose import emit
from gpualloc.compose.data import Tagged, is_merge, members, merge_sources
from gpualloc.compose.document import Alias, Document, Mapping, Node, Scalar, Sequence, resolve, walk
from gpualloc.compose.splice import Splice, apply_splices, cut
from gpualloc.errors import fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.document import Collection

KEYS = ("depends_on", "links", "volumes_from")
"""The keys under which a service lists others. ``links`` may add ``:ALIAS`` to a name, ``volumes_from`` ``:ro``."""

_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")


@dataclass(frozen=True, slots=True)
class _Reference:
    """A key or an item that names a service. ``rest`` is what follows the name: ``:ALIAS`` or nothing."""

    parent: Collection
    index: int
    name: str
    rest: str

    @property
    def node(self) -> Node:
        parent = self.parent
        return parent.entries[self.index].key if isinstance(parent, Mapping) else parent.items[self.index]


@dataclass(slots=True)
class _List:
    """One list of names: by role and what follows the name, who is named, and where."""

    parent: Collection
    groups: dict[tuple[str, str], dict[str, _Reference]] = field(default_factory=dict)


def split_name(text: str) -> tuple[str, str]:
    """Return the service that an item of one of these lists names, and what follows the name."""
    name, colon, rest = text.partition(":")
    return name, colon + rest


def _lists(document: Document, owner: MappingType[str, str]) -> list[_List]:
    """Return every list, once, that names a service of a role. ``owner``: the roles of services."""
    found: dict[int, _List] = {}
    for root in document.roots:
        services = members(root).get("services") if isinstance(root, Mapping) else None
        mapping = resolve(services) if services is not None else None
        for service in members(mapping).values() if isinstance(mapping, Mapping) else ():
            real = resolve(service)
            inner = members(real) if isinstance(real, Mapping) else {}
            for key in KEYS:
                for node in _collections(inner.get(key)):
                    if id(node) not in found:
                        found[id(node)] = _read(node, owner, key)
    return [each for each in found.values() if each.groups]


def _collections(node: Node | None) -> Iterator[Collection]:
    """Yield a list of names, or a map of them with those it merges."""
    real = resolve(node) if node is not None else None
    if isinstance(real, Sequence):
        yield real
    elif isinstance(real, Mapping):
        yield real
        for entry in real.entries:
            if is_merge(entry.key):
                for source in merge_sources(entry.value):
                    yield from _collections(source)


def _read(node: Collection, owner: MappingType[str, str], key: str) -> _List:
    result = _List(node)
    scalars = [e.key for e in node.entries] if isinstance(node, Mapping) else [resolve(i) for i in node.items]
    for index, scalar in enumerate(scalars):
        if not isinstance(scalar, Scalar):
            continue
        name, rest = (scalar.value, "") if key == "depends_on" else split_name(scalar.value)
        if name in owner and not (key == "volumes_from" and name == "container"):
            group = result.groups.setdefault((owner[name], rest), {})
            group.setdefault(name, _Reference(node, index, name, rest))
    return result


def name_span(document: Document, node: Node, name: str) -> tuple[int, int]:
    """Return where a name stands in the source of a scalar that begins with it.

    Raises GpuallocError (``replicas-split``) where it is spelled in another way: by an alias, or with escapes.
    """
    start = node.start
    if not isinstance(node, Alias):
        properties = _PROPERTIES.match(document.text, node.start, node.end)
        start = properties.end() if properties else start
        start += isinstance(node, Scalar) and node.style in {"'", '"'}
    if isinstance(node, Alias) or not document.text.startswith(name, start):
        hint = f"write {name} out here"
        raise fail("replicas-split", f"{name} is not named as it is written", document.at(node), hint)
    return start, start + len(name)


def renamed(document: Document, names: MappingType[str, str]) -> list[Splice]:
    """Return the splices that let every list name other services instead. ``names``: the new by the old."""
    return [
        Splice(*name_span(document, reference.node, old), names[old])
        for found in _lists(document, {name: name for name in names})
        for group in found.groups.values()
        for old, reference in group.items()
    ]


def added(document: Document, followers: MappingType[str, MappingType[str, list[str]]]) -> list[Splice]:
    """Return the splices that let every list that names all services of a role name its new ones too.

    ``followers``: by role and present service, the new ones that follow it.
    """
    owner = {name: role for role, each in followers.items() for after, new in each.items() for name in (after, *new)}
    splices: list[Splice] = []
    for found in _lists(document, owner):
        for (role, _), group in found.groups.items():
            if not all(name in group for name in followers[role]):
                continue
            for after, names in followers[role].items():
                missing = [name for name in names if name not in group]
                splices += [_insert(document, group[after], missing)] if missing else []
    return splices


def _insert(document: Document, reference: _Reference, names: list[str]) -> Splice:
    parent, node = reference.parent, reference.node
    start, end = name_span(document, node, reference.name)
    if isinstance(parent, Mapping):
        entry = parent.entries[reference.index]
        first, last = entry.key.start, entry.value.end
        column = document.column(entry.key.start)
        dash = ""
    else:
        first, last = node.start, node.end
        column = 0 if parent.flow else emit.dash_column(document, parent)
        dash = "- "
    head = without_anchors(document, [node], first, start)
    tail = without_anchors(document, _inside(reference), end, last)
    if parent.flow:
        return Splice(last, last, "".join(f", {head}{name}{tail}" for name in names))
    lead = f"{document.newline}{' ' * column}{dash}"
    offset = document.line_end(last)
    return Splice(offset, offset, "".join(f"{lead}{head}{name}{tail}" for name in names))


def _inside(reference: _Reference) -> list[Node]:
    parent = reference.parent
    return list(walk(parent.entries[reference.index].value)) if isinstance(parent, Mapping) else []


def removed(
    document: Document, leaving: MappingType[str, list[str]], staying: MappingType[str, list[str]]
) -> list[Splice]:
    """Return the splices that take services, by role, out of every list.

    Where a list names none of the role's that stay, the first of those is put.
    """
    owner = {name: role for each in (staying, leaving) for role, names in each.items() for name in names}
    splices: list[Splice] = []
    for found in _lists(document, owner):
        parent = found.parent
        size = len(parent.entries) if isinstance(parent, Mapping) else len(parent.items)
        gone = [False] * size
        for (role, _), group in found.groups.items():
            going = [group[name] for name in leaving.get(role, ()) if name in group]
            if going and len(going) == len(group):
                stays = going.pop(0)
                splices.append(Splice(*name_span(document, stays.node, stays.name), staying[role][0]))
            for reference in going:
                gone[reference.index] = True
        if any(gone):
            splices += cut(document, parent, gone, [()] * size)
    return splices


def without_anchors(document: Document, nodes: Iterable[Node], start: int, end: int) -> str:
    """Return text with the anchors of the nodes in it left out: they are defined once."""
    removals: list[Splice] = []
    for node in nodes:
        if isinstance(node, Alias) or not node.anchor:
            continue
        at = document.text.index(f"&{node.anchor}", node.start)
        past = at + len(node.anchor) + 1
        line, line_end = document.line_start(at), document.line_end(at)
        if line > start and not document.text[line:at].strip() and not document.text[past:line_end].strip():
            at, past = line, document.next_line(at)
        elif document.text[past : past + 1] == " ":
            past += 1
        elif document.text[at - 1] == " ":
            at -= 1
        if start <= at and past <= end:
            removals.append(Splice(at - start, past - start, ""))
    return apply_splices(document.text[start:end], removals)


def normal(data: Any, owner: MappingType[str, str]) -> Any:
    """Return plain data with every mention of a service, in such lists, replaced by the name of its role.

    Two versions of a file that differ only in which of a role's services they name are then alike.
    """
    if isinstance(data, dict):
        return {k: _normal_names(v, owner) if k in KEYS else normal(v, owner) for k, v in data.items()}
    if isinstance(data, list):
        return [normal(v, owner) for v in data]
    if isinstance(data, Tagged):
        return Tagged(data.tag, normal(data.value, owner))
    return data


def _normal_names(data: Any, owner: MappingType[str, str]) -> Any:
    if isinstance(data, dict):
        return {owner.get(k, k): v for k, v in data.items()}
    if isinstance(data, Tagged):
        return Tagged(data.tag, _normal_names(data.value, owner))
    if not isinstance(data, list):
        return data
    result: list[Any] = []
    for item in data:
        name, rest = split_name(item) if isinstance(item, str) else ("", "")
        text = f"{owner[name]}{rest}" if name in owner else item
        if name not in owner or text not in result:
            result.append(text)
    return result
