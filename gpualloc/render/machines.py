"""The machines that come with gpualloc, each on a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.render.layout import Column, Table, cell, render
from gpualloc.render.screen import Screen
from gpualloc.render.words import memory, short_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpualloc.model import Gpu, Host, Inventory


def machines_text(machines: Mapping[str, Inventory]) -> str:
    """Return what there is in each machine, under the name that ``--inventory`` takes, which is the first word."""
    rows = tuple(
        (cell(f"sim:{name}"), cell(", ".join(map(_host, inventory.hosts)))) for name, inventory in machines.items()
    )
    return render([Table((Column(""), Column("")), rows)], Screen())


def _host(host: Host) -> str:
    alike: dict[str, int] = {}
    for gpu in host.gpus:
        alike[_gpu(gpu)] = alike.get(_gpu(gpu), 0) + 1
    facts = [f"{count} x {name}" for name, count in alike.items()]
    facts += ["NVLink"] if any(link.nvlink for link in host.links) else []
    facts += ["WSL2"] if host.platform == "wsl2" else []
    return ", ".join(facts)


def _gpu(gpu: Gpu) -> str:
    text = f"{short_name(gpu.name)} ({memory(gpu.memory_total_mib)})"
    text += f" in {len(gpu.mig)} MIG instances" if gpu.mig else ""
    return text + (" with a display" if gpu.display_active else "")
