"""The proof that an edit changed exactly what it was meant to: the new text is read again and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import Tagged, members, plain, same
from gpualloc.compose.document import Mapping, resolve
from gpualloc.compose.route import find_service, home_of
from gpualloc.errors import Place, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.compose.document import Document
    from gpualloc.compose.route import Edit, Path

_NOT_SERVICES = frozenset(("services", "x-gpualloc"))
_Key = tuple[int, str]


def verify(before: Document, after: Document, edits: Sequence[Edit]) -> None:
    """Compare two versions of a file: exactly the edited services changed, in exactly the edited keys.

    Raises GpuallocError (``shared-node``) naming the service that would have changed along.
    """
    old, new = _services(before), _services(after)
    expected = dict(old)
    intended: dict[str, _Key] = {}
    for edit in edits:
        key = intended.setdefault(edit.service, (home_of(before, edit.service) or 0, edit.service))
        expected[key] = _edited(expected.get(key), edit)
    for key in sorted(old.keys() | new.keys()):
        if key in old and key in new and same(expected[key], new[key]):
            continue
        name = key[1]
        entry = find_service(after, name)
        where = after.at(entry.key) if entry is not None else Place(before.file)
        if intended.get(name) == key:
            summary = f"editing {name} would change more of it than its GPU settings"
        else:
            summary = f"editing {_names(list(intended))} would change {name} too: it shares a block with it"
        raise fail("shared-node", summary, where, "give each service its own block; nothing was written")
    if not same(_outside(before), _outside(after)):
        hint = "give each service its own block; nothing was written"
        raise fail("shared-node", "the edit would change more than services", Place(before.file), hint)


def _names(services: list[str]) -> str:
    return ", ".join(sorted(services)[:3]) + (" …" if len(services) > 3 else "")


def _services(document: Document) -> dict[_Key, Any]:
    """Return the plain data of every service, by the number of its document and its name."""
    result: dict[_Key, Any] = {}
    for number, root in enumerate(document.roots):
        services = members(root).get("services") if isinstance(root, Mapping) else None
        mapping = resolve(services) if services is not None else None
        if isinstance(mapping, Mapping):
            result |= {(number, name): plain(value) for name, value in members(mapping).items()}
    return result


def _outside(document: Document) -> list[Any]:
    return [
        {key: plain(value) for key, value in members(root).items() if key not in _NOT_SERVICES}
        for root in document.roots
        if isinstance(root, Mapping)
    ]


def _edited(data: Any, edit: Edit) -> Any:
    """Return a copy of a service's plain data with one edit made: what the new text must mean."""
    return _set(data, edit.path, edit)


def _set(data: Any, path: Path, edit: Edit) -> Any:
    if not path and not isinstance(edit.value, (dict, list)):
        return edit.value
    if isinstance(data, Tagged):
        # Nothing under !reset takes effect: what is written there replaces what it throws away.
        inner = None if data.tag == "!reset" else data.value
        return Tagged("!override", _set(inner, path, edit))
    if not path:
        return edit.value
    step, rest = path[0], path[1:]
    if isinstance(data, list) and data:
        return _in_list(data, step, rest, edit)
    result = dict(data or {})
    if not rest and edit.replaces:
        result.pop(edit.replaces, None)
    result[str(step)] = _set(result.get(str(step)), rest, edit)
    return result


def _in_list(data: list[Any], step: str | int, rest: Path, edit: Edit) -> list[Any]:
    items = list(data)
    if isinstance(step, int):
        items[step] = _set(items[step], rest, edit)
        return items
    text = f"{step}={edit.value}"
    named = [index for index, item in enumerate(items) if isinstance(item, str) and item.split("=", 1)[0] == step]
    if named:
        items[named[-1]] = text
    else:
        items.append(text)
    return items
