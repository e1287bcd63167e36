"""Putting files in place: all of them, or none where that can be known beforehand. And taking it back."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from gpualloc.compose.files import lock, make_folders, read_source, remove, stage, write_atomic
from gpualloc.compose.project import load_project
from gpualloc.errors import Place, fail
from gpualloc.planning.targets import Planned, Target, override_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpualloc.compose.files import Staged
    from gpualloc.model import Plan
    from gpualloc.planning.workspace import Options


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


def plan_reset(options: Options, environ: Mapping[str, str], cwd: Path) -> tuple[Target, ...]:
    """Return the files that gpualloc has written to, each with the text it had before.

    Raises GpuallocError if the project or a record cannot be read.
    """
    project = load_project(options.project, environ, cwd)
    if options.override is not None:
        targets = [override_target(options.override, cwd, None)]
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
