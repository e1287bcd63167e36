"""What a policy's ``write.env`` and ``write.env_shared`` give each worker."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING

from gpualloc.policy.values import closest, listed, shown

if TYPE_CHECKING:
    from gpualloc.model import Host, Placement, Policy

VARIABLES = (
    "worker",
    "role",
    "replica",
    "gpus",
    "device_ids",
    "memory_mib",
    "memory_fraction",
    "numa_node",
    "cpu_affinity",
)
"""What the templates may name."""


def environment(policy: Policy, placement: Placement, host: Host) -> tuple[tuple[str, str], ...]:
    """Return the variables that the policy gives a placed worker, as names and values, sorted by name.

    ``env`` is for every worker; ``env_shared``, over it, for those that share their devices. A variable whose template
    names something that is null for this worker is left out. Values are what the process must see: the writer still
    has to double each ``$`` for Compose. ``host`` is the one that the placement names.
    """
    templates = dict(policy.write.env)
    if not placement.exclusive:
        templates |= dict(policy.write.env_shared)
    if not templates:
        return ()
    values = variables(policy, placement, host)
    rendered = []
    for name, text in sorted(templates.items()):
        if all(values[used] is not None for used in _names(text)):
            rendered.append((name, Template(text).substitute(values)))
    return tuple(rendered)


def variables(policy: Policy, placement: Placement, host: Host) -> dict[str, str | None]:
    """Return the value of each of VARIABLES for a worker, as text; None where it is unknown or has none.

    - ``gpus``: how many devices; ``device_ids``: as they are written into the file, joined by commas.
    - ``memory_mib``: the worker's share of each device; ``memory_fraction``: that over the total of its smallest
      device, four decimals, rounded down. None for a worker that has its devices alone.
    - ``numa_node``, ``cpu_affinity``: where all its devices agree.
    """
    totals: dict[str, int | None] = {}
    nodes: dict[str, int | None] = {}
    cpus: dict[str, str | None] = {}
    for gpu in host.gpus:
        for uuid, total in ((gpu.uuid, gpu.memory_total_mib), *((m.uuid, m.memory_total_mib) for m in gpu.mig or ())):
            totals[uuid] = total
            nodes[uuid] = gpu.numa_node
            cpus[uuid] = gpu.cpu_affinity
    uuids = [device.uuid for device in placement.devices]
    return {
        "worker": placement.worker,
        "role": placement.service,
        "replica": str(placement.replica),
        "gpus": str(len(uuids)),
        "device_ids": ",".join(written_ids(policy, placement)),
        "memory_mib": None if placement.memory_mib is None else str(placement.memory_mib),
        "memory_fraction": _fraction(placement.memory_mib, [totals.get(uuid) for uuid in uuids]),
        "numa_node": _agreed([nodes.get(uuid) for uuid in uuids]),
        "cpu_affinity": _agreed([cpus.get(uuid) for uuid in uuids]),
    }


def written_ids(policy: Policy, placement: Placement) -> tuple[str, ...]:
    """Return a worker's device ids as the policy wants them written: UUIDs or NVML indices.

    A MIG instance is always named by its UUID: its index is that of the whole GPU.
    """
    by_index = policy.write.device_ids == "index"
    return tuple(
        str(device.index) if by_index and not device.uuid.startswith("MIG-") else device.uuid
        for device in placement.devices
    )


def template_problem(text: str) -> tuple[str, str] | None:
    """Return what is wrong with a template, and a hint; None if it is one over VARIABLES."""
    for match in Template.pattern.finditer(text):
        if match["invalid"] is not None:
            return f"a $ that starts no variable in {shown(text)}", "write $$ for the character itself, or ${name}"
        name = match["named"] or match["braced"]
        if name and name not in VARIABLES:
            meant = closest(name, VARIABLES)
            hint = f"did you mean {meant}?" if meant else f"the variables are {listed(VARIABLES, 'and')}"
            return f"unknown variable {shown(name)}", hint
    return None


def _names(text: str) -> list[str]:
    return [name for match in Template.pattern.finditer(text) if (name := match["named"] or match["braced"])]


def _agreed(values: list[int | None] | list[str | None]) -> str | None:
    distinct = set(values)
    value = distinct.pop() if len(distinct) == 1 else None
    return None if value is None else str(value)


def _fraction(memory_mib: int | None, totals: list[int | None]) -> str | None:
    known = [total for total in totals if total]
    if memory_mib is None or not known or len(known) < len(totals):
        return None
    parts = min(memory_mib * 10_000 // min(known), 10_000)
    return f"{parts // 10_000}.{parts % 10_000:04d}"
