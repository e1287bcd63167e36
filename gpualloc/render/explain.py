"""Why each worker is where it is, and how many more would fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.render.layout import Column, Line, Table, cell, render
from gpualloc.render.words import counted, devices_of, label_on_hosts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from gpualloc.model import Alternative, Capacity, Explanation, Inventory, TierValue
    from gpualloc.render.layout import Block
    from gpualloc.render.screen import Screen
    from gpualloc.render.words import Device


def explanations_text(explanations: Iterable[Explanation], inventory: Inventory, screen: Screen) -> str:
    """Return each worker's explanation: what it got, every device's verdict, and the best alternative with its cost."""
    devices = devices_of(inventory)
    blocks: list[Block] = []
    for explanation in explanations:
        if blocks:
            blocks.append(Line())
        blocks += _explanation(explanation, devices, len(inventory.hosts))
    return render(blocks, screen)


def _explanation(explanation: Explanation, devices: Mapping[str, Device], hosts: int) -> Iterator[Block]:
    placement = explanation.placement
    got = label_on_hosts((d.uuid for d in placement.devices), devices, hosts) if placement else "does not fit"
    yield Line(cell(f"{explanation.worker}: {got}"))
    groups: dict[tuple[str, str], list[str]] = {}
    for verdict in explanation.verdicts:
        groups.setdefault((verdict.code, verdict.detail), []).append(verdict.uuid)
    rows = tuple(
        (cell(label_on_hosts(uuids, devices, hosts)), cell(code), cell(detail))
        for (code, detail), uuids in groups.items()
    )
    yield Table((Column(""), Column(""), Column("")), rows, indent=2)
    if explanation.alternative is not None:
        yield Line(cell(f"  {_alternative(explanation.alternative, devices, hosts)}"))


def _alternative(alternative: Alternative, devices: Mapping[str, Device], hosts: int) -> str:
    where = label_on_hosts(alternative.devices, devices, hosts) if alternative.devices else "no place for it"
    if not alternative.costs and not alternative.devices:
        return "next best: a worker that waits in its place, equally good; the order of names decided"
    if not alternative.costs:
        return f"next best: {where}, equally good; the lower PCI bus id decided"
    costs = ", ".join(f"{c.name} {_value(c.instead)} instead of {_value(c.value)}" for c in alternative.costs[:3])
    return f"next best: {where}, at the cost of {costs}"


def _value(value: TierValue) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(str, value)) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def capacity_text(capacity: Capacity, screen: Screen) -> str:
    """Return how many more of a role fit, and what stops the next one."""
    blocks: list[Block] = [
        Line(
            cell(f"{capacity.role}: {capacity.more} more would fit, beside {counted(capacity.placed, 'worker')} placed")
        )
    ]
    blocks += [Line(cell(f"  then {reason.code}: {reason.detail}")) for reason in capacity.stops]
    return render(blocks, screen)
