"""From nodes to plain values, as Compose's YAML library (go-yaml v3) and its merge keys read them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpualloc.compose.document import Mapping, Node, Scalar, Sequence, resolve
from gpualloc.errors import fail

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.compose.document import Document

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_CORE = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_DIGITS = 300
"""Longer numbers are text to go-yaml too: they fit no machine type."""
_INT = re.compile(r"[-+]?(0[bB][01]+|0[oO][0-7]+|0[xX][0-9a-fA-F]+|[0-9]+)\Z")


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value under ``!reset`` or ``!override``, which change how it merges into what other files say."""

    tag: str
    value: Any


def scalar_value(node: Scalar) -> Any:
    """Return a scalar's value: go-yaml v3 resolves booleans as YAML 1.2 does and leading-zero integers as octal.

    Source: go-yaml v3 ``resolve.go``. ``yes``, ``on`` and ``12:30`` stay strings.
    """
    text = node.value
    if node.tag == "tag:yaml.org,2002:str" or not (node.plain or node.tag in _CORE):
        return text
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if text[0] in "+-.0123456789":
        return _number(text)
    return text


def _number(text: str) -> Any:
    digits = text.replace("_", "")
    if len(digits) > _DIGITS:
        return text
    if _INT.match(digits):
        sign = -1 if digits[0] == "-" else 1
        body = digits.lstrip("+-")
        if len(body) > 1 and body[0] == "0" and body[1].isdigit():
            return sign * int(body, 8) if all(c in "01234567" for c in body) else float(digits)
        return sign * int(body, 0)
    if _FLOAT.match(digits):
        return float(digits)
    return text


def members(mapping: Mapping) -> dict[str, Node]:
    """Return a mapping's values by key, merge keys applied: its own keys win, then the first of the merged ones."""
    merged: dict[str, Node] = {}
    result: dict[str, Node] = {}
    for entry in mapping.entries:
        if is_merge(entry.key):
            for source in merge_sources(entry.value):
                for key, value in members(source).items():
                    merged.setdefault(key, value)
        else:
            result[entry.key.value] = entry.value
    for key, value in merged.items():
        result.setdefault(key, value)
    return result


def is_merge(key: Scalar) -> bool:
    """Return whether a key is the merge key ``<<``."""
    return key.value == "<<" and key.plain


def merge_sources(value: Node) -> list[Mapping]:
    """Return the mappings that a merge key's value names, in order; anything else it holds is left out."""
    node = resolve(value)
    if isinstance(node, Mapping):
        return [node]
    if isinstance(node, Sequence):
        return [m for m in map(resolve, node.items) if isinstance(m, Mapping)]
    return []


def check_merges(document: Document, mapping: Mapping) -> None:
    """Raise GpuallocError (``yaml-merge``) where a mapping merges what is not a mapping, as Compose does."""
    for entry in mapping.entries:
        if is_merge(entry.key):
            node = resolve(entry.value)
            items = node.items if isinstance(node, Sequence) else [node]
            if not all(isinstance(resolve(i), Mapping) for i in items):
                where = document.at(entry.value)
                raise fail(
                    "yaml-merge", "<< can only merge mappings", where, "lists cannot be merged: repeat the items"
                )


def plain(node: Node, substitute: Callable[[str, Node], str] | None = None) -> Any:
    """Return a node as dicts, lists and scalars, merge keys applied.

    ``substitute`` is called with every string value that holds a ``$``, and its node, and returns what stands for it.
    """
    real = resolve(node)
    if isinstance(real, Scalar):
        value = scalar_value(real)
        if substitute is not None and isinstance(value, str) and "$" in value:
            value = substitute(value, real)
    elif isinstance(real, Sequence):
        value = [plain(item, substitute) for item in real.items]
    else:
        value = {key: plain(item, substitute) for key, item in members(real).items()}
    if real.tag in ("!reset", "!override"):
        return Tagged(real.tag, value)
    return value


def lookup(node: Node | None, path: tuple[str | int, ...]) -> Node | None:
    """Return the node at a path, through aliases and merge keys; None where there is none.

    In an environment written as a list, a variable's name leads to the last item that sets it.
    """
    for step in path:
        if node is None:
            return None
        node = _child(resolve(node), step)
    return node


def _child(real: Node, step: str | int) -> Node | None:
    if isinstance(real, Mapping):
        if not isinstance(step, str):
            return None
        own = real.entry(step)
        return own.value if own is not None and not is_merge(own.key) else members(real).get(step)
    if not isinstance(real, Sequence):
        return None
    if isinstance(step, int):
        return real.items[step] if step < len(real.items) else None
    return next((item for item in reversed(real.items) if _variable(item) == step), None)


def _variable(item: Node) -> str | None:
    real = resolve(item)
    return real.value.partition("=")[0] if isinstance(real, Scalar) else None


def is_empty(node: Node) -> bool:
    """Return whether a node holds nothing: null, ``{}``, ``[]``, or whatever ``!reset`` throws away."""
    real = resolve(node)
    if real.tag == "!reset":
        return True
    if isinstance(real, Scalar):
        return scalar_value(real) is None
    return not (real.entries if isinstance(real, Mapping) else real.items)


def same(a: Any, b: Any) -> bool:
    """Compare plain values with their types: 1 is not True, and 1 is not 1.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Tagged):
        return a.tag == b.tag and same(a.value, b.value)
    return bool(a == b)


def digest(value: Any) -> str:
    """Return eight hexadecimal digits that stand for a plain value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, default=lambda tagged: [tagged.tag, tagged.value])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def at(data: Any, path: tuple[str | int, ...]) -> Any:
    """Return what plain data holds at a path; None where it holds nothing."""
    value: Any = data
    for step in path:
        if isinstance(value, dict):
            value = value.get(str(step))
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def truth(value: Any) -> bool:
    """Return whether Compose takes a value for true, which it may be as text.

    Source: compose-go ``interpolation``, ``toBoolean``.
    """
    return value is True or str(value).lower() in {"true", "y", "yes", "on"}


def escaped(value: Any) -> Any:
    """Return data that was interpolated, ready to be written: every ``$`` doubled."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {k: escaped(v) for k, v in value.items()}
    if isinstance(value, list):
        return [escaped(v) for v in value]
    return value
