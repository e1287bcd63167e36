"""The command line: parse, call, render, exit. What it prints is computed elsewhere.

Exit codes: 0 done; 1 a check found something wrong; 2 could not run; 3 the demand does not fit. Modules are imported by
the commands that need them, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gpualloc import __version__, completion
from gpualloc.errors import Diagnostic, GpuallocError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from gpualloc.planning import Options, Planned
    from gpualloc.render.screen import Screen
    from gpualloc.watch.events import Event

    _Command = TypeVar("_Command", bound=Callable[..., Any])

DONE, FOUND, CANNOT, NO_FIT = 0, 1, 2, 3


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's text may hold what the terminal cannot show
    try:
        code = cli.main(standalone_mode=False)
    except GpuallocError as error:
        _tell(error.diagnostics)
        code = CANNOT
    except click.ClickException as error:
        error.show()
        code = CANNOT
    except click.Abort:
        click.echo("aborted", err=True)
        code = CANNOT
    except BrokenPipeError:
        # the reader of a pipe has gone: nobody is left to tell, and flushing at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = CANNOT
    sys.exit(code if isinstance(code, int) else DONE)


def _screen(stream: Any) -> Screen:
    from gpualloc.render.screen import Screen  # noqa: PLC0415

    return Screen.of(stream, os.environ)


def _tell(diagnostics: Iterable[Diagnostic]) -> None:
    from gpualloc.render.diagnostics import diagnostics_text  # noqa: PLC0415

    click.echo(diagnostics_text(diagnostics, _screen(sys.stderr)), nl=False, err=True)


def _cwd() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise GpuallocError(
            Diagnostic("no-folder", "the current folder is gone", hint="cd to one that exists")
        ) from None


# --------------------------------------------------------------------------------------------------------------------
# Options


def _stack(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    def wrap(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return wrap


def _scales(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    scales = []
    for text in values:
        role, equals, number = text.rpartition("=")
        if not equals or not role or not number.isdecimal() or len(number) > 6:
            raise click.BadParameter(f"{text!r} is not ROLE=N, such as worker=4")
        scales.append((role, int(number)))
    return tuple(scales)


_project_options = _stack(
    click.option(
        "-f",
        "--file",
        "files",
        multiple=True,
        metavar="FILE",
        help="Compose file; may be repeated.",
        shell_complete=completion.files,
    ),
    click.option(
        "--profile",
        "profiles",
        multiple=True,
        metavar="NAME",
        help="Profile to enable; may be repeated.",
        shell_complete=completion.profiles,
    ),
    click.option(
        "--env-file",
        "env_files",
        multiple=True,
        metavar="FILE",
        help="Instead of the project's .env.",
        shell_complete=completion.files,
    ),
    click.option(
        "--project-directory",
        metavar="DIR",
        help="Where the project is, if not beside its first file.",
        shell_complete=completion.folders,
    ),
    click.option("-p", "--project-name", metavar="NAME", help="Project name, as for docker compose."),
)
_inventory_options = _stack(
    click.option(
        "--inventory",
        multiple=True,
        metavar="SOURCE",
        help="nvml (this host, the default), sim:NAME (a shipped machine), ssh://USER@HOST, a snapshot, a folder of "
        "them, or `nvidia-smi -q -x` output; may be repeated.",
        shell_complete=completion.inventories,
    ),
    click.option("--skip-unreachable", is_flag=True, help="Leave out hosts that ssh:// cannot reach, with a warning."),
    click.option(
        "--topo",
        metavar="FILE",
        help="What `nvidia-smi topo -m` printed, beside its -q -x output.",
        shell_complete=completion.files,
    ),
)
_policy_option = click.option(
    "--policy",
    metavar="NAME|PATH",
    envvar="GPUALLOC_POLICY",
    help="How to choose GPUs; base by default.",
    shell_complete=completion.policies,
)
_beside_option = click.option(
    "--beside",
    multiple=True,
    metavar="FILE",
    help="Another project's compose file: what it pins is taken.",
    shell_complete=completion.files,
)
_override_option = click.option(
    "--override",
    metavar="FILE",
    help="Work with a file to be laid over the project's, instead of in place.",
    shell_complete=completion.files,
)
_fleet_options = _stack(
    click.option(
        "--swarm",
        metavar="FILE",
        help="Work with a stack file for Docker Swarm, each worker on its node.",
        shell_complete=completion.files,
    ),
    click.option(
        "--swarm-mode",
        type=click.Choice(["uuid", "generic"]),
        default="uuid",
        show_default=True,
        help="How tasks get GPUs: by UUID, where nvidia is a node's default runtime, or as generic resources.",
    ),
    click.option(
        "--node-map",
        multiple=True,
        metavar="FILE|NAME=NODE",
        help="The Swarm node of each host, where it has another name; may be repeated.",
        shell_complete=completion.files,
    ),
    click.option(
        "--per-host",
        metavar="DIR",
        help="Work with a file for each host, to be laid over the project's there.",
        shell_complete=completion.folders,
    ),
    click.option(
        "--main", metavar="HOST", help="With --per-host: what runs services without GPUs; by default the first host."
    ),
)
_scale_option = click.option(
    "--scale",
    multiple=True,
    metavar="ROLE=N",
    callback=_scales,
    help="Let a role have N workers; may be repeated.",
    shell_complete=completion.scales,
)
_what_if_options = _stack(
    _scale_option,
    click.option("--replan", is_flag=True, help="Plan from scratch: ignore where workers are now."),
    click.option(
        "--without",
        multiple=True,
        metavar="GPU",
        help="Plan as if this GPU (UUID or index:N) were gone.",
        shell_complete=completion.gpus,
    ),
    click.option(
        "--drain",
        multiple=True,
        metavar="HOST",
        help="Give out nothing of this host, so that its workers move; may be repeated.",
    ),
    click.option(
        "--time-limit", type=click.FloatRange(min=0.001), metavar="SECONDS", help="Stop searching after this."
    ),
)


def _options(params: dict[str, Any]) -> Options:
    from gpualloc.compose.project import ProjectOptions  # noqa: PLC0415
    from gpualloc.fleet import FleetOptions  # noqa: PLC0415
    from gpualloc.planning import Options, solve_options  # noqa: PLC0415

    return Options(
        project=ProjectOptions(
            files=params["files"],
            profiles=params["profiles"],
            env_files=params["env_files"],
            project_directory=params["project_directory"],
            project_name=params["project_name"],
        ),
        inventory=params.get("inventory", ()),
        topo=params.get("topo"),
        skip_unreachable=params.get("skip_unreachable", False),
        policy=params.get("policy"),
        override=params.get("override"),
        scale=params.get("scale", ()),
        beside=params.get("beside", ()),
        drain=params.get("drain", ()),
        fleet=FleetOptions(
            swarm=params.get("swarm"),
            mode=params.get("swarm_mode", "uuid"),
            nodes=params.get("node_map", ()),
            per_host=params.get("per_host"),
            main=params.get("main"),
        ),
        solve=solve_options(
            time_limit_s=params.get("time_limit"),
            replan=params.get("replan", False),
            without=params.get("without", ()),
        ),
    )


# --------------------------------------------------------------------------------------------------------------------
# Commands


class _InOrder(click.Group):
    """Commands in the order in which they are used, as they stand here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="gpualloc")
