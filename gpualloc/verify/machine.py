"""The host that the containers run on: its devices in PCI order, and what names mean there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.model import GpuCount, Request, Worker
from gpualloc.render.words import devices_of, label, short_uuid
from gpualloc.solve.devices import flatten
from gpualloc.solve.pins import resolve_pins

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpualloc.model import Inventory
    from gpualloc.planning import Workspace
    from gpualloc.policy.filters import Device
    from gpualloc.render.words import Device as Named


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """One host's devices, ordered by PCI bus id and MIG instance, as CUDA orders what a container has of them."""

    inventory: Inventory
    devices: tuple[Device, ...]
    names: dict[str, Named]
    wsl2: bool

    @property
    def everything(self) -> tuple[str, ...]:
        """The UUIDs of all devices that CUDA could show."""
        return tuple(device.uuid for device in self.devices)

    def first(self, count: int) -> tuple[str, ...]:
        """Return what the engine makes of ``count: N``: the GPUs with the indices 0 to N-1."""
        return self.ordered(d.uuid for d in self.devices if d.mig is None and d.gpu.index < count)

    def resolve(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Return the UUIDs that ids stand for, as the compose file's are read; unknown ones stay as written."""
        pinned = tuple(i for text in ids for i in text.split(","))
        if "all" in {name.rpartition("=")[2] for name in pinned}:
            return self.everything
        request = Request("", (Worker("", 1, pinned),), GpuCount(1, None))
        return self.ordered(resolve_pins(self.inventory, (request,)).by_worker.get("", ()))

    def ordered(self, uuids: Iterable[str]) -> tuple[str, ...]:
        """Return devices in PCI order, each once, those that this host does not have at the end."""
        places = {uuid: place for place, uuid in enumerate(self.everything)}
        return tuple(sorted(dict.fromkeys(uuids), key=lambda uuid: places.get(uuid, len(places))))

    def known(self, digits: str) -> str:
        """Return the UUID with these hexadecimal digits; CUDA and frameworks give neither prefix nor dashes."""
        digits = digits.rpartition("GPU-")[2].rpartition("MIG-")[2].replace("-", "").lower()
        for uuid in self.names:
            if uuid[4:].replace("-", "").lower() == digits:
                return uuid
        parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
        return f"GPU-{'-'.join(parts)}"

    def label(self, uuids: Iterable[str]) -> str:
        """Return what people call devices: ``GPU 0, 2``; one that the inventory does not have is shown by its UUID."""
        group = list(dict.fromkeys(uuids))
        known = label(self.names[uuid] for uuid in group if uuid in self.names)
        return ", ".join([*([known] if known else []), *(short_uuid(u) for u in group if u not in self.names)])


def machine_of(workspace: Workspace, pinned: Iterable[str]) -> Machine:
    """Return the host that the file's pins are on; the first one where they are on none."""
    devices = flatten(workspace.inventory, workspace.policy, workspace.project.name, frozenset())
    wanted = set(pinned)
    holders = [device.host for device in devices if device.uuid in wanted]
    name = holders[0] if holders else devices[0].host if devices else ""
    return Machine(
        inventory=workspace.inventory,
        devices=tuple(device for device in devices if device.host == name),
        names=devices_of(workspace.inventory),
        wsl2=any(host.platform == "wsl2" for host in workspace.inventory.hosts if host.name == name),
    )
