from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from gpualloc.render.screen import Screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "colour"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
def test_colour_of_a_terminal(environ: dict[str, str], *, colour: bool) -> None:
    assert Screen.of(Terminal(), environ).colour is colour


@pytest.mark.parametrize(
    ("environ", "colour"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "0"}, False), ({"FORCE_COLOR": ""}, False)],
)
def test_a_pipe_has_no_width_and_colour_only_when_forced(environ: dict[str, str], *, colour: bool) -> None:
    assert Screen.of(io.StringIO(), {"COLUMNS": "100", **environ}) == Screen(None, colour)


@pytest.mark.parametrize(
    ("columns", "width"), [("132", 132), ("10", 40), ("", 80), ("wide", 80), ("0", 80), ("-1", 80), ("²", 80)]
)
def test_columns_give_the_width_of_a_terminal(columns: str, width: int) -> None:
    assert Screen.of(Terminal(), {"COLUMNS": columns}).width == width


def test_a_real_terminal_is_asked_for_its_width() -> None:
    leader, follower = pty.openpty()
    try:
        subprocess.run(["stty", "cols", "97"], stdin=follower, check=True)
        with os.fdopen(follower, "w", closefd=False) as stream:
            assert Screen.of(stream, {}) == Screen(97, colour=True)
    finally:
        os.close(leader)
        os.close(follower)


RENDER = """
import sys
from gpualloc.render.screen import Screen
sys.path.insert(0, ".")
from tests.render.samples import busy_plan, inventory
from gpualloc.render import diagnostics, diff, inventory as inventory_render, plan_json, table
table.plan_table(busy_plan(), inventory(8), Screen({width}))
inventory_render.inventory_text(inventory(8), Screen({width}))
print("rich" in sys.modules)
"""


@pytest.mark.parametrize(("width", "imported"), [("None", "False"), ("200", "False"), ("60", "True")])
def test_rich_is_imported_only_to_wrap(width: str, imported: str) -> None:
    code = RENDER.format(width=width)
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == imported
