"""What every running worker sees, for people and for other programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gpualloc.model import FORMAT_VERSION
from gpualloc.render.diagnostics import finding_data, findings_text
from gpualloc.render.layout import Column, Line, Span, Table, cell, render
from gpualloc.render.words import counted, devices_of, label, short_uuid
from gpualloc.verification import FRAMEWORKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpualloc.render.layout import Cell, Style
    from gpualloc.render.screen import Screen
    from gpualloc.render.words import Device
    from gpualloc.verification import Framework, Seen, Verdict, Verification, WorkerCheck

MARKS: dict[Verdict, tuple[str, Style]] = {
    "ok": ("= ok", "good"),
    "wrong": ("! wrong", "bad"),
    "unseen": ("? unseen", "warn"),
}
"""How each verdict is marked."""


def verification_text(verification: Verification, screen: Screen) -> str:
    """Return a table of all workers, what is wrong with them and likely why, and one line to sum it up."""
    devices = devices_of(verification.inventory)
    columns = tuple(Column(title) for title in ("worker", "container", "expected", "sees", "verdict"))
    rows = tuple(_row(check, devices) for check in verification.workers)
    parts = []
    if rows:
        parts.append(render((Table(columns, rows),), screen))
    if verification.all_findings:
        parts.append(findings_text(verification.all_findings, screen))
    parts.append(render((_summary(verification),), screen))
    return "\n".join(parts)


def _row(check: WorkerCheck, devices: Mapping[str, Device]) -> tuple[Cell, ...]:
    sign, style = MARKS[check.verdict]
    expected = "not pinned" if check.expected is None else _label(check.expected, devices)
    return (
        cell(check.worker),
        cell(check.container or "none"),
        cell(expected),
        cell(_sees(check, devices)),
        (Span(sign, style),),
    )


def _sees(check: WorkerCheck, devices: Mapping[str, Device]) -> str:
    seen = check.seen
    if seen is None or seen.devices is None:
        return check.state
    sees = _label(seen.devices, devices)
    if seen.how != "cuda":
        sees += f" (by {seen.how})"
    counts = [_framework(framework) for framework in seen.frameworks]
    return ", ".join([sees, *(text for text in counts if text)])


def _framework(framework: Framework) -> str | None:
    name = FRAMEWORKS.get(framework.name, framework.name)
    return None if framework.count is None else f"{name} {framework.count}"


def _label(uuids: Sequence[str], devices: Mapping[str, Device]) -> str:
    known = label(devices[uuid] for uuid in uuids if uuid in devices)
    return ", ".join([*([known] if known else []), *(short_uuid(u) for u in uuids if u not in devices)]) or "no GPU"


def _summary(verification: Verification) -> Line:
    workers = verification.workers
    if not workers:
        return Line(cell("No worker asks for a GPU.", "title"))
    right = sum(check.verdict == "ok" and check.seen is not None for check in workers)
    noun = f"{counted(len(workers), 'worker')} of {verification.project}"
    text = f"{right} of {noun} {'sees' if right == 1 else 'see'} exactly the GPUs the file gives"
    if unseen := sum(check.verdict == "unseen" for check in workers):
        text += f", {unseen} could not be looked into"
    if parked := sum(check.state == "parked" for check in workers):
        text += f", {parked} {'is' if parked == 1 else 'are'} parked"
    return Line(cell(text, "title" if verification.good else "bad"))


def verification_json(verification: Verification) -> str:
    """Return a verification as a JSON document; null stands for what is not known. ASCII only."""
    document = {
        "format_version": FORMAT_VERSION,
        "project": verification.project,
        "good": verification.good,
        "workers": [_worker(check) for check in verification.workers],
        "findings": [finding_data(finding) for finding in verification.findings],
    }
    return json.dumps(document, indent=2) + "\n"


def _worker(check: WorkerCheck) -> dict[str, Any]:
    return {
        "worker": check.worker,
        "service": check.service,
        "replica": check.replica,
        "container": check.container,
        "state": check.state,
        "expected": _list(check.expected),
        "seen": None if check.seen is None else _seen(check.seen),
        "verdict": check.verdict,
        "findings": [finding_data(finding) for finding in check.findings],
    }


def _seen(seen: Seen) -> dict[str, Any]:
    return {
        "devices": _list(seen.devices),
        "how": seen.how,
        "nvidia_smi": _list(seen.listed),
        "cuda_visible_devices": seen.cuda_visible_devices,
        "frameworks": [
            {
                "name": framework.name,
                "version": framework.version,
                "count": framework.count,
                "devices": _list(framework.uuids),
                "gpu_build": framework.gpu_build,
                "error": framework.error,
            }
            for framework in seen.frameworks
        ],
    }


def _list(uuids: Sequence[str] | None) -> list[str] | None:
    return None if uuids is None else list(uuids)
