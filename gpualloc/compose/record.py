"""The record that lets a file be restored: one top-level ``x-gpualloc`` mapping at its end.

For every service that was edited it holds how to undo the edits. What the plain inverse does anyway is left out:
``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER`` go, and ``device_ids`` of N becomes ``count: N``. So most services
have an empty entry. Otherwise an entry has

- ``request``: the text to put in the place of ``device_ids`` instead of ``count: N``, or null for none;
- ``env``: other variables that were added;
- ``original``: by path, the text to put back, or null where there was nothing;
- ``filled``: by path, the text of an entry whose value was empty, to put back when it is empty again;
- ``inherits``: by path, the alias that a local copy took the place of, and a digest of what it stood for;
- ``wrapped``: by path, the text between a key and its mapping, where the mapping was moved below a merge key;
- ``kept``: what the plain inverse must leave alone: ``environment``, ``devices``.

A role that was divided into a service for each worker has an entry under ``roles``, with ``replicas``, the number that
people may change, and what makes the first worker's service the role's again: ``original``, ``inherits`` and
``wrapped`` as above, and ``gone``: by path, for an entry that was taken away, the key before it, the lines between
them, and its text.

``$`` is doubled in the recorded text, since Compose interpolates it. A re-plan reads the restored text, so it sees the
requests as people wrote them, and writes from there: applying twice changes nothing because it does the same edits to
the same text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.compose import emit
from gpualloc.compose.data import plain
from gpualloc.compose.document import Document, Entry, Mapping, Node, Scalar, Sequence, block_header, parse, walk
from gpualloc.compose.route import Divided, Gone, Inherited, Inverse, find_service, own, parse_path, path_text
from gpualloc.compose.splice import Splice, apply_splices, insert_flow
from gpualloc.errors import GpuallocError, Place, fail
from gpualloc.policy.values import shown

if TYPE_CHECKING:
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.route import Path

KEY = "x-gpualloc"
VERSION = "1.0"
COMMENT = "# kept by gpualloc: `gpualloc reset` restores this file from it"
OWNED = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""Environment variables that the plain inverse removes."""

DEVICE_LISTS: tuple[Path, ...] = (("deploy", "resources", "reservations", "devices"), ("gpus",))
"""Where device requests stand in a service."""

MARK = "# Written by gpualloc: "
"""How a file begins that is written whole, by what it is: an override file, one of a host, a stack."""
OVERRIDE = "the GPUs of each worker on this host"
HOST = "what of this project runs on one host"
STACK = "this project as a stack for Docker Swarm"

_REQUESTS: tuple[Path, ...] = (*DEVICE_LISTS, ("devices",), ("environment", "NVIDIA_VISIBLE_DEVICES"))
_LINE = 100
_INHERITED = re.compile(r"(?P<text>.*?)(?: ?#(?P<digest>[0-9a-f]{8}))?", re.DOTALL)
_PARTS = frozenset(("request", "env", "original", "filled", "inherits", "wrapped", "kept"))
_KEPT = frozenset(("environment", "devices"))
_INVERSE = ("original", "filled", "inherits", "wrapped")
_ROLE = frozenset(("replicas", "gone", *_INVERSE))


@dataclass(frozen=True, slots=True)
class Record:
    """What a file's ``x-gpualloc`` mapping says, by service and role. ``chomp``: see ``seal``."""

    services: dict[str, Inverse] = field(default_factory=dict)
    chomp: str | None = None
    roles: dict[str, Divided] = field(default_factory=dict)


# --------------------------------------------------------------------------------------------------------------------
# Writing


