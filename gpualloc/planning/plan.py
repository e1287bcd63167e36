"""The plan for a workspace, and what else can be asked about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.drain import say_drained
from gpualloc.planning.targets import Planned, with_texts
from gpualloc.planning.workspace import Options, Workspace, open_workspace
from gpualloc.render.places import Evicted, Held
from gpualloc.solve import solve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gpualloc.model import Capacity, Explanation, Reading


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
    from gpualloc.solve.pins import resolve_pins  # noqa: PLC0415 - only where a plan is drawn

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
