"""One judge for every plan, whoever made it: is it allowed, and what is it worth?

Rests on the stated rules as the tests' oracle reads them (``tests/oracle``), and on nothing of the planner.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING

from gpualloc.model import DeviceRef, Placement
from tests.oracle.objective import TIERS, Outcome, better, broken_rules, tier_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.oracle.objective import Choice, Value
    from tests.oracle.rules import Case, Job

METRICS = ("placed", "devices_used", "peak_load", "link_score", "moves")


class BrokenPlanError(Exception):
    """A plan that no card could hold, or that says something else than it means."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a plan is worth: the tiers that its policy compares, in order, and five figures that every policy has."""

    tiers: dict[str, Value]
    metrics: dict[str, Value]

    def compare(self, other: Verdict) -> tuple[str, int]:
        """Return the first tier that tells the two apart, and 1 where this one is better there, -1 where it is worse.

        Where no tier does: an empty name, and 0.
        """
        for name, mine in self.tiers.items():
            if mine != other.tiers[name]:
                return name, 1 if better(name, mine, other.tiers[name]) else -1
        return "", 0


def evaluate(case: Case, placements: Sequence[Placement]) -> Verdict:
    """Return what a plan is worth. Raises :class:`BrokenPlanError` for one that breaks a hard rule."""
    outcome = Outcome(case, _choice(case, placements))
    faults = [fault for _, job, held in outcome.placed for fault in _own_faults(case, job, held)]
    faults += broken_rules(outcome)
    if faults:
        raise BrokenPlanError("; ".join(faults))
    return Verdict(
        tiers={name: TIERS[name][1](outcome) for name in tier_names(case)},
        metrics={name: TIERS[name][1](outcome) for name in METRICS},
    )


def _choice(case: Case, placements: Sequence[Placement]) -> Choice:
    """Read placements as devices per worker; raises where they contradict themselves or the case."""
    at = {device.uuid: device for device in case.devices}
    jobs = {job.name: (number, job) for number, job in enumerate(case.jobs)}
    chosen: list[frozenset[int] | None] = [None] * len(case.jobs)
    for placement in placements:
        if placement.worker not in jobs:
            raise BrokenPlanError(f"{placement.worker}: nobody asked for it")
        number, job = jobs[placement.worker]
        if chosen[number] is not None:
            raise BrokenPlanError(f"{placement.worker}: placed twice")
        if any(ref.uuid not in at for ref in placement.devices):
            raise BrokenPlanError(f"{placement.worker}: a device that is not there")
        held = frozenset(at[ref.uuid].at for ref in placement.devices)
        if len(held) != len(placement.devices) or not held:
            raise BrokenPlanError(f"{placement.worker}: no device, or one twice")
        if {case.devices[d].host for d in held} != {placement.host}:
            raise BrokenPlanError(f"{placement.worker}: devices that are not on {placement.host}")
        if any(at[ref.uuid].gpu.index != ref.index for ref in placement.devices):
            raise BrokenPlanError(f"{placement.worker}: an index of another device")
        if placement.exclusive != job.exclusive:
            raise BrokenPlanError(f"{placement.worker}: exclusive or not, against what was asked")
        chosen[number] = held
    return tuple(chosen)


def _own_faults(case: Case, job: Job, held: frozenset[int]) -> list[str]:
    """Return what is wrong with a worker's devices, were nobody else there."""
    faults = []
    if not job.low <= len(held) <= max(job.low, job.high):
        faults.append(f"{job.name}: {len(held)} devices")
    if len({case.devices[d].host for d in held}) > 1:
        faults.append(f"{job.name}: devices of several hosts")
    if any(d not in job.shares for d in held):
        faults.append(f"{job.name}: a device that a filter keeps from it")
    if len(held) > 1 and any(case.devices[d].profile for d in held):
        faults.append(f"{job.name}: several MIG instances")
    if not all(case.close_enough(job, a, b) for a, b in combinations(sorted(held), 2)):
        faults.append(f"{job.name}: devices further apart than min_link")
    return faults


def placements_of(case: Case, choice: Choice) -> tuple[Placement, ...]:
    """Return a choice of devices in the plan's own words."""
    found = []
    for job, held in zip(case.jobs, choice, strict=True):
        if held is None:
            continue
        devices = sorted((case.devices[d] for d in held), key=lambda device: device.gpu.pci_bus_id)
        share = max(job.shares[device.at] * (device.usable or Fraction(0)) for device in devices)
        found.append(
            Placement(
                worker=job.name,
                service=job.role,
                replica=1,
                host=devices[0].host,
                devices=tuple(DeviceRef(device.uuid, device.gpu.index) for device in devices),
                memory_mib=None if job.exclusive else int(share),
                exclusive=job.exclusive,
                action="keep" if held == job.previous else "move" if job.has_previous else "pin",
                previous=None if job.previous is None else tuple(case.devices[d].uuid for d in sorted(job.previous)),
                reason="",
            )
        )
    return tuple(found)
