"""The main job from end to end: read, plan, rewrite, write. The commands call these functions and print the results."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpualloc.beside import promises, with_promises
from gpualloc.compose.copies import worker_name
from gpualloc.compose.document import parse, without_collector
from gpualloc.compose.edits import edits, parked
from gpualloc.compose.files import lock, make_folders, read_source, remove, stage, write_atomic
from gpualloc.compose.override import check_ours, override_text
from gpualloc.compose.project import ProjectOptions, load_project
from gpualloc.compose.proof import Proof
from gpualloc.compose.reader import read_demand
from gpualloc.compose.rewrite import rewrite
from gpualloc.compose.swarm.record import with_previous
from gpualloc.compose.swarm.source import read_whole
from gpualloc.compose.swarm.stack import Planning
from gpualloc.compose.version import too_old_for_override
from gpualloc.compose.workers import divisions_of, fresh_workers, orphans
from gpualloc.drain import drained_devices, say_drained
from gpualloc.errors import Diagnostic, GpuallocError, Place, fail
from gpualloc.fleet import FleetOptions, check_one_form, previous_of, written
from gpualloc.inventory import digest
from gpualloc.inventory import load as load_inventory
from gpualloc.model import ComposeInput, Plan, PlanInputs, PlanWarning
from gpualloc.policy.load import load as load_policy
from gpualloc.policy.roles import unmatched_roles
from gpualloc.render.places import Evicted, Held
from gpualloc.render.plan_json import parse as parse_plan
from gpualloc.solve import SolveOptions, solve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpualloc.beside import Promise
    from gpualloc.compose.document import Document
    from gpualloc.compose.files import Source, Staged
    from gpualloc.compose.layers import ComposeFile
    from gpualloc.compose.patch import Edit
    from gpualloc.compose.project import Project
    from gpualloc.compose.reader import Demand
    from gpualloc.compose.swarm.record import Previous
    from gpualloc.compose.swarm.source import Whole
    from gpualloc.compose.workers import Fresh
    from gpualloc.model import Capacity, Explanation, Inventory, Policy, Reading, Request, Solution


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
    ``previous``: what the files made before say of where workers are.
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


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A file and the text it gets; ``source`` is what it holds now, None where there is no such file yet."""

    shown: str
    path: Path
    source: Source | None
    text: str | None

    @property
    def before(self) -> str:
        """The text it holds now."""
        return self.source.text if self.source else ""

    @property
    def after(self) -> str:
        """The text it gets; none, where the file goes."""
        return self.text or ""

    @property
    def changed(self) -> bool:
        """Whether writing it would change anything."""
        return self.text != (self.source.text if self.source else None)

    def encode(self) -> bytes:
        """Return the bytes to write, in the encoding that the file has."""
        return self.source.encode(self.after) if self.source else self.after.encode()


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A plan with the text that each file gets. For an incomplete plan: with its unplaced workers parked."""

    workspace: Workspace
    plan: Plan
    files: tuple[Target, ...]
    orphans: tuple[str, ...] = ()
    """Services that are none any more once it is written: their containers are left."""
    notes: tuple[Diagnostic, ...] = ()
    """What other services get of it, and what becomes of keys that the form in which it is written does not have."""
    setup: str = ""
    """What has to be set up once on the hosts for it."""

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What to tell about the inputs, and about what else the result would change, or cannot say."""
        return (*self.workspace.warnings, *self.notes)

    @property
    def changes(self) -> tuple[Target, ...]:
        """The files whose text differs from what is on disk."""
        return tuple(target for target in self.files if target.changed)


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
    previous = previous_of(options.fleet, cwd)
    scaled = (previous.replicas if previous is not None else {}) | _scale(options)
    try:
        demand = read_demand(project, policy, scaled)
    except GpuallocError as error:
        # what is wrong may come of a variable that reads as empty
        raise GpuallocError(*project.warnings, *error.diagnostics) from None
    if previous is not None:
        demand = with_previous(demand, previous)
    whole = read_whole(options.project, environ, cwd) if options.fleet.asked else None
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
    return Workspace(project, inventory, policy, demand, requests, taken, warnings, whole, scaled, previous)


