"""Hosts that are to be emptied: none of their devices is handed out, so that their workers move."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gpualloc.errors import fail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpualloc.model import Inventory, Placement, Solution


def drained_devices(inventory: Inventory, hosts: Iterable[str]) -> tuple[str, ...]:
    """Return the UUIDs of every GPU of the hosts named. Raises GpuallocError (``unknown-host``) for one not there."""
    by_name = {host.name: host for host in inventory.hosts}
    found: list[str] = []
    for name in hosts:
        if name not in by_name:
            hint = f"the hosts are: {', '.join(by_name)}; one that is gone already needs no --drain"
            raise fail("unknown-host", f"--drain: no host is called {name}", None, hint)
        found += (gpu.uuid for gpu in by_name[name].gpus)
    return tuple(found)


def say_drained(solution: Solution, inventory: Inventory, hosts: Iterable[str]) -> Solution:
    """Return a solution that gives the drained host as the reason for a move, instead of a device that is gone."""
    names = frozenset(hosts)
    homes = {
        uuid: host.name
        for host in inventory.hosts
        if host.name in names
        for gpu in host.gpus
        for uuid in (gpu.uuid, *(part.uuid for part in gpu.mig or ()))
    }
    return replace(solution, placements=tuple(_told(placement, homes) for placement in solution.placements))


def _told(placement: Placement, homes: dict[str, str]) -> Placement:
    reason = placement.reason
    for uuid in placement.previous or ():
        if uuid in homes:
            reason = reason.replace(f"{uuid} is gone", f"{homes[uuid]} is drained")
    return replace(placement, reason=reason)
