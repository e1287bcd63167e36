"""Projects of several files: requests as Compose merges them, and each edit in the file that holds the role."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from gpualloc.compose.project import ProjectOptions, load_project
from gpualloc.compose.reader import read_demand
from gpualloc.inventory import load
from gpualloc.planning import Options, make_plan, plan_reset, write_plan, write_reset
from tests.compose.projects import base_policy
from tests.compose_oracle import config, needs_compose

if TYPE_CHECKING:
    from pathlib import Path

RESERVE = "deploy: {resources: {reservations: {devices: [{driver: nvidia, %s, capabilities: [gpu]}]}}}"
ONE = RESERVE % "count: 1"
TWO = RESERVE % "count: 2"
ALL = RESERVE % "count: all"


@dataclass(frozen=True)
class Case:
    """Files by name; ``files`` is what -f names (none: found), ``counts`` what each role asks for (0: all)."""

    texts: dict[str, str]
    counts: dict[str, int]
    edited: tuple[str, ...]
    files: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()


CASES = {
    "a fragment behind its base": Case(
        {
            "compose.yaml": "services:\n  w:\n    image: i\n    environment: {A: b}\n",
            "gpu.yaml": f"services:\n  w:\n    {TWO}\n",
        },
        {"w": 2},
        ("gpu.yaml",),
        files=("compose.yaml", "gpu.yaml"),
    ),
    "an override file that is found": Case(
        {
            "compose.yaml": "services:\n  w: {image: i}\n  v: {image: i, gpus: [{count: 1}]}\n",
            "compose.override.yaml": f"services:\n  w:\n    {ONE}\n",
        },
        {"w": 1, "v": 1},
        ("compose.yaml", "compose.override.yaml"),
    ),
    "COMPOSE_FILE": Case(
        {"a.yaml": "services:\n  w: {image: i}\n", "b.yaml": f"services:\n  w:\n    {ALL}\n"},
        {"w": 0},
        ("b.yaml",),
        env={"COMPOSE_FILE": f"a.yaml{os.pathsep}b.yaml"},
    ),
    "a request that is replaced": Case(
        {
            "a.yaml": f"services:\n  w:\n    image: i\n    {ALL}\n",
            "b.yaml": "services:\n  w: {deploy: {resources: {reservations: {devices: !override"
            " [{capabilities: [gpu], count: 2}]}}}}\n",
        },
        {"w": 2},
        ("b.yaml",),
        files=("a.yaml", "b.yaml"),
    ),
    "requests that add up": Case(
        {"a.yaml": f"services:\n  w:\n    image: i\n    {ONE}\n", "b.yaml": f"services:\n  w:\n    {TWO}\n"},
        {"w": 3},
        ("b.yaml",),
        files=("a.yaml", "b.yaml"),
    ),
    "extends within the file": Case(
        {"compose.yaml": f"services:\n  base:\n    image: i\n    {ONE}\n  w:\n    extends: base\n"},
        {"base": 1, "w": 1},
        ("compose.yaml",),
    ),
    "extends from another file": Case(
        {
            "compose.yaml": "services:\n  w:\n    extends: {file: common.yaml, service: base}\n",
            "common.yaml": f"services:\n  base:\n    image: i\n    environment: [A=b]\n    {TWO}\n",
        },
        {"w": 2},
        ("compose.yaml",),
    ),
    "gpus through extends": Case(
        {
            "compose.yaml": "services:\n  w:\n    extends: {file: common.yaml, service: base}\n",
            "common.yaml": "services:\n  base:\n    image: i\n    gpus: [{count: 1}]\n",
        },
        {"w": 1},
        ("compose.yaml",),
    ),
    "include": Case(
        {
            "compose.yaml": "include: [inner/compose.yaml]\nservices:\n  v: {image: i, gpus: [{count: 1}]}\n",
            "inner/compose.yaml": f"services:\n  w:\n    image: i\n    {RESERVE % 'count: $N'}\n",
            "inner/.env": "N=2\n",
        },
        {"w": 2, "v": 1},
        ("compose.yaml", "inner/compose.yaml"),
    ),
    "an env file that is named": Case(
        {"compose.yaml": f"services:\n  w:\n    image: i\n    {RESERVE % 'count: $N'}\n", "gpu.env": "N=2\n"},
        {"w": 2},
        ("compose.yaml",),
        env_files=("gpu.env",),
    ),
    "a profile": Case(
        {
            "compose.yaml": "services:\n  w: {image: i, gpus: [{count: 1}], profiles: [a]}\n"
            "  v: {image: i, gpus: [{count: 1}], profiles: [b]}\n"
        },
        {"w": 1},
        ("compose.yaml",),
        profiles=("a",),
    ),
    "several documents": Case(
        {"compose.yaml": f"services:\n  w:\n    image: i\n---\nservices:\n  w:\n    {TWO}\n"},
        {"w": 2},
        ("compose.yaml",),
    ),
}


def lay_out(folder: Path, case: Case) -> dict[str, bytes]:
    for name, text in case.texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return {name: (folder / name).read_bytes() for name in case.texts}


def options(case: Case) -> ProjectOptions:
    return ProjectOptions(files=case.files, profiles=case.profiles, env_files=case.env_files)


def compose_requests(folder: Path, case: Case) -> dict[str, list[dict[str, Any]]]:
    """Every device request that Compose itself sees, by service."""
    result = config(
        [folder / name for name in case.files],
        env=case.env,
        profiles=case.profiles,
        env_files=[folder / name for name in case.env_files],
        cwd=folder,
    )
    assert result.ok, result.stderr
    found = {}
    for name, service in result.data["services"].items():
        reserved = service.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
        requests = [*reserved, *service.get("gpus", [])]
        if requests:
            found[name] = requests
    return found


@needs_compose
@pytest.mark.parametrize("name", list(CASES))
def test_requests_are_read_as_compose_merges_them(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    lay_out(tmp_path, case)
    project = load_project(options(case), case.env, tmp_path)
    roles = read_demand(project, base_policy()).roles
    assert {r.service.name: r.request.gpus.max or 0 for r in roles} == case.counts
    theirs = {
        service: 0 if any(r.get("count", -1) == -1 for r in requests) else sum(r["count"] for r in requests)
        for service, requests in compose_requests(tmp_path, case).items()
    }
    assert theirs == case.counts


@needs_compose
@pytest.mark.parametrize("name", list(CASES))
def test_each_edit_goes_to_the_file_that_holds_the_role(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    before = lay_out(tmp_path, case)
    planning = Options(options(case), ("sim:8xrtx4090",))
    planned = make_plan(planning, case.env, tmp_path)
    assert planned.plan.complete
    write_plan(planned)
    changed = {name for name in case.texts if (tmp_path / name).read_bytes() != before[name]}
    assert changed == set(case.edited)
    given = {p.service: [d.uuid for d in p.devices] for p in planned.plan.solution.placements}
    seen = {
        service: [uuid for request in requests for uuid in request["device_ids"]]
        for service, requests in compose_requests(tmp_path, case).items()
        if service in given
    }
    assert seen == given
    assert not make_plan(planning, case.env, tmp_path).plan.changed
    write_reset(plan_reset(planning, case.env, tmp_path))
    assert {name: (tmp_path / name).read_bytes() for name in case.texts} == before


@needs_compose
@pytest.mark.parametrize("name", list(CASES))
def test_an_override_file_gives_the_same_requests(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    before = lay_out(tmp_path, case)
    planning = Options(options(case), ("sim:8xrtx4090",), override="gpu-override.yaml")
    planned = make_plan(planning, case.env, tmp_path)
    if name == "include":
        pytest.skip("Compose up to 2.40 refuses to redefine an included service")
    write_plan(planned)
    assert {name: (tmp_path / name).read_bytes() for name in case.texts} == before
    found = [str(f.source.path) for f in planned.workspace.project.files]
    laid = Case(case.texts, case.counts, (), (*found, "gpu-override.yaml"), case.env, case.profiles, case.env_files)
    given = {p.service: [d.uuid for d in p.devices] for p in planned.plan.solution.placements}
    seen = {
        service: [uuid for request in requests for uuid in request["device_ids"]]
        for service, requests in compose_requests(tmp_path, laid).items()
        if service in given
    }
    assert seen == given


def test_a_machine_is_there_for_all_cases() -> None:
    gpus = len(load(["sim:8xrtx4090"]).inventory.hosts[0].gpus)
    assert all(sum(max(count, 1) for count in case.counts.values()) <= gpus for case in CASES.values())
