"""Edits to text: splices at the marks of the nodes that must change, and nothing else.

An edit names a service, a path inside it and a value. First every node on its path that another service also sees
gets a local stand-in (``localise``) or is moved out of the way (``separate``); then values are replaced and inserted in
place. The result comes with its inverse: the source text of everything that was replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.compose import emit
from gpualloc.compose.data import Tagged, is_empty, members, scalar_value
from gpualloc.compose.document import Document, Entry, Mapping, Node, Scalar, Sequence, parse, resolve
from gpualloc.compose.localise import localise
from gpualloc.compose.route import Edit, Inverse, item_index, own, path_text, services_of
from gpualloc.compose.separate import move_down, outermost, shared
from gpualloc.compose.splice import Splice, apply_splices, cut, insert_flow, line_after
from gpualloc.compose.verify import verify
from gpualloc.errors import GpuallocError, fail

if TYPE_CHECKING:
    from collections.abc import Sequence as Seq

    from gpualloc.compose.route import Path

__all__ = ("Edit", "patch")

_ROUNDS = 16
"""Moving one mapping down can show that another is shared; a path has fewer mappings than this."""


def patch(document: Document, edits: Seq[Edit]) -> tuple[Document, dict[str, Inverse]]:
    """Carry out all edits of one file. Returns the new document, and per service how to undo it.

    Raises GpuallocError: ``cannot-edit`` where the file's shape leaves no place to write, ``shared-node`` where more
    than the edited services would change.
    """
    before = document
    document, inverses = _make_room(before, edits)
    writer = _Writer(document)
    for edit in edits:
        writer.write(edit, inverses[edit.service])
    document = parse(apply_splices(document.text, writer.finish()), document.file)
    verify(before, document, edits)
    return document, inverses


def _make_room(before: Document, edits: Seq[Edit]) -> tuple[Document, dict[str, Inverse]]:
    """Make every path of the edits the service's own, and move what others see out of the way."""
    moved: dict[tuple[str, Path], None] = {}
    for _ in range(_ROUNDS):
        inverses = {edit.service: Inverse() for edit in edits}
        document, headers = move_down(before, moved)
        for (service, path), header in headers.items():
            inverses[service].wrapped[path] = header
        document = localise(document, edits, inverses)
        more = {key: None for key in shared(document, edits) if key not in moved}
        if not more:
            break
        moved = outermost(moved | more)
    return document, inverses


