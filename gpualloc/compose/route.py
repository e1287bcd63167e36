"""The words in which edits are spoken of: a path into a service, an edit, and how it is undone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import lookup, members
from gpualloc.compose.document import Mapping, Scalar, Sequence, resolve
from gpualloc.errors import Place, fail

if TYPE_CHECKING:
    from gpualloc.compose.document import Document, Entry, Node

Path = tuple[str | int, ...]
"""Keys and list indices, from a service down. In an environment list the variable's name stands for its item."""

_ASKING: tuple[Path, ...] = (("deploy", "resources", "reservations", "devices"), ("gpus",), ("runtime",), ("devices",))
_STEP = re.compile(r'\[(\d+)\]|\.?("(?:[^"\\]|\\.)*"|[^.\[\]"]+)')


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
class Inherited:
    """What a local stand-in took the place of.

    ``text``: the alias that stood there (with its key, if it has one), or None where a merge key supplied the value.
    ``digest`` of the value then, so that a stand-in that people have changed is known for theirs; None where the
    stand-in merges the anchor and so follows it.
    """

    text: str | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class Inverse:
    """How to undo one service's edits.

    ``original``: the source text to put back at a path, None where the key was absent. ``filled``: the text of entries
    that had an empty value, to put back when nothing else is left in them. ``inherits``: what got a local stand-in.
    ``wrapped``: mappings that were moved below a merge key of their own, since others see them, with the text between
    the key and the mapping's first character as it was.
    """

    original: dict[Path, str | None] = field(default_factory=dict)
    filled: dict[Path, str] = field(default_factory=dict)
    inherits: dict[Path, Inherited] = field(default_factory=dict)
    wrapped: dict[Path, str] = field(default_factory=dict)

    def remember(self, path: Path, text: str | None) -> None:
        """Note what to put back at a path, unless what goes back above it holds it already."""
        if not any(path[:length] in self.original for length in range(len(path) + 1)):
            self.original[path] = text


@dataclass(frozen=True, slots=True)
class Gone:
    """An entry that was taken away from a service: where it stood, and its text.

    ``after``: the key before it in its mapping, None for the first. ``lines``: how many lines stand between the two, or
    between it and its mapping's key; None in flow style. ``text`` begins with the line ending before it; in flow style
    it has the comma that goes with it.
    """

    path: Path
    after: str | None
    lines: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Divided:
    """A role that stands in the file as one service for each worker.

    ``replicas``: how many it is to have, which people may change. ``inverse`` and ``gone`` make its first worker's
    service what the role's was.
    """

    replicas: int
    inverse: Inverse = field(default_factory=Inverse)
    gone: tuple[Gone, ...] = ()


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


def parse_path(text: str) -> Path:
    """Read what ``path_text`` wrote."""
    steps: list[str | int] = []
    for match in _STEP.finditer(text):
        index, name = match.groups()
        steps.append(int(index) if index is not None else json.loads(name) if name.startswith('"') else name)
    return tuple(steps)


def home_of(document: Document, service: str) -> int | None:
    """Return the number of the YAML document to edit for a service: the last that asks for GPUs there, or defines it.

    None where no document defines it.
    """
    found: int | None = None
    for number in range(len(document.roots) - 1, -1, -1):
        services = _services(document.roots[number])
        node = services.entry(service) if services is not None else None
        value = node.value if node is not None else members(services).get(service) if services is not None else None
        if value is None:
            continue
        found = number if found is None else found
        if len(document.roots) == 1 or any(lookup(value, path) is not None for path in _ASKING):
            return number
    return found


def _services(root: Node) -> Mapping | None:
    entry = root.entry("services") if isinstance(root, Mapping) else None
    services = resolve(entry.value) if entry is not None else None
    return services if isinstance(services, Mapping) else None


def services_of(document: Document, service: str) -> tuple[Node, Mapping]:
    """Return the root that holds a service, and its ``services``. Raises GpuallocError (``no-service``) without one."""
    number = home_of(document, service)
    services = _services(document.roots[number]) if number is not None else None
    if number is None or services is None:
        hint = "name the file that defines it with -f, or write over all files with --override FILE"
        raise fail("no-service", f"the service {service!r} is not defined in this file", Place(document.file), hint)
    return document.roots[number], services


def find_service(document: Document, service: str) -> Entry | None:
    """Return the entry that defines a service, where it is written in place; None where it is merged in, or absent."""
    number = home_of(document, service)
    root = document.roots[number] if number is not None else None
    services = root.index["services"].value if isinstance(root, Mapping) else None
    return services.entry(service) if isinstance(services, Mapping) else None


def own(node: Node, path: Path) -> Node | None:
    """Return the node at a path that is written in place, with no alias or merge key on the way."""
    for step in path:
        if isinstance(node, Mapping) and isinstance(step, str):
            entry = node.entry(step)
            if entry is None:
                return None
            node = entry.value
        elif isinstance(node, Sequence) and (index := item_index(node, step)) is not None:
            node = node.items[index]
        else:
            return None
    return node


def environment_name(item: Node) -> str | None:
    """Return the variable that an item of an environment list names."""
    real = resolve(item)
    return real.value.split("=", 1)[0] if isinstance(real, Scalar) else None


def item_index(sequence: Sequence, step: str | int) -> int | None:
    """Return the index of an item: as given, or the last that names the variable, which is the one that counts."""
    if isinstance(step, int):
        return step if step < len(sequence.items) else None
    names = [environment_name(item) for item in sequence.items]
    return max((index for index, name in enumerate(names) if name == step), default=None)
