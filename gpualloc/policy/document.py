"""A policy file as values that know where they stand.

Built from YAML's event stream, with the scalars of YAML 1.2's core schema (yaml.org/spec/1.2.2, section 10.3): ``yes``,
``on``, ``12:30`` and ``1_000`` are text. Anchors, aliases and merge keys work; tags other than ``!!str`` do not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from gpualloc.errors import Place, fail
from gpualloc.policy.checks import joined
from gpualloc.policy.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    Loader = type[yaml.CSafeLoader | yaml.SafeLoader]

MAX_BYTES = 1 << 20
"""A policy is a page of text; anything above a mebibyte is a mistake."""

MAX_NODES = 20_000
"""Nodes of a document with its aliases written out: far above any real policy, far below what hurts."""

MAX_DEPTH = 32
"""How deep collections may nest; the schema needs five levels."""

_STR_TAG = "tag:yaml.org,2002:str"
_INTEGER = re.compile(r"[-+]?[0-9]{1,60}")
_BASED = re.compile(r"0o[0-7]{1,60}|0x[0-9a-fA-F]{1,60}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# YAML 1.2.2 production c-printable, without what a byte-order mark or a surrogate would be
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
# what the parser says, and what people meant; the keys are phrases of libyaml and of PyYAML's own parser
_SYNTAX_HINTS = {
    "block scalar": 'a value that starts with > or | must be in quotes: ">=8.0"',
    "alphabetic or numeric": 'a value that starts with * or & must be in quotes: "*A100*"',
    "mapping values are not allowed": "a value with a colon and a space in it must be in quotes",
}
_ANY_HINT = "gpualloc policy show base prints a policy as one is written"
_CIRCLE_HINT = "write the value out"
_ALIAS_HINT = 'a value that starts with * must be in quotes: "*A100*"'


@dataclass(frozen=True, slots=True)
class Spot:
    """A position in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def place(self, path: str) -> Place:
        """Return the place of the value at a path of the document."""
        return Place(self.file, self.line, self.column, path)


