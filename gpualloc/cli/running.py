"""Commands for what runs or is written already: ``check``, ``verify``, ``watch``, ``usage``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from gpualloc import completion
from gpualloc.cli.common import (
    DONE,
    FOUND,
    here,
    progress,
    screen_of,
    tell,
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
    scale_option,
)

if TYPE_CHECKING:
    from datetime import datetime

    from gpualloc.watch.events import Event


@click.command(short_help="Tell whether the file still fits these GPUs and this policy.")
@project_options
@inventory_options
@policy_option
@override_option
@fleet_options
@scale_option
@beside_option
@click.option(
    "--since",
    metavar="SOURCE",
    help="An earlier inventory: tell what has changed on the machine.",
    shell_complete=completion.inventories,
)
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
def check(form: str, since: str | None, **params: Any) -> int:
    """Tell whether the compose file still fits these GPUs and this policy. Exits with 1 if it does not."""
    from gpualloc.checking import check as run
    from gpualloc.render import diagnostics

    warnings, findings = run(options_of(params), os.environ, here(), since)
    tell(warnings)
    if form == "json":
        click.echo(diagnostics.findings_json(findings), nl=False)
    elif form == "github":
        click.echo(diagnostics.findings_github(findings), nl=False)
    else:
        click.echo(diagnostics.findings_text(findings, screen_of(sys.stdout)), nl=False)
    return FOUND if any(f.severity != "note" for f in findings) else DONE


@click.command()
@project_options
@inventory_options
@policy_option
@override_option
@elsewhere(
    swarm="docker stack ps tells what runs where; gpualloc check --swarm compares the stack with the nodes",
    per_host="for each host: gpualloc verify -f compose.yaml -f DIR/HOST.yaml, with docker's context for it",
)
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
    from gpualloc.render.verification import verification_json, verification_text
    from gpualloc.verify.look import Manner
    from gpualloc.verify.run import verify as run

    manner = Manner(timeout, frameworks=not no_frameworks)
    verification = run(options_of(params), os.environ, here(), progress=progress("verifying"), manner=manner)
    tell(verification.warnings)
    if form == "json":
        click.echo(verification_json(verification), nl=False)
    else:
        click.echo(verification_text(verification, screen_of(sys.stdout)), nl=False)
    return DONE if verification.good else FOUND


@click.command()
@project_options
@inventory_options
@policy_option
@override_option
@elsewhere(
    swarm="run gpualloc apply -y --swarm and docker stack deploy again from time to time, by cron for example",
    per_host="run gpualloc apply -y --per-host again from time to time, by cron for example",
)
@beside_option
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
    from gpualloc.watch.events import json_line, text_line
    from gpualloc.watch.loop import settings_of
    from gpualloc.watch.loop import watch as run

    screen = screen_of(sys.stdout)

    def tell(event: Event, when: datetime) -> None:
        click.echo(json_line(event, when) if form == "json" else text_line(event, when, screen), nl=False)

    run(options_of(params), settings_of(params), os.environ, here(), tell)
    return DONE


@click.command(short_help="Show what running workers use, against what they asked for.")
@project_options
@inventory_options
@policy_option
@override_option
@made_options
@click.option("--for", "duration", metavar="TIME", help="Measure so long, and tell the peak: 60s, 5m.")
@click.option("--margin", default="20%", show_default=True, metavar="PERCENT", help="What to add to a peak.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def usage(form: str, duration: str | None, margin: str, **params: Any) -> int:
    """Show how much memory each running worker uses, against what it asked for, and suggest what to ask for."""
    from gpualloc.usage.run import measure
    from gpualloc.usage.show import usage_json, usage_text

    measured, inventory, warnings = measure(options_of(params), os.environ, here(), duration, margin)
    tell(warnings)
    shown = usage_json(measured) if form == "json" else usage_text(measured, inventory, screen_of(sys.stdout))
    click.echo(shown, nl=False)
    return DONE