def read_inventory(options: Options) -> Reading:
    """Read the machine or machines that a command is about. Raises GpuallocError where that cannot be done."""
    topo = Path(options.topo) if options.topo else None
    return load_inventory(options.inventory, topo, skip_unreachable=options.skip_unreachable)


def _scale(options: Options) -> dict[str, int]:
    scale = dict(options.scale)
    if len(scale) < len(options.scale):
        raise fail("scale", "--scale names a role twice", None, "name each role once")
    return scale


def make_plan(options: Options, environ: Mapping[str, str], cwd: Path, reading: Reading | None = None) -> Planned:
    """Plan a project, for the machine as it is now or as it was read. "Does not fit" is a plan that is not complete.

    Raises GpuallocError if an input cannot be used.
    """
    workspace = open_workspace(options, environ, cwd, reading)
    solution = solve(
        workspace.inventory,
        workspace.requests,
        workspace.policy,
        project=workspace.project.name,
        options=options.solving(workspace.inventory),
    )
    solution = say_drained(solution, workspace.inventory, options.drain)
    return with_texts(workspace, solution, options, cwd)


def explain_plan(planned: Planned, options: Options, worker: str | None) -> tuple[Explanation, ...]:
    """Explain a plan's placements: of one worker, or of all. Raises GpuallocError (``unknown-worker``)."""
    from gpualloc.solve.explain import explain  # noqa: PLC0415 - it solves again, which a plan need not pay for

    workspace = planned.workspace
    return explain(
        workspace.inventory,
        workspace.requests,
        workspace.policy,
        () if worker is None else (worker,),
        project=workspace.project.name,
        options=options.solving(workspace.inventory),
    )


def held_by_others(workspace: Workspace, options: Options) -> dict[str, Held]:
    """Return what is not the project's to use, by the device's UUID: what others hold, and what is to be done without.

    Devices that are all ours are left out.
    """
    from gpualloc.solve.devices import flatten, without_devices  # noqa: PLC0415 - only a picture of the plan needs these
    from gpualloc.solve.pins import resolve_pins  # noqa: PLC0415

    inventory, policy = workspace.inventory, workspace.policy
    pins = resolve_pins(inventory, workspace.requests).uuids()
    devices = flatten(inventory, policy, workspace.project.name, pins)
    left = without_devices(inventory, options.solving(inventory).without)
    there = {device.uuid for device in flatten(left, policy, workspace.project.name, pins)}
    return {
        device.uuid: Held(device.foreign_mib, device.holders)
        if device.uuid in there
        else Held(device.total_mib or 0, left_out=True)
        for device in devices
        if device.foreign_mib or device.holders or device.uuid not in there
    }


def evicted(planned: Planned) -> tuple[Evicted, ...]:
    """Return the workers that have devices by the file as it is, and none by the plan."""
    from gpualloc.solve.pins import resolve_pins  # noqa: PLC0415 - only a picture of the plan needs it

    workspace = planned.workspace
    unplaced = {one.worker for one in planned.plan.solution.unplaced}
    pins = resolve_pins(workspace.inventory, workspace.requests)
    if pins.elsewhere:
        return ()
    return tuple(
        Evicted(
            worker.name,
            request.role,
            pins.by_worker[worker.name],
            request.memory_mib,
            exclusive=request.exclusive or (request.memory_mib is None and not request.hand_pinned),
        )
        for request in workspace.requests
        for worker in request.workers
        if worker.name in unplaced and worker.name in pins.by_worker
    )


def capacity_of(role: str, options: Options, environ: Mapping[str, str], cwd: Path) -> tuple[Workspace, Capacity]:
    """Return how many more workers of a role would fit. Raises GpuallocError (``unknown-role``)."""
    from gpualloc.solve.capacity import capacity  # noqa: PLC0415 - only this command needs it

    workspace = open_workspace(options, environ, cwd)
    found = capacity(
        workspace.inventory,
        workspace.requests,
        workspace.policy,
        role,
        project=workspace.project.name,
        options=options.solving(workspace.inventory),
    )
    return workspace, found


