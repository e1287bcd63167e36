"""Edits to text: splices at the marks of the nodes that must change, and nothing else.

An edit names a service, a path inside it and a value. It is carried out in two steps. First every node on its path
that another service also sees (through an alias or a merge key) is given a local stand-in; then values are replaced and
inserted in place. The result comes with its inverse: the source text of everything that was replaced.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.compose import emit
from gpualloc.compose.data import Tagged, members, plain, scalar_value
from gpualloc.compose.document import Alias, Document, Entry, Mapping, Node, Scalar, Sequence, parse, resolve, walk
from gpualloc.errors import GpuallocError, Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence as Seq


Path = tuple["str | int", ...]

_ROUNDS = 16
"""Localising one level can reveal another behind it; paths are shorter than this."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Give a service's key a value. ``replaces`` names the sibling key that goes (``count`` for ``device_ids``).

    Under ``environment`` the key is the variable's name, whether the file writes a map or a list.
    """

    service: str
    path: Path
    value: Any
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Inverse:
    """How to undo one service's edits.

    ``original``: the source text to put back at a path, None where the key was absent. ``inherits``: keys that got a
    local stand-in, with the alias entry's text, or None where a merge key supplied the value.
    """

    original: dict[Path, str | None] = field(default_factory=dict)
    inherits: dict[Path, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Splice:
    """Replace the characters from ``start`` to ``end``. ``depth`` orders insertions at one offset: deepest first."""

    start: int
    end: int
    text: str
    depth: int = 0


def apply_splices(text: str, splices: Iterable[Splice]) -> str:
    """Return the text with all splices applied; overlapping ones are a ValueError."""
    parts: list[str] = []
    position = 0
    for splice in sorted(splices, key=lambda s: (s.start, s.end, -s.depth)):
        if splice.start < position:
            raise ValueError("splices overlap")
        parts += (text[position : splice.start], splice.text)
        position = splice.end
    parts.append(text[position:])
    return "".join(parts)


def service_entry(document: Document, service: str) -> Entry:
    """Return the entry that defines a service in this file. Raises GpuallocError (``no-service``) without one."""
    for root in reversed(document.roots):
        services = root.entry("services") if isinstance(root, Mapping) else None
        mapping = resolve(services.value) if services else None
        entry = mapping.entry(service) if isinstance(mapping, Mapping) else None
        if entry is not None:
            return entry
    raise fail("no-service", f"the service {service!r} is not defined in this file", Place(document.file))


def patch(document: Document, edits: Seq[Edit]) -> tuple[Document, dict[str, Inverse]]:
    """Carry out all edits of one file. Returns the new document, and per service how to undo it.

    Raises GpuallocError (``cannot-edit``) where the file's shape leaves no place to write.
    """
    inverses = {edit.service: Inverse() for edit in edits}
    before = document
    for _ in range(_ROUNDS):
        splices: dict[tuple[str, Path], Splice] = {}
        localiser = _Localiser(document, edits)
        for edit in edits:
            found = localiser.localise(edit)
            if found is not None:
                path, splice, original = found
                if (edit.service, path) not in splices:
                    splices[edit.service, path] = splice
                    inverses[edit.service].inherits.setdefault(path, original)
        if not splices:
            break
        document = parse(apply_splices(document.text, splices.values()), document.file)
    writer = _Writer(document)
    for edit in edits:
        writer.write(edit, inverses[edit.service])
    document = parse(apply_splices(document.text, writer.finish()), document.file)
    verify(before, document, edits)
    return document, inverses


# --------------------------------------------------------------------------------------------------------------------
# Local stand-ins for what a service inherits


class _Localiser:
    """Finds what an edit's path inherits, and writes the stand-in."""

    def __init__(self, document: Document, edits: Seq[Edit]) -> None:
        self.document = document
        self.style = emit.style_of(document)
        self.edited: dict[int, str] = {}
        for edit in edits:
            service = resolve(service_entry(document, edit.service).value)
            entry = service.entry(str(edit.path[0])) if isinstance(service, Mapping) else None
            if entry is not None and len(edit.path) > 1:
                self.edited.update((id(node), edit.service) for node in walk(entry.value))
        self.anchors = [n for root in document.roots for n in walk(root) if not isinstance(n, Alias) and n.anchor]

    def localise(self, edit: Edit) -> tuple[Path, Splice, str | None] | None:
        """Return the first level of the path that is not the service's own, as a splice; None where all of it is."""
        entry = service_entry(self.document, edit.service)
        if isinstance(entry.value, Alias):
            column = self.document.column(entry.key.start) + self.style.step
            text = self.break_line(column) + f"<<: *{entry.value.name}"
            return (), Splice(entry.value.start, entry.value.end, text), self.document.source(entry.value)
        node: Node = entry.value
        for depth, step in enumerate(edit.path[:-1]):
            path = edit.path[: depth + 1]
            merge = depth == len(edit.path) - 2 and step == "environment"
            if isinstance(node, Mapping) and isinstance(step, str):
                own = node.entry(step)
                if own is None:
                    inherited = members(node).get(step)
                    if inherited is None:
                        return None
                    return path, self.insert(node, step, inherited, edit.service, merge=merge), None
                value = own.value
                if isinstance(value, Alias):
                    original = self.document.text[own.key.start : value.end]
                    column = self.document.column(own.key.start)
                    return path, self.replace(value, column, edit.service, merge=merge), original
            elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
                value = node.items[step]
                if isinstance(value, Alias):
                    column = emit.dash_column(self.document, node)
                    return path, self.replace(value, column, edit.service, merge=False), self.document.source(value)
            else:
                return None
            node = value
        return None

    def break_line(self, column: int) -> str:
        return self.style.newline + " " * column

    def insert(self, parent: Mapping, step: str, inherited: Node, service: str, *, merge: bool) -> Splice:
        name = emit.key(step)
        if parent.flow:
            return _insert_flow(self.document, parent, f"{name}: {emit.flow(_portable(inherited))}")
        column = self.document.column(parent.entries[0].key.start)
        text = f"{name}:{self.stand_in(inherited, column, service, merge=merge)}"
        offset = self.document.line_end(parent.end)
        return Splice(offset, offset, self.break_line(column) + text, column)

    def replace(self, alias: Alias, column: int, service: str, *, merge: bool) -> Splice:
        text = self.stand_in(alias, column, service, merge=merge)
        # The alias stands after "key: " or "- ": a block goes to the next line, a flow value where the alias was.
        start = alias.start
        if text.startswith(self.style.newline):
            while self.document.text[start - 1] == " ":
                start -= 1
        else:
            text = text.lstrip(" ")
        return Splice(start, alias.end, text)

    def stand_in(self, node: Node, column: int, service: str, *, merge: bool) -> str:
        """Return what follows ``key:`` for a value of a service at ``column``: a merge of the anchor, or a copy."""
        real = resolve(node)
        name = real.anchor
        if merge and isinstance(real, Mapping) and name and self.edited.get(id(real), service) == service:
            last = max((n for n in self.anchors if n.anchor == name), key=lambda n: n.start)
            if last is real:
                return f"{self.break_line(column + self.style.step)}<<: *{name}"
        if isinstance(real, Mapping) and not real.flow and real.entries:
            inner = column + self.style.step
            return self.break_line(inner) + self.copy(real, real.entries[0].key.start, inner)
        if isinstance(real, Sequence) and not real.flow and real.items:
            inner = column + self.style.dash
            source = emit.dash_column(self.document, real)
            dash = self.document.line_start(real.items[0].start) + source
            return self.break_line(inner) + self.copy(real, dash, inner)
        return f" {emit.flow(_portable(real))}"

    def copy(self, node: Mapping | Sequence, start: int, column: int) -> str:
        """Return a block collection's source re-indented, its anchors left behind: they are defined once."""
        text = self.document.text[start : node.end]
        removals: list[Splice] = []
        for inner in walk(node):
            if inner is not node and not isinstance(inner, Alias) and inner.anchor:
                at = self.document.text.index(f"&{inner.anchor}", inner.start) - start
                end = at + len(inner.anchor) + 1
                if text[end : end + 1] == " ":
                    end += 1
                elif text[at - 1] == " ":
                    at -= 1
                removals.append(Splice(at, end, ""))
        text = apply_splices(text, removals)
        shift = column - self.document.column(start)
        lines = text.split("\n")
        for number, line in enumerate(lines[1:], 1):
            if not line.strip():
                continue
            if shift >= 0:
                lines[number] = " " * shift + line
            else:
                lines[number] = line[min(-shift, len(line) - len(line.lstrip(" "))) :]
        return "\n".join(lines)


