"""Every bad input: one clear error, exit 2, nothing written."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from gpualloc.inventory import load
from gpualloc.inventory.snapshot import dump

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result

    Run = Callable[..., Result]

GOOD = "services:\n  w:\n    image: i\n    gpus: [{count: 1}]\n"
REQUEST = "services:\n  w:\n    image: i\n    deploy: {resources: {reservations: {devices: [%s]}}}\n"
L40S = ("--inventory", "sim:4xl40s")

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)

COMPOSE: dict[str, tuple[str | bytes, str, str]] = {
    "not yaml": ("a: b: c\n", "compose.yaml:1:5", "not YAML"),
    "a tab": ("services:\n\tw:\n", "compose.yaml:2:1", "tab"),
    "duplicate keys": ("services:\n  w: {image: i}\n  w: {image: j}\n", "compose.yaml:3:3", "twice"),
    "a list": ("- a\n", "compose.yaml:1:1", "not a compose file"),
    "another file": ("apiVersion: v1\nkind: Pod\n", "compose.yaml:1:1", "not a compose file"),
    "no services": ("volumes: {v: }\n", "compose.yaml:1:1", "no services"),
    "an empty file": ("", "compose.yaml:1:1", "empty"),
    "count with device_ids": (
        REQUEST % "{capabilities: [gpu], count: 1, device_ids: ['0']}",
        "compose.yaml:4:",
        "count and device_ids",
    ),
    "numbers for ids": (REQUEST % "{capabilities: [gpu], device_ids: [0]}", "compose.yaml:4:", "strings"),
    "an alias bomb": (BOMB + "services: {}\n", "compose.yaml:7:", "aliases"),
    "20 MB": ("# " + "x" * 20_000_000 + "\n" + GOOD, "compose.yaml", "MiB"),
    "deep nesting": ("a: " + "[" * 500 + "]" * 500, "compose.yaml:1:", "deep"),
    "not text": (b"services:\n  w: \xff\n", "compose.yaml:2:6", "UTF-8"),
}


@pytest.mark.parametrize("command", [["plan"], ["apply", "--yes"], ["check"], ["reset", "--yes"]], ids=lambda c: c[0])
@pytest.mark.parametrize("name", list(COMPOSE))
def test_a_compose_file_that_cannot_be_used(run: Run, tmp_path: Path, name: str, command: list[str]) -> None:
    content, place, words = COMPOSE[name]
    data = content if isinstance(content, bytes) else content.encode()
    path = tmp_path / "compose.yaml"
    path.write_bytes(data)
    if command[0] == "reset" and name in {"count with device_ids", "numbers for ids"}:
        pytest.skip("what services ask for does not matter to reset")
    machine = () if command[0] == "reset" else L40S
    result = run(*command, *machine)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith(f"error: {place}")
    assert words in result.err
    assert result.err.count("error:") == 1
    assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["compose.yaml"]  # noqa: PTH208 - names are enough


def inventory_of_version(version: str) -> str:
    data = json.loads(dump(load(["sim:1xrtx3090"]).inventory))
    data["format_version"] = version
    return json.dumps(data)


FILES = {
    "an unknown policy key": ("p.yaml", "version: 1\nstrategie: pack\n", ["--policy", "./p.yaml"], "p.yaml:2:1"),
    "an unknown GPU by UUID": (
        "p.yaml",
        "version: 1\nexclude: {gpus: [GPU-00000000-dead-beef-0000-000000000000]}\n",
        ["--policy", "./p.yaml"],
        "GPU-00000000-dead-beef-0000-000000000000",
    ),
    "an unknown GPU by index": (
        "p.yaml",
        "version: 1\nexclude: {gpus: ['index:9']}\n",
        ["--policy", "./p.yaml"],
        "index:9",
    ),
    "an inventory of another version": (
        "gpus.json",
        inventory_of_version("2.0"),
        ["--inventory", "gpus.json"],
        "gpus.json:1:20: format_version",
    ),
    "an inventory that is none": ("gpus.json", "{}", ["--inventory", "gpus.json"], "gpus.json"),
    "an unknown policy": ("x", "", ["--policy", "prodd"], "prodd"),
    "an unknown machine": ("x", "", ["--inventory", "sim:dgx-a1000"], "dgx-a1000"),
    "no such inventory": ("x", "", ["--inventory", "none.json"], "none.json"),
    "no such compose file": ("x", "", ["-f", "none.yaml"], "none.yaml"),
    "an affinity with nobody": (
        "p.yaml",
        "version: 1\nroles: {w: {affinity: [nobody]}}\n",
        ["--policy", "./p.yaml"],
        "nobody",
    ),
}


@pytest.mark.parametrize("name", list(FILES))
def test_another_file_that_cannot_be_used(run: Run, tmp_path: Path, name: str) -> None:
    file, content, args, words = FILES[name]
    (tmp_path / "compose.yaml").write_text(GOOD)
    (tmp_path / file).write_text(content)
    machine = () if "--inventory" in args else L40S
    result = run("apply", "--yes", *machine, *args)
    assert result.code == 2
    assert words in result.err
    assert "hint:" in result.err
    assert result.err.count("error:") == 1
    assert (tmp_path / "compose.yaml").read_text() == GOOD


def test_an_unknown_service_in_a_role_glob_is_a_warning(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(GOOD)
    (tmp_path / "p.yaml").write_text("version: 1\nroles: {trainer: {gpus: 1}}\n")
    result = run("plan", *L40S, "--policy", "./p.yaml")
    assert result.code == 0
    assert result.err.startswith("warning: p.yaml:2:")
    assert "trainer" in result.err


def test_a_saved_plan_that_is_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(GOOD)
    (tmp_path / "plan.json").write_text("{}")
    result = run("apply", "plan.json", "--yes")
    assert result.code == 2
    assert "plan.json" in result.err


def test_a_read_only_target(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(GOOD)
    path.chmod(0o444)
    if os.geteuid() == 0:  # root may write what is marked read-only: ask as a user would be answered
        monkeypatch.setattr(os, "access", lambda target, mode: not (os.fspath(target) == str(path) and mode == os.W_OK))
    result = run("apply", "--yes", *L40S)
    assert result.code == 2
    assert "read-only" in result.err
    assert path.read_text() == GOOD


def test_no_driver_here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    (tmp_path / "compose.yaml").write_text(GOOD)
    result = run("plan")
    if result.code == 0:
        pytest.skip("this host has a driver")
    assert result.code == 2
    assert "--inventory" in result.err


@pytest.mark.parametrize(
    ("asks", "code"),
    [
        ("gpus: [{count: 99999999999}]", 3),
        ("x-gpualloc: {gpus: 999999}", 3),
        ("x-gpualloc: {gpus: {min: 1, max: 999999}}", 0),
    ],
)
def test_more_gpus_than_there_can_be(run: Run, tmp_path: Path, asks: str, code: int) -> None:
    (tmp_path / "compose.yaml").write_text(f"services:\n  web: {{image: i, {asks}}}\n")
    assert run("plan", "--inventory", "sim:4xl40s").code == code
