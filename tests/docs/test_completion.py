"""What Tab completes, as click tells a shell, and as the shells themselves show it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.shell_completion import ShellComplete, get_completion_class

from gpualloc.cli import cli
from gpualloc.inventory import load, shipped

if TYPE_CHECKING:
    from collections.abc import Callable

    Complete = Callable[..., list[str]]

ROOT = Path(__file__).parents[2]
COMPOSE = """\
services:
  trainer:
    image: busybox
    gpus: all
  embedder:
    image: busybox
    x-gpualloc: {memory: 4GiB}
  web:
    image: busybox
    profiles: [front, debug]
"""


@pytest.fixture
def complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """Return what could follow the words of a command line, the last of which is being typed."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith(("COMPOSE_", "GPUALLOC_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "compose.yaml").write_text(COMPOSE)

    def ask(*words: str) -> list[str]:
        found = ShellComplete(cli, {}, "gpualloc", "_GPUALLOC_COMPLETE").get_completions(list(words[:-1]), words[-1])
        return [item.value if item.type == "plain" else f"<{item.type}>" for item in found]

    return ask


def test_commands(complete: Complete) -> None:
    assert complete("ca") == ["capacity"]
    assert set(complete("")) == set(cli.commands)
    assert complete("policy", "") == ["check", "list", "show"]


def test_options(complete: Complete) -> None:
    assert complete("plan", "--inv") == ["--inventory"]


def test_policies_are_those_that_can_be_named_here(complete: Complete, tmp_path: Path) -> None:
    assert complete("plan", "--policy", "") == ["base", "dev", "prod", "staging"]
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "ours.yaml").write_text("version: 1\nextends: prod.yaml\n")
    assert "ours" in complete("plan", "--policy", "")
    assert complete("policy", "show", "pr") == ["prod"]
    assert complete("policy", "check", "prod", "st") == ["staging"]
    assert complete("plan", "--policy", "./p") == ["<file>"]


def test_machines_are_the_shipped_ones(complete: Complete) -> None:
    everything = complete("inventory", "--inventory", "")
    assert everything == ["nvml", *(f"sim:{name}" for name in shipped())]
    assert complete("plan", "--inventory", "sim:dgx-a") == ["sim:dgx-a100"]
    assert complete("plan", "--inventory", "snapshots/") == ["<file>"]


def test_services_are_those_of_the_file_that_ask_for_gpus(complete: Complete, tmp_path: Path) -> None:
    assert complete("capacity", "") == ["trainer", "embedder"]
    assert complete("plan", "--explain", "emb") == ["embedder"]
    assert complete("plan", "--scale", "t") == ["trainer="]
    (tmp_path / "other.yaml").write_text("services: {ocr: {image: busybox, gpus: all}}\n")
    assert complete("capacity", "-f", "other.yaml", "") == ["ocr"]


def test_profiles_are_those_of_the_file(complete: Complete) -> None:
    assert complete("plan", "--profile", "") == ["debug", "front"]
    assert complete("plan", "--profile", "debug", "--profile", "") == ["front"]


def test_gpus_are_those_of_the_machine(complete: Complete) -> None:
    gpus = load(("sim:2xh100",), None).inventory.hosts[0].gpus
    asked = ("plan", "--inventory", "sim:2xh100", "--without")
    assert complete(*asked, "") == [*(gpu.uuid for gpu in gpus), "index:0", "index:1"]
    assert complete(*asked, gpus[1].uuid[:10]) == [gpus[1].uuid]
    assert gpus[0].uuid not in complete(*asked, gpus[0].uuid, "--without", "")
    instances = [part.uuid for gpu in load(("sim:a100-mig",), None).inventory.hosts[0].gpus for part in gpu.mig or ()]
    assert set(instances) <= set(complete("plan", "--inventory", "sim:a100-mig", "--without", "MIG-"))


def test_codes_and_schemas(complete: Complete) -> None:
    assert complete("explain", "lost-") == ["lost-device"]
    assert complete("schema", "p") == ["plan", "policy"]


def test_files_are_left_to_the_shell(complete: Complete) -> None:
    for words in (("plan", "-f"), ("plan", "--env-file"), ("plan", "-o"), ("apply",), ("plan", "--override")):
        assert complete(*words, "com") == ["<file>"]
    assert complete("plan", "--project-directory", "com") == ["<dir>"]


@pytest.mark.parametrize(
    "words",
    [
        ("capacity", ""),
        ("plan", "--explain", ""),
        ("plan", "--profile", ""),
        ("plan", "--inventory", "sim:nothing", "--without", ""),
        ("plan", "--inventory", "compose.yaml", "--without", ""),
    ],
)
def test_what_cannot_be_read_has_no_completions(
    complete: Complete, tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "compose.yaml").write_text("services: [\n")
    assert complete(*words) == []
    assert capsys.readouterr() == ("", "")


# --------------------------------------------------------------------------------------------------------------------
# The shells


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a command called gpualloc on the PATH, for shells to call."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "gpualloc"
    script.write_text(f"#!{sys.executable}\nfrom gpualloc.cli import main\nmain()\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def source(shell: str) -> str:
    """Return the script that a user evaluates."""
    found = get_completion_class(shell)
    assert found is not None
    return found(cli, {}, "gpualloc", "_GPUALLOC_COMPLETE").source()


BASH_CASES = [
    ("gpualloc pl", "plan"),
    ("gpualloc plan --policy st", "staging"),
    ("gpualloc plan --inventory sim:dgx-a", "dgx-a100"),  # bash replaces what follows the colon
    ("gpualloc plan --inventory sim:dgx-a100 --policy de", "dev"),
    ("gpualloc plan --inventory sim:2xh100 --without index:1", "1"),
    ("gpualloc capacity tr", "trainer"),
]


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize(("line", "completed"), BASH_CASES)
def test_bash(complete: Complete, line: str, completed: str) -> None:
    """The script's own function, called as readline does, with the line broken at bash's COMP_WORDBREAKS."""
    assert complete("") != []  # the compose file is there
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    words = line.replace(":", " : ").split(" ")
    array = " ".join(f"'{word}'" for word in words)
    call = f'COMP_WORDS=({array}); COMP_CWORD={len(words) - 1}; _gpualloc_completion gpualloc; echo "${{COMPREPLY[@]}}"'
    script = f"{source('bash')}\n{call}\n"
    done = subprocess.run([bash, "--norc", "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == [completed]


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("gpualloc pl", "plan"),
        ("gpualloc plan --inventory sim:dgx-a", "sim:dgx-a100"),
        ("gpualloc capacity tr", "trainer"),
    ],
)
def test_fish(complete: Complete, line: str, completed: str) -> None:
    assert complete("") != []
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not installed")
    script = f"{source('fish')}\ncomplete -C '{line}'\n"
    done = subprocess.run([fish, "--no-config", "-c", script], capture_output=True, text=True, check=False)
    assert completed in [found.split("\t")[0] for found in done.stdout.splitlines()]


@pytest.mark.usefixtures("command")
def test_zsh_gets_names_and_helps(complete: Complete, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command hands to the script for zsh: type, value and help, a line each."""
    assert complete("") != []
    monkeypatch.setenv("_GPUALLOC_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_WORDS", "gpualloc plan --policy st")
    monkeypatch.setenv("COMP_CWORD", "3")
    done = subprocess.run(["gpualloc"], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[:2] == ["plain", "staging"]
    assert "Staging" in done.stdout.splitlines()[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_are_good_shell(shell: str, tmp_path: Path) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "completion"
    script.write_text(source(shell))
    assert subprocess.run([found, "-n", str(script)], check=False, capture_output=True).returncode == 0
