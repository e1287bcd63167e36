"""The planner: which devices each worker gets, provably best under the policy's objective.

``solve`` goes through these steps, each a module:

- :mod:`~gpualloc.solve.pins`, :mod:`~gpualloc.solve.devices`, :mod:`~gpualloc.solve.demands`: what the ids in the file
  mean here, which devices there are and whose memory is on them, who shares and who is alone;
- :mod:`~gpualloc.solve.problem`: all of it in whole numbers; :mod:`~gpualloc.solve.rules`: what may share a device;
- :mod:`~gpualloc.solve.tiers`: the objective, exactly, of a finished assignment;
- :mod:`~gpualloc.solve.greedy`: a good plan at once; :mod:`~gpualloc.solve.search` with
  :mod:`~gpualloc.solve.relax`: small problems without an integer program; :mod:`~gpualloc.solve.groups`,
  :mod:`~gpualloc.solve.blocks`, :mod:`~gpualloc.solve.formulation`, :mod:`~gpualloc.solve.lexi`,
  :mod:`~gpualloc.solve.parts`, :mod:`~gpualloc.solve.highs`, :mod:`~gpualloc.solve.expand`: classes and patterns with
  HiGHS, tier by tier; :mod:`~gpualloc.solve.fleet`: the same for many hosts;
  :mod:`~gpualloc.solve.engine` chooses between the two;
- :mod:`~gpualloc.solve.report`, :mod:`~gpualloc.solve.unplaced`, :mod:`~gpualloc.solve.hints`,
  :mod:`~gpualloc.solve.notices`: the answer in the plan's words.

Nothing depends on the order of the input: hosts are sorted by name, devices by host and PCI bus id, workers by name.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.errors import fail
from gpualloc.model import Solution
from gpualloc.policy.filters import check_exclusions
from gpualloc.solve.devices import without_devices
from gpualloc.solve.engine import optimize
from gpualloc.solve.highs import Limits
from gpualloc.solve.hints import Hints, Inputs
from gpualloc.solve.notices import notices_of
from gpualloc.solve.problem import build
from gpualloc.solve.report import objective_of, placements_of
from gpualloc.solve.unplaced import Obstacles, unplaced_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.model import Inventory, Policy, Request
    from gpualloc.solve.problem import Assignment, Problem


@dataclass(frozen=True, slots=True)
class SolveOptions:
    """How hard to search, and what to plan.

    ``node_limit`` bounds the search nodes of every tier, so that the same input gives the same plan; ``time_limit_s``
    on top, in seconds, makes a plan that was cut off by it not reproducible. ``replan``: from scratch, whatever the
    policy's stability. ``without``: devices treated as gone, by UUID or ``index:N``.
    """

    node_limit: int = 20_000
    time_limit_s: float | None = None
    replan: bool = False
    without: tuple[str, ...] = ()


_DEFAULT = SolveOptions()


def solve(
    inventory: Inventory,
    requests: Sequence[Request],
    policy: Policy,
    *,
    project: str | None = None,
    options: SolveOptions = _DEFAULT,
) -> Solution:
    """Return the best plan for all workers of all requests.

    ``project`` is the compose project's name: containers of it are its own. Workers that do not fit are part of the
    answer, not an error. Raises :class:`~gpualloc.errors.GpuallocError` for contradictions: ``unknown-gpu`` (a GPU
    named in ``exclude.gpus`` or ``without`` that is not there), ``unknown-role`` (an affinity with a role that does
    not exist), ``wsl2-subset`` (a plan that needs some of the GPUs where WSL2 offers only all).
    """
    gpus = [gpu for host in inventory.hosts for gpu in host.gpus]
    check_exclusions(policy.exclude.gpus, gpus, "exclude.gpus")
    check_exclusions(options.without, gpus, "--without")
    deadline = None if options.time_limit_s is None else time.monotonic() + options.time_limit_s
    stability = "ignore" if options.replan else policy.stability
    remaining = without_devices(inventory, options.without)
    problem = build(inventory, remaining, requests, policy, project=project, stability=stability)
    answer = optimize(problem, Limits(options.node_limit, deadline))
    assignment = answer.optimum.assignment
    _check_wsl2(problem, assignment, remaining)
    stops = Obstacles(problem, assignment)
    hints = Hints(Inputs(inventory, remaining, tuple(requests), policy, project), problem, assignment, stops)
    return Solution(
        placements=placements_of(problem, assignment),
        unplaced=unplaced_of(problem, assignment, stops, hints.hint),
        objective=objective_of(problem, answer.optimum),
        warnings=notices_of(problem, assignment),
        reproducible=not answer.cut_off,
    )


def _check_wsl2(problem: Problem, assignment: Assignment, inventory: Inventory) -> None:
    """Raise ``wsl2-subset`` where a worker gets some of the GPUs of a host that can only offer all of them."""
    everything = {host.name: len(host.gpus) for host in inventory.hosts if host.platform == "wsl2"}
    for job, devices in zip(problem.jobs, assignment, strict=True):
        if not devices:
            continue
        host = problem.devices[devices[0]].host
        if host in everything and len(devices) < everything[host]:
            raise fail(
                "wsl2-subset",
                f"{job.name} would get {len(devices)} of the {everything[host]} GPUs of {host}; WSL2 offers only all",
                job.demand.request.where,
                hint="ask for all GPUs there, with memory so that workers share them, or run on Linux",
            )
