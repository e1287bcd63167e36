"""The main job from end to end, on shipped machines: what a user sees, and what stands in the file afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from gpualloc.inventory import load
from tests.compose_oracle import config, needs_compose

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result

    Run = Callable[..., Result]

L40S = ("--inventory", "sim:4xl40s")
GPUS = [gpu.uuid for gpu in load(["sim:4xl40s"]).inventory.hosts[0].gpus]


def services(count: int, extra: str = "") -> str:
    request = "deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}"
    return "services:\n" + "".join(f"  w{n}:\n    image: i\n    {request}\n{extra}" for n in range(1, count + 1))


def plan_of(run: Run, *args: str, code: int = 0) -> dict[str, Any]:
    result = run("plan", "--format", "json", *args)
    assert result.code == code, result.err
    return dict(json.loads(result.out))


def devices(plan: dict[str, Any]) -> dict[str, list[str]]:
    return {p["worker"]: [d["uuid"] for d in p["devices"]] for p in plan["placements"]}


def test_three_services_with_count_1_get_three_gpus(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(services(3))
    plan = plan_of(run, *L40S)
    assert len({ids[0] for ids in devices(plan).values()}) == 3
    assert plan["complete"]
    assert plan["changed"]
    assert [p["action"] for p in plan["placements"]] == ["pin"] * 3


def test_six_do_not_fit_on_four(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(services(6))
    before = (tmp_path / "compose.yaml").read_bytes()
    plan = plan_of(run, *L40S, code=3)
    assert len(plan["placements"]) == 4
    assert len(plan["unplaced"]) == 2
    for unplaced in plan["unplaced"]:
        assert sorted(u for r in unplaced["reasons"] for u in r["devices"]) == sorted(GPUS)
        assert "default_memory" in unplaced["hint"]
    result = run("apply", "--yes", *L40S)
    assert result.code == 3
    assert "default_memory" in result.out
    assert (tmp_path / "compose.yaml").read_bytes() == before


def test_partial_pins_four_and_parks_two(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(services(6))
    before = path.read_bytes()
    result = run("apply", "--yes", "--partial", *L40S)
    assert result.code == 3
    text = path.read_text()
    assert text.count("device_ids") == 4
    assert text.count("replicas: 0") == 2
    again = run("apply", "--yes", "--partial", *L40S)
    assert again.code == 3
    assert path.read_text() == text
    bigger = run("apply", "--yes", "--inventory", "sim:8xrtx4090")
    assert bigger.code == 0
    assert "replicas: 0" not in path.read_text()
    assert run("reset", "--yes").code == 0
    assert path.read_bytes() == before


def test_with_memory_six_fit_on_two_and_spread_levels_them(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(services(6, extra="    x-gpualloc: {memory: 10GiB}\n"))
    (tmp_path / "spread.yaml").write_text("version: 1\nstrategy: spread\n")
    packed = devices(plan_of(run, *L40S))
    assert len({ids[0] for ids in packed.values()}) == 2
    spread = devices(plan_of(run, *L40S, "--policy", "./spread.yaml"))
    counts = sorted(([ids[0] for ids in spread.values()].count(uuid) for uuid in GPUS), reverse=True)
    assert counts == [2, 2, 1, 1]


def test_under_dev_two_plain_services_share_a_gpu(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(services(2))
    plan = plan_of(run, *L40S, "--policy", "dev")
    assert len({ids[0] for ids in devices(plan).values()}) == 1
    assert not any(p["exclusive"] for p in plan["placements"])
    run("apply", "--yes", *L40S, "--policy", "dev")
    assert (tmp_path / "compose.yaml").read_text().count('TF_FORCE_GPU_ALLOW_GROWTH: "true"') == 2


def test_apply_twice_changes_nothing_and_reset_gives_the_bytes_back(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_bytes(services(3).replace("\n", "\r\n").rstrip().encode())
    before = path.read_bytes()
    assert run("apply", "--yes", *L40S).code == 0
    written = path.read_bytes()
    assert written != before
    again = run("apply", "--yes", *L40S)
    assert again.code == 0
    assert "nothing to write" in again.err
    assert path.read_bytes() == written
    assert run("check", *L40S).code == 0
    assert plan_of(run, *L40S)["changed"] is False
    assert run("apply", "--yes", "--inventory", "sim:8xrtx4090", "--policy", "prod").code == 0
    assert run("reset", "--yes").code == 0
    assert path.read_bytes() == before


def test_apply_writes_elsewhere(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(services(1))
    assert run("apply", "--yes", *L40S, "-o", "out.yaml").code == 0
    assert path.read_text() == services(1)
    assert GPUS[0] in (tmp_path / "out.yaml").read_text()


def test_apply_without_a_terminal_and_without_yes_refuses(run: Run, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(services(1))
    result = run("apply", *L40S)
    assert result.code == 2
    assert "add -y" in result.err
    assert (tmp_path / "compose.yaml").read_text() == services(1)


def test_a_saved_plan_is_applied_as_it_was_shown(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(services(2))
    assert run("plan", *L40S, "-o", "plan.json").code == 0
    wanted = devices(json.loads((tmp_path / "plan.json").read_text()))
    assert run("apply", "plan.json", "--yes").code == 0
    text = path.read_text()
    assert all(uuid in text for ids in wanted.values() for uuid in ids)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "compose.yaml").write_text(services(3)), "compose.yaml has changed"),
        (lambda folder: (folder / "p.yaml").write_text("version: 1\nreserve: 1\n"), "the policy"),
        (lambda folder: (folder / "gpus.json").write_text(snapshot(gone=0)), "the GPUs have changed"),
        (lambda folder: (folder / "gpus.json").write_text(snapshot(busy=0)), "no longer fits"),
    ],
    ids=["compose", "policy", "gpus", "busy"],
)
def test_a_stale_plan_is_refused(run: Run, tmp_path: Path, change: Callable[[Path], object], words: str) -> None:
    (tmp_path / "compose.yaml").write_text(services(2))
    (tmp_path / "p.yaml").write_text("version: 1\nexclude: {busy: true}\n")
    (tmp_path / "gpus.json").write_text(snapshot())
    assert run("plan", "--inventory", "gpus.json", "--policy", "./p.yaml", "-o", "plan.json").code == 0
    change(tmp_path)
    before = (tmp_path / "compose.yaml").read_bytes()
    result = run("apply", "plan.json", "--yes")
    assert result.code == 2
    assert "out of date" in result.err
    assert words in result.err
    assert (tmp_path / "compose.yaml").read_bytes() == before


def snapshot(*, gone: int | None = None, busy: int | None = None) -> str:
    from gpualloc.inventory.snapshot import dump  # noqa: PLC0415 - a helper for two cases

    data = json.loads(dump(load(["sim:4xl40s"]).inventory))
    host = data["hosts"][0]
    if busy is not None:
        container = {"id": "c0ffee", "project": "another", "service": "train"}
        host["gpus"][busy] |= {
            "memory_used_mib": 9000,
            "processes": [{"pid": 7, "used_mib": 9000, "container": container}],
        }
    if gone is not None:
        uuid = host["gpus"].pop(gone)["uuid"]
        host["links"] = [link for link in host["links"] if uuid not in {link["a"], link["b"]}]
    return json.dumps(data)


WRONG = """\
services:
  trainer:
    image: i
    environment:
      - CUDA_VISIBLE_DEVICES={visible}
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              {request}
              capabilities: [gpu]