def append(
    document: Document,
    inverses: MappingType[str, Inverse],
    chomp: str | None = None,
    roles: MappingType[str, Divided] | None = None,
) -> Document:
    """Return the document with the record of these edits, and of the roles divided, at its end.

    A file without a final newline gets none, so that removing the record gives the same bytes back. Raises
    GpuallocError: ``compose-shape`` if the last YAML document is not a mapping, ``override-foreign`` for a host's file,
    which has a record of another kind and is written whole.
    """
    services = {name: _entry(document, name, inverse) for name, inverse in inverses.items()}
    value: dict[str, Any] = {"version": VERSION}
    if roles:
        value["roles"] = {name: role_entry(document, divided) for name, divided in roles.items()}
    value["services"] = services
    if chomp is not None:
        value["chomp"] = chomp
    root = document.roots[-1]
    if made_for_a_host(document):
        summary = "the file was written by gpualloc apply --per-host, which would not know of changes made here"
        hint = "apply with the same --per-host instead"
        raise fail("override-foreign", summary, Place(document.file, 1, 1), hint)
    if not isinstance(root, Mapping):
        hint = "end the file with the document that has services, or drop what follows the last ---"
        raise fail("compose-shape", "the last document is not a mapping", Place(document.file), hint)
    style = emit.style_of(document)
    if root.flow:
        splice = insert_flow(document, root, [emit.pair(KEY, value, style)])
        return parse(apply_splices(document.text, [splice]), document.file)
    indent = " " * (document.column(root.entries[0].key.start) if root.entries else 0)
    block = style.newline.join(indent + line for line in _lines(value, style))
    # Blanks after the last line ending may not come before the record: they would be part of a block scalar there.
    offset = document.end
    while offset > root.end and document.text[offset - 1] in " \t":
        offset -= 1
    if document.line_start(offset) != offset:
        offset = document.end
    body, rest = document.text[:offset], document.text[offset:]
    at_line_start = document.line_start(offset) == offset
    text = body + block + style.newline + rest if at_line_start else body + style.newline + block + rest
    return parse(text, document.file)


def _lines(value: dict[str, Any], style: emit.Style) -> list[str]:
    line = f"{KEY}: {emit.flow(value)}"
    if (len(value["services"]) == 1 and "roles" not in value) or len(line) <= _LINE:
        return [f"{line}  {COMMENT}"]
    step = " " * style.step
    blocks = [key for key in ("roles", "services") if value.get(key)]
    lines = [f"{step}{emit.pair(k, v, emit.PLAIN)}" for k, v in value.items() if k not in blocks]
    for block in blocks:
        lines.append(f"{step}{block}:")
        lines += [f"{step}{step}{emit.pair(name, entry, emit.PLAIN)}" for name, entry in value[block].items()]
    return [f"{KEY}:  {COMMENT}", *lines]


def role_entry(document: Document, divided: Divided) -> dict[str, Any]:
    """Return a divided role's entry of the record."""
    result: dict[str, Any] = {
        "replicas": divided.replicas,
        **_inverse_entry(document, divided.inverse.original, divided.inverse),
    }
    if divided.gone:
        result["gone"] = {
            path_text(gone.path): [_stored(document, gone.after), gone.lines, _stored(document, gone.text)]
            for gone in divided.gone
        }
    return result


def _inverse_entry(document: Document, original: MappingType[Path, str | None], inverse: Inverse) -> dict[str, Any]:
    inherits = {path: _inherited_text(inherited) for path, inherited in inverse.inherits.items()}
    parts: tuple[MappingType[Path, str | None], ...] = (original, inverse.filled, inherits, inverse.wrapped)
    return {
        name: {path_text(path): _stored(document, text) for path, text in part.items()}
        for name, part in zip(_INVERSE, parts, strict=True)
        if part
    }


def _entry(document: Document, service: str, inverse: Inverse) -> dict[str, Any]:
    """Return a service's entry of the record, without what the plain inverse does anyway."""
    original = dict(inverse.original)
    result: dict[str, Any] = {}
    kept = _shorten_environment(original) + _shorten_request(document, service, original, result)
    added = [path for path, text in original.items() if text is None and _is_extra_variable(path)]
    if added:
        result["env"] = [path[1] for path in added]
        original = {path: text for path, text in original.items() if path not in added}
    result |= _inverse_entry(document, original, inverse)
    if kept:
        result["kept"] = kept
    return result


def _is_extra_variable(path: Path) -> bool:
    return len(path) == 2 and path[0] == "environment" and path[1] not in OWNED


def _shorten_environment(original: dict[Path, str | None]) -> list[str]:
    paths: list[Path] = [("environment", name) for name in OWNED]
    if all(path in original and original[path] is None for path in paths):
        for path in paths:
            del original[path]
        return []
    return [] if _environment_listed(original) else ["environment"]


def _environment_listed(original: MappingType[Path, str | None]) -> bool:
    """Return whether the record lists what to do with the variables that the plain inverse removes."""
    return any(("environment", name)[: len(path)] == path for name in OWNED for path in original)


