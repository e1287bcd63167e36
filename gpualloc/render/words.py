"""How amounts, lists and devices are written for people: ``12 GiB``, ``GPU 0-3, 6``, ``RTX 4090``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gpualloc.model import Gpu, Inventory, MigInstance

UNKNOWN = "?"
"""Stands for a fact that could not be had."""


def memory(mib: int | None) -> str:
    """Return an amount of memory: in GiB from one GiB up, with one decimal where it is not whole."""
    if mib is None:
        return UNKNOWN
    if mib < 1024:
        return f"{mib} MiB"
    gib = f"{mib / 1024:.1f}".removesuffix(".0")
    return f"{gib} GiB"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(names: Sequence[str], most: int = 10) -> str:
    """Return ``names`` with commas between; beyond ``most`` of them, how many more there are."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers in ascending order, three or more in a row as a range: ``0-3, 6, 7``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def short_name(name: str) -> str:
    """Return a GPU's name without the words that do not tell one model from another."""
    words = [word for word in name.split() if word not in {"NVIDIA", "GeForce", "Tesla", "Quadro", "Generation"}]
    return " ".join(words) or name


def short_uuid(uuid: str) -> str:
    """Return the first group of a UUID with its prefix: ``GPU-1f2e3d4c``. Anything else is returned whole."""
    parts = uuid.split("-")
    return "-".join(parts[:-4]) if len(parts) > 5 and parts[0] in {"GPU", "MIG"} else uuid


@dataclass(frozen=True, slots=True)
class Device:
    """A device as people name it: its host, its GPU's index, and for a MIG instance which one it is."""

    uuid: str
    host: str
    index: int
    model: str
    instance: str | None = None


def devices_of(inventory: Inventory) -> dict[str, Device]:
    """Return every device of ``inventory`` under its UUID: GPUs, and the MIG instances of those that have MIG on."""
    found: dict[str, Device] = {}
    for host in inventory.hosts:
        for gpu in host.gpus:
            found[gpu.uuid] = Device(gpu.uuid, host.name, gpu.index, short_name(gpu.name))
            for instance in gpu.mig or ():
                model = f"MIG {instance.profile}"
                found[instance.uuid] = Device(instance.uuid, host.name, gpu.index, model, instance_label(gpu, instance))
    return found


def instance_label(gpu: Gpu, instance: MigInstance) -> str:
    """Return the ids of a MIG instance as ``nvidia-smi`` counts them; the compute instance only where it is needed."""
    shared = sum(other.gi == instance.gi for other in gpu.mig or ()) > 1
    return f"gi {instance.gi} ci {instance.ci}" if shared else f"gi {instance.gi}"


def device_count(inventory: Inventory) -> int:
    """Return how many devices can be handed out; of a GPU with MIG on, its instances."""
    return sum(1 if gpu.mig is None else len(gpu.mig) for host in inventory.hosts for gpu in host.gpus)


def has_mig(inventory: Inventory) -> bool:
    """Return whether any GPU has MIG on."""
    return any(gpu.mig is not None for host in inventory.hosts for gpu in host.gpus)


def label(devices: Iterable[Device], known: Iterable[Device] = ()) -> str:
    """Return devices of one host: ``GPU 0-3, 6``, and MIG instances one by one, ``GPU 1 gi 7``.

    Where they are all the instances of a GPU that are ``known``, and several: ``all of GPU 1``.
    """
    group = list(devices)
    here = {device.uuid for device in group}
    hosts = {device.host for device in group}
    split: dict[int, list[str]] = {}
    for device in known:
        if device.instance is not None and device.host in hosts:
            split.setdefault(device.index, []).append(device.uuid)
    full = {index for index, uuids in split.items() if len(uuids) > 1 and here.issuperset(uuids)}
    group = [device for device in group if device.instance is None or device.index not in full]
    whole = ranges(device.index for device in group if device.instance is None)
    instances: dict[int, list[str]] = {}
    for device in group:
        if device.instance is not None:
            instances.setdefault(device.index, []).append(device.instance)
    parts = [f"GPU {whole}"] if whole else []
    parts += [f"all of GPU {ranges(full)}"] if full else []
    parts += [f"GPU {index} {', '.join(names)}" for index, names in sorted(instances.items())]
    return ", ".join(parts)


_HOSTS_NAMED = 4
"""So many hosts with devices of the same numbers are named; of more, only how many there are."""


def label_on_hosts(uuids: Iterable[str], devices: Mapping[str, Device], hosts: int) -> str:
    """Return devices as ``label`` does, with their hosts where there are several: ``GPU 0-3 on gpu01, gpu02``."""
    by_host: dict[str, list[Device]] = {}
    unknown = []
    for uuid in uuids:
        device = devices.get(uuid)
        if device is None:
            unknown.append(short_uuid(uuid))
        else:
            by_host.setdefault(device.host, []).append(device)
    if hosts < 2:
        return ", ".join([*(label(group, devices.values()) for group in by_host.values()), *unknown])
    alike: dict[str, list[str]] = {}
    for host, group in by_host.items():
        alike.setdefault(label(group, devices.values()), []).append(host)
    return ", ".join([*(f"{which} on {listed(on, _HOSTS_NAMED)}" for which, on in alike.items()), *unknown])
