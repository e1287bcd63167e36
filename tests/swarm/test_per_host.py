"""A file for each host: the real Compose starts there exactly the workers that the plan has there."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.compose_oracle import config, needs_compose
from tests.fleet.machines import save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result

PROJECT = """\
services:
  db: {image: db}
  api:
    image: y
    depends_on: {trainer: {condition: service_started}, db: {condition: service_started}}
  trainer:
    image: x
    depends_on: [db]
    ports: ["8000:80"]
    gpus: [{count: 2}]
    deploy: {replicas: 4}
  single: {image: z, runtime: nvidia, environment: [NVIDIA_VISIBLE_DEVICES=all, A=b], x-gpualloc: {gpus: 1}}
  monitor: {image: m, x-gpualloc: {observe: true}}
  tool: {image: t, profiles: [tools]}
"""


def apply(run: Callable[..., Result], *more: str) -> Result:
    return run("apply", "-y", "--inventory", "fleet", "--per-host", "hosts", *more)


def started(folder: Path, host: str, compose: str = "compose.yaml") -> dict[str, Any]:
    """Return the services that Compose starts on a host, with what each gets."""
    found = config([folder / compose, folder / "hosts" / f"{host}.yaml"], cwd=folder, no_consistency=False)
    assert found.ok, found.stderr
    services: dict[str, Any] = found.data["services"]
    return services


def placements(run: Callable[..., Result]) -> dict[str, tuple[str, tuple[str, ...]]]:
    plan = json.loads(run("plan", "--inventory", "fleet", "--per-host", "hosts", "--format", "json").out)
    assert {p["action"] for p in plan["placements"]} == {"keep"}
    return {p["worker"]: (p["host"], tuple(d["uuid"] for d in p["devices"])) for p in plan["placements"]}


def given(service: dict[str, Any]) -> tuple[str, ...]:
    if service.get("runtime") == "nvidia":
        return tuple(service["environment"]["NVIDIA_VISIBLE_DEVICES"].split(","))
    (entry,) = service.get("gpus") or service["deploy"]["resources"]["reservations"]["devices"]
    return tuple(entry["device_ids"])


@needs_compose
def test_compose_starts_on_each_host_what_the_plan_has_there(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b", "gpu-c")
    (tmp_path / "compose.yaml").write_text(PROJECT)
    result = apply(run)
    assert result.code == 0, result.err
    planned = placements(run)
    hosts = {host for host, _ in planned.values()}
    assert len(hosts) == 3
    seen: dict[str, tuple[str, tuple[str, ...]]] = {}
    for host in hosts:
        services = started(tmp_path, host)
        rest = {"db", "api", "monitor"} if host == "gpu-a" else {"monitor"}
        assert services.keys() - planned.keys() == rest
        for name in services.keys() & planned.keys():
            assert name not in seen
            seen[name] = (host, given(services[name]))
            assert services[name]["environment"]["CUDA_VISIBLE_DEVICES"] in {"0", "0,1"}
    assert seen == planned
    workers = {name for name, (host, _) in planned.items() if host == "gpu-a" and name.startswith("trainer")}
    assert set(started(tmp_path, "gpu-a")["api"]["depends_on"]) == {"db", *workers}
    assert "[other-host]" in result.err
    assert (tmp_path / "compose.yaml").read_text() == PROJECT
    assert "nothing to write" in apply(run).err


@needs_compose
def test_a_chosen_host_runs_what_needs_no_gpu(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b", "gpu-c")
    (tmp_path / "compose.yaml").write_text(PROJECT)
    assert apply(run, "--main", "gpu-c").code == 0
    assert "db" in started(tmp_path, "gpu-c")
    assert "db" not in started(tmp_path, "gpu-a")
    assert "nothing to write" in apply(run).err  # it stays there
    assert apply(run, "--main", "gpu-z").code == 2


@needs_compose
def test_a_host_that_is_drained_loses_its_file_and_moves_its_workers_alone(
    tmp_path: Path, run: Callable[..., Result]
) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b", "gpu-c")
    (tmp_path / "compose.yaml").write_text(PROJECT.replace("replicas: 4", "replicas: 3"))
    apply(run)
    before = placements(run)
    result = apply(run, "--drain", "gpu-a")
    assert result.code == 0, result.err
    assert "nothing runs on gpu-a any more [host-empty]" in result.err
    assert {file.name for file in (tmp_path / "hosts").glob("*.yaml")} == {"gpu-b.yaml", "gpu-c.yaml"}
    after = placements(run)
    assert {w for w in before if before[w] != after[w]} == {w for w in before if before[w][0] == "gpu-a"} != set()
    assert "db" in started(tmp_path, "gpu-b")  # what ran on the drained host moves, too


@needs_compose
def test_a_service_that_joins_one_elsewhere_is_refused(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b")
    text = "services: {vpn: {image: v}, w: {image: x, network_mode: 'service:vpn', x-gpualloc: {gpus: 1, host: HOST}}}"
    (tmp_path / "compose.yaml").write_text(text.replace("HOST", "gpu-b"))
    refused = apply(run, "--main", "gpu-a")
    assert (refused.code, "network_mode joins vpn, which runs elsewhere [other-host]" in refused.err) == (2, True)
    assert not (tmp_path / "hosts").exists()
    assert apply(run, "--main", "gpu-b").code == 0
    assert set(started(tmp_path, "gpu-b")) == {"vpn", "w"}


@needs_compose
def test_several_files_are_laid_over_each_other(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b")
    sub = tmp_path / "deploy"
    sub.mkdir()
    (sub / "compose.yaml").write_text(PROJECT)
    result = run("apply", "-y", "-f", "deploy/compose.yaml", "--inventory", "fleet", "--per-host", "hosts", "--partial")
    assert result.code in {0, 3}, result.err
    found = config([sub / "compose.yaml", tmp_path / "hosts" / "gpu-b.yaml"], cwd=tmp_path, no_consistency=False)
    assert found.ok, found.stderr
    assert any(name.startswith("trainer-") for name in found.data["services"])


def test_check_reads_the_folder(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b", "gpu-c")
    (tmp_path / "compose.yaml").write_text(PROJECT)
    apply(run)
    args = ("check", "--inventory", "fleet", "--per-host", "hosts")
    assert run(*args).out == "no findings\n"
    (tmp_path / "fleet" / "gpu-b.json").unlink()
    lost = run(*args)
    assert (lost.code, "hosts/gpu-b.yaml" in lost.out) == (1, True)


@pytest.mark.parametrize("kind", ["a file", "a folder of other things"])
def test_a_folder_that_is_not_gpuallocs_is_not_touched(tmp_path: Path, run: Callable[..., Result], kind: str) -> None:
    save(tmp_path / "fleet", "gpu-a")
    (tmp_path / "compose.yaml").write_text("services: {w: {image: x, gpus: all}}")
    if kind == "a file":
        (tmp_path / "hosts").write_text("x")
    else:
        (tmp_path / "hosts").mkdir()
        (tmp_path / "hosts" / "values.yaml").write_text("a: b\n")
    before = sorted(os.walk(tmp_path / "hosts"))
    refused = apply(run)
    assert refused.code == 2
    assert "[host-file]" in refused.err or "[override-foreign]" in refused.err
    assert sorted(os.walk(tmp_path / "hosts")) == before
    assert yaml.safe_load((tmp_path / "compose.yaml").read_text())


def test_a_hosts_file_can_be_read_there_like_any_other(tmp_path: Path, run: Callable[..., Result]) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b", "gpu-c")
    (tmp_path / "compose.yaml").write_text(PROJECT)
    assert apply(run).code == 0
    here = ("-f", "compose.yaml", "-f", "hosts/gpu-b.yaml", "--inventory", "fleet/gpu-b.json")
    result = run("check", *here)
    assert (result.code, result.out) == (0, "no findings\n"), result.out + result.err
    document = json.loads(run("usage", "--format", "json", *here).out)
    planned = {worker for worker, (host, _) in placements(run).items() if host == "gpu-b"}
    assert {one["worker"] for one in document["workers"]} == planned != set()
    before = (tmp_path / "hosts/gpu-b.yaml").read_text()
    result = run("apply", "-y", *here, "--without", "index:0")
    assert result.code == 2
    assert "apply with the same --per-host" in result.err
    assert (tmp_path / "hosts/gpu-b.yaml").read_text() == before


@pytest.mark.parametrize("option", ["--override", "--swarm"])
def test_a_hosts_file_is_taken_for_nothing_else(tmp_path: Path, run: Callable[..., Result], option: str) -> None:
    save(tmp_path / "fleet", "gpu-a", "gpu-b", "gpu-c")
    (tmp_path / "compose.yaml").write_text(PROJECT)
    assert apply(run).code == 0
    result = run("apply", "-y", "--inventory", "fleet", option, "hosts/gpu-b.yaml")
    assert result.code == 2
    assert "has not made this file as such" in result.err
