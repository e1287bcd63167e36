"""The small oracle: every assignment there is, and a check of any solution against every stated rule."""

from __future__ import annotations

import math
import re
from itertools import combinations
from typing import TYPE_CHECKING

from tests.oracle.objective import TIERS, Choice, Outcome, Value, better, broken_rules, compared, tier_names
from tests.oracle.rules import read_case, set_fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpualloc.model import Inventory, Placement, Policy, Request, Solution
    from tests.oracle.rules import Case, Device, Job


def best(
    inventory: Inventory, requests: tuple[Request, ...], policy: Policy, project: str | None = None
) -> dict[str, Value]:
    """Return the best value of every tier, in their order, over every assignment."""
    case = read_case(inventory, requests, policy, project)
    return best_of(case)[1]


def best_of(case: Case) -> tuple[Choice, dict[str, Value]]:
    """Return one best assignment with its values."""
    names = compared(case)
    champion: tuple[Choice, dict[str, Value]] | None = None
    for choice in every_assignment(case):
        outcome = Outcome(case, choice)
        if champion is not None and not _beats(outcome, champion[1]):
            continue
        if not broken_rules(outcome):
            champion = choice, {name: TIERS[name][1](outcome) for name in names}
    if champion is None:
        raise AssertionError("placing nobody breaks no rule")
    return champion


def _beats(outcome: Outcome, values: dict[str, Value]) -> bool:
    for name, value in values.items():
        mine = TIERS[name][1](outcome)
        if mine != value:
            return better(name, mine, value)
    return False


def every_assignment(case: Case) -> Iterator[Choice]:
    """Yield assignments, leaving out only those that break a device's capacity or exclusiveness on the way.

    Workers of one role that hold nothing now are alike: of assignments that differ in their names only, one is tried.
    """
    options = [[None, *options_of(case, job)] for job in case.jobs]
    alike = [
        number > 0
        and case.jobs[number].request is case.jobs[number - 1].request
        and not case.jobs[number].has_previous
        and not case.jobs[number - 1].has_previous
        for number in range(len(case.jobs))
    ]
    exclusive_on: set[int] = set()
    load = {device.at: device.foreign_load for device in case.devices}
    sharers = dict.fromkeys(load, 0)
    cap = case.policy.sharing.max_workers_per_gpu

    def extend(number: int, chosen: tuple[frozenset[int] | None, ...], first: int) -> Iterator[Choice]:
        if number == len(case.jobs):
            yield chosen
            return
        job = case.jobs[number]
        for position in range(first if alike[number] else 0, len(options[number])):
            held = options[number][position]
            if held is None:
                yield from extend(number + 1, (*chosen, None), position)
            elif job.exclusive:
                if exclusive_on & held or any(sharers[d] for d in held):
                    continue
                exclusive_on.update(held)
                yield from extend(number + 1, (*chosen, held), position)
                exclusive_on.difference_update(held)
            else:
                if exclusive_on & held or any(sharers[d] == cap or load[d] + job.shares[d] > 1 for d in held):
                    continue
                for device in held:
                    sharers[device] += 1
                    load[device] += job.shares[device]
                yield from extend(number + 1, (*chosen, held), position)
                for device in held:
                    sharers[device] -= 1
                    load[device] -= job.shares[device]

    return extend(0, (), 0)


def options_of(case: Case, job: Job) -> list[frozenset[int]]:
    """Return every set of devices that the worker could have, were it alone."""
    sets = []
    for host in case.hosts:
        here = [d for d in sorted(job.shares) if case.devices[d].host == host]
        for size in range(job.low, min(job.high, len(here)) + 1):
            sets += [frozenset(chosen) for chosen in combinations(here, size) if not set_fault(case, job, chosen)]
    return sets


# --------------------------------------------------------------------------------------------------------------------


def validate(
    inventory: Inventory,
    requests: tuple[Request, ...],
    policy: Policy,
    solution: Solution,
    project: str | None = None,
) -> list[str]:
    """Return what is wrong with a solution: rules it breaks, and values that are not those of its placements.

    An empty list says that it is right, not that it is best. For any size.
    """
    case = read_case(inventory, requests, policy, project)
    wrong, choice = _placements(case, solution)
    if wrong:
        return wrong
    outcome = Outcome(case, choice)
    return broken_rules(outcome) + _reported(outcome, solution)