def _shorten_request(
    document: Document, service: str, original: dict[Path, str | None], result: dict[str, Any]
) -> list[str]:
    listed = [path for path in original if _is_request(path)]
    if not listed:
        return ["devices"]
    found = _request(document, service)
    if found is not None and listed == [found[0]]:
        path, count = found
        text = original.pop(path)
        if text != count:
            result["request"] = _stored(document, text)
    return []


def _is_request(path: Path) -> bool:
    return any(path[: len(place)] == place[: len(path)] for place in _REQUESTS)


def _request(document: Document, service: str) -> tuple[Path, str] | None:
    """Return the path of the device ids that the plain inverse would take away, and the count it would put there."""
    entry = find_service(document, service)
    if entry is None:
        return None
    for place in DEVICE_LISTS:
        path: Path = (*place, 0, "device_ids")
        ids = own(entry.value, path)
        if isinstance(ids, Sequence):
            return path, f"count: {len(ids.items)}"
    return None


def _stored(document: Document, text: str | None) -> str | None:
    """Return text as the record holds it: dollar signs doubled, the file's line ending as a line feed.

    So it can go back after the whole file has been given other line endings. Where a file mixes them, a carriage return
    stands for a lone line feed.
    """
    if text is None:
        return None
    if document.newline == "\r\n":
        text = "\n".join(part.replace("\n", "\r") for part in text.split("\r\n"))
    return text.replace("$", "$$")


def _read_back(document: Document, text: str | None) -> str | None:
    """Return what ``_stored`` was given, with the line ending that the file has now."""
    if text is None:
        return None
    text = text.replace("$$", "$")
    if document.newline == "\r\n":
        return "\r\n".join(part.replace("\r", "\n") for part in text.split("\n"))
    return text


def _inherited_text(inherited: Inherited) -> str | None:
    parts = [inherited.text or "", f"#{inherited.digest}" if inherited.digest else ""]
    return " ".join(part for part in parts if part) or None


# --------------------------------------------------------------------------------------------------------------------
# Reading


def made_for_a_host(document: Document) -> bool:
    """Tell a file that ``--per-host`` has made: it can be read like any other file of a project."""
    return document.text.startswith(f"{MARK}{HOST}")


def read(document: Document, entry: Entry) -> Record:
    """Read the record strictly, with what the plain inverse does filled in. Raises GpuallocError (``record``)."""
    data = plain(entry.value)
    keys = set(data) - {"chomp", "roles"} if isinstance(data, dict) else set()
    if document.text.startswith(f"{MARK}{STACK}"):
        hint = "name the project's own files with -f, and this one with --swarm"
        raise fail("record", "this is a stack that gpualloc has made, not a compose file", document.at(entry.key), hint)
    if keys != {"version", "services"} or not isinstance(data["services"], dict):
        raise bad(document, entry, "the top-level x-gpualloc is gpualloc's own record, and this is none")
    if data["version"] != VERSION:
        raise bad(document, entry, f"the record has version {shown(data['version'])}, this gpualloc reads {VERSION}")
    chomp = data.get("chomp")
    if chomp is not None and not (isinstance(chomp, str) and re.fullmatch(r"[-+0-9]{0,2}", chomp)):
        raise bad(document, entry, "the record is damaged at chomp")
    services: dict[str, Inverse] = {}
    for name, value in data["services"].items():
        if not isinstance(value, dict) or not set(value) <= _PARTS:
            raise bad(document, entry, f"the record of {name!r} is damaged")
        services[name] = _inverse(document, entry, name, value)
    roles = data.get("roles", {})
    if not isinstance(roles, dict):
        raise bad(document, entry, "the record is damaged at roles")
    return Record(services, chomp, {name: _role(document, entry, name, value) for name, value in roles.items()})


def _role(document: Document, entry: Entry, name: str, value: Any) -> Divided:
    damaged = bad(document, entry, f"the record of {name!r} is damaged")
    if not isinstance(value, dict) or not set(value) <= _ROLE:
        raise damaged
    replicas = value.get("replicas")
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 1:
        hint = f"write how many services {name} is to have, 1 or more"
        raise fail("record", f"the record's replicas of {name!r} is {shown(replicas)}", document.at(entry.key), hint)
    parts = _parts(document, value, damaged)
    gone = value.get("gone", {})
    if not isinstance(gone, dict) or not all(isinstance(g, list) and len(g) == 3 for g in gone.values()):
        raise damaged
    found: list[Gone] = []
    for path, (after, lines, text) in gone.items():
        well = isinstance(after, str | None) and isinstance(lines, int | None) and isinstance(text, str)
        if not well:
            raise damaged
        found.append(Gone(parse_path(path), _read_back(document, after), lines, _read_back(document, text) or ""))
    return Divided(replicas, _of_parts(parts), tuple(found))


