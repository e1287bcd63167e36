"""What a plan gives is what Compose makes of all files together: later files, ``extends``, and those left alone.

Every project here is planned for a machine of eight GPUs, written, and read by the real docker-compose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gpualloc.compose.project import ProjectOptions
from gpualloc.errors import GpuallocError
from gpualloc.planning import Options, make_plan, plan_reset, write_plan, write_reset
from tests.compose.merged_cases import CASES, REFUSED, Case
from tests.compose_oracle import config, needs_compose

if TYPE_CHECKING:
    from pathlib import Path

    from gpualloc.planning import Planned


def planning(folder: Path, case: Case, *, override: str | None = None) -> Options:
    files = []
    for number, text in enumerate(case.texts):
        files.append(str(folder / f"c{number}.yaml"))
        (folder / f"c{number}.yaml").write_text(text)
    if case.policy:
        (folder / "policy.yaml").write_text(f"version: 1\n{case.policy}")
    project = ProjectOptions(files=tuple(files), profiles=case.profiles)
    return Options(project, ("sim:8xrtx4090",), override=override, policy="./policy.yaml" if case.policy else None)


def seen(folder: Path, case: Case, *more: str) -> dict[str, Any]:
    """Every service as the real Compose has it."""
    files = [folder / f"c{number}.yaml" for number in range(len(case.texts))] + [folder / name for name in more]
    result = config(files, profiles=["*"], cwd=folder)
    assert result.ok, result.stderr
    services: dict[str, Any] = result.data["services"]
    return services


def ids_of(service: dict[str, Any]) -> list[str]:
    """Every device that a service is given, in all the ways there are."""
    reservations = service.get("deploy", {}).get("resources", {}).get("reservations", {})
    requests = [*(reservations.get("devices") or ()), *(service.get("gpus") or ())]
    found = [uuid for request in requests for uuid in request["device_ids"]]
    named = [d["source"] for d in service.get("devices") or () if "nvidia.com/gpu" in d["source"]]
    found += [name.removeprefix("nvidia.com/gpu=") for name in named]
    if service.get("runtime") == "nvidia":
        found += service["environment"]["NVIDIA_VISIBLE_DEVICES"].split(",")
    return found


def check_seen(case: Case, planned: Planned, services: dict[str, Any]) -> None:
    for placement in planned.plan.solution.placements:
        service = services[placement.service]
        assert ids_of(service) == [device.uuid for device in placement.devices], placement.worker
        environment = service["environment"]
        assert environment["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, range(len(placement.devices))))
        assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert ("SHARE" in environment) == (bool(case.policy) and placement.memory_mib is not None)


def without_ours(services: dict[str, Any]) -> dict[str, Any]:
    """What nobody is to change: everything but requests, and the variables that gpualloc writes."""
    ours = {"CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "SHARE"}
    result = {}
    for name, service in services.items():
        rest = {k: v for k, v in service.items() if k not in {"deploy", "gpus", "environment", "devices"}}
        environment = {k: v for k, v in (service.get("environment") or {}).items() if k not in ours}
        devices = [d for d in service.get("devices") or () if "nvidia.com/gpu" not in d["source"]]
        result[name] = rest | {"environment": environment, "devices": devices}
    return result


@needs_compose
@pytest.mark.parametrize("name", list(CASES))
def test_every_worker_gets_its_own(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    options = planning(tmp_path, case)
    before = seen(tmp_path, case)
    planned = make_plan(options, {}, tmp_path)
    assert planned.plan.complete
    assert tuple(note.code for note in planned.notes) == case.told
    write_plan(planned)
    changed = tuple(n for n, text in enumerate(case.texts) if (tmp_path / f"c{n}.yaml").read_text() != text)
    assert changed == case.edited
    after = seen(tmp_path, case)
    check_seen(case, planned, after)
    assert without_ours(after) == without_ours(before)
    for service, value in case.bare.items():
        assert not after[service].get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices")
        assert (after[service].get("environment") or {}).get("CUDA_VISIBLE_DEVICES") == value
    assert not make_plan(options, {}, tmp_path).plan.changed
    write_reset(plan_reset(options, {}, tmp_path))
    assert [(tmp_path / f"c{n}.yaml").read_text() for n in range(len(case.texts))] == case.texts


@needs_compose
@pytest.mark.parametrize("name", list(CASES))
def test_an_override_file_gives_the_same(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    options = planning(tmp_path, case, override="gpu.yaml")
    before = seen(tmp_path, case)
    planned = make_plan(options, {}, tmp_path)
    assert planned.plan.complete
    assert planned.notes == ()
    write_plan(planned)
    after = seen(tmp_path, case, "gpu.yaml")
    check_seen(case, planned, after)
    assert without_ours(after) == without_ours(before)
    placed = {placement.service for placement in planned.plan.solution.placements}
    assert {n: s for n, s in after.items() if n not in placed} == {n: s for n, s in before.items() if n not in placed}
    assert not make_plan(options, {}, tmp_path).plan.changed


# What cannot be written in place


@needs_compose
@pytest.mark.parametrize("name", list(REFUSED))
def test_what_would_not_hold_is_not_written(tmp_path: Path, name: str) -> None:
    refusal = REFUSED[name]
    case = refusal.case
    options = planning(tmp_path, case)
    with pytest.raises(GpuallocError) as caught:
        make_plan(options, {}, tmp_path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == refusal.code
    assert refusal.says in diagnostic.summary
    assert "--override FILE" in (diagnostic.hint or "")
    assert diagnostic.where is not None
    assert (diagnostic.where.line, diagnostic.where.column) == refusal.place
    assert (tmp_path / "c0.yaml").read_text() == case.texts[0]
    # The way out that the hint names:
    options = planning(tmp_path, case, override="gpu.yaml")
    before = seen(tmp_path, case)
    planned = make_plan(options, {}, tmp_path)
    write_plan(planned)
    after = seen(tmp_path, case, "gpu.yaml")
    check_seen(case, planned, after)
    assert without_ours(after) == without_ours(before)
