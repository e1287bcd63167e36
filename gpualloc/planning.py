"""The main job from end to end: read, plan, rewrite, write. The commands call these functions and print the results."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpualloc.compose.edits import edits, parked
from gpualloc.compose.files import lock, read_source, write_atomic
from gpualloc.compose.project import ProjectOptions, load_project
from gpualloc.compose.reader import read_demand
from gpualloc.compose.rewrite import rewrite
from gpualloc.errors import Diagnostic, GpuallocError, Place, fail
from gpualloc.inventory import digest
from gpualloc.inventory import load as load_inventory
from gpualloc.model import ComposeInput, Plan, PlanInputs
from gpualloc.policy.load import load as load_policy
from gpualloc.policy.roles import unmatched_roles
from gpualloc.render.plan_json import parse as parse_plan
from gpualloc.solve import SolveOptions, solve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpualloc.compose.patch import Edit
    from gpualloc.compose.project import ComposeFile, Project
    from gpualloc.compose.reader import Demand
    from gpualloc.model import Inventory, Policy, Reading, Request, Solution


@dataclass(frozen=True, slots=True)
class Options:
    """What a command was asked to work on: the project, the machine, the policy, and what-if changes to them."""

    project: ProjectOptions = field(default_factory=ProjectOptions)
    inventory: tuple[str, ...] = ()
    topo: str | None = None
    policy: str | None = None
    solve: SolveOptions = field(default_factory=SolveOptions)
    scale: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Workspace:
    """Everything a plan is made from, read once. ``warnings`` are about the inputs."""

    project: Project
    reading: Reading
    policy: Policy
    demand: Demand
    requests: tuple[Request, ...]
    warnings: tuple[Diagnostic, ...]

    @property
    def inventory(self) -> Inventory:
        """The machine or machines to plan for."""
        return self.reading.inventory


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A plan with the text that each compose file gets. For an incomplete plan: with its unplaced workers parked."""

    workspace: Workspace
    plan: Plan
    texts: tuple[tuple[ComposeFile, str], ...]

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What to tell about the inputs, and about variables in the file that say something else than the plan."""
        return self.workspace.warnings

    def targets(self, output: str | None) -> tuple[str, ...]:
        """Return the names of the files that writing the plan touches."""
        return (output,) if output else tuple(file.shown for file, _ in self.changes)

    @property
    def changes(self) -> tuple[tuple[ComposeFile, str], ...]:
        """The files whose text differs from what is on disk."""
        return tuple((file, text) for file, text in self.texts if text != file.source.text)


def solve_options(*, time_limit_s: float | None, replan: bool, without: tuple[str, ...]) -> SolveOptions:
    """Return the solver's options for what the command line says."""
    return SolveOptions(time_limit_s=time_limit_s, replan=replan, without=without)


def open_workspace(options: Options, environ: Mapping[str, str], cwd: Path) -> Workspace:
    """Read the project, the policy and the inventory. Raises GpuallocError for whichever cannot be used."""
    project = load_project(options.project, environ, cwd)
    policy = load_policy(options.policy, cwd=cwd, compose_dir=project.directory)
    demand = read_demand(project, policy)
    reading = load_inventory(options.inventory, Path(options.topo) if options.topo else None)
    warnings = (
        *project.warnings,
        *unmatched_roles(policy, [service.name for service in project.services]),
        *reading.warnings,
        *demand.notes,
    )
    requests = tuple(role.request for role in demand.roles)
    return Workspace(project, reading, policy, demand, requests, warnings)


def make_plan(options: Options, environ: Mapping[str, str], cwd: Path) -> Planned:
    """Plan a project. "Does not fit" is a plan that is not complete.

    Raises GpuallocError if an input cannot be used.
    """
    workspace = open_workspace(options, environ, cwd)
    solution = solve(
        workspace.inventory,
        workspace.requests,
        workspace.policy,
        project=workspace.project.name,
        options=options.solve,
    )
    return with_texts(workspace, solution, options)