def cli() -> None:
    """Decide which GPUs each worker of a Docker Compose project gets, and write that into the compose file.

    In the folder of the compose file:

    \b
      gpualloc plan            who would get which GPUs, and why not
      gpualloc apply           shows the same, asks, and writes it
      docker compose up -d
      gpualloc verify          does every running worker see its GPUs?

    No GPU here? Add --inventory sim:dgx-a100, or another machine that `gpualloc inventory --list` names.

    Exit codes: 0 done, 1 check or verify found something, 2 could not run, 3 does not fit.
    """  # noqa: D301 - \b is click's own mark for lines that are not to be filled


@cli.command()
@_inventory_options
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--list", "list_", is_flag=True, help="Name the shipped machines.")
@click.option("-o", "--output", metavar="FILE", help="Write the snapshot to a file.", shell_complete=completion.files)
def inventory(form: str, output: str | None, *, list_: bool, **params: Any) -> int:
    """Show the host's GPUs, what holds them, and how they are linked.

    --format json is a snapshot: other commands read it with --inventory FILE.
    """
    from gpualloc.inventory import load, shipped  # noqa: PLC0415

    if list_:
        from gpualloc.render.machines import machines_text  # noqa: PLC0415

        click.echo(machines_text({name: load((f"sim:{name}",)).inventory for name in shipped()}), nl=False)
        return DONE
    topo = Path(params["topo"]) if params["topo"] else None
    reading = load(params["inventory"], topo, skip_unreachable=params["skip_unreachable"])
    _tell(reading.warnings)
    if form == "json" or output:
        from gpualloc.inventory.snapshot import dump  # noqa: PLC0415
        from gpualloc.planning import write_file  # noqa: PLC0415

        text = dump(reading.inventory)
        if output:
            write_file(Path(output), text)
        else:
            click.echo(text, nl=False)
        return DONE
    from gpualloc.render.inventory import inventory_text  # noqa: PLC0415

    click.echo(inventory_text(reading.inventory, _screen(sys.stdout)), nl=False)
    return DONE


