"""Several projects on one host: what one file pins is taken for the others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gpualloc.inventory import load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result

    Run = Callable[..., Result]

L40S = ("--inventory", "sim:4xl40s")
GPUS = [gpu.uuid for gpu in load(["sim:4xl40s"]).inventory.hosts[0].gpus]
THEIRS = ("--beside", "other/compose.yaml")


def service(name: str, *ids: str, more: str = "") -> str:
    request = f"device_ids: {json.dumps(list(ids))}" if ids else "count: 1"
    return f"  {name}:\n    image: i\n    gpus: [{{{request}}}]\n{more}"


def write(path: Path, *services: str, name: str | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text((f"name: {name}\n" if name else "") + "services:\n" + "".join(services))


def plan_of(run: Run, *args: str, code: int = 0) -> dict[str, list[str]]:
    result = run("plan", "--format", "json", *L40S, *args)
    assert result.code == code, result.err
    return {p["worker"]: [d["uuid"] for d in p["devices"]] for p in json.loads(result.out)["placements"]}


def check(run: Run, *args: str, code: int) -> list[dict[str, Any]]:
    result = run("check", "--format", "json", *L40S, *args)
    assert result.code == code, result.out + result.err
    return [f for f in json.loads(result.out)["findings"] if f["code"] != "outlook"]


def test_what_another_file_pins_is_taken(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "other/compose.yaml", service("train", GPUS[0], GPUS[2]), service("eval", "1"))
    write(tmp_path / "compose.yaml", service("mine"))
    assert plan_of(run) == {"mine": [GPUS[0]]}
    assert plan_of(run, *THEIRS) == {"mine": [GPUS[3]]}
    assert plan_of(run, "--beside", "other") == {"mine": [GPUS[3]]}  # the folder, as docker compose would read it
    write(tmp_path / "compose.yaml", service("mine"), service("too"))
    result = run("plan", *L40S, *THEIRS)
    assert result.code == 3
    assert "held by other/train" in result.out


def test_memory_that_is_promised_is_load(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "other/compose.yaml", service("train", GPUS[0], more="    x-gpualloc: {memory: 30GiB}\n"))
    more = "    x-gpualloc: {memory: 10GiB}\n"
    write(tmp_path / "compose.yaml", service("a", more=more), service("b", more=more))
    assert plan_of(run, *THEIRS) == {"a": [GPUS[1]], "b": [GPUS[1]]}
    # packing onto the promised one is possible where only one fits it
    write(tmp_path / "other/compose.yaml", *(service(f"t{n}", g, more=more) for n, g in enumerate(GPUS)))
    assert plan_of(run, *THEIRS) == {"a": [GPUS[0]], "b": [GPUS[0]]}
    write(tmp_path / "compose.yaml", service("alone"))  # and nobody has a device alone that another holds a part of
    assert plan_of(run, *THEIRS, code=3) == {}


def test_other_files_may_be_several(run: Run, tmp_path: Path) -> None:
    for n in range(3):
        write(tmp_path / f"p{n}/compose.yaml", service("w", GPUS[n]))
    write(tmp_path / "compose.yaml", service("mine"))
    beside = [arg for n in range(3) for arg in ("--beside", f"p{n}/compose.yaml")]
    assert plan_of(run, *beside) == {"mine": [GPUS[3]]}
    write(tmp_path / "base.yaml", service("mine"))
    laid_over = f"services:\n  w: {{gpus: !override [{{device_ids: ['{GPUS[3]}']}}]}}\n"
    (tmp_path / "p0/gpu.yaml").write_text(laid_over)
    assert plan_of(run, "--beside", "p0/compose.yaml:p0/gpu.yaml", *beside[2:]) == {"mine": [GPUS[0]]}


def test_it_counts_whether_it_runs_or_not(run: Run, tmp_path: Path) -> None:
    profile, off = "    profiles: [night]\n", "    x-gpualloc: false\n"
    gone = "    deploy: {replicas: 0}\n"
    write(
        tmp_path / "other/compose.yaml",
        service("a", GPUS[0], more=profile),
        service("b", GPUS[1], more=off),
        service("c", GPUS[2], more=gone),
        service("dcgm", GPUS[3]).replace("image: i", "image: nvidia/dcgm-exporter:4"),
    )
    write(tmp_path / "compose.yaml", service("mine"))
    assert plan_of(run, *THEIRS) == {"mine": [GPUS[2]]}


def test_what_is_not_pinned_is_told(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "other/compose.yaml", service("train"), service("old", "GPU-gone"))
    write(tmp_path / "compose.yaml", service("mine"))
    result = run("plan", *L40S, *THEIRS)
    assert result.code == 0
    assert "other/compose.yaml:4:" in result.err
    assert "train asks for GPUs and is not pinned: nothing is set aside for it" in result.err
    assert "old is pinned to GPU-gone, which is not here" in result.err


def test_apply_writes_around_it_and_check_agrees(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "other/compose.yaml", service("train", GPUS[0]))
    write(tmp_path / "compose.yaml", service("mine"))
    assert run("apply", "--yes", *L40S, *THEIRS).code == 0
    assert GPUS[1] in (tmp_path / "compose.yaml").read_text()
    assert check(run, *THEIRS, code=0) == []
    assert check(run, code=0) == []


def test_a_device_promised_twice(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "other/compose.yaml", service("train", GPUS[0]))
    write(tmp_path / "compose.yaml", service("mine", GPUS[0]), service("too", GPUS[1]))
    assert check(run, code=0) == []
    (finding,) = check(run, *THEIRS, code=1)
    assert finding["code"] == "promised-twice"
    assert (finding["file"], finding["line"]) == ("compose.yaml", 4)
    assert finding["summary"] == "GPU 0 is promised twice: to mine, and to train of other (other/compose.yaml:4:12)"
    assert finding["hint"].startswith("gpualloc apply moves it to GPU 2; ")
    assert plan_of(run, *THEIRS) == {"mine": [GPUS[2]], "too": [GPUS[1]]}
    assert run("apply", "--yes", *L40S, *THEIRS).code == 0
    assert check(run, *THEIRS, code=0) == []


@pytest.mark.parametrize(("mine", "theirs", "twice"), [(20, 20, False), (30, 20, True), (20, None, True)])
def test_memory_promised_twice(run: Run, tmp_path: Path, mine: int, theirs: int | None, *, twice: bool) -> None:
    def ask(gib: int | None) -> str:
        return f"    x-gpualloc: {{memory: {gib}GiB}}\n" if gib else ""

    write(tmp_path / "other/compose.yaml", service("train", GPUS[0], more=ask(theirs)))
    write(tmp_path / "compose.yaml", service("mine", GPUS[0], more=ask(mine)))
    findings = check(run, *THEIRS, code=1 if twice else 0)
    assert [f["code"] for f in findings] == (["promised-twice"] if twice else [])
    if twice and theirs:
        assert (
            "memory of GPU 0 is promised twice: 30 GiB to mine and 20 GiB to train of other" in findings[0]["summary"]
        )


def test_two_projects_of_one_name_are_two(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "other/compose.yaml", service("mine", GPUS[0]), name="shop")
    write(tmp_path / "compose.yaml", service("mine", GPUS[0]), name="shop")
    (finding,) = check(run, *THEIRS, code=1)
    assert "to mine of shop (other/compose.yaml)" in finding["summary"]


def test_what_it_uses_counts_once(run: Run, tmp_path: Path) -> None:
    """Its promise and its memory in use are the same memory."""
    assert run("inventory", *L40S, "--format", "json", "-o", "busy.json").code == 0
    document = json.loads((tmp_path / "busy.json").read_text())
    gpu = document["hosts"][0]["gpus"][0]
    container = {"id": "1" * 64, "project": "other", "service": "train"}
    gpu["processes"] = [{"pid": 7, "used_mib": 18000, "container": container}]
    gpu["memory_used_mib"] = 18000
    (tmp_path / "busy.json").write_text(json.dumps(document))
    more = "    x-gpualloc: {memory: 20GiB}\n"
    write(tmp_path / "other/compose.yaml", service("train", GPUS[0], more=more))
    write(tmp_path / "compose.yaml", service("mine", GPUS[0], more=more))
    result = run("check", "--inventory", "busy.json", *THEIRS)
    assert result.code == 0, result.out


@pytest.mark.parametrize("text", ["services:\n\tw:\n", ""])
def test_a_file_that_cannot_be_read_is_an_error(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/compose.yaml").write_text(text)
    write(tmp_path / "compose.yaml", service("mine"))
    for command in (["plan"], ["check"], ["apply", "--yes"]):
        result = run(*command, *L40S, *THEIRS)
        assert result.code == 2
        assert "other/compose.yaml:" in result.err
    assert run("plan", *L40S, "--beside", "nowhere.yaml").code == 2
