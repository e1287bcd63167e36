"""What a plan is made from, read once: the project, the machine, the policy."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpualloc.beside import promises, with_promises
from gpualloc.compose.document import without_collector
from gpualloc.compose.project import ProjectOptions, load_project
from gpualloc.compose.reader import read_demand
from gpualloc.compose.version import too_old_for_override
from gpualloc.drain import drained_devices
from gpualloc.errors import Diagnostic, GpuallocError, fail
from gpualloc.fleet.options import FleetOptions, check_one_form
from gpualloc.inventory import load as load_inventory
from gpualloc.policy.load import load as load_policy
from gpualloc.policy.roles import unmatched_roles
from gpualloc.solve import SolveOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpualloc.beside import Promise
    from gpualloc.compose.project import Project
    from gpualloc.compose.reader import Demand
    from gpualloc.compose.swarm.record import Previous
    from gpualloc.compose.swarm.source import Whole
    from gpualloc.model import Inventory, Policy, Reading, Request


@dataclass(frozen=True, slots=True)
class Options:
    """What a command was asked to work on: the project, the machine, the policy, and what-if changes to them."""

    project: ProjectOptions = field(default_factory=ProjectOptions)
    inventory: tuple[str, ...] = ()
    topo: str | None = None
    skip_unreachable: bool = False
    policy: str | None = None
    override: str | None = None
    beside: tuple[str, ...] = ()
    solve: SolveOptions = field(default_factory=SolveOptions)
    scale: tuple[tuple[str, int], ...] = ()
    drain: tuple[str, ...] = ()
    fleet: FleetOptions = field(default_factory=FleetOptions)

    def solving(self, inventory: Inventory) -> SolveOptions:
        """Return what to tell the solver. Raises GpuallocError (``unknown-host``) for a host that is not there."""
        drained = drained_devices(inventory, self.drain)
        return replace(self.solve, without=(*self.solve.without, *drained)) if drained else self.solve


@dataclass(frozen=True, slots=True, eq=False)
class Workspace:
    """Everything a plan is made from, read once. ``warnings`` are about the inputs.

    ``inventory`` is the machine or machines as read, with what ``promises`` to other projects take of it. ``whole``:
    all of the project, where the plan is to be written for several hosts; ``scaled``: what ``--scale`` made of roles;
    ``previous``: what the files made before say of where workers are; ``written``: the option that says where plans are
    written, empty for in place.
    """

    project: Project
    inventory: Inventory
    policy: Policy
    demand: Demand
    requests: tuple[Request, ...]
    promises: tuple[Promise, ...]
    warnings: tuple[Diagnostic, ...]
    whole: Whole | None = None
    scaled: dict[str, int] = field(default_factory=dict)
    previous: Previous | None = None
    written: str = ""


def solve_options(*, time_limit_s: float | None, replan: bool, without: tuple[str, ...]) -> SolveOptions:
    """Return the solver's options for what the command line says."""
    return SolveOptions(time_limit_s=time_limit_s, replan=replan, without=without)


def open_workspace(
    options: Options, environ: Mapping[str, str], cwd: Path, reading: Reading | None = None
) -> Workspace:
    """Read the project, the policy and the inventory, unless that is given as ``reading``.

    Raises GpuallocError for whichever cannot be used.
    """
    check_one_form(options.fleet, options.override)
    override = cwd / options.override if options.override else None
    with without_collector():
        project = load_project(options.project, environ, cwd, override=override)
    policy = load_policy(options.policy, cwd=cwd, compose_dir=project.directory)
    previous = _previous(options, cwd)
    scaled = (previous.replicas if previous is not None else {}) | _scale(options)
    try:
        demand = read_demand(project, policy, scaled)
    except GpuallocError as error:
        # what is wrong may come of a variable that reads as empty
        raise GpuallocError(*project.warnings, *error.diagnostics) from None
    whole = None
    if options.fleet.asked:
        from gpualloc.compose.swarm.record import with_previous  # noqa: PLC0415 - plans for one host need none of it
        from gpualloc.compose.swarm.source import read_whole  # noqa: PLC0415 - as above

        demand = with_previous(demand, previous) if previous is not None else demand
        whole = read_whole(options.project, environ, cwd)
    if reading is None:
        reading = read_inventory(options)
    taken, about_others = promises(options.beside, reading.inventory, policy, project, environ, cwd)
    too_old = too_old_for_override() if options.override else None
    warnings = (
        *((too_old,) if too_old else ()),
        *(whole or project).warnings,
        *unmatched_roles(policy, [*(service.name for service in project.services), *project.copies]),
        *reading.warnings,
        *demand.notes,
        *about_others,
    )
    requests = tuple(role.request for role in demand.roles)
    inventory = with_promises(reading.inventory, taken)
    return Workspace(
        project, inventory, policy, demand, requests, taken, warnings, whole, scaled, previous, _written(options)
    )


def _previous(options: Options, cwd: Path) -> Previous | None:
    """Return what files for several hosts say of where workers are."""
    if not options.fleet.asked:
        return None
    from gpualloc.fleet.files import previous_of  # noqa: PLC0415 - plans for one host need none of it

    return previous_of(options.fleet, cwd)


def read_inventory(options: Options) -> Reading:
    """Read the machine or machines that a command is about. Raises GpuallocError where that cannot be done."""
    topo = Path(options.topo) if options.topo else None
    return load_inventory(options.inventory, topo, skip_unreachable=options.skip_unreachable)


def _written(options: Options) -> str:
    """Return the option by which this plan is written elsewhere than in place, as one types it."""
    ways = {"--override": options.override, "--swarm": options.fleet.swarm, "--per-host": options.fleet.per_host}
    return next((f"{way} {shlex.quote(name)}" for way, name in ways.items() if name is not None), "")


def _scale(options: Options) -> dict[str, int]:
    scale = dict(options.scale)
    if len(scale) < len(options.scale):
        raise fail("scale", "--scale names a role twice", None, "name each role once")
    return scale