def with_texts(workspace: Workspace, solution: Solution, options: Options, cwd: Path) -> Planned:
    """Return a solution as a plan, with the text it gives each file."""
    project, demand = workspace.project, workspace.demand
    fresh = fresh_workers(demand.roles, project)
    make = _for_one if workspace.whole is None else _for_several
    made = make(workspace, solution, options, fresh, cwd)
    inputs = PlanInputs(
        compose=tuple(ComposeInput(file.shown, file.source.sha256) for file in project.files),
        inventory=options.inventory or ("nvml",),
        inventory_sha256=digest(workspace.inventory),
        policy=workspace.policy.name,
        policy_sha256=workspace.policy.sha256,
        profiles=project.profiles,
        scale=options.scale,
    )
    ports = tuple(w for w in _port_notes(fresh) if w not in solution.warnings)
    solution = replace(solution, warnings=(*solution.warnings, *ports))
    plan = Plan(inputs, solution, any(t.changed for t in made.targets))
    return Planned(workspace, plan, made.targets, made.orphans, made.notes, made.setup)


@dataclass(frozen=True, slots=True)
class _Made:
    """What writing a solution comes to: the files, and what to tell about them, as in ``Planned``."""

    targets: tuple[Target, ...]
    notes: tuple[Diagnostic, ...]
    orphans: tuple[str, ...] = ()
    setup: str = ""


def _for_one(
    workspace: Workspace, solution: Solution, options: Options, fresh: Mapping[str, list[Fresh]], cwd: Path
) -> _Made:
    """Write a solution for one host: in place, or into an override file."""
    project, demand = workspace.project, workspace.demand
    whole = options.override is not None
    changes = edits(demand, solution, workspace.policy, workspace.inventory, whole=whole)
    changes += parked(demand, solution, whole=whole)
    if options.override is not None:
        text = override_text(demand, project, changes, fresh, options.override)
        targets = [_override(options.override, cwd, text)]
        over = {targets[0].path: parse(text, options.override)} if text is not None else {}
        merged = project.merged(over, over=targets[0].path if over else None)
    else:
        documents = _in_place(workspace, changes, fresh)
        targets = [Target(file.shown, file.source.path, file.source, new.text) for file, new in documents.items()]
        merged = project.merged({file.source.path: new for file, new in documents.items()})
    proof = Proof(project, demand, merged, options.override)
    proof.check(solution, workspace.policy, workspace.inventory)
    return _Made(tuple(targets), tuple(proof.notes), tuple(orphans(demand.roles)))


def _for_several(
    workspace: Workspace, solution: Solution, options: Options, fresh: Mapping[str, list[Fresh]], cwd: Path
) -> _Made:
    """Write a solution for several hosts: a stack, or a file for each."""
    if workspace.whole is None:
        raise ValueError("the whole project has not been read")
    planning = Planning(
        workspace.project,
        workspace.whole,
        workspace.demand,
        workspace.policy,
        workspace.inventory,
        solution,
        fresh,
        frozenset(options.drain),
    )
    told = written(planning, options.fleet, workspace.scaled, cwd)
    return _Made(tuple(Target(*made) for made in told.files), told.notes, setup=told.setup)


def _in_place(
    workspace: Workspace, changes: list[Edit], fresh: Mapping[str, list[Fresh]]
) -> dict[ComposeFile, Document]:
    """Return every file of the project with what it becomes."""
    project = workspace.project
    divisions = divisions_of(workspace.demand.roles, project, fresh)
    services = {service.name: service for service in project.services}
    for role in workspace.demand.roles:
        services |= {member.worker.name: member.service for member in role.members}
    own: dict[ComposeFile, list[Edit]] = {file: [] for file in project.files}
    for edit in changes:
        own[services[edit.service].home(edit.path)].append(edit)
    return {file: rewrite(file, own[file], divisions.get(file, ()), workspace.demand.left) for file in project.files}


def _port_notes(fresh: Mapping[str, list[Fresh]]) -> Iterator[PlanWarning]:
    """Tell which host ports new replicas get."""
    for role, workers in fresh.items():
        for worker in workers:
            if worker.host:
                name = worker_name(role, worker.number)
                ports = ", ".join(p.text for p in worker.host)
                many = len(worker.host) > 1 or worker.host[0].count > 1
                yield PlanWarning("ports", f"{name} publishes host port{'s' if many else ''} {ports}", (name,))


