"""What all commands share: exit codes, messages, questions."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpualloc.errors import Diagnostic, GpuallocError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gpualloc.render.screen import Screen


DONE, FOUND, CANNOT, NO_FIT = 0, 1, 2, 3


def screen_of(stream: Any) -> Screen:
    """Return what a stream can show."""
    from gpualloc.render.screen import Screen

    return Screen.of(stream, os.environ)


def tell(diagnostics: Iterable[Diagnostic]) -> None:
    """Print messages on stderr."""
    from gpualloc.render.diagnostics import diagnostics_text

    click.echo(diagnostics_text(diagnostics, screen_of(sys.stderr)), nl=False, err=True)


def here() -> Path:
    """Return the current folder. Raises GpuallocError (``no-folder``) where it is gone."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise GpuallocError(
            Diagnostic("no-folder", "the current folder is gone", hint="cd to one that exists")
        ) from None


def ask(question: str, *, yes: bool) -> None:
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


def say_next(what: str) -> None:
    """Say what comes next, to people: in a script it would be noise."""
    if sys.stderr.isatty():
        click.echo(f"next: {what}", err=True)


def progress(what: str) -> Callable[[int, int], None]:
    """Return a function that shows how far something is, on a terminal only, and wipes it at the end."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{what} {done}/{total}" if done < total else "\r\x1b[K", nl=False, err=True)

    return show


def tell_orphans(names: tuple[str, ...]) -> None:
    """Say what Compose will not end by itself."""
    if names:
        what, them = ("is no longer a service", "it") if len(names) == 1 else ("are no longer services", "them")
        command = "docker compose up -d --remove-orphans"
        click.echo(f"{', '.join(names)} {what}: {command} ends what still runs of {them}", err=True)
