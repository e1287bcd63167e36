"""What a made file remembers of its plan: the previous placement, when it is made again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import lookup, plain
from gpualloc.compose.document import Mapping, parse
from gpualloc.compose.record import MARK
from gpualloc.errors import GpuallocError, Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.document import Document, Node
    from gpualloc.compose.files import Source
    from gpualloc.compose.reader import Demand, Member, Role
    from gpualloc.model import Solution

KEY = "x-gpualloc"
VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class Previous:
    """What an earlier plan gave each worker, and how many workers each role was to have where ``--scale`` said so.

    ``main``: the host that ran what needs no GPU; None for a stack, whose services Swarm places. ``where``: the place
    of each worker's devices.
    """

    devices: dict[str, tuple[str, ...]]
    replicas: dict[str, int]
    main: str | None = None
    where: dict[str, Place] = field(default_factory=dict)


def record_of(
    solution: Solution, scaled: MappingType[str, int], host: str | None = None, main: str | None = None
) -> dict[str, Any]:
    """Return the record of a plan, or of its part on one ``host``."""
    workers = {
        p.worker: {"host": p.host, "devices": [d.uuid for d in p.devices]}
        for p in solution.placements
        if host is None or p.host == host
    }
    record: dict[str, Any] = {"version": VERSION}
    if main is not None:
        record["main"] = main
    if scaled:
        record["replicas"] = dict(scaled)
    return record | {"workers": workers}


def read_record(source: Source, shown: str, kind: str) -> Previous:
    """Return what a made file remembers. ``kind``: how its first line goes on after the mark.

    Raises GpuallocError: ``override-foreign`` for a file that gpualloc has not made as such, ``record`` for one whose
    record cannot be read.
    """
    if not source.text.startswith(f"{MARK}{kind}"):
        hint = "name a new file, or remove this one if nothing in it is needed"
        raise fail(
            "override-foreign",
            "gpualloc has not made this file as such, and would rewrite it whole",
            Place(shown, 1, 1),
            hint,
        )
    document = parse(source.text, shown)
    root = document.roots[0] if document.roots else None
    entry = root.entry(KEY) if isinstance(root, Mapping) else None
    if root is None or entry is None:
        raise _broken(shown, "it has no record")
    try:
        data: Any = plain(entry.value)
        if data["version"] != VERSION:
            raise _broken(shown, f"its version is {data['version']}")
        devices = {name: tuple(map(str, each["devices"])) for name, each in (data["workers"] or {}).items()}
        replicas = {name: int(number) for name, number in (data.get("replicas") or {}).items()}
        where = {name: _place(document, root, name) for name in devices}
        return Previous(devices, replicas, data.get("main"), where)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _broken(shown, "its record cannot be read") from None


def _place(document: Document, root: Node, worker: str) -> Place:
    node = lookup(root, (KEY, "workers", worker))
    return document.at(node if node is not None else root, f"{KEY}.workers.{worker}")


def _broken(shown: str, why: str) -> GpuallocError:
    hint = "remove the file to plan without it: workers may move then"
    return fail("record", f"{why}: {KEY} in it was changed by hand", Place(shown), hint)


def combined(several: Iterable[Previous]) -> Previous:
    """Return what the files of several hosts remember together."""
    devices: dict[str, tuple[str, ...]] = {}
    replicas: dict[str, int] = {}
    where: dict[str, Place] = {}
    main = None
    for each in several:
        devices |= each.devices
        replicas |= each.replicas
        where |= each.where
        main = main or each.main
    return Previous(devices, replicas, main, where)


def with_previous(demand: Demand, previous: Previous) -> Demand:
    """Return a demand whose workers are where a made file has them; those that it does not name are nowhere yet."""
    return replace(demand, roles=tuple(_placed(role, previous) for role in demand.roles))


def _placed(role: Role, previous: Previous) -> Role:
    def placed(member: Member) -> Member:
        return replace(member, worker=replace(member.worker, pinned=previous.devices.get(member.worker.name)))

    members = tuple(placed(member) for member in role.members)
    request = replace(role.request, workers=tuple(member.worker for member in members))
    return replace(role, members=members, request=request)
