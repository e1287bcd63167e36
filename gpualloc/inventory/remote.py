"""The inventory of another host, asked of the gpualloc there through the ssh client.

The client brings the user's keys, configuration and known hosts. It is given a list of words; what runs on the other
side is one fixed command, since a login shell there reads it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpualloc.errors import Diagnostic, GpuallocError, Place, fail
from gpualloc.model import Reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCHEME = "ssh://"

CONNECT_S = 10
"""How long a connection may take, as ssh's own ``ConnectTimeout``."""

PATIENCE_S = 60.0
"""How long a host may take in all: its driver may have to wake the GPUs first."""

AT_ONCE = 32
"""How many hosts are asked at the same time: each is a process of the ssh client."""

_TARGET = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9]+)?\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<program>/[A-Za-z0-9_./+-]*)?"
)
_NO_CONNECTION = 255
"""What ssh exits with where it could not connect or log in (ssh(1), EXIT STATUS)."""
_OTHER_VERSION = frozenset({"inventory-version", "inventory-unknown-key", "inventory-missing-key"})
"""How a snapshot is refused that a gpualloc of another version has written."""
_NOT_FOUND = 127
"""What a POSIX shell exits with where there is no such command."""


@dataclass(frozen=True, slots=True)
class Target:
    """One host to ask: the words for the ssh client, and how the host is called in messages."""

    source: str
    name: str
    words: tuple[str, ...]


def target_of(source: str) -> Target:
    """Return what ``ssh://[user@]host[:port][/path/to/gpualloc]`` names.

    Raises GpuallocError (``inventory-ssh``) for anything else, such as a host that ssh would take for an option.
    """
    found = _TARGET.fullmatch(source)
    if found is None or int(found["port"] or 22) not in range(1, 65536):
        hint = (
            "write ssh://user@host or ssh://user@host:port; behind a / stands where gpualloc is, if not on PATH there"
        )
        raise fail("inventory-ssh", "this names no host that ssh can reach", Place(source), hint)
    program = (found["program"] or "").rstrip("/") or "gpualloc"
    host = found["host"].strip("[]")
    words = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}", "-T"]
    words += ["-p", found["port"]] if found["port"] else []
    words += ["--", f"{found['user']}@{host}" if found["user"] else host, f"{program} inventory --format json"]
    return Target(source, found["host"], tuple(words))


def read_all(sources: Sequence[str], *, skip_unreachable: bool, alone: bool) -> dict[str, Reading | Diagnostic]:
    """Ask every host at the same time, and return its reading, or the warning that it is left out, by its source.

    ``skip_unreachable``: leave out the hosts that cannot be reached; whatever else is wrong with one is an error.
    ``alone``: there are no other sources, so that one host at least must answer.

    Raises GpuallocError: ``inventory-ssh``, ``inventory-unreachable`` for each that cannot be reached,
    ``inventory-remote`` for each whose gpualloc failed, and what a snapshot can be refused for.
    """
    targets = [target_of(source) for source in sources]
    with ThreadPoolExecutor(min(len(targets), AT_ONCE)) as pool:
        answers = list(pool.map(_ask, targets))
    problems = [answer for answer in answers if isinstance(answer, Diagnostic)]
    lost = [p for p in problems if p.code == "inventory-unreachable"]
    if problems and (not skip_unreachable or len(lost) < len(problems) or (alone and len(lost) == len(targets))):
        raise GpuallocError(*problems)
    left_out = (_left_out(answer) if isinstance(answer, Diagnostic) else answer for answer in answers)
    return dict(zip(sources, left_out, strict=True))


def _left_out(problem: Diagnostic) -> Diagnostic:
    """Say what it means to plan without a host."""
    hint = "its devices count as lost: workers that were there move to other hosts, or do not fit"
    return replace(problem, summary=f"left out: {problem.summary}", hint=hint, severity="warning")


