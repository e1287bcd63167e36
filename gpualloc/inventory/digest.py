"""The hash of what a plan rests on."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpualloc.model import Gpu, Host, Inventory


def digest(inventory: Inventory) -> str:
    """Return the ``inventory_sha256`` of a plan: 64 hexadecimal digits.

    Covers which GPUs share a host, and of each its UUID, index, total memory, MIG layout, links and fatal health; not
    memory in use, processes, or what a host is called. The order of hosts, GPUs, instances and links, and which end of
    a link comes first, change nothing.
    """
    hosts = sorted((_host(host) for host in inventory.hosts), key=_canonical)
    return hashlib.sha256(_canonical(hosts).encode()).hexdigest()


def _canonical(data: object) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _host(host: Host) -> dict[str, Any]:
    # a link of which nothing is known says no more than a link that is not there
    known = [link for link in host.links if link.nvlink is not None or link.pcie is not None]
    return {
        "gpus": sorted((_gpu(gpu) for gpu in host.gpus), key=_canonical),
        "links": sorted(([*sorted((link.a, link.b)), link.nvlink, link.pcie] for link in known), key=_canonical),
    }


def _gpu(gpu: Gpu) -> dict[str, Any]:
    mig = gpu.mig and sorted([i.uuid, i.gi, i.ci, i.profile, i.memory_total_mib or -1] for i in gpu.mig)
    return {
        "uuid": gpu.uuid,
        "index": gpu.index,
        "memory_total_mib": gpu.memory_total_mib,
        "mig": mig,
        "fatal": sorted({issue.code for issue in gpu.health if issue.fatal}),
    }
