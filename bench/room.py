"""What is free in a fleet while workers are put there one by one: memory, and slots for those that share."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpualloc.model import Inventory, Request


class Room:
    """The devices of every host, with what is left of each. ``most`` workers may share one."""

    def __init__(self, inventory: Inventory, most: int) -> None:
        self.most = most
        self.hosts = [
            [(part.uuid, part.memory_total_mib or 0) for gpu in host.gpus for part in gpu.mig or (gpu,)]
            for host in inventory.hosts
        ]
        self.models = [host.gpus[0].name for host in inventory.hosts]
        self.free = {uuid: memory for devices in self.hosts for uuid, memory in devices}
        self.slots = dict.fromkeys(self.free, most)

    def give(self, request: Request, uuids: Iterable[str]) -> None:
        """Give devices to a worker."""
        for uuid in uuids:
            if request.memory_mib is None:
                self.free[uuid] = self.slots[uuid] = 0
            else:
                self.free[uuid] -= request.memory_mib
                self.slots[uuid] -= 1

    def fitting(self, request: Request, host: int) -> list[str]:
        """Return the first devices of a host that one more worker could have; none where it does not fit."""
        if request.model is not None and not fnmatchcase(self.models[host], request.model):
            return []
        wanted = request.memory_mib
        if wanted is None:
            fits = [uuid for uuid, _ in self.hosts[host] if self.slots[uuid] == self.most]
        else:
            fits = [uuid for uuid, _ in self.hosts[host] if self.slots[uuid] and self.free[uuid] >= wanted]
        return fits[: request.gpus.min] if len(fits) >= request.gpus.min else []

    def used(self, host: int | None = None) -> int:
        """Return how many devices are in use, on one host or on all."""
        if host is None:
            return sum(left < self.most for left in self.slots.values())
        return sum(self.slots[uuid] < self.most for uuid, _ in self.hosts[host])
