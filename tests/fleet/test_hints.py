"""What ``check`` says would mend things is a command that does."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from tests.fleet.machines import save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result

    Run = Callable[..., Result]

FLEET = ("--inventory", "fleet")


def findings(run: Run, *args: str) -> list[dict[str, Any]]:
    result = run("check", "--format", "json", *FLEET, *args)
    found: list[dict[str, Any]] = json.loads(result.out)["findings"]
    return found


@pytest.mark.parametrize(("way", "name"), [("--swarm", "a stack.yaml"), ("--per-host", "hosts")])
def test_the_command_names_where_the_plan_is_written(tmp_path: Path, run: Run, way: str, name: str) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b", "gpu-c")
    (tmp_path / "compose.yaml").write_text("services:\n  w: {image: x, gpus: [{count: 1}], deploy: {replicas: 5}}\n")
    found = findings(run, way, name)
    assert {f["code"] for f in found} == {"not-pinned"}
    ways = {f["hint"].removesuffix(" mends it") for f in found}
    assert ways == {f"gpualloc apply {way} {shlex.quote(name)}"}
    assert run(*shlex.split(ways.pop())[1:], "-y", *FLEET).code == 0
    assert findings(run, way, name) == []
    (tmp_path / "fleet" / "gpu-a.json").unlink()
    found = findings(run, way, name)
    lost = next(f for f in found if f["code"] == "lost-device")
    outlook = next(f for f in found if f["code"] == "outlook")
    assert lost["hint"].startswith(f"gpualloc apply {way} {shlex.quote(name)} moves it to GPU")
    assert outlook["summary"].startswith(f"gpualloc apply {way} ")
    assert outlook["summary"].endswith("leaves the others where they are")
    assert outlook["hint"] == f"gpualloc plan {way} {shlex.quote(name)} shows it"


def test_what_does_not_fit_is_not_said_to_be_mended(tmp_path: Path, run: Run) -> None:
    save(tmp_path / "fleet", "gpu-a")
    (tmp_path / "compose.yaml").write_text(
        "services:\n  big: {image: x, gpus: [{count: 5}]}\n  one: {image: x, gpus: [{count: 1}]}\n"
    )
    by_line = {f["line"]: f for f in findings(run)}
    assert by_line[2]["hint"].startswith("gpualloc apply finds no device for it: ")
    assert by_line[3]["hint"] == "gpualloc apply --partial mends it"
    assert run("apply", "-y", *FLEET).code == 3
    assert run("apply", "-y", "--partial", *FLEET).code == 3
    assert "one" not in {f["summary"].split()[0] for f in findings(run)}


def test_a_stack_that_was_edited_is_told_apart_from_one_that_is_old(tmp_path: Path, run: Run) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b")
    (tmp_path / "compose.yaml").write_text("services:\n  w: {image: x, gpus: [{count: 1}]}\n  db: {image: d}\n")
    assert run("apply", "-y", *FLEET, "--swarm", "stack.yaml").code == 0
    stack = tmp_path / "stack.yaml"
    stack.write_text(stack.read_text().replace("image: d\n", "image: e\n"))
    (found,) = findings(run, "--swarm", "stack.yaml")
    assert (found["code"], "now: it, the project" in found["summary"]) == ("not-current", True)


def test_a_file_of_a_host_that_is_missing_is_said_to_be(tmp_path: Path, run: Run) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b")
    (tmp_path / "compose.yaml").write_text(
        "services:\n  w: {image: x, gpus: [{count: 1}], deploy: {replicas: 8}}\n  m: {image: m}\n"
    )
    assert run("apply", "-y", *FLEET, "--per-host", "hosts").code == 0
    (tmp_path / "hosts" / "gpu-b.yaml").unlink()
    assert {f["code"] for f in findings(run, "--per-host", "hosts")} == {"not-pinned"}
