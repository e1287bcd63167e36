"""A plan for people: who gets which devices, what does not fit and why, warnings, and one line to sum it up."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gpualloc.render.layout import Column, Line, Span, Table, cell, plain_text, render
from gpualloc.render.words import (
    Device,
    counted,
    device_count,
    devices_of,
    has_mig,
    label,
    label_on_hosts,
    listed,
    memory,
    short_uuid,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gpualloc.model import (
        Action,
        DeviceRef,
        Inventory,
        Placement,
        Plan,
        PlanWarning,
        Refusal,
        Tier,
        TierValue,
        Unplaced,
    )
    from gpualloc.render.layout import Block, Cell, Style
    from gpualloc.render.screen import Screen


class _Mark(NamedTuple):
    sign: str
    style: Style
    done: str


MARKS: dict[Action, _Mark] = {
    "pin": _Mark("+", "good", "pinned"),
    "move": _Mark("~", "warn", "moved"),
    "resize": _Mark("±", "change", "resized"),
    "keep": _Mark("=", "dim", "kept"),
}
"""How each action is marked, and the word for it in the summary, in the summary's order."""


def plan_table(plan: Plan, inventory: Inventory, screen: Screen, *, kept: bool = True) -> str:
    """Return ``plan`` as text for ``screen``: placements, unplaced workers, warnings, and a line to sum up.

    ``inventory`` gives the devices their names; one that it does not hold is shown by the index in the plan. Without
    ``kept``, workers that stay where they are have no row: the last line counts them.
    """
    devices = devices_of(inventory)
    solution = plan.solution
    parts: list[list[Block]] = []
    rows = [placement for placement in solution.placements if kept or placement.action != "keep"]
    if rows:
        parts.append([_placements(rows, devices, hosts=len(inventory.hosts))])
    parts += _unplaced(solution.unplaced, devices, hosts=len(inventory.hosts))
    if solution.warnings:
        parts.append([block for warning in solution.warnings for block in _warning(warning)])
    parts.append([summary_line(plan, inventory)])
    blocks: list[Block] = []
    for part in parts:
        blocks += [Line(), *part] if blocks else part
    return render(blocks, screen)


# --------------------------------------------------------------------------------------------------------------------
# Placements


def _placements(placements: Sequence[Placement], devices: Mapping[str, Device], hosts: int) -> Table:
    titles = ["worker", *(["host"] if hosts > 1 else []), "devices", "memory", "action"]
    rows = []
    for placement in placements:
        host = [cell(placement.host)] if hosts > 1 else []
        row = [
            cell(placement.worker),
            *host,
            cell(granted_text(placement.devices, devices, placement.host)),
            cell(share_text(placement)),
            _action(placement, devices),
        ]
        rows.append(tuple(row))
    return Table(tuple(Column(title, whole=title == "memory") for title in titles), tuple(rows))


def granted_text(refs: Sequence[DeviceRef], devices: Mapping[str, Device], host: str) -> str:
    """Return devices with their model, those of one model together: ``GPU 0-3 A100-SXM4-40GB``."""
    models: dict[str, list[Device]] = {}
    for ref in refs:
        device = devices.get(ref.uuid) or Device(ref.uuid, host, ref.index, "")
        models.setdefault(device.model, []).append(device)
    return ", ".join(f"{label(group)} {model}".rstrip() for model, group in models.items())


def share_text(placement: Placement) -> str:
    """Return what a worker takes of each of its devices: ``exclusive``, ``12 GiB each``."""
    if placement.exclusive:
        return "exclusive"
    if placement.memory_mib is None:
        return "shared"
    each = " each" if len(placement.devices) > 1 else ""
    return f"{memory(placement.memory_mib)}{each}"


def action_text(placement: Placement, devices: Mapping[str, Device]) -> str:
    """Return what happens to a worker, with where it was: ``~ move (was GPU 2)``."""
    return plain_text(_action(placement, devices))


def _action(placement: Placement, devices: Mapping[str, Device]) -> Cell:
    mark = MARKS[placement.action]
    did = Span(f"{mark.sign} {placement.action}", mark.style)
    if placement.action not in {"move", "resize"} or not placement.previous:
        return (did,)
    return (did, *cell(f" (was {_previous(placement, devices)})"))


def _previous(placement: Placement, devices: Mapping[str, Device]) -> str:
    """Return where a worker was. Its ids are as the file had them: UUIDs, or indices on its host."""
    known: dict[str, list[Device]] = {}
    lost = []
    by_index = {str(device.index): device for device in devices.values() if device.host == placement.host}
    for name in placement.previous or ():
        device = devices.get(name) or by_index.get(name)
        if device is None:
            lost.append(f"{short_uuid(name)}, gone")
        else:
            known.setdefault(device.host, []).append(device)
    here = [
        label(group) if host == placement.host else f"{label(group)} on {host}" for host, group in sorted(known.items())
    ]
    return ", ".join([*here, *lost])


