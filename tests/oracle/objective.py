"""What "best" means: the tiers of the objective, each as a plain function of who holds what, in exact numbers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from fractions import Fraction
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from tests.oracle.rules import may_stay

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from tests.oracle.rules import Case, Job

Choice = tuple[frozenset[int] | None, ...]
"""For each job of the case, the devices it holds, or None where it is not placed."""

Value = int | Fraction | tuple[int, ...]
Sense = Literal["min", "max"]


class Outcome:
    """One assignment of a case, with what the tiers and the rules ask of it."""

    def __init__(self, case: Case, choice: Choice) -> None:
        self.case = case
        self.choice = choice

    @cached_property
    def placed(self) -> list[tuple[int, Job, frozenset[int]]]:
        """Number of the job, the job, and its devices, for every worker that is placed."""
        return [
            (number, job, held)
            for number, (job, held) in enumerate(zip(self.case.jobs, self.choice, strict=True))
            if held is not None
        ]

    @cached_property
    def holders(self) -> dict[int, list[int]]:
        """Device -> the jobs on it, for devices that hold any."""
        holders: dict[int, list[int]] = defaultdict(list)
        for number, _, held in self.placed:
            for device in held:
                holders[device].append(number)
        return dict(holders)

    def load(self, device: int) -> Fraction:
        """The shares of the workers on a device, plus foreign memory over usable memory."""
        shares = (self.case.jobs[number].shares[device] for number in self.holders.get(device, ()))
        return sum(shares, self.case.devices[device].foreign_load)

    @cached_property
    def loads(self) -> dict[int, Fraction]:
        """The load of every eligible device."""
        return {device: self.load(device) for device in self.case.eligible}


def broken_rules(outcome: Outcome) -> list[str]:
    """Every hard rule of the placement as a whole that the assignment breaks."""
    case, policy = outcome.case, outcome.case.policy
    wrong = []
    for device, numbers in outcome.holders.items():
        jobs = [case.jobs[number] for number in numbers]
        faults = [*_crowding(outcome, device, jobs), *_company(jobs)]
        wrong += [f"{case.devices[device].uuid}: {fault}" for fault in faults]
    if policy.limit is not None and len(outcome.holders) > policy.limit:
        wrong.append(f"limit: {len(outcome.holders)} devices")
    free = Counter(device.host for device in case.devices if device.at not in outcome.holders)
    for host in {case.devices[device].host for device in outcome.holders}:
        if free[host] < policy.reserve:
            wrong.append(f"reserve: {host} has {free[host]} free devices")
    return wrong


def _crowding(outcome: Outcome, device: int, jobs: list[Job]) -> Iterator[str]:
    if any(job.exclusive for job in jobs):
        if len(jobs) > 1:
            yield "an exclusive worker is not alone"
    elif outcome.load(device) > 1:
        yield "handed out beyond its capacity"
    elif len(jobs) > outcome.case.policy.sharing.max_workers_per_gpu:
        yield "more than max_workers_per_gpu"
    if outcome.case.devices[device].gpu.compute_mode == "exclusive_process" and len(jobs) > 1:
        yield "exclusive_process, yet several workers"


def _company(jobs: list[Job]) -> Iterator[str]:
    roles = Counter(job.role for job in jobs)
    for job in jobs:
        others = roles - Counter([job.role])
        for role in job.request.affinity:
            if not others[role]:
                yield f"{job.name} without {role}"
        for role in job.request.anti_affinity:
            if others[role]:
                yield f"{job.name} beside {role}"


def _placed(outcome: Outcome) -> Value:
    counts = Counter(job.request.priority for _, job, _ in outcome.placed)
    by_priority = tuple(counts[priority] for priority in outcome.case.priorities)
    return by_priority if len(by_priority) > 1 else sum(by_priority)


def _moves(outcome: Outcome) -> Value:
    return sum(1 for _, job, held in outcome.placed if job.has_previous and held != job.previous)


def _evictions(outcome: Outcome) -> Value:
    """Workers without a place whose own devices are still good."""
    pairs = zip(outcome.case.jobs, outcome.choice, strict=True)
    return sum(1 for job, held in pairs if held is None and may_stay(outcome.case, job))


def _granted(outcome: Outcome) -> Value:
    return sum(len(held) for _, job, held in outcome.placed if job.elastic)


def _grant_vector(outcome: Outcome) -> Value:
    """A worker that is not placed was granted nothing."""
    pairs = zip(outcome.case.jobs, outcome.choice, strict=True)
    return tuple(sorted(len(held or ()) for job, held in pairs if job.elastic))


def _hosts_used(outcome: Outcome) -> Value:
    return len({outcome.case.devices[device].host for device in outcome.holders})


def _devices_used(outcome: Outcome) -> Value:
    return len(outcome.holders)


def _peak_load(outcome: Outcome) -> Value:
    return Fraction(math.ceil(max(outcome.loads.values(), default=Fraction(0)) * 20), 20)


def _link_score(outcome: Outcome) -> Value:
    return sum(_pairs(outcome.case, held) for _, _, held in outcome.placed)


def _device_size(outcome: Outcome) -> Value:
    return sum(
        outcome.case.devices[device].total or 0
        for _, job, held in outcome.placed
        if job.request.memory_mib is None
        for device in held
    )


def _used_memory_total(outcome: Outcome) -> Value:
    return sum(outcome.case.devices[device].total or 0 for device in outcome.holders)


def _free_link_score(outcome: Outcome) -> Value:
    case, holders = outcome.case, outcome.holders
    return sum(case.pair_score(a, b) for a, b in case.links if a not in holders and b not in holders)


def _sum_sq_load(outcome: Outcome) -> Value:
    return sum((load * load for load in outcome.loads.values()), Fraction(0))


def _numa_sum_sq(outcome: Outcome) -> Value:
    devices = outcome.case.devices
    return _mean_squares(outcome, lambda d: (devices[d].host, devices[d].gpu.numa_node))


def _host_sum_sq(outcome: Outcome) -> Value:
    return _mean_squares(outcome, lambda d: outcome.case.devices[d].host)


def _mean_squares(outcome: Outcome, group: Callable[[int], Hashable]) -> Fraction:
    groups: dict[Hashable, list[Fraction]] = defaultdict(list)
    for device, load in outcome.loads.items():
        groups[group(device)].append(load)
    means = (sum(loads, Fraction(0)) / len(loads) for loads in groups.values())
    return sum((mean * mean for mean in means), Fraction(0))


def _pairs(case: Case, devices: Iterable[int]) -> int:
    return sum(case.pair_score(a, b) for a, b in combinations(sorted(devices), 2))


TIERS: dict[str, tuple[Sense, Callable[[Outcome], Value]]] = {
    "placed": ("max", _placed),
    "moves": ("min", _moves),
    "evictions": ("min", _evictions),
    "granted": ("max", _granted),
    "grant_vector": ("max", _grant_vector),
    "hosts_used": ("min", _hosts_used),
    "devices_used": ("min", _devices_used),
    "peak_load": ("min", _peak_load),
    "link_score": ("max", _link_score),
    "device_size": ("max", _device_size),
    "used_memory_total": ("min", _used_memory_total),
    "free_link_score": ("max", _free_link_score),
    "sum_sq_load": ("min", _sum_sq_load),
    "numa_sum_sq": ("min", _numa_sum_sq),
    "host_sum_sq": ("min", _host_sum_sq),
}


def tier_names(case: Case) -> list[str]:
    """The names of the tiers that the policy compares and the plan reports, in order."""
    return [name for name in compared(case) if name != "evictions"]


def compared(case: Case) -> list[str]:
    """The names of all that plans are compared by, in order: the tiers, and that who can stay is not replaced."""
    policy = case.policy
    pack, linked = policy.strategy == "pack", policy.topology != "ignore"
    return [
        "placed",
        *(["moves", "evictions"] if policy.stability == "keep" else []),
        "granted",
        "grant_vector",
        *(["hosts_used", "devices_used"] if pack else ["peak_load"]),
        *(["link_score"] if linked else []),
        "device_size",
        *(["used_memory_total"] if pack else ["sum_sq_load", "numa_sum_sq", "host_sum_sq"]),
        *(["free_link_score"] if pack and linked else []),
        *(["moves", "evictions"] if policy.stability == "prefer" else []),
    ]


def better(name: str, a: Value, b: Value) -> bool:
    """Whether value ``a`` of this tier is strictly better than ``b``."""
    if TIERS[name][0] == "min":
        a, b = b, a
    return a > b  # type: ignore[operator]  # both are numbers, or both tuples