def _override(shown: str, cwd: Path, text: str | None) -> Target:
    """Return the override file with what it gets: without a text, it goes."""
    path = cwd / shown
    source = read_source(path, shown) if path.exists() else None
    if source is not None:
        check_ours(source.text, shown)
    return Target(shown, path, source, text)


def read_saved(path: str, options: Options, environ: Mapping[str, str], cwd: Path) -> Planned:
    """Return a saved plan ready to apply, after checking that nothing it rests on has changed.

    Raises GpuallocError: ``plan-…`` for a file that is no plan; ``stale-plan`` where a compose file, the policy or the
    machine is another now, or a placement no longer fits.
    """
    file = path
    plan = parse_plan(_read_text(cwd / path, path), path)
    inputs = plan.inputs
    project = options.project if options.project.files else replace(options.project, files=_files(inputs, cwd))
    sources = options.inventory or tuple(inputs.inventory)
    options = replace(
        options,
        project=replace(project, profiles=project.profiles or inputs.profiles),
        inventory=sources,
        policy=options.policy or inputs.policy,
        scale=options.scale or inputs.scale,
    )
    workspace = open_workspace(options, environ, cwd)
    now = {f.shown: f.source.sha256 for f in workspace.project.files}
    for compose in inputs.compose:
        if now.get(compose.file) != compose.sha256:
            raise _stale(file, f"{compose.file} has changed since")
    if set(now) != {c.file for c in inputs.compose}:
        raise _stale(file, "the project has other compose files now")
    if workspace.policy.sha256 != inputs.policy_sha256:
        raise _stale(file, f"the policy {inputs.policy} has changed since")
    if digest(workspace.inventory) != inputs.inventory_sha256:
        raise _stale(file, "the GPUs have changed since")
    _check_placements(plan, workspace, file)
    return with_texts(workspace, plan.solution, options, cwd)


