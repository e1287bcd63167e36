"""The inventory contract as JSON: parsed strictly, and written.

The JSON Schema beside it, ``gpualloc/schemas/inventory.schema.json``, says the same of every single value; what no
schema can say (a UUID given twice, a link to a GPU that is not there) is checked here alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_args

from gpualloc.jsontext import load
from gpualloc.model import (
    FORMAT_VERSION,
    ComputeMode,
    Container,
    Gpu,
    HealthIssue,
    Host,
    Inventory,
    Link,
    MigInstance,
    PcieLevel,
    Platform,
    Process,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gpualloc.strict import Value

Route = tuple[str | int, ...]

GPU_UUID = re.compile(r"GPU-[0-9A-Za-z_-]+")
MIG_UUID = re.compile(r"MIG-[0-9A-Za-z_/-]+")
"""Before driver 470 a MIG instance was named after its GPU: ``MIG-GPU-…/gi/ci``."""
PCI_BUS_ID = re.compile(r"[0-9A-Fa-f]+:[0-9A-Fa-f]+:[0-9A-Fa-f]+\.[0-9A-Fa-f]+")
CAPABILITY = re.compile(r"[0-9]+\.[0-9]+")
CPU_LIST = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")

_COMPUTE_MODES: tuple[ComputeMode, ...] = get_args(ComputeMode)
_PCIE_LEVELS: tuple[PcieLevel, ...] = get_args(PcieLevel)
_PLATFORMS: tuple[Platform, ...] = get_args(Platform)

_INVENTORY = ("format_version", "source", "hosts")
_HOST = ("name", "driver", "cuda", "gpus", "links")
_GPU = (
    "uuid",
    "index",
    "name",
    "pci_bus_id",
    "memory_total_mib",
    "memory_reserved_mib",
    "memory_used_mib",
    "compute_capability",
    "numa_node",
    "cpu_affinity",
    "display_active",
    "compute_mode",
    "mig",
    "health",
    "processes",
)
_MIG = ("uuid", "gi", "ci", "profile", "memory_total_mib")
_HEALTH = ("code", "fatal", "detail")
_PROCESS = ("pid", "used_mib", "container")
_CONTAINER = ("id", "project", "service")
_LINK = ("a", "b", "nvlink", "pcie")


def parse(text: str, file: str) -> Inventory:
    """Read a snapshot. ``file`` names it in messages.

    Raises ``GpuallocError`` (``inventory-json``, ``-version``, ``-missing-key``, ``-unknown-key``, ``-type``,
    ``-value``, ``-duplicate``, ``-link``) with the path of the first mistake and its line and column.
    """
    root = load(text, file, "inventory", "gpualloc inventory --format json writes one that is right")
    if isinstance(root.raw, dict) and isinstance(root.raw.get("format_version"), str):
        # asked first: another version may have other keys, and they are not the mistake
        _check_version(root.at("format_version"))
    fields = root.fields(_INVENTORY)
    fields["format_version"].text()
    inventory = Inventory(fields["source"].text(), tuple(_host(host) for host in fields["hosts"].items()))
    _no_two(root, _names(inventory), "host name")
    _no_two(root, _uuids(inventory), "UUID")
    return inventory


def dump(inventory: Inventory) -> str:
    """Write a snapshot: the text that ``parse`` reads back to an equal inventory, with a final newline."""
    import json  # noqa: PLC0415 - reading alone does not need the writer

    document = {
        "format_version": FORMAT_VERSION,
        "source": inventory.source,
        "hosts": [_host_data(host) for host in inventory.hosts],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _check_version(value: Value) -> None:
    if value.raw != FORMAT_VERSION:
        raise value.error(
            "version",
            f'is "{value.raw}", and this gpualloc reads "{FORMAT_VERSION}"',
            "write the snapshot anew: gpualloc inventory --format json",
        )


# --------------------------------------------------------------------------------------------------------------------
# Reading


def _natural(value: Value) -> int:
    return value.integer(minimum=0)


def _size(value: Value) -> int:
    if value.raw == 0 and value.raw is not False:
        raise value.error("value", "must be at least 1, not 0", "a size that is unknown is null")
    return value.integer(minimum=1)


def _numa(value: Value) -> int:
    if value.raw == -1:
        raise value.error("value", "must be at least 0, not -1", "a node that is unknown is null")
    return value.integer(minimum=0)


def _text(value: Value) -> str:
    return value.text()


def _boolean(value: Value) -> bool:
    return value.boolean()


def _host(value: Value) -> Host:
    fields = value.fields(_HOST, ("platform",))
    host = Host(
        name=fields["name"].text(),
        driver=fields["driver"].or_none(_text),
        cuda=fields["cuda"].or_none(_text),
        gpus=tuple(_gpu(gpu) for gpu in fields["gpus"].items()),
        links=tuple(_link(link) for link in fields["links"].items()),
        platform=fields["platform"].choice(_PLATFORMS) if "platform" in fields else "linux",
    )
    _no_two(value, ((gpu.index, ("gpus", i, "index")) for i, gpu in enumerate(host.gpus)), "index")
    _check_links(fields["links"], host.links, {gpu.uuid for gpu in host.gpus})
    return host


def _gpu(value: Value) -> Gpu:
    fields = value.fields(_GPU)
    total = fields["memory_total_mib"].or_none(_size)
    reserved = fields["memory_reserved_mib"].or_none(_natural)
    if total is not None and reserved is not None and reserved > total:
        raise fields["memory_reserved_mib"].error("value", f"more is reserved ({reserved}) than there is ({total})")
    mig = fields["mig"]
    return Gpu(
        uuid=fields["uuid"].text(GPU_UUID, "a GPU's UUID (GPU-…)"),
        index=_natural(fields["index"]),
        name=fields["name"].text(),
        pci_bus_id=fields["pci_bus_id"].text(PCI_BUS_ID, "a PCI bus id (00000000:1B:00.0)"),
        memory_total_mib=total,
        memory_reserved_mib=reserved,
        memory_used_mib=fields["memory_used_mib"].or_none(_natural),
        compute_capability=fields["compute_capability"].or_none(lambda v: v.text(CAPABILITY, "a version (9.0)")),
        numa_node=fields["numa_node"].or_none(_numa),
        cpu_affinity=fields["cpu_affinity"].or_none(lambda v: v.text(CPU_LIST, "a list of CPUs (0-55,112-167)")),
        display_active=fields["display_active"].or_none(_boolean),
        compute_mode=fields["compute_mode"].or_none(lambda v: v.choice(_COMPUTE_MODES)),
        mig=None if mig.raw is None else tuple(_mig(instance) for instance in mig.items()),
        health=tuple(_health(issue) for issue in fields["health"].items()),
        processes=tuple(_process(process) for process in fields["processes"].items()),
    )


def _mig(value: Value) -> MigInstance:
    fields = value.fields(_MIG)
    return MigInstance(
        uuid=fields["uuid"].text(MIG_UUID, "a MIG instance's UUID (MIG-…)"),
        gi=_natural(fields["gi"]),
        ci=_natural(fields["ci"]),
        profile=fields["profile"].text(),
        memory_total_mib=fields["memory_total_mib"].or_none(_size),
    )


def _health(value: Value) -> HealthIssue:
    fields = value.fields(_HEALTH)
    return HealthIssue(fields["code"].text(), fields["fatal"].boolean(), fields["detail"].text(empty=True))


def _process(value: Value) -> Process:
    fields = value.fields(_PROCESS, ("gi",))
    return Process(
        pid=fields["pid"].integer(minimum=1),
        used_mib=fields["used_mib"].or_none(_natural),
        container=fields["container"].or_none(_container),
        gi=fields["gi"].or_none(_natural) if "gi" in fields else None,
    )


def _container(value: Value) -> Container:
    fields = value.fields(_CONTAINER)
    return Container(fields["id"].text(), fields["project"].or_none(_text), fields["service"].or_none(_text))


def _link(value: Value) -> Link:
    fields = value.fields(_LINK)
    return Link(
        a=fields["a"].text(GPU_UUID, "a GPU's UUID (GPU-…)"),
        b=fields["b"].text(GPU_UUID, "a GPU's UUID (GPU-…)"),
        nvlink=fields["nvlink"].or_none(_natural),
        pcie=fields["pcie"].or_none(lambda v: v.choice(_PCIE_LEVELS)),
    )


# --------------------------------------------------------------------------------------------------------------------
# What holds between values


def _names(inventory: Inventory) -> Iterator[tuple[str, Route]]:
    for i, host in enumerate(inventory.hosts):
        yield host.name, ("hosts", i, "name")


def _uuids(inventory: Inventory) -> Iterator[tuple[str, Route]]:
    for i, host in enumerate(inventory.hosts):
        for j, gpu in enumerate(host.gpus):
            yield gpu.uuid, ("hosts", i, "gpus", j, "uuid")
            for k, instance in enumerate(gpu.mig or ()):
                yield instance.uuid, ("hosts", i, "gpus", j, "mig", k, "uuid")


def _no_two(value: Value, keys: Iterable[tuple[str | int, Route]], what: str) -> None:
    seen: dict[str | int, Route] = {}
    for key, route in keys:
        first = seen.setdefault(key, route)
        if first is not route:
            owner = value.at(*first[:-1]).path
            raise value.at(*route).error("duplicate", f"the {what} {key} is already that of {owner}")


def _check_links(value: Value, links: tuple[Link, ...], gpus: set[str]) -> None:
    seen: dict[frozenset[str], int] = {}
    for position, link in enumerate(links):
        for end in ("a", "b"):
            if (uuid := getattr(link, end)) not in gpus:
                raise value.at(position, end).error("link", f"no GPU of this host is {uuid}")
        if link.a == link.b:
            raise value.at(position).error("link", f"a link joins two GPUs, not {link.a} with itself")
        first = seen.setdefault(frozenset((link.a, link.b)), position)
        if first != position:
            raise value.at(position).error("duplicate", f"{value.at(first).path} already joins these two GPUs")


# --------------------------------------------------------------------------------------------------------------------
# Writing


def _host_data(host: Host) -> dict[str, Any]:
    return {
        "name": host.name,
        "driver": host.driver,
        "cuda": host.cuda,
        "platform": host.platform,
        "gpus": [_gpu_data(gpu) for gpu in host.gpus],
        "links": [{key: getattr(link, key) for key in _LINK} for link in host.links],
    }


def _gpu_data(gpu: Gpu) -> dict[str, Any]:
    data = {key: getattr(gpu, key) for key in _GPU}
    if gpu.mig is not None:
        data["mig"] = [{key: getattr(instance, key) for key in _MIG} for instance in gpu.mig]
    data["health"] = [{key: getattr(issue, key) for key in _HEALTH} for issue in gpu.health]
    data["processes"] = [_process_data(process) for process in gpu.processes]
    return data


def _process_data(process: Process) -> dict[str, Any]:
    container = process.container
    return {
        "pid": process.pid,
        "used_mib": process.used_mib,
        "gi": process.gi,
        "container": None if container is None else {key: getattr(container, key) for key in _CONTAINER},
    }