def _portable(node: Node) -> Any:
    return plain(node)


# --------------------------------------------------------------------------------------------------------------------
# Values


@dataclass(slots=True)
class _Fill:
    """What goes into a container: new keys, or new items of an environment list."""

    node: Node
    entry: Entry | None
    tree: dict[str, Any] = field(default_factory=dict)
    items: list[str] = field(default_factory=list)


class _Writer:
    """Collects the splices for edits whose paths are all local now."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.style = emit.style_of(document)
        self.splices: list[Splice] = []
        self.fills: dict[int, _Fill] = {}

    def write(self, edit: Edit, inverse: Inverse) -> None:
        entry = service_entry(self.document, edit.service)
        node: Node = entry.value
        for depth, step in enumerate(edit.path):
            last = depth == len(edit.path) - 1
            if _is_empty(node):
                path = edit.path[:depth]
                inverse.original.setdefault(path, self._entry_line(entry))
                self._fill(node, entry, edit.path[depth:], edit.value)
                return
            if isinstance(node, Mapping) and isinstance(step, str):
                own = node.entry(edit.replaces if last and edit.replaces else step)
                if own is None:
                    inverse.original[edit.path] = None
                    self._fill(node, None, edit.path[depth:], edit.value)
                    return
                if last:
                    inverse.original[edit.path] = self.document.text[own.key.start : own.value.end]
                    self._replace(own, step, edit.value)
                    return
                entry, node = own, own.value
            elif isinstance(node, Sequence) and isinstance(step, str):
                self._environment_item(node, edit, inverse)
                return
            elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
                node = node.items[step]
                if last:
                    inverse.original[edit.path] = self.document.source(node)
                    self._replace_item(node, edit.value)
                    return
            else:
                raise self._cannot(edit, node)

    def finish(self) -> list[Splice]:
        """Return all splices, insertions into one container in the order of the edits."""
        for fill in self.fills.values():
            if fill.entry is not None:
                self._replace_empty(fill.entry, fill)
            elif isinstance(fill.node, Mapping):
                self._insert_entries(fill.node, fill.tree)
            elif isinstance(fill.node, Sequence):
                self._insert_items(fill.node, fill.items)
        return self.splices

    def _fill(self, node: Node, empty: Entry | None, path: Path, value: Any) -> None:
        fill = self.fills.setdefault(id(node), _Fill(node, empty))
        tree = fill.tree
        for step in path[:-1]:
            tree = tree.setdefault(str(step), {})
        tree[str(path[-1])] = value

    def _entry_line(self, entry: Entry) -> str:
        """Return an entry whose value is empty, with the comment after it, which a block put there would swallow."""
        end = self.document.line_end(entry.value.end) if self._ends_line(entry.value) else entry.value.end
        return self.document.text[entry.key.start : end]

    def _ends_line(self, node: Node) -> bool:
        """Return whether nothing but a comment follows a node on its line, so that a block may follow."""
        rest = self.document.text[node.end : self.document.line_end(node.end)].strip()
        return not rest or rest.startswith("#")

    def _replace_empty(self, entry: Entry, fill: _Fill) -> None:
        value = entry.value
        if not self._ends_line(value):  # inside a flow collection
            space = "" if self.document.text[value.start - 1] == " " else " "
            self.splices.append(Splice(value.start, value.end, space + emit.flow(fill.tree)))
            return
        start = value.start
        while self.document.text[start - 1] == " ":
            start -= 1
        if start < value.end:
            self.splices.append(Splice(start, value.end, ""))
        column = self.document.column(entry.key.start)
        offset = self.document.line_end(value.end)
        self.splices.append(Splice(offset, offset, self._block(fill.tree, column + self.style.step), column))

    def _block(self, tree: dict[str, Any], column: int) -> str:
        lines = [line for k, v in tree.items() for line in emit.entry_lines(k, v, self.style)]
        return "".join(self.style.newline + " " * column + line for line in lines)

    def _insert_entries(self, node: Mapping, tree: dict[str, Any]) -> None:
        if node.flow:
            text = ", ".join(f"{emit.key(k)}: {emit.flow(v)}" for k, v in tree.items())
            self.splices.append(_insert_flow(self.document, node, text))
            return
        column = self.document.column(node.entries[0].key.start)
        offset = self.document.line_end(node.end)
        self.splices.append(Splice(offset, offset, self._block(tree, column), column))

    def _insert_items(self, node: Sequence, items: list[str]) -> None:
        if node.flow:
            text = ", ".join(json.dumps(item, ensure_ascii=False) for item in items)
            self.splices.append(_insert_flow(self.document, node, text))
            return
        column = emit.dash_column(self.document, node)
        offset = self.document.line_end(node.end)
        last = resolve(node.items[-1])
        quote = last.style if isinstance(last, Scalar) else None
        text = "".join(f"{self.style.newline}{' ' * column}- {_quoted(item, quote)}" for item in items)
        self.splices.append(Splice(offset, offset, text, column))

    def _environment_item(self, node: Sequence, edit: Edit, inverse: Inverse) -> None:
        name = str(edit.path[-1])
        text = f"{name}={edit.value}"
        for item in node.items:
            if environment_name(item) == name:
                inverse.original[edit.path] = self.document.source(item)
                real = resolve(item)
                style = real.style if isinstance(real, Scalar) else None
                new = json.dumps(text, ensure_ascii=False) if node.flow else _quoted(text, style)
                self.splices.append(Splice(item.start, item.end, new))
                return
        inverse.original[edit.path] = None
        self.fills.setdefault(id(node), _Fill(node, None)).items.append(text)

    def _replace(self, entry: Entry, name: str, value: Any) -> None:
        old = entry.value
        if isinstance(old, Sequence) and not old.flow and old.items and entry.key.value == name and _is_flat(value):
            column = emit.dash_column(self.document, old)
            first = self.document.line_start(old.items[0].start) + column
            lines = [f"- {emit.flow(item)}" for item in value]
            self.splices.append(Splice(first, old.end, (self.style.newline + " " * column).join(lines)))
            return
        key = self.document.source(entry.key) if entry.key.value == name else emit.key(name)
        start = entry.key.start
        self.splices.append(Splice(start, old.end, f"{key}: {emit.flow(value)}"))

    def _replace_item(self, node: Node, value: Any) -> None:
        style = node.style if isinstance(node, Scalar) else None
        text = _quoted(value, style) if isinstance(value, str) else emit.flow(value)
        self.splices.append(Splice(node.start, node.end, text))

    def _cannot(self, edit: Edit, node: Node) -> GpuallocError:
        where = self.document.at(node)
        path = path_text(edit.path)
        return fail("cannot-edit", f"{edit.service}: there is no place to write {path}", where, _OVERRIDE_HINT)


_OVERRIDE_HINT = "write the service's GPU settings in Compose's usual form; nothing was written"


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _is_empty(node: Node) -> bool:
    if isinstance(node, Scalar):
        return scalar_value(node) is None
    return isinstance(node, (Mapping, Sequence)) and not (node.entries if isinstance(node, Mapping) else node.items)


def _quoted(text: str, style: str | None) -> str:
    if style == "'":
        return "'" + text.replace("'", "''") + "'"
    if style == '"':
        return json.dumps(text, ensure_ascii=False)
    return emit.list_item(text)


def _insert_flow(document: Document, node: Mapping | Sequence, text: str) -> Splice:
    children = [e.value for e in node.entries] if isinstance(node, Mapping) else node.items
    if not children:
        offset = document.text.rindex("}" if isinstance(node, Mapping) else "]", node.start, node.end)
        return Splice(offset, offset, text)
    offset = children[-1].end
    return Splice(offset, offset, f", {text}", 1)


def environment_name(item: Node) -> str | None:
    """Return the variable that an item of an environment list names."""
    real = resolve(item)
    return real.value.split("=", 1)[0] if isinstance(real, Scalar) else None


def path_text(path: Path) -> str:
    """Return a path as it is written in messages and in the record: ``deploy.resources.devices[0]."a.b"``."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            name = step if step and not any(c in step for c in '.[]"') else json.dumps(step, ensure_ascii=False)
            parts.append(f".{name}" if parts else name)
    return "".join(parts)