def _read_text(path: Path, shown: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise fail(
            "plan-missing", "there is no such plan", Place(shown), "save one with gpualloc plan -o FILE"
        ) from None
    except UnicodeDecodeError:
        hint = "save the plan again with gpualloc plan -o FILE"
        raise fail("plan-unreadable", "cannot read it: it is not UTF-8 text", Place(shown), hint) from None
    except OSError as error:
        hint = "name a plan that gpualloc plan -o FILE saved, and that this user may read"
        raise fail("plan-unreadable", f"cannot read it: {error.strerror}", Place(shown), hint) from None


def _files(inputs: PlanInputs, cwd: Path) -> tuple[str, ...]:
    missing = next((c.file for c in inputs.compose if not (cwd / c.file).exists()), None)
    if missing is not None:
        raise fail("stale-plan", f"the plan is for {missing}, which is not here", None, "run this where it was made")
    return tuple(c.file for c in inputs.compose)


def _check_placements(plan: Plan, workspace: Workspace, file: str) -> None:
    """Take the plan as the present state: whatever would have to move away from it no longer fits."""
    planned = {p.worker: tuple(d.uuid for d in p.devices) for p in plan.solution.placements}
    workers = {worker.name for request in workspace.requests for worker in request.workers}
    if set(planned) | {u.worker for u in plan.solution.unplaced} != workers:
        raise _stale(file, "the project has other workers now")
    requests = [
        replace(r, hand_pinned=r.hand_pinned, workers=tuple(replace(w, pinned=planned.get(w.name)) for w in r.workers))
        for r in workspace.requests
    ]
    policy = replace(workspace.policy, stability="keep")
    solution = solve(workspace.inventory, requests, policy, project=workspace.project.name)
    for placement in solution.placements:
        if placement.worker in planned and placement.action != "keep":
            raise _stale(file, f"{placement.worker} no longer fits where it was planned: {placement.reason}")
    for unplaced in solution.unplaced:
        if unplaced.worker in planned:
            raise _stale(file, f"{unplaced.worker} no longer fits where it was planned")


def _stale(file: str, why: str) -> GpuallocError:
    return fail(
        "stale-plan", f"the plan is out of date: {why}", Place(file), f"make a new one: gpualloc plan -o {file}"
    )


# --------------------------------------------------------------------------------------------------------------------
# Writing


def write_plan(planned: Planned, output: Path | None = None) -> tuple[str, ...]:
    """Write a plan's texts and return the names of the files written. ``output``: there instead of in place.

    Each file is replaced at once; one that has changed since it was read is not.

    Raises GpuallocError: ``several-hosts``, ``several-files``, ``file-changed``, ``file-write``, ``locked``.
    """
    if planned.workspace.whole is None:
        _one_host(planned.plan)
    elif output is None:
        make_folders(target.path for target in planned.changes)
    return _write(planned.changes) if output is None else _write_to(output, planned.files)


def _one_host(plan: Plan) -> None:
    hosts = sorted({p.host for p in plan.solution.placements})
    if len(hosts) > 1:
        hint = "a compose file runs on one host: write for several with --swarm FILE or --per-host DIR"
        raise fail("several-hosts", f"the plan places workers on {', '.join(hosts)}", None, hint)


def _write(targets: tuple[Target, ...]) -> tuple[str, ...]:
    """Write files together: each is on disk before the first takes its place, so that a full disk changes none."""
    folders = {Path(os.path.realpath(target.path)).parent: target for target in targets}
    with ExitStack() as stack:
        for target in folders.values():
            stack.enter_context(lock(target.path, target.shown))
        for target in targets:
            now = read_source(target.path, target.shown) if target.path.exists() else None
            if (now.sha256 if now else None) != (target.source.sha256 if target.source else None):
                hint = "run this again, so that it sees the change"
                raise fail("file-changed", "the file has changed since it was read", Place(target.shown), hint)
        staged: list[Staged] = []
        for target in targets:
            if target.text is not None:
                staged.append(stage(target.path, target.encode(), target.shown))
                stack.callback(staged[-1].discard)
        for each in staged:
            each.commit()
        for target in targets:
            if target.text is None:
                remove(target.path, target.shown)
    return tuple(target.shown for target in targets)


def _write_to(output: Path, targets: tuple[Target, ...]) -> tuple[str, ...]:
    if len(targets) != 1:
        hint = "write in place without -o, or into one file over all of them: --override FILE"
        raise fail("several-files", f"-o names one file, and this is about {len(targets)}", Place(str(output)), hint)
    with lock(output, str(output)):
        write_atomic(output, targets[0].encode(), str(output))
    return (str(output),)


def write_file(path: Path, text: str) -> None:
    """Write a result the user asked for with ``-o``. Raises GpuallocError (``file-write``)."""
    write_atomic(path, text.encode(), os.fspath(path))


# --------------------------------------------------------------------------------------------------------------------
# Undoing


def plan_reset(options: Options, environ: Mapping[str, str], cwd: Path) -> tuple[Target, ...]:
    """Return the files that gpualloc has written to, each with the text it had before.

    Raises GpuallocError if the project or a record cannot be read.
    """
    project = load_project(options.project, environ, cwd)
    if options.override is not None:
        targets = [_override(options.override, cwd, None)]
    else:
        targets = [Target(f.shown, f.source.path, f.source, f.original().text) for f in project.files]
    return tuple(target for target in targets if target.changed)


def reset_orphans(options: Options, environ: Mapping[str, str], cwd: Path) -> tuple[str, ...]:
    """Return the services that a reset leaves nothing of: those that roles were divided into."""
    override = cwd / options.override if options.override else None
    project = load_project(options.project, environ, cwd, override=override)
    inside = {service.name for service in project.services}
    copies = [service for numbers in project.copies.values() for _, service in sorted(numbers.items())]
    return tuple(service.name for service in copies if (service.name in inside) == (override is None))


def write_reset(targets: tuple[Target, ...], output: Path | None = None) -> tuple[str, ...]:
    """Put the original texts back and return the names of the files written."""
    return _write(targets) if output is None else _write_to(output, targets)
