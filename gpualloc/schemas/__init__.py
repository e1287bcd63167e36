"""The JSON Schemas of gpualloc's documents, for editors and for programs that write or read them."""

from __future__ import annotations

from importlib import resources

from gpualloc.errors import fail

_SUFFIX = ".schema.json"


def names() -> tuple[str, ...]:
    """Return the names of the documents that have a schema."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(_SUFFIX) for file in files if file.name.endswith(_SUFFIX)))


def schema_text(name: str) -> str:
    """Return a schema in one piece: another that it refers to stands under ``$defs``, found by its ``$id``.

    Raises GpuallocError (``unknown-schema``).
    """
    known = names()
    if name not in known:
        raise fail("unknown-schema", f"no schema is named {name!r}", None, f"there are {', '.join(known)}")
    text = _text(name)
    others = [other for other in known if other != name and f'"{other}{_SUFFIX}#' in text]
    if not others:
        return text
    import json  # noqa: PLC0415 - most schemas stand alone

    schema = json.loads(text)
    schema.setdefault("$defs", {}).update({other: json.loads(_text(other)) for other in others})
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _text(name: str) -> str:
    return resources.files(__name__).joinpath(name + _SUFFIX).read_text(encoding="utf-8")
