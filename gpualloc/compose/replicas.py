"""Roles divided into a service for each worker: in the text, and back.

A role's block becomes the first worker's, in place, and copies of it follow. The names in other services' lists
follow along. What the block itself must change is recorded (``Divided``), so that ``unsplit`` gives the role back; the
copies and the names need no record.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gpualloc.compose.copies import Change, with_copies, without_copies, worker_name
from gpualloc.compose.data import members, plain, same
from gpualloc.compose.document import Document, Mapping, parse, resolve
from gpualloc.compose.patch import patch
from gpualloc.compose.record import unseal
from gpualloc.compose.references import name_span, normal, renamed
from gpualloc.compose.restore import undo
from gpualloc.compose.route import Divided, Inverse, find_service
from gpualloc.compose.splice import Splice, apply_splices
from gpualloc.compose.taken import put_back, take_away
from gpualloc.errors import GpuallocError, Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.record import Record
    from gpualloc.compose.route import Edit, Path

REPLICAS: tuple[Path, ...] = (("deploy", "replicas"), ("scale",))
"""Where Compose has the number of a service's containers."""

_WORKER = re.compile(r"(?P<role>.*)-(?P<number>[1-9][0-9]*)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Division:
    """What is to become of a role in its file. ``wanted``: the numbers of its workers.

    ``edits`` turn the role's service into the first worker's, and ``taken`` are the entries to take away from it; both
    are empty where it is one already. ``copies``: by number, the edits that tell a new copy from the first worker's.
    """

    role: str
    wanted: tuple[int, ...]
    edits: tuple[Edit, ...] = ()
    taken: tuple[Path, ...] = ()
    copies: MappingType[int, tuple[Edit, ...]] = field(default_factory=dict)


def present(document: Document, record: Record) -> dict[str, list[int]]:
    """Return the numbers of each divided role's workers that have a service: made by gpualloc, and still there."""
    return {
        role: [n for n in numbers if find_service(document, worker_name(role, n)) is not None]
        for role, numbers in _known(record).items()
    }


def _known(record: Record) -> dict[str, list[int]]:
    """Return the numbers of each divided role's workers that gpualloc made a service for, there or not."""
    found: dict[str, list[int]] = {role: [] for role in record.roles}
    for name in record.services:
        match = _WORKER.match(name)
        if match is not None and match["role"] in found:
            found[match["role"]].append(int(match["number"]))
    return {role: sorted(numbers) for role, numbers in found.items()}


def workers_of(document: Document, record: Record, divisions: Iterable[Division]) -> list[str]:
    """Return the names of all divided roles' services in a file's text, after divisions were carried out on it."""
    numbers: dict[str, Sequence[int]] = {**present(document, record), **{d.role: d.wanted for d in divisions}}
    return [worker_name(role, n) for role, each in numbers.items() for n in each]


# --------------------------------------------------------------------------------------------------------------------
# There


def divide(document: Document, record: Record, divisions: Sequence[Division]) -> tuple[Document, dict[str, Divided]]:
    """Carry out divisions on a file's text without its pins. Returns the new text, and the roles that are divided now.

    Raises GpuallocError: ``replicas-split`` for what cannot be divided, and what ``patch`` raises.
    """
    roles = dict(record.roles)
    if not divisions:
        return document, roles
    there, known = present(document, record), _known(record)
    fresh = [division for division in divisions if division.role not in roles]
    if fresh:
        document, isolated = _isolate(document, fresh)
        roles |= isolated
        there |= {role: [1] for role in isolated}
    roles |= {d.role: replace(roles[d.role], replicas=len(d.wanted)) for d in divisions}
    changes = [_change(document, d, there[d.role], known.get(d.role, [])) for d in divisions]
    return _rescale(document, changes, divisions), roles


def _isolate(before: Document, divisions: Sequence[Division]) -> tuple[Document, dict[str, Divided]]:
    """Turn roles' services into their first workers'."""
    names = {division.role: worker_name(division.role, 1) for division in divisions}
    document, gone = take_away(before, {division.role: division.taken for division in divisions})
    _prove(before, document, {}, {role: role for role in names})
    edits = [edit for division in divisions for edit in division.edits]
    document, inverses = patch(document, edits) if edits else (document, {})
    edited = document
    document = _renamed(document, names)
    owner = {name: role for role, first in names.items() for name in (role, first)}
    _prove(edited, document, owner, {first: role for role, first in names.items()})
    return document, {role: Divided(1, inverses.get(role) or Inverse(), gone[role]) for role in names}


def _renamed(document: Document, names: MappingType[str, str]) -> Document:
    """Give services other names, also where lists name them."""
    splices: list[Splice] = []
    for old, new in names.items():
        entry = find_service(document, old)
        if entry is None:
            hint = "write the service out under services:"
            raise fail("replicas-split", f"{old} is not written out in this file", Place(document.file), hint)
        splices.append(Splice(*name_span(document, entry.key, old), new))
    splices += renamed(document, names)
    return parse(apply_splices(document.text, splices), document.file)


def _change(document: Document, division: Division, there: Sequence[int], known: Sequence[int]) -> Change:
    role, wanted = division.role, division.wanted
    if not any(n in wanted for n in there):
        hint = "restore the file from version control, or gpualloc reset"
        raise fail("replicas-split", f"the service {worker_name(role, wanted[0])} is gone", Place(document.file), hint)
    return Change(
        role,
        staying=tuple(n for n in there if n in wanted),
        leaving=tuple(n for n in known if n not in wanted),
        fresh=tuple(n for n in wanted if n not in there),
    )


def _rescale(before: Document, changes: Sequence[Change], divisions: Sequence[Division]) -> Document:
    """Bring the services of roles to those wanted."""
    document = with_copies(without_copies(before, changes), changes)
    if document is not before:
        owner = {name: change.role for change in changes for name in change.names()}
        alike = {
            worker_name(c.role, n): worker_name(c.role, n if n in c.staying else c.staying[0])
            for c in changes
            for n in (*c.staying, *c.fresh)
        }
        _prove(before, document, owner, alike)
    edits = [edit for c, d in zip(changes, divisions, strict=True) for n in c.fresh for edit in d.copies.get(n, ())]
    return patch(document, edits)[0] if edits else document


# --------------------------------------------------------------------------------------------------------------------
# And back


def unsplit(document: Document, record: Record) -> Document:
    """Return a file's text, without its pins, with its roles in one piece again: as it was before gpualloc.

    Copies go, with what people changed in them. Raises GpuallocError (``record``) where a record no longer fits.
    """
    if not record.roles:
        return document
    there, known = {role: numbers for role, numbers in present(document, record).items() if numbers}, _known(record)
    try:
        changes = [
            Change(role, (numbers[0],), tuple(n for n in known[role] if n != numbers[0]), ())
            for role, numbers in there.items()
        ]
        document = without_copies(document, changes)
        document = _renamed(document, {worker_name(role, numbers[0]): role for role, numbers in there.items()})
        document = undo(document, {role: record.roles[role].inverse for role in there})
        return unseal(put_back(document, {role: record.roles[role].gone for role in there}), record.chomp)
    except (GpuallocError, ValueError) as error:
        reason = error.diagnostics[0].summary if isinstance(error, GpuallocError) else str(error)
        hint = "if the record was edited by hand, restore it from version control"
        raise fail("record", f"the record no longer fits the file: {reason}", Place(document.file), hint) from error


# --------------------------------------------------------------------------------------------------------------------
# Proof


def _prove(before: Document, after: Document, owner: MappingType[str, str], alike: MappingType[str, str]) -> None:
    """Compare two versions of a file: but for the services of roles, only how those are named in lists has changed.

    ``owner``: the role of each service that may have come, gone, or been renamed. ``alike``: those that there are now,
    each with the one from before that it must be like, but for its number of containers. Raises GpuallocError
    (``replicas-split``).
    """
    old, new = _data(before), _data(after)
    ours = owner.keys() | alike.keys()
    for name in sorted((old.keys() | new.keys()) - ours):
        if name not in old or name not in new or not same(normal(old[name], owner), normal(new[name], owner)):
            raise _unproven(after, name or "more than services")
    if ours & new.keys() != alike.keys():
        raise _unproven(after, ", ".join(sorted((ours & new.keys()) ^ alike.keys())))
    for name, model in alike.items():
        if not same(_counted(normal(old[model], owner)), _counted(normal(new[name], owner))):
            raise _unproven(after, name)


def _data(document: Document) -> dict[str, Any]:
    """Return the plain data of every service, and under "" what else Compose reads."""
    result: dict[str, Any] = {"": []}
    for root in document.roots:
        for key, node in members(root).items() if isinstance(root, Mapping) else ():
            mapping = resolve(node)
            if key == "services" and isinstance(mapping, Mapping):
                result |= {name: plain(value) for name, value in members(mapping).items()}
            elif not key.startswith("x-"):
                result[""].append((key, plain(node)))
    return result


def _counted(data: Any) -> Any:
    """Return a service's data without the number of its containers."""
    if not isinstance(data, dict):
        return data
    result = {k: v for k, v in data.items() if k not in {"deploy", "scale"}}
    deploy = data.get("deploy")
    rest = {k: v for k, v in deploy.items() if k != "replicas"} if isinstance(deploy, dict) else deploy
    return result | ({"deploy": rest} if rest else {})


def _unproven(document: Document, what: str) -> GpuallocError:
    hint = "give each service blocks of its own, without anchors that others use; nothing was written"
    return fail("replicas-split", f"dividing roles would change {what} as well", Place(document.file), hint)
