"""Typical mistakes: each is made, told, and mended in one step that the message alone names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.running import Result

    Mend = Callable[[str, list[str], Path], list[str]]
    """Takes what was said, the command, and the compose file, which it may rewrite; returns the command that mends."""

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "mistakes.md"
MACHINE = ("--inventory", "sim:4xl40s")

COMPOSE = """\
services:
  trainer:
    image: my/trainer
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
  chat:
    image: my/chat
    x-gpualloc: {memory: 12GiB}
"""


def said(pattern: str, text: str) -> str:
    """Return what a message names: the mend comes from there and from nowhere else."""
    match = re.search(pattern, text)
    assert match is not None, f"{pattern} is not in:\n{text}"
    return match.group(1)


def in_file(change: Callable[[str, str], str]) -> Mend:
    """Return a mend that changes the text of the compose file, and runs the same command again."""

    def mend(text: str, command: list[str], file: Path) -> list[str]:
        before = file.read_text()
        file.write_text(change(text, before))
        assert file.read_text() != before
        return command

    return mend


def instead(word: str, pattern: str) -> Mend:
    """Return a mend that puts what the message names in place of a word of the command."""

    def mend(text: str, command: list[str], _file: Path) -> list[str]:
        meant = said(pattern, text)
        return [meant if part == word else part for part in command]

    return mend


def added(pattern: str) -> Mend:
    """Return a mend that adds the options that the message names."""
    return lambda text, command, _file: [*command, *said(pattern, text).split()]


def run_it(pattern: str) -> Mend:
    """Return a mend that is a command of its own. ``-y``, as there is nobody to ask in a test."""

    def mend(text: str, command: list[str], _file: Path) -> list[str]:
        words = said(pattern, text).split()[1:]
        return [*words, *(["-y"] if words[0] == "apply" else []), *command[command.index("--inventory") :][:2]]

    return mend


def without_line(text: str, file: str) -> str:
    """Drop the line at the place that the message names, which says to keep one of two."""
    line = int(said(r"compose\.yaml:(\d+):", text))
    assert "keep one of them" in text
    return "".join(part for number, part in enumerate(file.splitlines(keepends=True), 1) if number != line)


@dataclass(frozen=True)
class Mistake:
    """A mistake: its title on the page, the compose file, the command, the code of its message, and the mend."""

    title: str
    file: str
    command: tuple[str, ...]
    code: str
    mend: Mend
    exits: tuple[int, int] = (2, 0)
    """What the mistake exits with, and the mend."""
    again: bool = False
    """Whether the mend is a command of its own, after which the first one is right."""


def changed(old: str, new: str) -> str:
    assert old in COMPOSE
    return COMPOSE.replace(old, new)


MISTAKES = (
    Mistake("A machine without a GPU", COMPOSE, ("plan",), "nvml-", added(r"(--inventory sim:\S+),")),
    Mistake(
        "A policy that does not exist",
        COMPOSE,
        ("plan", *MACHINE, "--policy", "prd"),
        "policy-not-found",
        instead("prd", r"did you mean (\w+)\?"),
    ),
    Mistake(
        "The wrong file",
        COMPOSE,
        ("plan", *MACHINE, "-f", "docker-compose.yml"),
        "file-missing",
        instead("docker-compose.yml", r"did you mean (\S+)\?"),
    ),
    Mistake(
        "A key that does not exist",
        changed("memory: 12GiB", "memry: 12GiB"),
        ("plan", *MACHINE),
        "ask-key",
        in_file(
            lambda text, file: file.replace(said(r"x-gpualloc\.(\w+): unknown", text), said(r"mean (\w+)\?", text))
        ),
    ),
    Mistake(
        "More memory than any GPU has",
        changed("12GiB", "60GiB"),
        ("plan", *MACHINE),
        "memory: needs 60 GiB",
        in_file(lambda text, file: file.replace("60GiB", said(r"lower memory of chat to ([\d.]+ GiB)", text))),
        (3, 0),
    ),
    Mistake(
        "More workers than GPUs",
        changed("image: my/trainer\n", "image: my/trainer\n    scale: 6\n"),
        ("apply", *MACHINE, "-y"),
        "nothing was written: not every worker fits",
        added(r"\((--partial) writes those that do\)"),
        (3, 3),
    ),
    Mistake(
        "A GPU that is gone",
        changed("count: 1", 'device_ids: ["GPU-1f2e3d4c-0000-4000-8000-000000000000"]'),
        ("check", *MACHINE),
        "other-machine",
        run_it(r"(gpualloc apply) "),
        (1, 0),
        again=True,
    ),
    Mistake(
        "A host's number in CUDA_VISIBLE_DEVICES",
        changed("count: 1", 'device_ids: ["3"]').replace(
            "image: my/trainer\n", 'image: my/trainer\n    environment: {CUDA_VISIBLE_DEVICES: "3"}\n'
        ),
        ("check", *MACHINE),
        "cuda-hides",
        run_it(r"(gpualloc apply) mends it"),
        (1, 0),
        again=True,
    ),
    Mistake(
        "A number for gpus",
        changed("image: my/chat\n", "image: my/chat\n    gpus: 2\n"),
        ("plan", *MACHINE),
        "request",
        in_file(lambda text, file: file.replace("gpus: 2", said(r"write (gpus: \[\{count: 2\}\])", text))),
    ),
    Mistake(
        "Two ways of asking that differ",
        changed("image: my/trainer\n", "image: my/trainer\n    gpus: [{count: 2}]\n"),
        ("plan", *MACHINE),
        "request-conflict",
        in_file(without_line),
    ),
    Mistake(
        "A number where Compose wants text",
        changed("count: 1", "device_ids: [0]"),
        ("plan", *MACHINE),
        "request",
        in_file(lambda text, file: file.replace("[0]", said(r'put quotes around it: (\["0"\])', text))),
    ),
    Mistake(
        "Nobody to ask",
        COMPOSE,
        ("apply", *MACHINE),
        "not-confirmed",
        added(r"add (-y) to write"),
    ),
    Mistake(
        "Tabs",
        changed("    image: my/chat", "\timage: my/chat"),
        ("plan", *MACHINE),
        "yaml",
        in_file(lambda text, file: file.replace("\t", "    ") if "spaces only" in text else file),
    ),
    Mistake(
        "A variable that is not set",
        changed("count: 1", "count: ${GPUS}"),
        ("plan", *MACHINE),
        "unset-variable",
        in_file(lambda text, file: file.replace("${GPUS}", said(r"give it a default: (\$\{GPUS:-1\})", text))),
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.title)
def test_one_step_mends_it(mistake: Mistake, run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(mistake.file)
    first = run(*mistake.command)
    if mistake.code == "nvml-" and first.code == 0:
        pytest.skip("this machine has GPUs")
    text = first.out + first.err
    assert (first.code, mistake.code in text) == (mistake.exits[0], True), text
    assert first.code == 3 or file.read_text() == mistake.file, "a mistake writes nothing"
    second = run(*mistake.mend(text, list(mistake.command), file))
    if mistake.again:
        assert second.code == 0, second.err
        second = run(*mistake.command)
    assert second.code == mistake.exits[1], second.out + second.err
    assert "error:" not in second.err
    if mistake.command[0] == "apply":
        assert file.read_text() != mistake.file


def test_a_plan_that_is_out_of_date(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE)
    assert run("plan", *MACHINE, "-o", "plan.json").code == 0
    file.write_text(COMPOSE + "\n")
    stale = run("apply", "plan.json", "-y")
    assert stale.code == 2
    assert "[stale-plan]" in stale.err
    again = said(r"make a new one: gpualloc (plan -o \S+)", stale.err)
    assert run(*again.split(), *MACHINE).code == 0
    assert run("apply", "plan.json", "-y").code == 0


def test_the_page_has_them_all() -> None:
    titles = re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE)
    assert titles == [*(mistake.title for mistake in MISTAKES), "A plan that is out of date"]
