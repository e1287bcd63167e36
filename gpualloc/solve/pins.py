"""What the ids in a compose file mean on this inventory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.inventory.names import Names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.model import Inventory, Request


@dataclass(frozen=True, slots=True)
class Pins:
    """The previous placement: per worker, the UUIDs its ids stand for.

    An id that is known nowhere stays as it was written. ``elsewhere``: ids are there and none is known, so the file
    comes from another machine and says nothing about this one.
    """

    by_worker: dict[str, tuple[str, ...]]
    elsewhere: bool

    def previous(self, worker: str) -> tuple[str, ...] | None:
        """Return the ids the worker has now, None where it has none on this machine."""
        return None if self.elsewhere else self.by_worker.get(worker)

    def uuids(self) -> frozenset[str]:
        """Return everything that the file pins."""
        return frozenset(uuid for ids in self.by_worker.values() for uuid in ids)


def resolve_pins(inventory: Inventory, requests: Sequence[Request]) -> Pins:
    """Return the previous placement that the requests' pinned ids describe on this inventory."""
    names = Names(gpu for host in inventory.hosts for gpu in host.gpus)
    by_worker: dict[str, tuple[str, ...]] = {}
    known = False
    for request in requests:
        for worker in request.workers:
            if not worker.pinned:
                continue
            ids = []
            for written in worker.pinned:
                uuid = names.resolve(written)
                known = known or uuid is not None
                ids.append(uuid or written)
            by_worker[worker.name] = tuple(dict.fromkeys(ids))
    return Pins(by_worker, elsewhere=bool(by_worker) and not known)