# --------------------------------------------------------------------------------------------------------------------
# What does not fit


def groups_of_unplaced(unplaced: Sequence[Unplaced]) -> dict[tuple[tuple[Refusal, ...], str], list[str]]:
    """Return the workers that the same reasons stop, under those reasons and the hint."""
    groups: dict[tuple[tuple[Refusal, ...], str], list[str]] = {}
    for worker in unplaced:
        groups.setdefault((worker.reasons, worker.hint), []).append(worker.worker)
    return groups


def _unplaced(unplaced: Sequence[Unplaced], devices: Mapping[str, Device], hosts: int) -> list[list[Block]]:
    """Return a part for each group of workers that the same reasons stop."""
    parts: list[list[Block]] = []
    for (reasons, hint), workers in groups_of_unplaced(unplaced).items():
        verb = "does" if len(workers) == 1 else "do"
        part: list[Block] = [Line((*cell(listed(workers), "title"), Span(f" {verb} not fit:", "bad")))]
        if reasons:
            rows = tuple((cell(where_text(reason, devices, hosts)), cell(_why(reason))) for reason in reasons)
            part.append(Table((Column(""), Column("")), rows, indent=2))
        if hint:
            part.append(Line(cell(hint), lead=cell("hint: ", "change"), indent=2))
        parts.append(part)
    return parts


def where_text(reason: Refusal, devices: Mapping[str, Device], hosts: int) -> str:
    """Return the devices that a reason is about, with their hosts if there are several."""
    return label_on_hosts(reason.devices, devices, hosts) if reason.devices else "any device"


def _why(reason: Refusal) -> str:
    return f"{reason.code}: {reason.detail}" if reason.detail else reason.code


NOTES = frozenset({"ports"})
"""Warnings of a plan that are only worth knowing: the result is what was meant."""


def _warning(warning: PlanWarning) -> Iterable[Line]:
    lead = cell("note: ", "dim") if warning.code in NOTES else cell("warning: ", "warn")
    code = (Span(" "), *cell(f"[{warning.code}]", "dim")) if warning.detail else ()
    yield Line((*cell(warning.detail or warning.code), *code), lead)
    if any(worker not in warning.detail for worker in warning.workers):
        yield Line(cell(listed(warning.workers)), (Span(" " * len(plain_text(lead))), *cell("workers: ", "dim")))


# --------------------------------------------------------------------------------------------------------------------
# Summary


def summary_line(plan: Plan, inventory: Inventory) -> Line:
    """Return the line that sums a plan up: how many are placed, what changes, how good it is known to be."""
    solution = plan.solution
    placed, missing = len(solution.placements), len(solution.unplaced)
    if not placed and not missing:
        return Line(cell("No worker asks for a GPU."))
    parts = [_placed(plan, inventory)]
    actions = [placement.action for placement in solution.placements]
    counts = [f"{actions.count(action)} {mark.done}" for action, mark in MARKS.items() if action in actions]
    if missing:
        counts.append(f"{missing} {'does' if missing == 1 else 'do'} not fit")
    parts.append(", ".join(counts))
    parts.append(_quality(solution.objective))
    if not solution.reproducible:
        parts.append("cut off by time, so another run may differ")
    if not plan.changed:
        parts.append("nothing to write")
    elif not missing and set(actions) == {"keep"}:
        parts.append("the file changes: see --diff")
    return Line(cell(" · ".join(part for part in parts if part), "title"))


def _placed(plan: Plan, inventory: Inventory) -> str:
    placements = plan.solution.placements
    total = len(placements) + len(plan.solution.unplaced)
    workers = (
        counted(total, "worker") if total == len(placements) else f"{len(placements)} of {counted(total, 'worker')}"
    )
    used = len({device.uuid for placement in placements for device in placement.devices})
    noun = "device" if has_mig(inventory) else "GPU"
    text = f"{workers} on {used} of {counted(device_count(inventory), noun)}"
    if len(inventory.hosts) > 1:
        text += f", {len({placement.host for placement in placements})} of {len(inventory.hosts)} hosts"
    return text


def _quality(objective: Sequence[Tier]) -> str:
    """Return how good the plan is known to be: optimal, or the first tier that may be improved, and by how much."""
    if not objective:
        return ""
    open_tier = next((at for at, tier in enumerate(objective) if not tier.proven), None)
    if open_tier is None:
        return "optimal"
    tier = objective[open_tier]
    before = f"optimal down to {objective[open_tier - 1].name}; " if open_tier else ""
    most = "at best" if tier.bound is not None else "no bound"
    bound = f"{most} {tier_value(tier.bound)}" if tier.bound is not None else most
    return f"{before}{tier.name} {tier_value(tier.value)} is not proven, {bound}"


def tier_value(value: TierValue) -> str:
    """Return a tier's value or bound for people."""
    if isinstance(value, tuple):
        return f"({', '.join(map(str, value))})"
    return f"{value:g}" if isinstance(value, float) else str(value)
