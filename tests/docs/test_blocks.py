"""Every command block in README and docs is run, or at least parsed; its output is compared."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.docs.blocks import ROOT, SHELL, Block, Session, blocks, check_parses

if TYPE_CHECKING:
    from pathlib import Path

PAGES = sorted(
    {ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/README.md")}
    - {ROOT / "docs" / "reference" / "codes.md"}
)
IN_EXAMPLE = {"docs/airflow.md": "airflow", "examples/airflow/README.md": "airflow", "examples/mig/README.md": "mig"}
"""Pages that say in words that they are about an example's folder."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page(page: Path, tmp_path: Path) -> None:
    session = Session(tmp_path, IN_EXAMPLE.get(str(page.relative_to(ROOT))))
    text = page.read_text(encoding="utf-8")
    wrong = []
    for block in blocks(page):
        now = session.take(block)
        if now is not None and now.rstrip() != block.body.rstrip():
            wrong.append((block, now))
    if wrong and os.environ.get("UPDATE_DOCS"):
        for block, now in reversed(wrong):
            text = text[: block.span[0]] + now.rstrip() + "\n" + text[block.span[1] :]
        page.write_text(text, encoding="utf-8")
    for block, now in wrong:
        assert block.body == now, f"{block} is out of date; UPDATE_DOCS=1 writes it anew"


def test_most_pages_run_something() -> None:
    """What can be run is run: pages about Docker and GPUs alone have nothing to run."""
    run = {page for page in PAGES for block in blocks(page) if block.language in SHELL and block.runs}
    shell = {page for page in PAGES for block in blocks(page) if block.language in SHELL}
    assert len(run) * 3 > len(shell) * 2


def block_of(body: str, language: str = "console", **marks: str) -> Block:
    return Block(ROOT / "docs" / "page.md", 1, language, body, marks)


@pytest.mark.parametrize(
    "body",
    [
        "$ gpualloc plan --polcy dev\n",
        "$ gpualloc plann\n",
        "$ docker compose up -d && gpualloc check --format xml\n",
        "$ gpualloc plan | gpualloc policy shw\n",
        "$ for f in\n",
    ],
)
def test_a_command_that_does_not_exist_is_found(body: str) -> None:
    with pytest.raises(AssertionError):
        check_parses(block_of(body))


@pytest.mark.parametrize(
    ("command", "runs"),
    [
        ("gpualloc plan", False),
        ("gpualloc plan --inventory sim:dgx-a100", True),
        ("gpualloc plan --inventory nvml", False),
        ("gpualloc apply --inventory sim:dgx-a100", False),
        ("gpualloc apply -y --inventory sim:dgx-a100 && docker compose up -d", False),
        ("gpualloc policy list | grep prod > found.txt", True),
        ("gpualloc inventory --list", True),
        ("gpualloc reset", False),
        ("pip install gpualloc", False),
    ],
)
def test_what_is_run_and_what_is_not(command: str, runs: bool) -> None:  # noqa: FBT001  # a parameter
    assert block_of(f"$ {command}\n").runs == runs


def test_an_output_that_differs_is_seen(tmp_path: Path) -> None:
    session = Session(tmp_path)
    right = "$ gpualloc schema\ninventory\nplan\npolicy\nx-gpualloc\n"
    assert session.take(block_of(right)) == right
    assert session.take(block_of("$ gpualloc schema\ninventory\n…\nx-gpualloc\n")) != right
    assert session.take(block_of("$ gpualloc schema\nplan\n")) == right


def test_an_exit_code_that_differs_is_seen(tmp_path: Path) -> None:
    session = Session(tmp_path)
    with pytest.raises(AssertionError, match="exit code 2, not 0"):
        session.take(block_of("$ gpualloc explain nothing-like-it\n"))
    session.take(block_of("$ gpualloc explain nothing-like-it\n", exit="2"))