# --------------------------------------------------------------------------------------------------------------------
# Proof


def verify(before: Document, after: Document, edits: Seq[Edit]) -> None:
    """Compare two versions of a file: exactly the edited services changed, in exactly the edited keys.

    Raises GpuallocError (``shared-node``) naming the service that would have changed along.
    """
    old, new = _services(before), _services(after)
    expected = dict(old)
    for edit in edits:
        expected[edit.service] = _edited(expected.get(edit.service), edit.path, edit.value, edit.replaces)
    intended = {edit.service for edit in edits}
    for name in sorted(old.keys() | new.keys()):
        if name in old and name in new and same(expected[name], new[name]):
            continue
        where = after.at(service_entry(after, name).key) if name in new else Place(before.file)
        if name in intended:
            summary = f"editing {name} would change more of it than its GPU settings"
        else:
            summary = f"editing {_names(intended)} would change {name} too: it shares a block with it"
        raise fail("shared-node", summary, where, "give each service its own block; nothing was written")
    if not same(_outside(before), _outside(after)):
        raise fail("shared-node", "the edit would change more than services", Place(before.file), _OVERRIDE_HINT)


def _names(services: set[str]) -> str:
    return ", ".join(sorted(services)[:3]) + (" …" if len(services) > 3 else "")


def _services(document: Document) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for root in document.roots:
        services = members(root).get("services") if isinstance(root, Mapping) else None
        mapping = resolve(services) if services is not None else None
        if isinstance(mapping, Mapping):
            result |= {name: plain(value) for name, value in members(mapping).items()}
    return result


def _outside(document: Document) -> list[Any]:
    return [
        {e.key.value: plain(e.value) for e in root.entries if e.key.value not in ("services", "x-gpualloc")}
        for root in document.roots
        if isinstance(root, Mapping)
    ]


def _edited(data: Any, path: Path, value: Any, replaces: str | None) -> Any:
    """Return a copy of plain data with one edit made: what the new text must mean."""
    if isinstance(data, Tagged):
        return Tagged(data.tag, _edited(data.value, path, value, replaces))
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        items = list(data)
        items[step] = _edited(items[step], rest, value, replaces)
        return items
    if isinstance(data, list):
        kept = [f"{step}={value}" if isinstance(i, str) and i.split("=", 1)[0] == step else i for i in data]
        return kept if kept != data or f"{step}={value}" in data else [*data, f"{step}={value}"]
    result = dict(data or {})
    if not rest and replaces:
        result.pop(replaces, None)
    result[step] = _edited(result.get(step), rest, value, replaces)
    return result


def same(a: Any, b: Any) -> bool:
    """Compare with types: 1 is not True, and 1 is not 1.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Tagged):
        return a.tag == b.tag and same(a.value, b.value)
    return bool(a == b)
