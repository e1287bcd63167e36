"""The files that a plan over several hosts becomes, and what they said before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gpualloc.compose.files import read_source
from gpualloc.compose.obstacles import Neighbours, check_obstacles
from gpualloc.compose.record import HOST, STACK
from gpualloc.compose.swarm.hosts import host_files
from gpualloc.compose.swarm.nodes import node_map
from gpualloc.compose.swarm.record import combined, read_record
from gpualloc.compose.swarm.setup import setup_text
from gpualloc.compose.swarm.stack import Swarm, stack_of
from gpualloc.errors import Diagnostic, Place, fail
from gpualloc.policy.filters import refused_by_policy
from gpualloc.solve.devices import flatten
from gpualloc.solve.order import natural

if TYPE_CHECKING:
    from pathlib import Path

    from gpualloc.compose.files import Source
    from gpualloc.compose.swarm.record import Previous
    from gpualloc.compose.swarm.stack import Planning
    from gpualloc.fleet.options import FleetOptions


class Made(NamedTuple):
    """A file that is written whole: how it is called, where it is, what it holds now, and what it gets."""

    shown: str
    path: Path
    source: Source | None
    text: str | None


@dataclass(frozen=True, slots=True)
class Written:
    """The files that a plan becomes, a message for every key that is not in them, and what the hosts need once."""

    files: tuple[Made, ...]
    notes: tuple[Diagnostic, ...]
    setup: str = ""


def previous_of(fleet: FleetOptions, cwd: Path) -> Previous | None:
    """Return what the files made before say of where workers are; None where there are none yet.

    Raises GpuallocError: ``override-foreign``, ``record``.
    """
    if fleet.swarm is not None:
        source = _source(cwd / fleet.swarm, fleet.swarm)
        return read_record(source, fleet.swarm, STACK) if source is not None else None
    if fleet.per_host is not None:
        found = _host_sources(cwd, fleet.per_host)
        return combined(read_record(source, shown, HOST) for shown, source in found.items()) if found else None
    return None


def _host_sources(cwd: Path, folder: str) -> dict[str, Source]:
    """Return the files of a folder of hosts, by the names they are called. Raises GpuallocError (``host-file``)."""
    path = cwd / folder
    if not path.exists():
        return {}
    if not path.is_dir():
        raise fail("host-file", "this is no folder", Place(folder), "name a folder that holds nothing else")
    names = sorted(file.name for file in path.iterdir() if file.suffix == ".yaml")
    return {f"{folder}/{name}": read_source(path / name, f"{folder}/{name}") for name in names}


def _source(path: Path, shown: str) -> Source | None:
    return read_source(path, shown) if path.exists() else None


def written(planning: Planning, fleet: FleetOptions, scaled: dict[str, int], cwd: Path) -> Written:
    """Return the files that a plan becomes. Raises GpuallocError for one that cannot be told so."""
    around = Neighbours.of(planning.project)
    for role in planning.demand.roles:
        if role.splits:
            check_obstacles(role, around, inside=False)
    if fleet.per_host is not None:
        return _per_host(planning, fleet, scaled, fleet.per_host.rstrip("/"), cwd)
    return _stack(planning, fleet, scaled, cwd)


def _per_host(planning: Planning, fleet: FleetOptions, scaled: dict[str, int], folder: str, cwd: Path) -> Written:
    made = host_files(planning, _main(planning, fleet, cwd), scaled, folder)
    before = _host_sources(cwd, folder)
    shown = {f"{folder}/{host}.yaml": text for host, text in made.texts.items()}
    files = [Made(name, cwd / name, before.get(name), text) for name, text in shown.items()]
    notes = list(made.notes)
    for name, source in before.items():
        if name not in shown:
            files.append(Made(name, cwd / name, source, None))
            host = name.removeprefix(f"{folder}/").removesuffix(".yaml")
            hint = f"end what still runs there, if it can be reached: docker --context {host} compose down"
            notes.append(Diagnostic("host-empty", f"nothing runs on {host} any more", Place(name), hint, "note"))
    return Written(tuple(files), tuple(notes))


def _main(planning: Planning, fleet: FleetOptions, cwd: Path) -> str:
    """Return the host that runs what needs no GPU: as asked, else as before, else the first that has a worker."""
    hosts = [host.name for host in planning.inventory.hosts]
    if fleet.main is not None:
        if fleet.main not in hosts:
            raise fail(
                "unknown-host", f"--main: no host is called {fleet.main}", None, f"the hosts are: {', '.join(hosts)}"
            )
        return fleet.main
    previous = previous_of(fleet, cwd)
    if previous is not None and previous.main in hosts and previous.main not in planning.emptied:
        return previous.main
    used = {placement.host for placement in planning.solution.placements}
    return min(used or set(hosts), key=natural)


def _stack(planning: Planning, fleet: FleetOptions, scaled: dict[str, int], cwd: Path) -> Written:
    shown = fleet.swarm or ""
    hosts = [host.name for host in planning.inventory.hosts]
    swarm = Swarm(fleet.mode, node_map(fleet.nodes, hosts, cwd), scaled)
    stack = stack_of(planning, swarm, shown)
    path = cwd / shown
    used = {placement.host for placement in planning.solution.placements}
    devices: dict[str, tuple[str, ...]] = {host: () for host in hosts if host in used}
    for device in flatten(planning.inventory, planning.policy, planning.project.name, frozenset()):
        if device.host in used and refused_by_policy(device, planning.policy) is None:
            devices[device.host] = (*devices[device.host], device.uuid)
    return Written((Made(shown, path, _source(path, shown), stack.text),), stack.notes, setup_text(swarm, devices))