@dataclass(slots=True)
class _Fill:
    """What goes into a container: new keys, or new items of an environment list."""

    node: Node
    empty: Entry | None
    in_flow: bool
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
        """Find the place for one edit and note how to undo it."""
        _, services = services_of(self.document, edit.service)
        entry: Entry | None = services.entry(edit.service)
        if entry is None:
            raise self.cannot(edit, services)
        node: Node = entry.value
        in_flow = services.flow
        for depth, step in enumerate(edit.path[:-1]):
            if is_empty(node) or self.is_absent(node, step):
                self.fill(edit, depth, node, entry, inverse, in_flow=in_flow)
                return
            child = own(node, (step,))
            if child is None or not isinstance(node, (Mapping, Sequence)):
                raise self.cannot(edit, node)
            in_flow = node.flow
            entry = node.index[str(step)] if isinstance(node, Mapping) else None
            node = child
        if is_empty(node):
            self.fill(edit, len(edit.path) - 1, node, entry, inverse, in_flow=in_flow)
        else:
            self.write_last(edit, node, inverse)

    def is_absent(self, node: Node, step: str | int) -> bool:
        return isinstance(node, Mapping) and node.entry(str(step)) is None

    def fill(self, edit: Edit, depth: int, node: Node, entry: Entry | None, inverse: Inverse, *, in_flow: bool) -> None:
        """Note keys that go into a mapping, or in the place of an empty value."""
        if any(isinstance(step, int) for step in edit.path[depth:]):
            raise self.cannot(edit, node)  # the list is not in this file
        if not is_empty(node):
            entry = None
        elif entry is None:
            raise self.cannot(edit, node)
        else:
            inverse.filled.setdefault(edit.path[:depth], self.entry_line(entry, in_flow=in_flow))
        inverse.remember(edit.path, None)
        tree = self.fills.setdefault(id(node), _Fill(node, entry, in_flow)).tree
        for step in edit.path[depth:-1]:
            inner = tree.setdefault(str(step), self.fresh(node, str(step)))
            tree = inner.value if isinstance(inner, Tagged) else inner
            node = _NOTHING
        tree[str(edit.path[-1])] = edit.value

    def fresh(self, node: Node, step: str) -> Any:
        """Return the mapping for a new key: under ``!override`` where an empty value that is merged in has that."""
        merged = members(node).get(step) if isinstance(node, Mapping) else None
        tag = resolve(merged).tag if merged is not None else None
        return Tagged(_OVERRIDE, {}) if tag in {_OVERRIDE, "!reset"} else {}

    def write_last(self, edit: Edit, node: Node, inverse: Inverse) -> None:
        """Write the last step of a path into the collection that holds it."""
        step = edit.path[-1]
        if isinstance(node, Mapping):
            old = node.entry(edit.replaces) if edit.replaces else None
            old = old or node.entry(str(step))
            if old is None:
                self.fill(edit, len(edit.path) - 1, node, None, inverse, in_flow=node.flow)
            else:
                inverse.remember(edit.path, self.document.text[old.key.start : self.end_of(old, edit)])
                self.replace(old, str(step), edit.value, in_flow=node.flow)
        elif isinstance(node, Sequence):
            index = item_index(node, step)
            if index is not None:
                item = node.items[index]
                inverse.remember(edit.path, self.document.source(item))
                self.replace_item(item, edit, in_flow=node.flow)
            elif isinstance(step, str) and isinstance(edit.value, str):
                inverse.remember(edit.path, None)
                self.fills.setdefault(id(node), _Fill(node, None, node.flow)).items.append(f"{step}={edit.value}")
            else:
                raise self.cannot(edit, node)
        else:
            raise self.cannot(edit, node)

    def end_of(self, old: Entry, edit: Edit) -> int:
        """Return where the text ends that an edit replaces: past a comment, where a block list gets another length."""
        value = old.value
        whole = isinstance(value, Sequence) and not value.flow and _is_flat(edit.value)
        if whole and isinstance(value, Sequence) and len(value.items) != len(edit.value):
            return self.document.line_end(value.end)
        return value.end

    def finish(self) -> list[Splice]:
        """Return all splices, insertions into one container in the order of the edits."""
        for fill in self.fills.values():
            if fill.empty is not None:
                self.fill_empty(fill.empty, fill)
            elif isinstance(fill.node, Mapping):
                self.insert_entries(fill.node, fill.tree)
            elif isinstance(fill.node, Sequence):
                self.insert_items(fill.node, fill.items)
        return self.splices

    def entry_line(self, entry: Entry, *, in_flow: bool) -> str:
        """Return an entry whose value is empty, with the comment after it, which a block put there would swallow."""
        end = entry.value.end if in_flow else self.document.line_end(entry.value.end)
        return self.document.text[entry.key.start : end]

    def fill_empty(self, entry: Entry, fill: _Fill) -> None:
        """Put keys where an entry has an empty value."""
        value = entry.value
        tag = f" {_OVERRIDE}" if resolve(value).tag in {_OVERRIDE, "!reset"} else ""
        start = value.start
        while start > entry.key.end and self.document.text[start - 1] == " ":
            start -= 1
        if fill.in_flow:
            colon = "" if ":" in self.document.text[entry.key.end : start] else ":"
            self.splices.append(Splice(start, value.end, f"{colon}{tag} {emit.flow(fill.tree, self.style)}", 2))
            return
        if start < value.end or tag:
            self.splices.append(Splice(start, value.end, tag))
        column = self.document.column(entry.key.start)
        offset = self.document.line_end(value.end)
        self.splices.append(Splice(offset, offset, self.block(fill.tree, column + self.style.step), 2 * column + 1))

    def block(self, tree: dict[str, Any], column: int) -> str:
        lines = [line for k, v in tree.items() for line in emit.entry_lines(k, v, self.style)]
        return "".join(self.style.newline + " " * column + line for line in lines)

    def insert_entries(self, node: Mapping, tree: dict[str, Any]) -> None:
        if node.flow:
            pieces = [emit.pair(k, v, self.style) for k, v in tree.items()]
            self.splices.append(insert_flow(self.document, node, pieces))
            return
        column = self.document.column(node.entries[0].key.start)
        offset = line_after(self.document, node.end, column)
        self.splices.append(Splice(offset, offset, self.block(tree, column), 2 * column))

    def insert_items(self, node: Sequence, items: list[str]) -> None:
        model = resolve(node.items[-1])
        texts = [emit.like(item, model, in_flow=node.flow) for item in items]
        if node.flow:
            self.splices.append(insert_flow(self.document, node, texts))
            return
        column = emit.dash_column(self.document, node)
        offset = line_after(self.document, node.end, column)
        text = "".join(f"{self.style.newline}{' ' * column}- {item}" for item in texts)
        self.splices.append(Splice(offset, offset, text, 2 * column + 1))

    def replace(self, entry: Entry, name: str, value: Any, *, in_flow: bool) -> None:
        """Give an entry a new value, and a new name where that differs."""
        old = entry.value
        same_key = entry.key.value == name
        if same_key and isinstance(old, Sequence) and not old.flow and old.items and _is_flat(value):
            self.replace_items(old, value)
        elif same_key and self.is_inline(entry, in_flow=in_flow):
            self.splices.append(Splice(old.start, old.end, self.value(value, old)))
        else:
            key = self.document.source(entry.key) if same_key else emit.key(name, self.style)
            self.splices.append(Splice(entry.key.start, old.end, f"{key}: {self.value(value, old)}"))

    def is_inline(self, entry: Entry, *, in_flow: bool) -> bool:
        """Return whether a value can be replaced where it stands: behind its key, with a space between."""
        old = entry.value
        if old.start == old.end or (isinstance(old, (Mapping, Sequence)) and not old.flow):
            return False
        between = self.document.text[entry.key.end : old.start]
        return "\n" not in between and not (in_flow and between.endswith(":"))

    def value(self, value: Any, old: Node) -> str:
        """Return a new value in flow style, a string quoted as the old one was."""
        if isinstance(value, str) and isinstance(old, Scalar) and old.style in {"'", '"'}:
            return emit.quoted(value, old.style)
        return emit.flow(value, self.style)

    def replace_items(self, old: Sequence, value: list[str]) -> None:
        """Give a block list of strings new items, line by line, so that comments between them stay."""
        for item, text in zip(old.items, value, strict=False):
            style = item.style if isinstance(item, Scalar) else None
            if not (isinstance(item, Scalar) and scalar_value(item) == text):
                self.splices.append(Splice(item.start, item.end, emit.quoted(text, style or self.style.quote)))
        gone = [index >= len(value) for index in range(len(old.items))]
        if any(gone):
            self.splices += cut(self.document, old, gone, [()] * len(gone))
        column = emit.dash_column(self.document, old)
        offset = self.document.line_end(old.end)
        lines = [f"- {emit.quoted(text, self.style.quote)}" for text in value[len(old.items) :]]
        if lines:
            text = "".join(self.style.newline + " " * column + line for line in lines)
            self.splices.append(Splice(offset, offset, text, 2 * column + 1))

    def replace_item(self, node: Node, edit: Edit, *, in_flow: bool) -> None:
        step = edit.path[-1]
        if isinstance(step, str):
            text = emit.like(f"{step}={edit.value}", node, in_flow=in_flow)
        else:
            text = self.value(edit.value, node)
        self.splices.append(Splice(node.start, node.end, text))

    def cannot(self, edit: Edit, node: Node) -> GpuallocError:
        where = self.document.at(node)
        path = path_text(edit.path)
        hint = "write the service's GPU settings in Compose's usual form; nothing was written"
        return fail("cannot-edit", f"{edit.service}: there is no place to write {path}", where, hint)


_OVERRIDE = "!override"
_NOTHING = Scalar(0, 0, "", None)


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
