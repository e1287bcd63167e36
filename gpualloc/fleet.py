"""Plans over several hosts written down: as a stack for Docker Swarm, or as a file for each host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gpualloc.compose.files import read_source
from gpualloc.compose.obstacles import Neighbours, check_obstacles
from gpualloc.compose.swarm.nodes import node_map
from gpualloc.compose.swarm.record import read_record
from gpualloc.compose.swarm.setup import setup_text
from gpualloc.compose.swarm.stack import STACK, Mode, Swarm, stack_of
from gpualloc.errors import fail
from gpualloc.policy.filters import refused_by_policy
from gpualloc.solve.devices import flatten

if TYPE_CHECKING:
    from pathlib import Path

    from gpualloc.compose.files import Source
    from gpualloc.compose.swarm.record import Previous
    from gpualloc.compose.swarm.stack import Planning
    from gpualloc.errors import Diagnostic


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """How a plan over several hosts is written: ``swarm`` names a stack file, ``per_host`` a folder.

    ``nodes``: ``NAME=NODE``, or a file of such. ``main``: the host that runs what needs no GPU.
    """

    swarm: str | None = None
    mode: Mode = "uuid"
    nodes: tuple[str, ...] = ()
    per_host: str | None = None
    main: str | None = None

    @property
    def asked(self) -> bool:
        """Whether a plan is to be written so at all."""
        return self.swarm is not None or self.per_host is not None


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


def check_one_form(fleet: FleetOptions, override: str | None) -> None:
    """Raise GpuallocError (``several-forms``) where a plan is to be written in two ways at once."""
    given = {"--override": override, "--swarm": fleet.swarm, "--per-host": fleet.per_host}
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1:
        raise fail("several-forms", f"{' and '.join(named)} are two ways to write a plan", None, "give one of them")


def previous_of(fleet: FleetOptions, cwd: Path) -> Previous | None:
    """Return what the files made before say of where workers are; None where there are none yet.

    Raises GpuallocError: ``override-foreign``, ``record``.
    """
    if fleet.swarm is not None:
        source = _source(cwd / fleet.swarm, fleet.swarm)
        return read_record(source, fleet.swarm, STACK) if source is not None else None
    return None


def _source(path: Path, shown: str) -> Source | None:
    return read_source(path, shown) if path.exists() else None


def written(planning: Planning, fleet: FleetOptions, scaled: dict[str, int], cwd: Path) -> Written:
    """Return the files that a plan becomes. Raises GpuallocError for one that cannot be told so."""
    around = Neighbours.of(planning.project)
    for role in planning.demand.roles:
        if role.splits:
            check_obstacles(role, around, inside=False)
    return _stack(planning, fleet, scaled, cwd)


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
