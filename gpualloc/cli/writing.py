"""Commands that plan and write: ``plan``, ``apply``, ``reset``, ``capacity``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpualloc import completion
from gpualloc.cli.common import (
    DONE,
    NO_FIT,
    ask,
    here,
    say_next,
    screen_of,
    tell,
    tell_orphans,
)
from gpualloc.cli.options import (
    beside_option,
    elsewhere,
    fleet_options,
    inventory_options,
    made_options,
    options_of,
    override_option,
    policy_option,
    project_options,
    what_if_options,
)

if TYPE_CHECKING:
    from gpualloc.planning import Options, Planned
    from gpualloc.planning.targets import Target


@click.command()
@project_options
@inventory_options
@policy_option
@override_option
@fleet_options
@beside_option
@what_if_options
@click.option("--diff", is_flag=True, help="Show what would change in the compose file.")
@click.option(
    "--explain",
    is_flag=False,
    flag_value="",
    metavar="[WORKER]",
    help="Show why each worker, or this one, gets its devices, and what the next best would cost.",
    shell_complete=completion.workers,
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--map/--no-map", "drawn", default=True, help="Draw the host with its workers, or list all workers.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Save the plan, for `gpualloc apply FILE`.",
    shell_complete=completion.files,
)
@click.option(
    "--html",
    metavar="FILE",
    help="Write the plan as a page to look at: one file, nothing to fetch.",
    shell_complete=completion.files,
)
def plan(
    form: str, output: str | None, html: str | None, explain: str | None, *, diff: bool, drawn: bool, **params: Any
) -> int:
    """Show which GPUs each worker would get. Writes nothing into the compose file.

    A service that asks for GPUs in any of Compose's own ways gets as many, for itself. What Compose has no key for goes
    into the service as x-gpualloc; `gpualloc schema x-gpualloc` has all of its keys:

    \b
      x-gpualloc: {memory: 12GiB}              so much of a GPU that others share
      x-gpualloc: {gpus: 2, min_link: NVLINK}  two GPUs that NVLink joins
      x-gpualloc: false                        not gpualloc's business

    `gpualloc policy list` names ways to choose: --policy dev lets workers share, --policy prod levels the load.
    """  # noqa: D301 - \b is click's own mark for lines that are not to be filled
    from gpualloc.planning import evicted, explain_plan, held_by_others, make_plan, write_file
    from gpualloc.render import plan_json

    options = options_of(params)
    planned = make_plan(options, os.environ, here())
    tell(planned.warnings)
    if output:
        write_file(Path(output), plan_json.dump(planned.plan))
    if html:
        from gpualloc.render.report import report_html

        workspace = planned.workspace
        held = held_by_others(workspace, options)
        name, gone = workspace.project.name, evicted(planned)
        write_file(Path(html), report_html(planned.plan, workspace.inventory, held, name, gone))
    if form == "json":
        click.echo(plan_json.dump(planned.plan), nl=False)
    elif explain is not None:
        from gpualloc.render.explain import explanations_text

        found = explain_plan(planned, options, explain or None)
        click.echo(explanations_text(found, planned.workspace.inventory, screen_of(sys.stdout)), nl=False)
    elif diff:
        click.echo(_diff(planned), nl=False)
    else:
        click.echo(_table(planned, options, drawn=drawn), nl=False)
        if planned.plan.complete and planned.plan.changed and not output:
            say_next("gpualloc apply, with the same options, writes this; plan --diff shows the lines")
    return _exit(planned)


def _exit(planned: Planned) -> int:
    return DONE if planned.plan.complete else NO_FIT


def _table(planned: Planned, options: Options, *, drawn: bool = True) -> str:
    if not drawn:
        from gpualloc.render.table import plan_table

        return plan_table(planned.plan, planned.workspace.inventory, screen_of(sys.stdout))
    from gpualloc.planning import held_by_others
    from gpualloc.render.map import plan_map

    held = held_by_others(planned.workspace, options)
    return plan_map(planned.plan, planned.workspace.inventory, held, screen_of(sys.stdout))


def _diff(planned: Planned) -> str:
    from gpualloc.render.diff import unified_diff

    screen = screen_of(sys.stdout)
    return "".join(unified_diff(t.before, t.after, t.shown, t.shown, screen) for t in planned.changes)


@click.command()
@click.argument("saved", metavar="[PLAN]", required=False, shell_complete=completion.files)
@project_options
@inventory_options
@policy_option
@override_option
@fleet_options
@beside_option
@what_if_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "-o", "--output", metavar="FILE", help="Write there instead of in place.", shell_complete=completion.files
)
@click.option("--diff", is_flag=True, help="Show what changes in the compose file, too.")
@click.option("--partial", is_flag=True, help="Where not all fit: write what does, and park the rest at no replicas.")
def apply(saved: str | None, output: str | None, *, yes: bool, diff: bool, partial: bool, **params: Any) -> int:
    """Write each worker's GPUs into the compose file.

    PLAN is one saved by `gpualloc plan -o FILE`; it is refused if anything it rests on has changed since.
    """
    from gpualloc.planning import make_plan, read_saved, write_plan

    options = options_of(params)
    planned = read_saved(saved, options, os.environ, here()) if saved else make_plan(options, os.environ, here())
    tell(planned.warnings)
    click.echo(_table(planned, options), nl=False)
    if planned.setup:
        click.echo(f"\n{planned.setup}", nl=False)
    if diff:
        click.echo(_diff(planned), nl=False)
    if not planned.plan.complete and not partial:
        click.echo("nothing was written: not every worker fits (--partial writes those that do)", err=True)
        return NO_FIT
    if not planned.plan.changed and output is None:
        click.echo("nothing to write: the file says so already", err=True)
        return _exit(planned)
    ask(f"Write {output or ', '.join(t.shown for t in planned.changes)}?", yes=yes)
    for name in write_plan(planned, Path(output) if output else None):
        click.echo(_done(name, planned.changes), err=True)
    tell_orphans(planned.orphans)
    if not output:
        say_next(_start(planned, options))
    return _exit(planned)


def _done(name: str, targets: tuple[Target, ...]) -> str:
    """Return what became of a file: one that gpualloc alone has made goes, where nothing is left to say in it."""
    gone = any(target.shown == name and target.text is None for target in targets)
    return f"removed {name}" if gone else f"wrote {name}"


def _start(planned: Planned, options: Options) -> str:
    """Return what starts what was written, with the files that this command was given."""
    if options.fleet.asked:
        return "what was written says in its first lines how it is started"
    files = [file.shown for file in planned.workspace.project.files] if options.override else options.project.files
    named = "".join(f" -f {name}" for name in (*files, *filter(None, [options.override])))
    named += "".join(f" --profile {name}" for name in options.project.profiles)
    return f"docker compose{named} up -d, then gpualloc verify"


@click.command(short_help="Put the compose file back as it was before gpualloc.")
@project_options
@override_option
@elsewhere(
    swarm="the project's own files hold nothing of it: docker stack rm ends the stack, and its file can go",
    per_host="the project's own files hold nothing of it: end what runs by each host's file, and the folder can go",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "-o", "--output", metavar="FILE", help="Write there instead of in place.", shell_complete=completion.files
)
def reset(output: str | None, *, yes: bool, **params: Any) -> int:
    """Put the compose file back as it was before gpualloc, byte for byte."""
    from gpualloc.planning import plan_reset, reset_orphans, write_reset
    from gpualloc.render.diff import unified_diff

    options = options_of(params)
    targets = plan_reset(options, os.environ, here())
    if not targets:
        click.echo("nothing to reset: gpualloc has written nothing here", err=True)
        return DONE
    for target in targets:
        click.echo(
            unified_diff(target.before, target.after, target.shown, target.shown, screen_of(sys.stdout)), nl=False
        )
    ask(f"Write {output or ', '.join(t.shown for t in targets)}?", yes=yes)
    orphans = reset_orphans(options, os.environ, here())
    for name in write_reset(targets, Path(output) if output else None):
        click.echo(_done(name, targets), err=True)
    tell_orphans(orphans)
    return DONE


@click.command(short_help="Tell how many more workers of a role would fit.")
@click.argument("role", shell_complete=completion.roles)
@project_options
@inventory_options
@policy_option
@override_option
@made_options
@beside_option
@what_if_options
def capacity(role: str, **params: Any) -> int:
    """Tell how many more workers of ROLE would fit beside those that have a place."""
    from gpualloc.planning import capacity_of
    from gpualloc.render.explain import capacity_text

    workspace, found = capacity_of(role, options_of(params), os.environ, here())
    tell(workspace.warnings)
    click.echo(capacity_text(found, screen_of(sys.stdout)), nl=False)
    return DONE