"""


@pytest.mark.parametrize(
    ("request_", "visible", "codes"),
    [
        ("device_ids: ['1']", "1", ["cuda-hides", "index-id"]),
        ("count: 1", "2", ["cuda-hides", "not-pinned"]),
    ],
)
def test_the_wrong_files_people_write(run: Run, tmp_path: Path, request_: str, visible: str, codes: list[str]) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(WRONG.format(visible=visible, request=request_))
    result = run("check", *L40S, "--format", "json")
    assert result.code == 1
    findings = json.loads(result.out)["findings"]
    assert [f["code"] for f in findings] == codes
    assert all(f["file"] == "compose.yaml" and f["line"] and f["column"] for f in findings)
    assert "no GPU at all" in findings[0]["summary"]
    assert findings[0]["line"] == 5
    assert run("apply", "--yes", *L40S).code == 0
    assert "CUDA_VISIBLE_DEVICES=0\n" in path.read_text()
    assert run("check", *L40S).code == 0


def test_override_form(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(services(2))
    args = (*L40S, "--override", "compose.gpu.yaml")
    assert run("check", *args).code == 1
    assert run("apply", "--yes", *args).code == 0
    assert path.read_text() == services(2)
    written = (tmp_path / "compose.gpu.yaml").read_text()
    assert written.count("devices: !override") == 2
    assert run("check", *args).code == 0
    assert "nothing to write" in run("apply", "--yes", *args).err
    plan = plan_of(run, *args)
    assert [p["action"] for p in plan["placements"]] == ["keep", "keep"]
    assert run("reset", "--yes", "--override", "compose.gpu.yaml").code == 0
    assert not (tmp_path / "compose.gpu.yaml").exists()
    (tmp_path / "compose.gpu.yaml").write_text("services: {}\n")
    refused = run("apply", "--yes", *args)
    assert refused.code == 2
    assert "has not made this file as such" in refused.err


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_service_that_is_left_alone_keeps_its_pins(run: Run, tmp_path: Path, replicas: int) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(
        "services:\n  a: {image: i, gpus: [{count: 1}]}\n"
        f"  b:\n    image: i\n    gpus: [{{count: 1}}]\n    profiles: [x]\n    deploy: {{replicas: {replicas}}}\n"
    )
    before = path.read_bytes()
    assert run("apply", "--yes", *L40S, "--profile", "x").code == 0
    written = path.read_text()
    assert written.count("device_ids") == 1 + replicas
    without = run("apply", "--yes", *L40S)
    assert "keeps its pins" in without.err
    assert "nothing to write" in without.err
    assert path.read_text() == written
    assert run("apply", "--yes", *L40S, "--replan").code == 0
    assert run("apply", "--yes", "--inventory", "sim:8xrtx4090").code == 0
    moved = path.read_text()
    assert [uuid in moved for uuid in GPUS].count(True) == replicas
    assert run("reset", "--yes").code == 0
    assert path.read_bytes() == before


@needs_compose
@pytest.mark.parametrize("replicas", [1, 2])
def test_in_an_override_file_too(run: Run, tmp_path: Path, replicas: int) -> None:
    path, over = tmp_path / "compose.yaml", tmp_path / "gpu.yaml"
    path.write_text(
        "services:\n  b:\n    image: i\n    gpus: [{count: 1}]\n    profiles: [x]\n"
        f"    environment: [PRICE=$$5]\n    deploy: {{replicas: {replicas}}}\n"
        "  a: {image: i, gpus: [{count: 1}], scale: 2}\n  c: {image: i, profiles: [x], depends_on: [a, b]}\n"
    )
    args = ("apply", "--yes", *L40S, "--override", "gpu.yaml")
    assert run(*args, "--profile", "x").code == 0
    written = over.read_text()
    assert written.count("device_ids") == 2 + replicas
    without = run(*args)
    assert "b keeps its pins" in without.err
    assert "nothing to write" in without.err
    assert run("apply", "--yes", "--inventory", "sim:8xrtx4090", "--override", "gpu.yaml", "--scale", "a=3").code == 0
    moved = over.read_text()
    assert [uuid in moved for uuid in GPUS].count(True) == replicas
    assert moved.count("device_ids") == 3 + replicas
    seen = config([path, over], profiles=["x"])
    assert seen.ok, seen.stderr
    workers = ["b"] if replicas == 1 else ["b-1", "b-2"]
    assert set(seen.data["services"]) == {"a-1", "a-2", "a-3", "c", *workers}
    assert set(seen.data["services"]["c"]["depends_on"]) == {"a-1", "a-2", "a-3", *workers}
    assert run(*args, "--profile", "x", "--replan", "--scale", "a=2").code == 0
    assert over.read_text() == written
    text = path.read_text()
    path.write_text(text.replace("  a: {image: i, gpus: [{count: 1}], scale: 2}\n", "").replace("a, b", "b"))
    assert run(*args).code == 0
    assert over.read_text().count("device_ids") == replicas
    path.write_text("services:\n  d: {image: i}\n")
    assert run(*args).code == 0
    assert not over.exists()
