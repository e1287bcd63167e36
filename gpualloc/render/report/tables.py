"""The parts of the page that are words: what does not fit, warnings, every worker with its reason, the objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.render.layout import plain_text
from gpualloc.render.report.markup import element, escaped, table
from gpualloc.render.table import (
    NOTES,
    action_text,
    granted_text,
    groups_of_unplaced,
    share_text,
    summary_line,
    tier_value,
    where_text,
)
from gpualloc.render.words import devices_of, listed

if TYPE_CHECKING:
    from gpualloc.model import Inventory, Plan, Tier

TIERS = {
    "placed": "workers placed, by priority from the highest",
    "moves": "placed workers whose devices change",
    "granted": "devices granted to elastic requests",
    "grant_vector": "those grants in ascending order, so that nobody gets little while others get much",
    "hosts_used": "hosts with workers on them",
    "devices_used": "devices with workers on them",
    "peak_load": "load of the fullest device, rounded up to steps of 5 %",
    "link_score": "how closely the devices of each worker are joined",
    "device_size": "memory of the devices given to workers that name none, in MiB",
    "used_memory_total": "size of all devices that are used, in MiB",
    "free_link_score": "how closely the devices that stay free are joined",
    "sum_sq_load": "sum of the squared loads of the devices",
    "numa_sum_sq": "sum of the squared mean loads of the NUMA nodes",
    "host_sum_sq": "sum of the squared mean loads of the hosts",
}
"""What each tier of the objective counts."""


def summary(plan: Plan, inventory: Inventory) -> str:
    """Return the line that sums a plan up."""
    return plain_text(summary_line(plan, inventory).body)


def workers_table(plan: Plan, inventory: Inventory) -> str:
    """Return every placed worker with its devices and the reason."""
    if not plan.solution.placements:
        return ""
    devices = devices_of(inventory)
    several = len(inventory.hosts) > 1
    rows = [
        (
            p.worker,
            *([p.host] if several else []),
            granted_text(p.devices, devices, p.host),
            share_text(p),
            action_text(p, devices),
            p.reason,
        )
        for p in plan.solution.placements
    ]
    titles = ("worker", *(["host"] if several else []), "devices", "memory", "action", "reason")
    return table("Workers", titles, rows)


def unplaced_part(plan: Plan, inventory: Inventory) -> str:
    """Return what does not fit, device by device, with what would let it in."""
    devices = devices_of(inventory)
    parts = []
    for (reasons, hint), workers in groups_of_unplaced(plan.solution.unplaced).items():
        verb = "does" if len(workers) == 1 else "do"
        why = "".join(
            f"<li>{escaped(where_text(reason, devices, len(inventory.hosts)))}: {escaped(reason.detail or reason.code)}"
            f" ({escaped(reason.code)})</li>"
            for reason in reasons
        )
        said = f"<strong>{escaped(listed(workers))}</strong> {verb} not fit"
        hints = element("div", f"hint: {hint}") if hint else ""
        parts.append(f'<div class="misfit">{said}<ul>{why}</ul>{hints}</div>')
    return "\n".join(parts)


def warnings_part(plan: Plan) -> str:
    """Return the plan's warnings."""
    parts = []
    for warning in plan.solution.warnings:
        lead = "note" if warning.code in NOTES else "warning"
        whom = f" ({listed(warning.workers)})" if warning.workers else ""
        parts.append(element("p", f"{lead}: {warning.detail or warning.code}{whom}", cls="note"))
    return "\n".join(parts)


def objective_table(plan: Plan) -> str:
    """Return the objective, tier by tier, with the bound of each."""
    if not plan.solution.objective:
        return ""
    rows = [
        (
            f"{number}. {tier.name}",
            TIERS.get(tier.name, ""),
            "more is better" if tier.sense == "max" else "less is better",
            tier_value(tier.value),
            "none" if tier.bound is None else tier_value(tier.bound),
            _proof(tier),
        )
        for number, tier in enumerate(plan.solution.objective, 1)
    ]
    titles = ("tier", "what it counts", "sense", "value", "bound", "proof")
    return table("How good the plan is: compared tier by tier, the first first", titles, rows)


def _proof(tier: Tier) -> str:
    return "✓ proven best" if tier.proven else "not proven"
