"""The project and the machine as files and drivers: read, planned for, written."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpualloc.checks.outlook import MOVES
from gpualloc.compose.project import DEFAULT_FILES, OVERRIDE_FILES
from gpualloc.inventory import health
from gpualloc.model import Reading
from gpualloc.planning import make_plan, open_workspace, read_inventory, write_plan
from gpualloc.watch.facts import View
from gpualloc.watch.watcher import Move, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gpualloc.model import HealthIssue, Inventory, Solution
    from gpualloc.planning import Options, Planned, Workspace

_Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Manner:
    """What to do with a plan: ``apply`` it, and ``partial`` ones too."""

    apply: bool = False
    partial: bool = False


class Site:
    """A project on a machine. Not for two threads: the machine is read elsewhere."""

    def __init__(self, options: Options, environ: Mapping[str, str], cwd: Path, manner: Manner) -> None:
        self._options = options
        self._environ = environ
        self._cwd = cwd
        self._manner = manner
        self._stamp: _Stamp = ()
        self._view: View | None = None
        self._xids: dict[str, dict[str, HealthIssue]] = {}

    def read(self) -> Reading:
        """Read the machine. Raises GpuallocError."""
        return read_inventory(self._options)

    def view(self, reading: Reading) -> View:
        """Return the project as its files are now; they are read again if they have changed.

        Raises GpuallocError if they cannot be used.
        """
        stamp = self._now()
        if self._view is None or stamp != self._stamp:
            self._view = self._viewed(open_workspace(self._options, self._environ, self._cwd, reading))
            self._stamp = stamp
        return self._view

    def _viewed(self, workspace: Workspace) -> View:
        return View(workspace.project.name, workspace.policy, workspace.requests, workspace.promises)

    def _now(self) -> _Stamp:
        """Return what tells whether the files have changed since: of those named, or of those Compose looks for."""
        options = self._options
        folder = self._cwd / (options.project.project_directory or "")
        paths = [self._cwd / name for name in options.project.files]
        paths += [self._cwd / options.override] if options.override else []
        paths += [] if options.project.files else [folder / name for name in (*DEFAULT_FILES, *OVERRIDE_FILES, ".env")]
        for beside in options.beside:
            for name in beside.split(os.pathsep):
                path = self._cwd / name
                paths += [path / file for file in (*DEFAULT_FILES, *OVERRIDE_FILES)] if path.is_dir() else [path]
        return tuple((str(path), stat.st_mtime_ns, stat.st_size) for path in paths if (stat := _stat(path)) is not None)

    def plan(self, inventory: Inventory) -> Outcome:
        """Plan for a machine, and write the plan if that is wanted. Raises GpuallocError if either cannot be done."""
        planned = make_plan(self._options, self._environ, self._cwd, Reading(inventory))
        solution = planned.plan.solution
        moves = _moves(solution, MOVES)
        may = self._manner.apply and (planned.plan.complete or self._manner.partial)
        written = write_plan(planned) if may and planned.plan.changed else ()
        if written:
            self._view = None
        return self._outcome(planned, moves, written)

    def _outcome(self, planned: Planned, moves: tuple[Move, ...], written: tuple[str, ...]) -> Outcome:
        solution = planned.plan.solution
        pending = 0 if written else sum(p.action != "keep" for p in solution.placements)
        return Outcome(
            changed=planned.plan.changed,
            written=written,
            moves=moves,
            pins=_moves(solution, frozenset({"pin"})),
            unplaced=tuple((u.worker, u.hint) for u in solution.unplaced),
            placed=len(solution.placements) - pending,
            displaced=pending + len(solution.unplaced),
        )

    # ---- Xids: the driver tells of them once, so they are remembered here

    def happened(self, uuid: str, xid: int) -> HealthIssue:
        """Take note of an Xid, and return what it means. A fatal one holds until the GPU has gone and come back."""
        issue = health.xid(xid)
        if issue.fatal:
            self._xids.setdefault(uuid, {})[issue.code] = issue
        return issue

    def with_xids(self, reading: Reading) -> Reading:
        """Return a reading with the Xids that have happened; those of GPUs that are gone are forgotten."""
        if not self._xids:
            return reading
        here = {gpu.uuid for host in reading.inventory.hosts for gpu in host.gpus}
        self._xids = {uuid: issues for uuid, issues in self._xids.items() if uuid in here}
        hosts = tuple(
            replace(
                host,
                gpus=tuple(
                    replace(gpu, health=(*self._xids[gpu.uuid].values(), *gpu.health))
                    if gpu.uuid in self._xids
                    else gpu
                    for gpu in host.gpus
                ),
            )
            for host in reading.inventory.hosts
        )
        return replace(reading, inventory=replace(reading.inventory, hosts=hosts))

    def forget_xids(self) -> None:
        """Forget every Xid: the driver was away, and has started the GPUs anew."""
        self._xids.clear()


def _moves(solution: Solution, actions: frozenset[str]) -> tuple[Move, ...]:
    return tuple(
        Move(p.worker, p.previous or (), tuple(d.uuid for d in p.devices), p.reason)
        for p in solution.placements
        if p.action in actions
    )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