def values_of(case: Case, solution: Solution) -> dict[str, Value]:
    """Return the exact values of a valid solution's placements."""
    outcome = Outcome(case, _placements(case, solution)[1])
    return {name: TIERS[name][1](outcome) for name in compared(case)}


def _placements(case: Case, solution: Solution) -> tuple[list[str], Choice]:
    at = {device.uuid: device.at for device in case.devices}
    placements = {placement.worker: placement for placement in solution.placements}
    named = sorted([p.worker for p in solution.placements] + [u.worker for u in solution.unplaced])
    if named != sorted(job.name for job in case.jobs):
        return [f"workers placed or not: {named}, workers asked for: {sorted(job.name for job in case.jobs)}"], ()
    wrong: list[str] = []
    choice: list[frozenset[int] | None] = []
    for job in case.jobs:
        placement = placements.get(job.name)
        if placement is None:
            choice.append(None)
            continue
        unknown = [ref.uuid for ref in placement.devices if ref.uuid not in at]
        if unknown:
            wrong.append(f"{job.name}: no such devices: {unknown}")
            continue
        held = tuple(at[ref.uuid] for ref in placement.devices)
        choice.append(frozenset(held))
        wrong += [f"{job.name}: {fault}" for fault in _placement_faults(case, job, placement, held)]
    return wrong, tuple(choice)


def _placement_faults(case: Case, job: Job, placement: Placement, held: tuple[int, ...]) -> Iterator[str]:
    devices = [case.devices[d] for d in held]
    if len(set(held)) < len(held):
        yield "the same device twice"
    for device in devices:
        if device.at not in job.shares:
            yield f"may not have {device.uuid}"
        if device.host != placement.host:
            yield f"{device.uuid} is not on {placement.host}"
    fault = set_fault(case, job, held)
    if fault:
        yield fault
    yield from _told_wrong(job, placement, devices)


def _told_wrong(job: Job, placement: Placement, devices: list[Device]) -> Iterator[str]:
    """What a placement says of itself that is not so."""
    previous = job.previous is not None and {device.at for device in devices} == job.previous
    truths = {
        "devices are in PCI order": _pci(devices) == sorted(_pci(devices)),
        "indices are the GPUs'": [ref.index for ref in placement.devices] == [d.gpu.index for d in devices],
        f"service is {placement.service}": placement.service == job.role,
        f"exclusive is {placement.exclusive}": placement.exclusive == job.exclusive,
        "an exclusive worker has no share of memory": not job.exclusive or placement.memory_mib is None,
        f"action is {placement.action}, kept: {previous}": (placement.action == "keep") == previous,
        f"action is {placement.action}, pinned before: {job.has_previous}": (placement.action == "pin")
        != job.has_previous,
    }
    yield from (f"untrue: {claim}" for claim, holds in truths.items() if not holds)


def _pci(devices: list[Device]) -> list[list[int]]:
    return [[int(part, 16) for part in re.split("[:.]", device.gpu.pci_bus_id)] for device in devices]


def _reported(outcome: Outcome, solution: Solution) -> list[str]:
    names = tier_names(outcome.case)
    if [tier.name for tier in solution.objective] != names:
        return [f"tiers {[tier.name for tier in solution.objective]}, not {names}"]
    wrong = []
    for tier in solution.objective:
        sense, value_of = TIERS[tier.name]
        value = value_of(outcome)
        if tier.sense != sense:
            wrong.append(f"{tier.name}: sense {tier.sense}")
        if not same(tier.value, value):
            wrong.append(f"{tier.name}: reported {tier.value}, is {value}")
        if tier.proven and not same(tier.bound, value):
            wrong.append(f"{tier.name}: proven, yet the bound is {tier.bound} and the value {value}")
    return wrong


def same(reported: object, value: Value) -> bool:
    """Whether a reported value is this exact one; sums are reported as floats."""
    if isinstance(value, tuple) or isinstance(reported, tuple):
        return reported == value
    return isinstance(reported, (int, float)) and math.isclose(reported, value, rel_tol=1e-9, abs_tol=1e-9)
