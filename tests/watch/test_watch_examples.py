"""The ways to run watch as a service: what they start is a command that there is."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import click
import yaml

from gpualloc.cli import cli
from gpualloc.watch.command import parse_command
from gpualloc.watch.loop import settings_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/watch"


def understood(arguments: list[str]) -> None:
    assert arguments[0] == "watch"
    command = cli.commands["watch"]
    context = command.make_context("watch", arguments[1:], parent=click.Context(cli))
    settings = settings_of(context.params)
    assert settings.manner.apply
    assert settings.command == ("docker", "compose", "up", "-d")
    assert settings.metrics is not None
    assert settings.metrics[1] == 9835


def test_the_unit() -> None:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # keys have capital letters
    unit.read_string((EXAMPLES / "gpualloc-watch.service").read_text(encoding="utf-8"))
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert program.endswith("/gpualloc")
    understood(arguments)
    # the folder that it writes is the one that it may write
    assert unit["Service"]["WorkingDirectory"] == unit["Service"]["ReadWritePaths"]


def test_the_compose_service() -> None:
    data = yaml.safe_load((EXAMPLES / "compose.yaml").read_text(encoding="utf-8"))
    service = data["services"]["watch"]
    assert 'ENTRYPOINT ["gpualloc"]' in service["build"]["dockerfile_inline"]
    understood(service["command"])


def test_a_command_keeps_its_arguments() -> None:
    assert parse_command("docker compose -f 'my file.yaml' up -d \"$HOME\"") == (
        "docker",
        "compose",
        "-f",
        "my file.yaml",
        "up",
        "-d",
        "$HOME",
    )
