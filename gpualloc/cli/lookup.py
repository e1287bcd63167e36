"""Commands that look things up: ``inventory``, ``policy``, ``explain``, ``schema``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from gpualloc import completion
from gpualloc.cli.common import (
    CANNOT,
    DONE,
    FOUND,
    here,
    screen_of,
    tell,
)
from gpualloc.cli.options import (
    inventory_options,
)


@click.command()
@inventory_options
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--list", "list_", is_flag=True, help="Name the shipped machines.")
@click.option("-o", "--output", metavar="FILE", help="Write the snapshot to a file.", shell_complete=completion.files)
def inventory(form: str, output: str | None, *, list_: bool, **params: Any) -> int:
    """Show the host's GPUs, what holds them, and how they are linked.

    --format json is a snapshot: other commands read it with --inventory FILE.
    """
    from gpualloc.inventory import load, shipped

    if list_:
        from gpualloc.render.machines import machines_text

        click.echo(machines_text({name: load((f"sim:{name}",)).inventory for name in shipped()}), nl=False)
        return DONE
    topo = Path(params["topo"]) if params["topo"] else None
    reading = load(params["inventory"], topo, skip_unreachable=params["skip_unreachable"])
    tell(reading.warnings)
    if form == "json" or output:
        from gpualloc.inventory.snapshot import dump
        from gpualloc.planning import write_file

        text = dump(reading.inventory)
        if output:
            write_file(Path(output), text)
        else:
            click.echo(text, nl=False)
        return DONE
    from gpualloc.render.inventory import inventory_text

    click.echo(inventory_text(reading.inventory, screen_of(sys.stdout)), nl=False)
    return DONE


@click.group()
def policy() -> None:
    """List, show and check policies."""


_directory_option = click.option(
    "--project-directory",
    metavar="DIR",
    help="The folder of the compose file.",
    shell_complete=completion.folders,
)


def _compose_dir(project_directory: str | None) -> Path:
    return here() / project_directory if project_directory else here()


@policy.command("list")
@_directory_option
def policy_list(project_directory: str | None) -> int:
    """Name the policies that --policy NAME can mean here."""
    from gpualloc.policy.lookup import find_policies
    from gpualloc.render.policies import policies_text

    found = find_policies(here(), _compose_dir(project_directory))
    tell(p.problem for p in found if p.problem)
    click.echo(policies_text(found, screen_of(sys.stdout)), nl=False)
    return DONE


@policy.command("show")
@click.argument("name", required=False, shell_complete=completion.policies)
@_directory_option
def policy_show(name: str | None, project_directory: str | None) -> int:
    """Show a policy as it takes effect, with what it extends."""
    from gpualloc.policy.load import load
    from gpualloc.policy.show import show

    wanted = load(name or os.environ.get("GPUALLOC_POLICY"), cwd=here(), compose_dir=_compose_dir(project_directory))
    click.echo(show(wanted), nl=False)
    return DONE


@policy.command("check")
@click.argument("names", metavar="[NAME|PATH]...", nargs=-1, shell_complete=completion.policies)
@_directory_option
def policy_check(names: tuple[str, ...], project_directory: str | None) -> int:
    """Tell what is wrong with policies.

    Exits with 2 if one cannot be used, with 1 if one says something to no effect.
    """
    from gpualloc.policy.review import check as review

    code = DONE
    for name in names or (os.environ.get("GPUALLOC_POLICY") or "base",):
        loaded, diagnostics = review(name, cwd=here(), compose_dir=_compose_dir(project_directory))
        tell(diagnostics)
        if loaded is None:
            code = CANNOT
        elif diagnostics:
            code = max(code, FOUND)
        else:
            click.echo(f"{name}: fine")
    return code


@click.command(short_help="Tell what a message means and what to do about it.")
@click.argument("code", required=False, shell_complete=completion.codes)
def explain(code: str | None) -> int:
    """Tell what a message's CODE means and what to do about it; without one, list the codes.

    The code stands in brackets behind the message, and as "code" in JSON.
    """
    from gpualloc import words
    from gpualloc.render.pages import codes_text, page_text

    screen = screen_of(sys.stdout)
    click.echo(page_text(words.page(code), screen) if code else codes_text(words.pages(), screen), nl=False)
    return DONE


@click.command(short_help="Print the JSON Schema of a document, for editors.")
@click.argument("name", required=False, shell_complete=completion.schemas)
def schema(name: str | None) -> int:
    """Print the JSON Schema of what NAME is: inventory, plan, policy or x-gpualloc; without one, list the names."""
    from gpualloc.schemas import names, schema_text

    click.echo(schema_text(name) if name else "".join(f"{known}\n" for known in names()), nl=False)
    return DONE
