"""Saved plans: read, and refused where something that they rest on has changed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gpualloc.errors import GpuallocError, Place, fail
from gpualloc.inventory import digest
from gpualloc.planning.targets import Planned, with_texts
from gpualloc.planning.workspace import Options, Workspace, open_workspace
from gpualloc.render.plan_json import parse as parse_plan
from gpualloc.solve import solve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gpualloc.model import Plan, PlanInputs
    from gpualloc.solve import SolveOptions


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
    _check_placements(plan, workspace, file, options.solving(workspace.inventory))
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


def _check_placements(plan: Plan, workspace: Workspace, file: str, options: SolveOptions) -> None:
    """Take the plan as the present state: whatever would have to move away from it no longer fits.

    ``options``: what is to be done without now counts, too.
    """
    planned = {p.worker: tuple(d.uuid for d in p.devices) for p in plan.solution.placements}
    workers = {worker.name for request in workspace.requests for worker in request.workers}
    if set(planned) | {u.worker for u in plan.solution.unplaced} != workers:
        raise _stale(file, "the project has other workers now")
    requests = [
        replace(r, hand_pinned=r.hand_pinned, workers=tuple(replace(w, pinned=planned.get(w.name)) for w in r.workers))
        for r in workspace.requests
    ]
    policy = replace(workspace.policy, stability="keep")
    kept = replace(options, replan=False)
    solution = solve(workspace.inventory, requests, policy, project=workspace.project.name, options=kept)
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
