"""The command line: parse, call, render, exit. What it prints is computed elsewhere.

Exit codes: 0 done; 1 a check found something wrong; 2 could not run; 3 the demand does not fit. Modules are imported by
the commands that need them, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

import io
import os
import sys

import click

from gpualloc import __version__
from gpualloc.cli.common import CANNOT, DONE, tell
from gpualloc.cli.lookup import explain, inventory, policy, schema
from gpualloc.cli.running import check, usage, verify, watch
from gpualloc.cli.writing import apply, capacity, plan, reset
from gpualloc.errors import GpuallocError


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


for _command in (inventory, plan, apply, check, verify, capacity, watch, usage, reset, policy, explain, schema):
    cli.add_command(_command)


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's text may hold what the terminal cannot show
    try:
        code = cli.main(standalone_mode=False)
    except GpuallocError as error:
        tell(error.diagnostics)
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