@cli.command()
@_project_options
@_inventory_options
@_policy_option
@_override_option
@_fleet_options
@_beside_option
@_what_if_options
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
    from gpualloc.planning import evicted, explain_plan, held_by_others, make_plan, write_file  # noqa: PLC0415
    from gpualloc.render import plan_json  # noqa: PLC0415

    options = _options(params)
    planned = make_plan(options, os.environ, _cwd())
    _tell(planned.warnings)
    if output:
        write_file(Path(output), plan_json.dump(planned.plan))
    if html:
        from gpualloc.render.report import report_html  # noqa: PLC0415

        workspace = planned.workspace
        held = held_by_others(workspace, options)
        name, gone = workspace.project.name, evicted(planned)
        write_file(Path(html), report_html(planned.plan, workspace.inventory, held, name, gone))
    if form == "json":
        click.echo(plan_json.dump(planned.plan), nl=False)
    elif explain is not None:
        from gpualloc.render.explain import explanations_text  # noqa: PLC0415

        found = explain_plan(planned, options, explain or None)
        click.echo(explanations_text(found, planned.workspace.inventory, _screen(sys.stdout)), nl=False)
    elif diff:
        click.echo(_diff(planned), nl=False)
    else:
        click.echo(_table(planned, options, drawn=drawn), nl=False)
        if planned.plan.complete and planned.plan.changed and not output:
            _next("gpualloc apply, with the same options, writes this; plan --diff shows the lines")
    return _exit(planned)


def _next(what: str) -> None:
    """Say what comes next, to people: in a script it would be noise."""
    if sys.stderr.isatty():
        click.echo(f"next: {what}", err=True)


def _exit(planned: Planned) -> int:
    return DONE if planned.plan.complete else NO_FIT


def _table(planned: Planned, options: Options, *, drawn: bool = True) -> str:
    if not drawn:
        from gpualloc.render.table import plan_table  # noqa: PLC0415

        return plan_table(planned.plan, planned.workspace.inventory, _screen(sys.stdout))
    from gpualloc.planning import held_by_others  # noqa: PLC0415
    from gpualloc.render.map import plan_map  # noqa: PLC0415

    held = held_by_others(planned.workspace, options)
    return plan_map(planned.plan, planned.workspace.inventory, held, _screen(sys.stdout))


def _diff(planned: Planned) -> str:
    from gpualloc.render.diff import unified_diff  # noqa: PLC0415

    screen = _screen(sys.stdout)
    return "".join(unified_diff(t.before, t.after, t.shown, t.shown, screen) for t in planned.changes)