@dataclass(frozen=True, slots=True)
class Node:
    """A scalar, a list or a mapping, with its position and its size in nodes, aliases written out."""

    value: Scalar | list[Node] | dict[str, tuple[Spot, Node]]
    spot: Spot
    size: int = 1


Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data, and where the value and the key of each path stand."""

    data: Any
    file: str
    values: dict[str, Spot] = field(default_factory=dict)
    keys: dict[str, Spot] = field(default_factory=dict)

    def place(self, path: str) -> Place:
        """Return where the value at a path stands; for a path that is not there, the file."""
        spot = self.values.get(path)
        return spot.place(path) if spot else Place(self.file, path=path)

    def place_of_key(self, path: str) -> Place:
        """Return where the key at the end of a path stands."""
        spot = self.keys.get(path)
        return spot.place(path) if spot else self.place(path)


def document(root: Node) -> Document:
    """Return the plain data of a tree and the index of its positions."""
    result = Document(None, root.spot.file)
    data = _plain(root, "", result)
    return Document(data, root.spot.file, result.values, result.keys)


def _plain(node: Node, path: str, result: Document) -> Any:
    result.values[path] = node.spot
    if isinstance(node.value, dict):
        mapping = {}
        for key, (spot, child) in node.value.items():
            below = joined(path, key)
            result.keys[below] = spot
            mapping[key] = _plain(child, below, result)
        return mapping
    if isinstance(node.value, list):
        return [_plain(child, joined(path, number), result) for number, child in enumerate(node.value)]
    return node.value


def merge(below: Node, above: Node) -> Node:
    """Return ``above`` laid over ``below``: mappings merge deep, everything else replaces. Keys keep their order."""
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)):
        return above
    entries = dict(below.value)
    for key, (spot, node) in above.value.items():
        entries[key] = (spot, merge(entries[key][1], node) if key in entries else node)
    return Node(entries, above.spot, below.size + above.size)


def parse(text: str, file: str, *, loader: Loader | None = None) -> Node | None:
    """Return the tree of a YAML text, or None where it holds nothing; ``file`` is what messages call it.

    Raises GpuallocError: ``policy-yaml`` (syntax, tags, keys that are no text, more than one document),
    ``policy-duplicate-key``, ``policy-too-large`` (nesting or aliases that write out to more than MAX_NODES nodes).
    """
    if match := _NOT_PRINTABLE.search(text):
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - text.rfind("\n", 0, match.start())
        what = f"the character U+{ord(match[0]):04X} is not allowed in YAML"
        raise fail("policy-yaml", what, Place(file, line, column), 'write it as an escape in double quotes: "\\x00"')
    if loader is None:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    stream = loader(text)
    try:
        return _Builder(file).build(_events(stream))
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, file) from error
    finally:
        stream.dispose()


def _events(stream: yaml.CSafeLoader | yaml.SafeLoader) -> Iterator[yaml.Event]:
    while event := stream.get_event():
        yield event


def _syntax_error(error: yaml.MarkedYAMLError, text: str, file: str) -> Exception:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return fail("policy-yaml", f"not valid YAML: {error.problem}", Place(file), _ANY_HINT)
    where = Place(file, mark.line + 1, mark.column + 1)
    said = f"{error.context or ''} {error.problem}"
    hint = next((hint for phrase, hint in _SYNTAX_HINTS.items() if phrase in said), _ANY_HINT)
    line = text.split("\n")[mark.line] if mark.line < text.count("\n") + 1 else ""
    if "\t" in line[: max(mark.column + 1, len(line) - len(line.lstrip()))]:
        hint = "YAML indents with spaces, never with tabs"
    problem = str(error.problem).replace("\t", "\\t")
    return fail("policy-yaml", f"not valid YAML: {problem}", where, hint)


class _Builder:
    """Builds one tree from events."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._anchors: dict[str, Node | None] = {}
        self._size = 0

    def build(self, events: Iterator[yaml.Event]) -> Node | None:
        root = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._fail(
                        "policy-yaml", "a policy is one document", self._spot(event), "split the file at its ---"
                    )
            elif isinstance(event, yaml.NodeEvent):
                root = self._node(event, events, 0)
        return root

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        spot = self._spot(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), spot)
        if depth > MAX_DEPTH:
            self._fail("policy-too-large", f"nested more than {MAX_DEPTH} levels deep", spot, _ANY_HINT)
        anchor = event.anchor if isinstance(event, yaml.NodeEvent) else None
        if anchor:
            self._anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self._scalar(event, spot), spot)
        else:
            node = self._collection(event, events, depth, spot)
        if node.size > MAX_NODES:
            hint = "leave out aliases of aliases" if self._anchors else _ANY_HINT
            self._fail("policy-too-large", f"holds more than {MAX_NODES} values", spot, hint)
        if anchor:
            self._anchors[anchor] = node
        return node

    def _collection(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int, spot: Spot) -> Node:
        if isinstance(event, yaml.CollectionStartEvent) and event.tag:
            self._refuse_tag(event.tag, spot)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(events, depth, spot)
        items = []
        while not isinstance(following := next(events), yaml.SequenceEndEvent):
            items.append(self._node(following, events, depth + 1))
        return Node(items, spot, 1 + sum(item.size for item in items))

    def _mapping(self, events: Iterator[yaml.Event], depth: int, spot: Spot) -> Node:
        entries: dict[str, tuple[Spot, Node]] = {}
        merged: Node | None = None
        size = 1
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._node(event, events, depth + 1)
            value = self._node(next(events), events, depth + 1)
            size += key.size + value.size
            if key.value == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                if merged:
                    self._fail("policy-duplicate-key", "<< stands twice in one mapping", key.spot, "<<: [*a, *b]")
                merged = value
                continue
            name = self._key(event, key)
            if name in entries:
                first = entries[name][0].line
                hint = f"it stands first on line {first}; drop one of the two"
                self._fail("policy-duplicate-key", f"{shown(name)} stands twice in one mapping", key.spot, hint)
            entries[name] = (key.spot, value)
        if merged:
            for source in merged.value if isinstance(merged.value, list) else [merged]:
                if not isinstance(source.value, dict):
                    self._fail("policy-yaml", "<< takes a mapping, or a list of mappings", source.spot, "<<: *anchor")
                for name, entry in source.value.items():
                    entries.setdefault(name, entry)
        return Node(entries, spot, size)

    def _key(self, event: yaml.Event, key: Node) -> str:
        """Return a key's text as it stands: keys are names, even where the text would be a number as a value."""
        if not isinstance(event, yaml.ScalarEvent) or key.value is None:
            hint = "a key that starts with [, { or * must be in quotes"
            self._fail("policy-yaml", "a key must be text", key.spot, hint)
        text: str = event.value
        return text

    def _alias(self, name: str, spot: Spot) -> Node:
        if name not in self._anchors:
            self._fail("policy-yaml", f"*{name} refers to an anchor that is not there", spot, _ALIAS_HINT)
        target = self._anchors[name]
        if target is None:
            self._fail("policy-yaml", f"*{name} stands inside the value that &{name} marks", spot, _CIRCLE_HINT)
        return Node(target.value, spot, target.size)

    def _scalar(self, event: yaml.ScalarEvent, spot: Spot) -> Scalar:
        if event.tag not in {None, "!", _STR_TAG}:
            self._refuse_tag(event.tag, spot)
        text: str = event.value
        return _resolved(text) if event.tag is None and event.implicit[0] else text

    def _refuse_tag(self, tag: str, spot: Spot) -> NoReturn:
        self._fail("policy-yaml", f"tags have no meaning in a policy: {shown(tag)}", spot, "leave it out")

    def _spot(self, event: yaml.Event) -> Spot:
        mark: Any = event.start_mark  # events that a loader makes all have one
        return Spot(self._file, mark.line + 1, mark.column + 1)

    def _fail(self, code: str, summary: str, spot: Spot, hint: str | None = None) -> NoReturn:
        raise fail(code, summary, spot.place(""), hint)


def _resolved(text: str) -> Scalar:
    """Return the value of a plain scalar by YAML 1.2's core schema."""
    if text in _WORDS:
        word: Any = _WORDS[text]
        return word  # type: ignore[no-any-return]  # null, true and false are scalars
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text) and len(text) <= 60:
        return float(text)
    return text
