"""What workers use, for people and for other programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gpualloc.durations import shown_duration
from gpualloc.model import FORMAT_VERSION
from gpualloc.policy.values import format_memory
from gpualloc.render.layout import Column, Line, Table, cell, render
from gpualloc.render.words import UNKNOWN, counted, devices_of, label_on_hosts, memory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpualloc.model import Inventory
    from gpualloc.render.layout import Cell, Style
    from gpualloc.render.screen import Screen
    from gpualloc.render.words import Device
    from gpualloc.usage.measure import DeviceUsage, Usage, Verdict, WorkerUsage

_STYLES: dict[Verdict, Style] = {
    "over": "bad",
    "tight": "warn",
    "generous": "change",
    "fits": "good",
    "unknown": "dim",
}


def usage_text(usage: Usage, inventory: Inventory, screen: Screen) -> str:
    """Return a table with a line for each worker and device, and how it was measured."""
    titles = (("worker", False), ("device", False), ("asked", True), ("used", True), ("peak", True), ("", False))
    columns = tuple(Column(title, right=right) for title, right in (*titles, ("suggested", False)))
    devices = devices_of(inventory)
    rows = tuple(_row(one, device, devices, len(inventory.hosts)) for one in usage.workers for device in one.devices)
    over = f"over {shown_duration(usage.seconds)}, " if usage.seconds else ""
    parts = [render((Table(columns, rows),), screen)] if rows else []
    if any(one.state == "taken-to-be" for one in usage.workers):
        parts.append("* its processes are in no container that is known: those on its device are taken to be its own\n")
    parts.append(render((Line(cell(f"{over}{counted(usage.readings, 'reading')}")),), screen))
    return "".join(parts)


def _row(one: WorkerUsage, device: DeviceUsage, devices: Mapping[str, Device], hosts: int) -> tuple[Cell, ...]:
    first = device == one.devices[0]
    name = f"{one.worker}{'*' if one.state == 'taken-to-be' else ''}" if first else ""
    suggested = f"memory: {format_memory(one.suggested_mib)}" if first and one.suggested_mib else ""
    verdict = "not seen" if one.state == "not-seen" else one.verdict
    return (
        cell(name),
        cell(label_on_hosts([device.uuid], devices, hosts)),
        cell("exclusive" if device.declared_mib is None else memory(device.declared_mib)),
        cell(UNKNOWN if device.used_mib is None else memory(device.used_mib)),
        cell(UNKNOWN if device.peak_mib is None else memory(device.peak_mib)),
        cell(verdict if first else "", _STYLES[one.verdict]),
        cell(suggested),
    )


def usage_json(usage: Usage) -> str:
    """Return what workers use as a JSON document; memory is in MiB, null where it is not known. ASCII only."""
    document = {
        "format_version": FORMAT_VERSION,
        "seconds": usage.seconds,
        "readings": usage.readings,
        "workers": [_worker(one) for one in usage.workers],
    }
    return json.dumps(document, indent=2) + "\n"


def _worker(one: WorkerUsage) -> dict[str, Any]:
    return {
        "worker": one.worker,
        "state": one.state,
        "verdict": one.verdict,
        "suggested_mib": one.suggested_mib,
        "suggested": None if one.suggested_mib is None else format_memory(one.suggested_mib),
        "devices": [
            {
                "uuid": device.uuid,
                "index": device.index,
                "total_mib": device.total_mib,
                "declared_mib": device.declared_mib,
                "used_mib": device.used_mib,
                "peak_mib": device.peak_mib,
            }
            for device in one.devices
        ],
    }