def bad(document: Document, entry: Entry, summary: str) -> GpuallocError:
    """Return the error for a record that cannot be used."""
    hint = "put requests into the services; if the record was edited by hand, restore it from version control"
    return fail("record", summary, document.at(entry.key), hint)


def _inverse(document: Document, entry: Entry, service: str, value: dict[str, Any]) -> Inverse:
    damaged = bad(document, entry, f"the record of {service!r} is damaged")
    inverse = _of_parts(_parts(document, value, damaged))
    kept = value.get("kept", [])
    request = value.get("request")
    if not isinstance(kept, list) or not set(kept) <= _KEPT or not (request is None or isinstance(request, str)):
        raise damaged
    original = inverse.original
    added = value.get("env", [])
    if not isinstance(added, list) or not all(isinstance(name, str) for name in added):
        raise damaged
    original |= {("environment", name): None for name in added}
    removed = {} if "environment" in kept or _environment_listed(original) else dict.fromkeys(OWNED)
    found = None if "devices" in kept or any(map(_is_request, original)) else _request(document, service)
    original |= {("environment", name): None for name in removed}
    if found is not None:
        path, count = found
        original[path] = _read_back(document, request) if "request" in value else count
    return inverse


def _parts(document: Document, value: dict[str, Any], damaged: GpuallocError) -> dict[str, dict[Path, str | None]]:
    parts: dict[str, dict[Path, str | None]] = {}
    for name in _INVERSE:
        part = value.get(name, {})
        if not isinstance(part, dict) or not all(text is None or isinstance(text, str) for text in part.values()):
            raise damaged
        parts[name] = {parse_path(path): _read_back(document, text) for path, text in part.items()}
    return parts


def _of_parts(parts: dict[str, dict[Path, str | None]]) -> Inverse:
    return Inverse(
        parts["original"],
        {path: text or "" for path, text in parts["filled"].items()},
        {path: _inherited(text) for path, text in parts["inherits"].items()},
        {path: text or "" for path, text in parts["wrapped"].items()},
    )


def _inherited(text: str | None) -> Inherited:
    match = _INHERITED.fullmatch(text or "")
    return Inherited(match["text"] or None, match["digest"]) if match else Inherited(text, None)


# --------------------------------------------------------------------------------------------------------------------
# A block scalar at the very end of a file without a final newline


def seal(document: Document) -> tuple[Document, str | None]:
    """Keep the value of a block scalar that ends the file without a newline, whatever is written after it.

    There ``|`` gives "text", but followed by anything it gives "text" and a newline; ``|-`` gives the same in both
    places. Returns the document, and the indicators to put back, or None where nothing had to be done.
    """
    last = _last_scalar(document)
    if last is None or last.end != len(document.text) or not last.value or last.value.endswith("\n"):
        return document, None
    header = block_header(document.source(last))
    if header is None or "-" in header["indicators"]:
        return document, None
    indicators = header["indicators"]
    return _with_indicators(document, last, indicators.replace("+", "") + "-"), indicators


def unseal(document: Document, indicators: str | None) -> Document:
    """Undo ``seal`` where the scalar still ends the file without a newline."""
    last = _last_scalar(document)
    if indicators is None or last is None or last.end != len(document.text):
        return document
    return _with_indicators(document, last, indicators)


def _last_scalar(document: Document) -> Scalar | None:
    last: Node | None = None
    for node in walk(document.roots[-1]):
        last = node
    return last if isinstance(last, Scalar) and last.style in {"|", ">"} else None


def _with_indicators(document: Document, scalar: Scalar, indicators: str) -> Document:
    header = block_header(document.source(scalar))
    if header is None:
        return document
    start, end = (scalar.start + offset for offset in header.span("indicators"))
    return parse(apply_splices(document.text, [Splice(start, end, indicators)]), document.file)