@cli.command()
@click.argument("saved", metavar="[PLAN]", required=False, shell_complete=completion.files)
@_project_options
@_inventory_options
@_policy_option
@_override_option
@_fleet_options
@_beside_option
@_what_if_options
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
    from gpualloc.planning import make_plan, read_saved, write_plan  # noqa: PLC0415

    options = _options(params)
    planned = read_saved(saved, options, os.environ, _cwd()) if saved else make_plan(options, os.environ, _cwd())
    _tell(planned.warnings)
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
    _ask(f"Write {output or ', '.join(t.shown for t in planned.changes)}?", yes=yes)
    for name in write_plan(planned, Path(output) if output else None):
        click.echo(f"wrote {name}", err=True)
    _tell_orphans(planned.orphans)
    if not output:
        _next(_start(planned, options))
    return _exit(planned)


def _start(planned: Planned, options: Options) -> str:
    """Return what starts what was written, with the files that this command was given."""
    if options.fleet.asked:
        return "what was written says in its first lines how it is started"
    files = [file.shown for file in planned.workspace.project.files] if options.override else options.project.files
    named = "".join(f" -f {name}" for name in (*files, *filter(None, [options.override])))
    named += "".join(f" --profile {name}" for name in options.project.profiles)
    return f"docker compose{named} up -d, then gpualloc verify"


def _tell_orphans(names: tuple[str, ...]) -> None:
    """Say what Compose will not end by itself."""
    if names:
        what, them = ("is no longer a service", "it") if len(names) == 1 else ("are no longer services", "them")
        command = "docker compose up -d --remove-orphans"
        click.echo(f"{', '.join(names)} {what}: {command} ends what still runs of {them}", err=True)


def _ask(question: str, *, yes: bool) -> None:
    """Ask before writing. Raises GpuallocError without a terminal, and where the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        hint = "add -y to write without being asked"
        raise GpuallocError(
            Diagnostic("not-confirmed", "there is no terminal to ask on, so nothing was written", hint=hint)
        )
    if not click.confirm(question, err=True):
        raise GpuallocError(Diagnostic("not-confirmed", "nothing was written"))


@cli.command(short_help="Tell whether the file still fits these GPUs and this policy.")
@_project_options
@_inventory_options
@_policy_option
@_override_option
@_fleet_options
@_scale_option
@_beside_option
@click.option(
    "--since",
    metavar="SOURCE",
    help="An earlier inventory: tell what has changed on the machine.",
    shell_complete=completion.inventories,
)
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
def check(form: str, since: str | None, **params: Any) -> int:
    """Tell whether the compose file still fits these GPUs and this policy. Exits with 1 if it does not."""
    from gpualloc.checking import check as run  # noqa: PLC0415
    from gpualloc.render import diagnostics  # noqa: PLC0415

    warnings, findings = run(_options(params), os.environ, _cwd(), since)
    _tell(warnings)
    if form == "json":
        click.echo(diagnostics.findings_json(findings), nl=False)
    elif form == "github":
        click.echo(diagnostics.findings_github(findings), nl=False)
    else:
        click.echo(diagnostics.findings_text(findings, _screen(sys.stdout)), nl=False)
    return FOUND if any(f.severity != "note" for f in findings) else DONE


@cli.command()
@_project_options
@_inventory_options
@_policy_option
@_override_option
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="What each container gets to answer.",
)
@click.option("--no-frameworks", is_flag=True, help="Ask CUDA only, not PyTorch, TensorFlow or JAX.")
def verify(form: str, timeout: float, *, no_frameworks: bool, **params: Any) -> int:
    """Tell whether every running worker sees exactly its GPUs. Exits with 1 if one does not.

    For after `docker compose up`: it looks into each container with nvidia-smi, and through CUDA where it has python.
    """
    from gpualloc.render.verification import verification_json, verification_text  # noqa: PLC0415
    from gpualloc.verify.look import Manner  # noqa: PLC0415
    from gpualloc.verify.run import verify as run  # noqa: PLC0415

    manner = Manner(timeout, frameworks=not no_frameworks)
    verification = run(_options(params), os.environ, _cwd(), progress=_progress("verifying"), manner=manner)
    _tell(verification.warnings)
    if form == "json":
        click.echo(verification_json(verification), nl=False)
    else:
        click.echo(verification_text(verification, _screen(sys.stdout)), nl=False)
    return DONE if verification.good else FOUND


def _progress(what: str) -> Callable[[int, int], None]:
    """Return a function that shows how far something is, on a terminal only, and wipes it at the end."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{what} {done}/{total}" if done < total else "\r\x1b[K", nl=False, err=True)

    return show