def with_texts(workspace: Workspace, solution: Solution, options: Options) -> Planned:
    """Return a solution as a plan, with the text it gives each file."""
    changes = edits(workspace.demand, solution, workspace.policy, workspace.inventory)
    changes += parked(workspace.demand, solution)
    texts = tuple((file, rewrite(file, own)) for file, own in _by_file(workspace.project, changes).items())
    inputs = PlanInputs(
        compose=tuple(ComposeInput(file.shown, file.source.sha256) for file in workspace.project.files),
        inventory=options.inventory or ("nvml",),
        inventory_sha256=digest(workspace.inventory),
        policy=workspace.policy.name,
        policy_sha256=workspace.policy.sha256,
        profiles=workspace.project.profiles,
    )
    changed = any(text != file.source.text for file, text in texts)
    return Planned(workspace, Plan(inputs, solution, changed), texts)


def _by_file(project: Project, changes: list[Edit]) -> dict[ComposeFile, list[Edit]]:
    holders = {service.name: service.file for service in project.services}
    result: dict[ComposeFile, list[Edit]] = {file: [] for file in project.files}
    for edit in changes:
        result[holders[edit.service]].append(edit)
    return result


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
    return with_texts(workspace, plan.solution, options)


def _read_text(path: Path, shown: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise fail(
            "plan-missing", "there is no such plan", Place(shown), "save one with gpualloc plan -o FILE"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise fail("plan-unreadable", f"cannot read it: {error}", Place(shown)) from None


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
        "stale-plan", f"the plan is out of date: {why}", Place(file), "make a new one with gpualloc plan -o FILE"
    )


# --------------------------------------------------------------------------------------------------------------------
# Writing


def write_plan(planned: Planned, output: Path | None = None) -> tuple[str, ...]:
    """Write a plan's texts and return the names of the files written. ``output``: there instead of in place.

    Raises GpuallocError: ``several-hosts``, ``several-files``, ``file-changed``, ``file-write``, ``locked``. Each file is
    replaced at once; nothing is written if any file has changed since it was read.
    """
    _one_host(planned.plan)
    if output is not None:
        if len(planned.texts) != 1:
            raise fail("several-files", "the project has several compose files, and -o names one", Place(str(output)))
        file, text = planned.texts[0]
        with lock(output, str(output)):
            write_atomic(output, file.source.encode(text), str(output))
        return (str(output),)
    return _write(planned.changes)


def _one_host(plan: Plan) -> None:
    hosts = sorted({p.host for p in plan.solution.placements})
    if len(hosts) > 1:
        hint = "a compose file runs on one host: give one host's inventory"
        raise fail("several-hosts", f"the plan places workers on {', '.join(hosts)}", None, hint)


def _write(changes: tuple[tuple[ComposeFile, str], ...]) -> tuple[str, ...]:
    for file, text in changes:
        with lock(file.source.path, file.shown):
            if read_source(file.source.path, file.shown).sha256 != file.source.sha256:
                hint = "run this again, so that it sees the change"
                raise fail("file-changed", "the file has changed since it was read", Place(file.shown), hint)
            write_atomic(file.source.path, file.source.encode(text), file.shown)
    return tuple(file.shown for file, _ in changes)


def write_file(path: Path, text: str) -> None:
    """Write a result the user asked for with ``-o``. Raises GpuallocError (``file-write``)."""
    write_atomic(path, text.encode(), os.fspath(path))


# --------------------------------------------------------------------------------------------------------------------
# Undoing


Changes = tuple[tuple["ComposeFile", str], ...]
"""Files with the text they get."""


def plan_reset(options: ProjectOptions, environ: Mapping[str, str], cwd: Path) -> Changes:
    """Return the files that gpualloc has written to, each with the text it had before.

    Raises GpuallocError if the project or a record cannot be read.
    """
    project = load_project(options, environ, cwd)
    return tuple((file, file.document.text) for file in project.files if file.document.text != file.source.text)


def write_reset(changes: Changes, output: Path | None = None) -> tuple[str, ...]:
    """Put the original texts back and return the names of the files written."""
    if output is None:
        return _write(changes)
    if len(changes) != 1:
        raise fail("several-files", "there is not exactly one file to restore, and -o names one", Place(str(output)))
    file, text = changes[0]
    write_atomic(output, file.source.encode(text), str(output))
    return (str(output),)
