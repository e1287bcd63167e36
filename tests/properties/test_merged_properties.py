"""Random projects of several files: what Compose makes of them after an apply is the plan, or nothing is written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st

from gpualloc.compose.project import ProjectOptions
from gpualloc.errors import GpuallocError
from gpualloc.planning import Options, make_plan, plan_reset, write_plan, write_reset
from tests.compose.test_merged import ids_of, without_ours
from tests.compose_oracle import config, needs_compose
from tests.long_runs import share

if TYPE_CHECKING:
    from gpualloc.planning import Planned

UNUSABLE = {"request-conflict", "request"}
REFUSALS = {"overridden", "inherited", "extends-chain", "cannot-edit"}
"""What may not be written in place; an override file can hold it all the same."""
ENTRIES = ("{count: 1, capabilities: [gpu]}", "{driver: nvidia, count: 2, capabilities: [gpu]}")
VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "SHARE", "A")
POLICY = "version: 1\nwrite: {env_shared: {SHARE: $memory_fraction}}\n"

pytestmark = needs_compose


@st.composite
def environments(draw: st.DrawFn, *, later: bool) -> str:
    names = draw(st.lists(st.sampled_from(VARIABLES), min_size=1, max_size=3, unique=True))
    values = [draw(st.sampled_from(("0", "1", "x"))) for _ in names]
    tag = draw(st.sampled_from(("", "", "", "!override "))) if later else ""
    if draw(st.booleans()):
        return f"{tag}[{', '.join(f'{name}={value}' for name, value in zip(names, values, strict=True))}]"
    resets = [later and draw(st.integers(0, 5)) == 0 for _ in names]
    shown = ["!reset null" if reset else repr(value) for value, reset in zip(values, resets, strict=True)]
    return f"{tag}{{{', '.join(f'{name}: {value}' for name, value in zip(names, shown, strict=True))}}}"


@st.composite
def services(draw: st.DrawFn, names: list[str], file: int) -> list[str]:
    """Draw the lines of one service's node, that of the last of ``names``; the others stand in the same file."""
    name = names[-1]
    later = file > 0
    lines = [f"  {name}:"]
    if not later:
        lines.append("    image: i")
    others = names[:-1]
    extends = others and draw(st.integers(0, 2)) > 0
    if extends:
        other = draw(st.sampled_from(others))
        # In a chain, Compose follows tags for sure only where the file is named.
        named = f"{{service: {other}, file: c{file}.yaml}}"
        lines.append(f"    extends: {draw(st.sampled_from((other, named))) if len(names) == 2 else named}")
    tag = draw(st.sampled_from(("", "!override "))) if later or extends else ""
    match draw(st.sampled_from(("none", "devices", "devices", "runtime", "ask", "reset"))):
        case "devices":
            found = draw(st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=2, unique=True))
            lines.append(f"    deploy: {{resources: {{reservations: {{devices: {tag}[{', '.join(found)}]}}}}}}")
        case "runtime":
            lines.append("    runtime: nvidia")
        case "ask":
            lines.append(f"    x-gpualloc: {draw(st.sampled_from(('{memory: 2GiB}', '{exclusive: true}', 'false')))}")
        case "reset" if later or extends:
            lines.append("    deploy: !reset null")
        case _:
            pass
    if draw(st.integers(0, 2)):
        lines.append(f"    environment: {draw(environments(later=bool(later or extends)))}")
    if draw(st.integers(0, 6)) == 0:
        lines.append("    profiles: [other]")
    if len(lines) == 1:
        lines.append("    labels: {a: b}")
    return lines


@st.composite
def projects(draw: st.DrawFn) -> list[str]:
    texts: list[str] = []
    for file in range(draw(st.integers(1, 3))):
        names = ["w", "v", "u"][: draw(st.integers(1, 3))]
        lines = ["services:"]
        for number in range(len(names)):
            lines += draw(services(names[: number + 1], file))
        texts.append("\n".join(lines) + "\n")
    return texts


def seen(folder: Path, count: int, *more: str) -> dict[str, Any] | None:
    files = [*(folder / f"c{n}.yaml" for n in range(count)), *(folder / name for name in more)]
    result = config(files, profiles=["*"], cwd=folder)
    note(result.stderr)
    return result.data["services"] if result.ok else None


def check_planned(planned: Planned, services: dict[str, Any]) -> None:
    for placement in planned.plan.solution.placements:
        service = services[placement.service]
        assert set(ids_of(service)) == {device.uuid for device in placement.devices}, placement.worker
        environment = service["environment"]
        assert environment["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, range(len(placement.devices))))
        assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        if placement.memory_mib is not None:
            assert environment["SHARE"].startswith("0.")


def planned_or_not(options: Options, folder: Path, refusals: set[str]) -> Planned | None:
    try:
        return make_plan(options, {}, folder)
    except GpuallocError as error:
        codes = {d.code for d in error.diagnostics}
        if not codes <= refusals:
            raise
        event(f"{'not in place' if options.override is None else 'not at all'}: {sorted(codes)}")
        return None


def check_project(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, text in enumerate(texts):
            note(f"# c{number}.yaml\n{text}")
            (folder / f"c{number}.yaml").write_text(text)
        (folder / "policy.yaml").write_text(POLICY)
        before = seen(folder, len(texts))
        if before is None:
            event("Compose rejects it")
            return
        files = tuple(str(folder / f"c{n}.yaml") for n in range(len(texts)))
        project = ProjectOptions(files=files)
        machine = Options(project, ("sim:8xrtx4090",), policy="./policy.yaml")
        over = Options(project, ("sim:8xrtx4090",), policy="./policy.yaml", override="gpu.yaml")
        planned = planned_or_not(over, folder, UNUSABLE)
        if planned is None:
            return
        if not planned.plan.complete:
            event("does not fit")
            return
        write_plan(planned)
        there = ("gpu.yaml",) if (folder / "gpu.yaml").exists() else ()
        after = seen(folder, len(texts), *there)
        assert after is not None
        check_planned(planned, after)
        placed = {placement.service for placement in planned.plan.solution.placements}
        assert without_ours(after) == without_ours(before)
        assert {n: s for n, s in after.items() if n not in placed} == {
            n: s for n, s in before.items() if n not in placed
        }
        assert not make_plan(over, {}, folder).plan.changed
        planned = planned_or_not(machine, folder, REFUSALS)
        if planned is None:
            assert [(folder / f"c{n}.yaml").read_text() for n in range(len(texts))] == texts
            return
        write_plan(planned)
        for number in range(len(texts)):
            note(f"# now c{number}.yaml\n{(folder / f'c{number}.yaml').read_text()}")
        after = seen(folder, len(texts))
        assert after is not None
        check_planned(planned, after)
        assert without_ours(after) == without_ours(before)
        told = any(each.code == "inherited" for each in planned.notes)
        event(f"in place, told: {told}")
        for service in after.keys() - placed:
            same = after[service] == before[service]
            assert same or told, service
        assert not make_plan(machine, {}, folder).plan.changed
        write_reset(plan_reset(machine, {}, folder))
        assert [(folder / f"c{n}.yaml").read_text() for n in range(len(texts))] == texts


QUICK = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))


@QUICK
@given(projects())
def test_the_project_is_as_planned(texts: list[str]) -> None:
    check_project(texts)


@pytest.mark.long
@settings(QUICK, max_examples=share(1_000))
@given(projects())
def test_the_project_is_as_planned_long(texts: list[str]) -> None:
    check_project(texts)
