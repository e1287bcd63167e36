"""What the ids in a compose file mean on this inventory.

The engine's hook accepts a full UUID of a GPU or MIG instance, a PCI bus id, an index and ``gpu:mig``; CDI names are
``nvidia.com/gpu=<id>``; people also write a unique beginning of a UUID.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.solve.order import pci_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpualloc.model import Gpu, Inventory, Request


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


class _Names:
    """Every name of every device of an inventory."""

    def __init__(self, inventory: Inventory) -> None:
        self.uuids: set[str] = set()
        self.by_name: dict[str, str | None] = {}
        for host in inventory.hosts:
            for gpu in host.gpus:
                self._add_gpu(gpu)
        self.sorted_uuids: list[str] | None = None

    def _add_gpu(self, gpu: Gpu) -> None:
        self.uuids.add(gpu.uuid)
        self._add(str(gpu.index), gpu.uuid)
        self._add(_bus(gpu.pci_bus_id), gpu.uuid)
        instances = sorted(gpu.mig or (), key=lambda instance: (instance.gi, instance.ci))
        for number, instance in enumerate(instances):
            self.uuids.add(instance.uuid)
            self._add(f"{gpu.index}:{number}", instance.uuid)

    def _add(self, name: str, uuid: str) -> None:
        # on several hosts an index or a bus id may mean several GPUs, and then it names none
        self.by_name[name] = uuid if self.by_name.get(name, uuid) == uuid else None

    def resolve(self, written: str) -> str | None:
        name = written.rpartition("=")[2].strip()
        name = name.removeprefix("index:")
        if name in self.uuids:
            return name
        found = self.by_name.get(name) or self.by_name.get(_bus(name))
        if found or not name.startswith(("GPU-", "MIG-")):
            return found
        if self.sorted_uuids is None:
            self.sorted_uuids = sorted(self.uuids)
        return _only_one_starting(self.sorted_uuids, name)


def _only_one_starting(names: list[str], start: str) -> str | None:
    from bisect import bisect_left  # noqa: PLC0415 - rarely needed

    at = bisect_left(names, start)
    matches = [name for name in names[at : at + 2] if name.startswith(start)]
    return matches[0] if len(matches) == 1 else None


def _bus(text: str) -> str:
    if text.count(":") not in {1, 2} or "." not in text:
        return text
    numbers, rest = pci_key(text)
    return rest or ":".join(f"{number:x}" for number in numbers)


def resolve_pins(inventory: Inventory, requests: Sequence[Request]) -> Pins:
    """Return the previous placement that the requests' pinned ids describe on this inventory."""
    names = _Names(inventory)
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


def unknown_devices(inventory: Inventory, ids: Iterable[str]) -> list[str]:
    """Return those of ``ids`` (UUID or ``index:N``) that no device of the inventory has."""
    known: set[str] = set()
    for host in inventory.hosts:
        for gpu in host.gpus:
            known |= {gpu.uuid, f"index:{gpu.index}", *(instance.uuid for instance in gpu.mig or ())}
    return [name for name in ids if name not in known]
