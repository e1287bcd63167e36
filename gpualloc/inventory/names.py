"""Every name that a device goes by, in compose files, in Docker's requests and in CDI.

The engine's hook accepts a full UUID of a GPU or MIG instance, a PCI bus id, an index and ``gpu:mig``; CDI names are
``nvidia.com/gpu=<id>``; people also write a unique beginning of a UUID.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpualloc.model import Gpu


def pci_key(bus_id: str) -> tuple[tuple[int, ...], str]:
    """Return a sort key for a PCI bus id (``domain:bus:device.function``, hexadecimal); other texts come first."""
    parts = re.split(r"[:.]", bus_id)
    try:
        numbers = tuple(int(part, 16) for part in parts)
    except ValueError:
        return (), bus_id
    return (0,) * (4 - len(numbers)) + numbers, ""


class Names:
    """Every name of every one of some GPUs and their MIG instances."""

    def __init__(self, gpus: Iterable[Gpu]) -> None:
        self._uuids: set[str] = set()
        self._by_name: dict[str, str | None] = {}
        for gpu in gpus:
            self._add_gpu(gpu)
        self._sorted: list[str] | None = None

    def _add_gpu(self, gpu: Gpu) -> None:
        self._uuids.add(gpu.uuid)
        self._add(str(gpu.index), gpu.uuid)
        self._add(_bus(gpu.pci_bus_id), gpu.uuid)
        instances = sorted(gpu.mig or (), key=lambda instance: (instance.gi, instance.ci))
        for number, instance in enumerate(instances):
            self._uuids.add(instance.uuid)
            self._add(f"{gpu.index}:{number}", instance.uuid)

    def _add(self, name: str, uuid: str) -> None:
        # on several hosts an index or a bus id may mean several GPUs, and then it names none
        self._by_name[name] = uuid if self._by_name.get(name, uuid) == uuid else None

    def resolve(self, written: str) -> str | None:
        """Return the UUID of the device that an id names; None where it names none, or more than one."""
        name = written.rpartition("=")[2].strip()
        name = name.removeprefix("index:")
        if name in self._uuids:
            return name
        found = self._by_name.get(name) or self._by_name.get(_bus(name))
        if found or not name.startswith(("GPU-", "MIG-")):
            return found
        if self._sorted is None:
            self._sorted = sorted(self._uuids)
        return _only_one_starting(self._sorted, name)


def _only_one_starting(names: list[str], start: str) -> str | None:
    at = bisect_left(names, start)
    matches = [name for name in names[at : at + 2] if name.startswith(start)]
    return matches[0] if len(matches) == 1 else None


def _bus(text: str) -> str:
    if text.count(":") not in {1, 2} or "." not in text:
        return text
    numbers, rest = pci_key(text)
    return rest or ":".join(f"{number:x}" for number in numbers)