def _ask(target: Target) -> Reading | Diagnostic:
    """Return what one host answers, or why there is no answer."""
    program = shutil.which("ssh")
    if program is None:
        hint = "install OpenSSH's client, or give snapshots: gpualloc inventory --format json"
        return Diagnostic("inventory-remote", "there is no ssh on PATH", Place(target.source), hint)
    try:
        done = subprocess.run(  # noqa: S603 - no shell here, and every word was checked
            [program, *target.words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _unreachable(target, f"no answer within {PATIENCE_S:.0f} s")
    except OSError as error:
        return _unreachable(target, error.strerror or str(error))
    return _answer(target, done)


def _answer(target: Target, done: subprocess.CompletedProcess[str]) -> Reading | Diagnostic:
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if done.returncode == _NO_CONNECTION:
        return _unreachable(target, said[-1] if said else "ssh exited with 255")
    if done.returncode == _NOT_FOUND:
        hint = f"install it there, or say where it is: {SCHEME}{target.name}/opt/gpualloc/bin/gpualloc"
        return Diagnostic("inventory-remote", f"there is no gpualloc on {target.name}", Place(target.source), hint)
    if done.returncode:
        last = (said or [line.strip() for line in done.stdout.splitlines() if line.strip()] or ["it says nothing"])[-1]
        why = next((line for line in said if line.startswith("error: ")), last)
        how = f"exits with {done.returncode}" if done.returncode > 0 else f"was ended by signal {-done.returncode}"
        return _remote(target, f"gpualloc on {target.name} {how}: {why.removeprefix('error: ')}")
    return _parsed(target, done.stdout, said)


def _parsed(target: Target, text: str, said: Sequence[str]) -> Reading | Diagnostic:
    from gpualloc.inventory import snapshot  # noqa: PLC0415 - what cannot be reached pays nothing for it

    document = _document(text)
    if document is None:
        first = next((line.strip() for line in text.splitlines() if line.strip()), None)
        what = f"no inventory, but: {first[:80]}" if first else "nothing"
        return _remote(target, f"gpualloc on {target.name} prints {what}")
    try:
        inventory = snapshot.parse(document, target.source)
    except GpuallocError as error:
        problem = error.diagnostics[0]
        if problem.code not in _OTHER_VERSION:
            return problem
        return replace(problem, hint=f"install the same gpualloc here and on {target.name}")
    return Reading(inventory, tuple(_told(target, said)))


def _document(text: str) -> str | None:
    """Return the JSON that gpualloc prints, without what a login shell there says before it or behind; None for none.

    It begins with the first line that begins with a brace, and ends with the last that begins with one.
    """
    lines = text.splitlines()
    braces = [n for n, line in enumerate(lines) if line.startswith(("{", "}"))]
    if not braces or lines[braces[0]].startswith("}"):
        return None
    return "\n".join(lines[braces[0] : braces[-1] + 1]) + "\n"


def _remote(target: Target, summary: str) -> Diagnostic:
    hint = f"run it there: ssh {target.words[-2]} {target.words[-1]}"
    return Diagnostic("inventory-remote", summary, Place(target.source), hint)


def _told(target: Target, said: Sequence[str]) -> Iterator[Diagnostic]:
    """Pass on what the other gpualloc warns of, each with its hint on the line below."""
    for line, below in zip(said, [*said[1:], ""], strict=False):
        if line.startswith("warning: "):
            there = f"see it there: ssh {target.words[-2]} {target.words[-1]}"
            hint = below.removeprefix("hint: ") if below.startswith("hint: ") else there
            summary = f"{target.name} says: {line.removeprefix('warning: ')}"
            yield Diagnostic("inventory-remote", summary, None, hint, "warning")


def _unreachable(target: Target, why: str) -> Diagnostic:
    hint = f"try ssh {target.words[-2]}; --skip-unreachable plans without the host"
    return Diagnostic("inventory-unreachable", f"{target.name} cannot be reached: {why}", Place(target.source), hint)
