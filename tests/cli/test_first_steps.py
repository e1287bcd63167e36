"""What somebody sees who has only ``--help``: the way from a file to an applied plan."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from gpualloc.inventory import shipped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result

MACHINE = ("--inventory", "sim:4xl40s")
COMPOSE = "services:\n  chat:\n    image: my/chat\n    gpus: all\n"


@pytest.fixture
def at_a_terminal(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs commands with messages going to a terminal."""

    def call(*args: str) -> Result:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        return run(*args)

    return call


def test_the_help_names_the_way_and_the_commands_in_their_order(run: Callable[..., Result]) -> None:
    text = run("--help").out
    way = ["gpualloc plan ", "gpualloc apply ", "docker compose up -d", "gpualloc verify "]
    assert [text.index(step) for step in way] == sorted(text.index(step) for step in way)
    listed = re.findall(r"^  ([a-z]+)  ", text.partition("Commands:")[2], re.MULTILINE)
    assert listed[:4] == ["inventory", "plan", "apply", "check"]
    assert "..." not in text.partition("Commands:")[2], "no sentence is cut off"
    assert "sim:dgx-a100" in text


def test_every_command_s_help_fits_eighty_columns(run: Callable[..., Result]) -> None:
    for command in ("", "plan", "apply", "check", "verify", "inventory", "watch", "reset"):
        text = run(*command.split(), "--help").out
        assert max(map(len, text.splitlines())) <= 80, command


def test_the_list_of_machines_says_what_they_are(run: Callable[..., Result]) -> None:
    lines = run("inventory", "--list").out.splitlines()
    assert [line.split()[0] for line in lines] == [f"sim:{name}" for name in shipped()]
    assert "sim:4xl40s               4 x L40S (45 GiB)" in lines
    assert all(re.search(r" \d+ x \S", line) for line in lines)


def test_each_step_names_the_next(at_a_terminal: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    assert "next: gpualloc apply" in at_a_terminal("plan", *MACHINE).err
    assert "next: docker compose up -d, then gpualloc verify" in at_a_terminal("apply", *MACHINE, "-y").err
    assert "next:" not in at_a_terminal("plan", *MACHINE).err, "there is nothing to write any more"


def test_what_is_laid_over_is_named_in_the_next_step(at_a_terminal: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    said = at_a_terminal("apply", *MACHINE, "-y", "--override", "gpu.yaml").err
    assert "next: docker compose -f compose.yaml -f gpu.yaml up -d" in said


def test_profiles_are_named_in_the_next_step(at_a_terminal: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE + "    profiles: [gpu]\n")
    said = at_a_terminal("apply", *MACHINE, "-y", "--profile", "gpu").err
    assert "next: docker compose --profile gpu up -d" in said


def test_a_script_is_told_no_next_step(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    assert "next:" not in run("plan", *MACHINE).err + run("apply", *MACHINE, "-y").err


def test_a_plan_that_moves_nobody_and_writes_all_the_same_says_so(run: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(COMPOSE.replace("gpus: all", 'gpus: [{device_ids: ["1"]}]'))
    assert run("plan", *MACHINE).out.endswith("1 kept · optimal · the file changes: see --diff\n")
    run("apply", *MACHINE, "-y")
    assert run("plan", *MACHINE).out.endswith("1 kept · optimal · nothing to write\n")
