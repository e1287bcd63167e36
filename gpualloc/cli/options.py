"""The options that several commands have, and what they come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from gpualloc import completion
from gpualloc.errors import Diagnostic, GpuallocError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.planning import Options

    _Command = TypeVar("_Command", bound=Callable[..., Any])


def stack(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Return several options as one decorator."""

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


project_options = stack(
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


inventory_options = stack(
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


policy_option = click.option(
    "--policy",
    metavar="NAME|PATH",
    envvar="GPUALLOC_POLICY",
    help="How to choose GPUs; base by default.",
    shell_complete=completion.policies,
)


beside_option = click.option(
    "--beside",
    multiple=True,
    metavar="FILE",
    help="Another project's compose file: what it pins is taken.",
    shell_complete=completion.files,
)


override_option = click.option(
    "--override",
    metavar="FILE",
    help="Work with a file to be laid over the project's, instead of in place.",
    shell_complete=completion.files,
)


_swarm_option = click.option(
    "--swarm",
    metavar="FILE",
    help="Work with a stack file for Docker Swarm, each worker on its node.",
    shell_complete=completion.files,
)


_per_host_option = click.option(
    "--per-host",
    metavar="DIR",
    help="Work with a file for each host, to be laid over the project's there.",
    shell_complete=completion.folders,
)


made_options = stack(_swarm_option, _per_host_option)
"""For commands that read where workers of several hosts are, and write nothing."""


def elsewhere(swarm: str, per_host: str) -> Callable[[_Command], _Command]:
    """Return the two options that name files of several hosts, for a command that is about one.

    Who gives one is told what does that job; ``swarm`` and ``per_host`` are those hints.
    """

    def refuse(hint: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
        def told(context: click.Context, option: click.Parameter, value: str | None) -> None:
            if value is not None:
                summary = f"{option.opts[0]}: gpualloc {context.info_name} is about one host"
                raise GpuallocError(Diagnostic("one-host-only", summary, hint=hint))

        return told

    return stack(
        click.option("--swarm", hidden=True, expose_value=False, callback=refuse(swarm)),
        click.option("--per-host", hidden=True, expose_value=False, callback=refuse(per_host)),
    )


fleet_options = stack(
    _swarm_option,
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
    _per_host_option,
    click.option(
        "--main", metavar="HOST", help="With --per-host: what runs services without GPUs; by default the first host."
    ),
)


scale_option = click.option(
    "--scale",
    multiple=True,
    metavar="ROLE=N",
    callback=_scales,
    help="Let a role have N workers; may be repeated.",
    shell_complete=completion.scales,
)


what_if_options = stack(
    scale_option,
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


def options_of(params: dict[str, Any]) -> Options:
    """Return what a command was asked for, from its parameters by name."""
    from gpualloc.compose.project import ProjectOptions
    from gpualloc.fleet.options import FleetOptions
    from gpualloc.planning import Options, solve_options

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