@cli.command(short_help="Tell how many more workers of a role would fit.")
@click.argument("role", shell_complete=completion.roles)
@_project_options
@_inventory_options
@_policy_option
@_override_option
@_what_if_options
def capacity(role: str, **params: Any) -> int:
    """Tell how many more workers of ROLE would fit beside those that have a place."""
    from gpualloc.planning import capacity_of  # noqa: PLC0415
    from gpualloc.render.explain import capacity_text  # noqa: PLC0415

    workspace, found = capacity_of(role, _options(params), os.environ, _cwd())
    _tell(workspace.warnings)
    click.echo(capacity_text(found, _screen(sys.stdout)), nl=False)
    return DONE


@cli.command()
@_project_options
@_inventory_options
@_policy_option
@_override_option
@_beside_option
@click.option("--apply", is_flag=True, help="Write the plan when a change asks for another one.")
@click.option("--partial", is_flag=True, help="With --apply: where not all fit, write what does.")
@click.option("--exec", "command", metavar="CMD", help="Run this after a change: 'docker compose up -d', say.")
@click.option("--exec-timeout", default="5m", show_default=True, metavar="TIME", help="End CMD after this.")
@click.option("--interval", default="30s", show_default=True, metavar="TIME", help="Look so often.")
@click.option("--settle", default="10s", show_default=True, metavar="TIME", help="A change must hold so long.")
@click.option("--events/--no-events", default=True, show_default=True, help="Let the driver tell of errors.")
@click.option("--metrics", metavar="HOST:PORT", help="Serve metrics for Prometheus there.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def watch(form: str, **params: Any) -> int:
    """Plan again when GPUs change, until told to end by SIGTERM.

    A GPU that goes or comes, falls ill, is split, or is taken by others; each change on a line of its own.
    """
    from gpualloc.watch.events import json_line, text_line  # noqa: PLC0415
    from gpualloc.watch.loop import settings_of  # noqa: PLC0415
    from gpualloc.watch.loop import watch as run  # noqa: PLC0415

    screen = _screen(sys.stdout)

    def tell(event: Event, when: datetime) -> None:
        click.echo(json_line(event, when) if form == "json" else text_line(event, when, screen), nl=False)

    run(_options(params), settings_of(params), os.environ, _cwd(), tell)
    return DONE


@cli.command(short_help="Show what running workers use, against what they asked for.")
@_project_options
@_inventory_options
@_policy_option
@_override_option
@click.option("--for", "duration", metavar="TIME", help="Measure so long, and tell the peak: 60s, 5m.")
@click.option("--margin", default="20%", show_default=True, metavar="PERCENT", help="What to add to a peak.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def usage(form: str, duration: str | None, margin: str, **params: Any) -> int:
    """Show how much memory each running worker uses, against what it asked for, and suggest what to ask for."""
    from gpualloc.usage.run import measure  # noqa: PLC0415
    from gpualloc.usage.show import usage_json, usage_text  # noqa: PLC0415

    measured, inventory, warnings = measure(_options(params), os.environ, _cwd(), duration, margin)
    _tell(warnings)
    shown = usage_json(measured) if form == "json" else usage_text(measured, inventory, _screen(sys.stdout))
    click.echo(shown, nl=False)
    return DONE


@cli.command(short_help="Put the compose file back as it was before gpualloc.")
@_project_options
@_override_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "-o", "--output", metavar="FILE", help="Write there instead of in place.", shell_complete=completion.files
)
def reset(output: str | None, *, yes: bool, **params: Any) -> int:
    """Put the compose file back as it was before gpualloc, byte for byte."""
    from gpualloc.planning import plan_reset, reset_orphans, write_reset  # noqa: PLC0415
    from gpualloc.render.diff import unified_diff  # noqa: PLC0415

    options = _options(params)
    targets = plan_reset(options, os.environ, _cwd())
    if not targets:
        click.echo("nothing to reset: gpualloc has written nothing here", err=True)
        return DONE
    for target in targets:
        click.echo(unified_diff(target.before, target.after, target.shown, target.shown, _screen(sys.stdout)), nl=False)
    _ask(f"Write {output or ', '.join(t.shown for t in targets)}?", yes=yes)
    orphans = reset_orphans(options, os.environ, _cwd())
    for name in write_reset(targets, Path(output) if output else None):
        click.echo(f"wrote {name}", err=True)
    _tell_orphans(orphans)
    return DONE


@cli.group()
def policy() -> None:
    """List, show and check policies."""


_directory_option = click.option(
    "--project-directory",
    metavar="DIR",
    help="The folder of the compose file.",
    shell_complete=completion.folders,
)


def _compose_dir(project_directory: str | None) -> Path:
    return _cwd() / project_directory if project_directory else _cwd()


@policy.command("list")
@_directory_option
def policy_list(project_directory: str | None) -> int:
    """Name the policies that --policy NAME can mean here."""
    from gpualloc.policy.lookup import find_policies  # noqa: PLC0415
    from gpualloc.render.policies import policies_text  # noqa: PLC0415

    found = find_policies(_cwd(), _compose_dir(project_directory))
    _tell(p.problem for p in found if p.problem)
    click.echo(policies_text(found, _screen(sys.stdout)), nl=False)
    return DONE


@policy.command("show")
@click.argument("name", required=False, shell_complete=completion.policies)
@_directory_option
def policy_show(name: str | None, project_directory: str | None) -> int:
    """Show a policy as it takes effect, with what it extends."""
    from gpualloc.policy.load import load  # noqa: PLC0415
    from gpualloc.policy.show import show  # noqa: PLC0415

    wanted = load(name or os.environ.get("GPUALLOC_POLICY"), cwd=_cwd(), compose_dir=_compose_dir(project_directory))
    click.echo(show(wanted), nl=False)
    return DONE


@policy.command("check")
@click.argument("names", metavar="[NAME|PATH]...", nargs=-1, shell_complete=completion.policies)
@_directory_option
def policy_check(names: tuple[str, ...], project_directory: str | None) -> int:
    """Tell what is wrong with policies.

    Exits with 2 if one cannot be used, with 1 if one says something to no effect.
    """
    from gpualloc.policy.review import check as review  # noqa: PLC0415

    code = DONE
    for name in names or (os.environ.get("GPUALLOC_POLICY") or "base",):
        loaded, diagnostics = review(name, cwd=_cwd(), compose_dir=_compose_dir(project_directory))
        _tell(diagnostics)
        if loaded is None:
            code = CANNOT
        elif diagnostics:
            code = max(code, FOUND)
        else:
            click.echo(f"{name}: fine")
    return code


# --------------------------------------------------------------------------------------------------------------------
# Words and schemas


@cli.command(short_help="Tell what a message means and what to do about it.")
@click.argument("code", required=False, shell_complete=completion.codes)
def explain(code: str | None) -> int:
    """Tell what a message's CODE means and what to do about it; without one, list the codes.

    The code stands in brackets behind the message, and as "code" in JSON.
    """
    from gpualloc import words  # noqa: PLC0415
    from gpualloc.render.pages import codes_text, page_text  # noqa: PLC0415

    screen = _screen(sys.stdout)
    click.echo(page_text(words.page(code), screen) if code else codes_text(words.pages(), screen), nl=False)
    return DONE


@cli.command(short_help="Print the JSON Schema of a document, for editors.")
@click.argument("name", required=False, shell_complete=completion.schemas)
def schema(name: str | None) -> int:
    """Print the JSON Schema of what NAME is: inventory, plan, policy or x-gpualloc; without one, list the names."""
    from gpualloc.schemas import names, schema_text  # noqa: PLC0415

    click.echo(schema_text(name) if name else "".join(f"{known}\n" for known in names()), nl=False)
    return DONE


if __name__ == "__main__":
    main()
