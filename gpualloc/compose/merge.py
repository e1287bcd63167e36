"""How Compose combines what several files, and ``extends``, say of one service.

Only what a service's data needs is covered: everything else merges by the general rule (mappings deep, lists append,
scalars replace). Source: compose-go ``override/merge.go`` and ``override/uncity.go``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import Tagged
from gpualloc.errors import fail

if TYPE_CHECKING:
    from gpualloc.errors import Place

_REPLACED = frozenset((("extends",), ("command",), ("entrypoint",), ("healthcheck", "test"), ("logging", "options")))
_VARIABLES = frozenset(
    (("environment",), ("labels",), ("annotations",), ("deploy", "labels"), ("sysctls",), ("build", "args"))
)
_NAMES = frozenset((("depends_on",), ("networks",)))
_UNIQUE = frozenset((("devices",), ("cap_add",), ("cap_drop",), ("expose",), ("volumes",), ("ports",), ("profiles",)))


def merge_service(base: dict[str, Any], over: dict[str, Any], place: Place) -> dict[str, Any]:
    """Return a service with ``over`` laid over ``base``.

    Raises GpuallocError (``merge``) where the two have values of different kinds, as Compose does.
    """
    return _mapping(strip(base), over, (), place)  # tags are for what they are laid over


def is_reset(value: Any) -> bool:
    """Return whether a value is what ``!reset`` leaves nothing of."""
    return isinstance(value, Tagged) and value.tag == "!reset"


def strip(value: Any) -> Any:
    """Return a value without its ``!reset`` and ``!override`` tags, for data nothing was merged under."""
    if isinstance(value, Tagged):
        return None if value.tag == "!reset" else strip(value.value)
    if isinstance(value, dict):
        plain = {k: strip(v) for k, v in value.items() if not is_reset(v)}
        return Listed(plain) if isinstance(value, Listed) else plain
    if isinstance(value, list):
        return [strip(v) for v in value]
    return value


def variables(value: Any) -> dict[str, str | None]:
    """Return an environment, written as a list or a map, as a dict; None for a name that passes the host's value."""
    value = strip(value)
    if isinstance(value, dict):
        return {str(k): None if v is None else _text(v) for k, v in value.items()}
    result: dict[str, str | None] = {}
    for item in value if isinstance(value, list) else ():
        name, equals, text = _text(item).partition("=")
        result[name] = text if equals else None
    return result


class Listed(dict[str, Any]):
    """An environment, by name, that Compose has as a list: written so, or put together from two.

    There is no key in it for ``!reset`` to take out.
    """


def by_name(value: Any) -> Any:
    """Return an environment as a dict, whatever form it is written in, with Compose's tags in place."""
    if isinstance(value, Tagged):
        return Tagged(value.tag, by_name(value.value))
    if isinstance(value, dict):
        return {k: v if isinstance(v, Tagged) else variables({k: v})[k] for k, v in value.items()}
    return Listed(variables(value)) if isinstance(value, list) else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _mapping(base: dict[str, Any], over: dict[str, Any], path: tuple[str, ...], place: Place) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        inner = (*path, key)
        if isinstance(value, Tagged):
            if value.tag == "!reset":
                result.pop(key, None)
            else:
                result[key] = strip(value.value)
        elif result.get(key) is None:
            result[key] = value
        elif value is not None:
            result[key] = _value(result[key], value, inner, place)
    return result


def _value(base: Any, over: Any, path: tuple[str, ...], place: Place) -> Any:
    if path in _REPLACED:
        return over
    if path in _VARIABLES:
        over = by_name(over)
        gone = {} if isinstance(base, Listed) or not isinstance(over, dict) else over
        left = {k: v for k, v in variables(base).items() if not is_reset(gone.get(k))}
        return Listed(left | variables(over))
    if path in _NAMES:
        base, over = _named(base), _named(over)
    if isinstance(base, dict) and isinstance(over, dict):
        return _mapping(base, over, path, place)
    if isinstance(base, list) and isinstance(over, list):
        combined = [*base, *strip(over)]
        return [item for n, item in enumerate(combined) if path not in _UNIQUE or item not in combined[:n]]
    extension = path[0].startswith("x-")
    if not extension and (isinstance(base, (dict, list)) or isinstance(over, (dict, list))):
        summary = f"{'.'.join(path)}: cannot lay {_kind(over)} over {_kind(base)}"
        raise fail("merge", summary, place, "write both in the same form")
    return over


def _named(value: Any) -> Any:
    """Return a list of names, which Compose also takes for a mapping to nothing, as that mapping."""
    return {str(v): None for v in value} if isinstance(value, list) else value


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else "a scalar"
