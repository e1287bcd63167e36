"""The hooks for users' repositories, and the workflow of this one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpualloc.cli import cli

ROOT = Path(__file__).parents[2]
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
BY_ID = {hook["id"]: hook for hook in HOOKS}


@pytest.mark.parametrize(
    ("hook", "path", "runs"),
    [
        ("gpualloc-check", "compose.yaml", True),
        ("gpualloc-check", "deploy/docker-compose.prod.yml", True),
        ("gpualloc-check", "compose.override.yaml", True),
        ("gpualloc-check", "my-compose.yaml", False),
        ("gpualloc-check", "compose.md", False),
        ("gpualloc-policy-check", "policies/ours.yaml", True),
        ("gpualloc-policy-check", "deploy/policies/ours.yml", True),
        ("gpualloc-policy-check", "compose.yaml", False),
    ],
)
def test_hooks_run_for_their_files(hook: str, path: str, runs: bool) -> None:  # noqa: FBT001  # a parameter
    assert bool(re.search(BY_ID[hook]["files"], path)) == runs


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: str(hook["id"]))
def test_hooks_are_commands_that_exist(hook: dict[str, Any]) -> None:
    program, *words = shlex.split(hook["entry"])
    assert program == "gpualloc"
    command: Any = cli
    for word in words:
        command = command.commands[word]
    args = [] if hook.get("pass_filenames") is False else ["policies/ours.yaml"]
    command.make_context(words[-1], args)
    assert hook["language"] == "python"


def test_the_page_on_ci_names_the_hooks_that_there_are() -> None:
    page = (ROOT / "docs" / "guides" / "ci.md").read_text(encoding="utf-8")
    assert set(re.findall(r"- id: (\S+)", page)) == set(BY_ID)


def test_the_workflow_runs_what_is_there() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for command in commands:
        program, *words = shlex.split(command)
        if program == "make":
            assert words[0] in targets
        elif program != "git":
            assert (ROOT / program).stat().st_mode & 0o111
