"""A solution as the text that each file gets: in place, as an override file, or for several hosts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpualloc.compose.copies import worker_name
from gpualloc.compose.document import parse
from gpualloc.compose.edits import edits, parked
from gpualloc.compose.files import read_source
from gpualloc.compose.override import check_ours, override_text
from gpualloc.compose.proof import Proof
from gpualloc.compose.rewrite import rewrite
from gpualloc.compose.workers import divisions_of, fresh_workers, orphans
from gpualloc.inventory import digest
from gpualloc.model import ComposeInput, Plan, PlanInputs, PlanWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from gpualloc.compose.document import Document
    from gpualloc.compose.files import Source
    from gpualloc.compose.layers import ComposeFile
    from gpualloc.compose.patch import Edit
    from gpualloc.compose.workers import Fresh
    from gpualloc.errors import Diagnostic
    from gpualloc.model import Solution
    from gpualloc.planning.workspace import Options, Workspace


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
        targets = [override_target(options.override, cwd, text)]
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
    from gpualloc.compose.swarm.stack import Planning  # noqa: PLC0415 - plans for one host need none of it
    from gpualloc.fleet.files import written  # noqa: PLC0415 - as above

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


def override_target(shown: str, cwd: Path, text: str | None) -> Target:
    """Return the override file with what it gets: without a text, it goes."""
    path = cwd / shown
    source = read_source(path, shown) if path.exists() else None
    if source is not None:
        check_ours(source.text, shown)
    return Target(shown, path, source, text)
