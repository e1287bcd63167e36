"""What "best" means: the tiers of the objective, each computed exactly from a finished assignment.

The search engines optimise these numbers by their own means; what is reported is always computed here. A tier is one
function and one line in ``TIERS``. Values that the report shows as fractions are kept as whole numbers over a
denominator that is the same for every plan of a problem, so that comparing them is exact.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from gpualloc.policy.scoring import PEAK_STEPS, peak_steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.solve.problem import Assignment, Problem

Amount = int | tuple[int, ...]
"""A tier's value while solving: whole numbers only."""


class State:
    """An assignment with what the tiers need of it: load per device in its units, and which devices are used."""

    def __init__(self, problem: Problem, assignment: Assignment) -> None:
        self.problem = problem
        self.assignment = assignment
        self.load = dict.fromkeys(range(len(problem.devices)), 0)
        for d, amount in enumerate(problem.taken):
            self.load[d] = amount
        self.used: set[int] = set()
        for job, devices in zip(problem.jobs, assignment, strict=True):
            kind = problem.kinds[job.kind]
            for d in devices or ():
                self.used.add(d)
                self.load[d] += problem.full[d] if kind.exclusive else kind.weight[d]


def _placed(state: State) -> Amount:
    problem = state.problem
    placed: Counter[int] = Counter()
    for job, devices in zip(problem.jobs, state.assignment, strict=True):
        placed[problem.kinds[job.kind].priority] += devices is not None
    return tuple(placed[priority] for priority in sorted(placed, reverse=True)) or (0,)


def _moves(state: State) -> Amount:
    problem = state.problem
    return sum(
        1
        for job, devices in zip(problem.jobs, state.assignment, strict=True)
        if devices is not None and moved(problem, job.previous, devices)
    )


def _evictions(state: State) -> Amount:
    return sum(
        job.home is not None and devices is None
        for job, devices in zip(state.problem.jobs, state.assignment, strict=True)
    )


def moved(problem: Problem, previous: tuple[str, ...] | None, devices: tuple[int, ...]) -> bool:
    """Tell whether a worker that had devices has others now."""
    return previous is not None and {problem.devices[d].uuid for d in devices} != set(previous)


def _grant_vector(state: State) -> Amount:
    problem = state.problem
    return tuple(
        sorted(
            len(devices or ())
            for job, devices in zip(problem.jobs, state.assignment, strict=True)
            if problem.kinds[job.kind].elastic
        )
    )


def _granted(state: State) -> Amount:
    vector = _grant_vector(state)
    return sum(vector) if isinstance(vector, tuple) else vector


def _hosts_used(state: State) -> Amount:
    return len({state.problem.host_of[d] for d in state.used})


def _devices_used(state: State) -> Amount:
    return len(state.used)


def _peak_load(state: State) -> Amount:
    problem = state.problem
    return max(
        (peak_steps(state.load[d], problem.full[d]) for d, counts in enumerate(problem.eligible) if counts), default=0
    )


def _link_score(state: State) -> Amount:
    return sum(state.problem.set_score(devices) for devices in state.assignment if devices and len(devices) > 1)


def _device_size(state: State) -> Amount:
    problem = state.problem
    return sum(
        problem.size[d]
        for job, devices in zip(problem.jobs, state.assignment, strict=True)
        if not problem.kinds[job.kind].names_memory
        for d in devices or ()
    )


def _used_memory_total(state: State) -> Amount:
    return sum(state.problem.size[d] for d in state.used)


def _free_link_score(state: State) -> Amount:
    problem = state.problem
    score = 0
    for host in range(len(problem.hosts)):
        free = {d for d in problem.host_devices[host] if d not in state.used}
        score += sum(pair[0] for (a, b), pair in problem.pairs(host).items() if a in free and b in free)
    return score


def common_loads(problem: Problem, load: dict[int, int]) -> dict[int, int]:
    """Return the load of every eligible device, over the one denominator ``problem.common``."""
    return {d: load[d] * (problem.common // problem.full[d]) for d, counts in enumerate(problem.eligible) if counts}


def _sum_sq_load(state: State) -> Amount:
    return sum(amount * amount for amount in common_loads(state.problem, state.load).values())


def domain_weights(problem: Problem, domain_of: list[int]) -> tuple[dict[int, int], int]:
    """Return what a domain's squared total load is multiplied with to give its squared mean, over one denominator.

    A domain of n devices has mean load (total / n); the weight is (L / n) squared, and L squared the denominator.
    """
    sizes = Counter(domain_of[d] for d, counts in enumerate(problem.eligible) if counts)
    scale = math.lcm(*sizes.values())
    return {domain: (scale // n) ** 2 for domain, n in sizes.items()}, scale * scale


def _domain_sum_sq(state: State, domain_of: list[int]) -> int:
    problem = state.problem
    weights, _ = domain_weights(problem, domain_of)
    totals = dict.fromkeys(weights, 0)
    for d, amount in common_loads(problem, state.load).items():
        totals[domain_of[d]] += amount
    return sum(weights[domain] * total * total for domain, total in totals.items())


def _numa_sum_sq(state: State) -> Amount:
    return _domain_sum_sq(state, state.problem.numa_of)


def _host_sum_sq(state: State) -> Amount:
    return _domain_sum_sq(state, state.problem.host_of)


def _one(problem: Problem) -> int:  # noqa: ARG001 - one signature for every denominator
    return 1


def _peak_denominator(problem: Problem) -> int:  # noqa: ARG001 - one signature for every denominator
    return PEAK_STEPS


def _load_denominator(problem: Problem) -> int:
    return problem.common * problem.common


def _numa_denominator(problem: Problem) -> int:
    return _load_denominator(problem) * domain_weights(problem, problem.numa_of)[1]


def _host_denominator(problem: Problem) -> int:
    return _load_denominator(problem) * domain_weights(problem, problem.host_of)[1]


@dataclass(frozen=True, slots=True)
class TierRule:
    """One tier: how it is computed, when it applies, and what its whole number is to be divided by.

    What is not ``reported`` decides between plans like every other, but is no part of the objective that a plan shows.
    """

    name: str
    sense: Literal["min", "max"]
    value: Callable[[State], Amount]
    applies: Callable[[Problem], bool]
    denominator: Callable[[Problem], int] = _one
    reported: bool = True


def _pack(problem: Problem) -> bool:
    return not problem.spread


def _spread(problem: Problem) -> bool:
    return problem.spread


TIERS: tuple[TierRule, ...] = (
    TierRule("placed", "max", _placed, lambda _: True),
    TierRule("moves", "min", _moves, lambda problem: problem.stability == "keep"),
    # of those who might stay where they are, none gives way to one who waits for a place
    TierRule("evictions", "min", _evictions, lambda problem: problem.stability == "keep", reported=False),
    TierRule("granted", "max", _granted, lambda _: True),
    TierRule("grant_vector", "max", _grant_vector, lambda _: True),
    TierRule("hosts_used", "min", _hosts_used, _pack),
    TierRule("devices_used", "min", _devices_used, _pack),
    TierRule("peak_load", "min", _peak_load, _spread, _peak_denominator),
    TierRule("link_score", "max", _link_score, lambda problem: problem.topology),
    TierRule("device_size", "max", _device_size, lambda _: True),
    TierRule("used_memory_total", "min", _used_memory_total, _pack),
    TierRule("free_link_score", "max", _free_link_score, lambda problem: problem.topology and not problem.spread),
    TierRule("sum_sq_load", "min", _sum_sq_load, _spread, _load_denominator),
    TierRule("numa_sum_sq", "min", _numa_sum_sq, _spread, _numa_denominator),
    TierRule("host_sum_sq", "min", _host_sum_sq, _spread, _host_denominator),
    TierRule("moves", "min", _moves, lambda problem: problem.stability == "prefer"),
    TierRule("evictions", "min", _evictions, lambda problem: problem.stability == "prefer", reported=False),
)
"""Every tier in the order in which plans are compared."""

Score = tuple[Amount, ...]
"""The whole objective, every value turned so that less is better. Scores of one problem compare by ``<``."""


def rules_of(problem: Problem) -> list[TierRule]:
    """Return the tiers that apply, in order."""
    return [rule for rule in TIERS if rule.applies(problem)]


def turned(value: Amount, sense: str) -> Amount:
    """Return a value such that less is better, and back again."""
    if sense == "min":
        return value
    return tuple(-part for part in value) if isinstance(value, tuple) else -value


def score_of(problem: Problem, assignment: Assignment) -> Score:
    """Return the objective of an assignment, for comparing."""
    state = State(problem, assignment)
    return tuple(turned(rule.value(state), rule.sense) for rule in rules_of(problem))


def shown(problem: Problem, rule: TierRule, value: Amount | Fraction | None) -> int | float | tuple[int, ...] | None:
    """Return a tier's value as the plan reports it."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return value[0] if rule.name == "placed" and len(value) == 1 else value
    below = rule.denominator(problem)
    if below == 1:
        return int(value)
    if rule.name == "peak_load":
        return round(int(value) / below, 2)
    return float(Fraction(value) / below)
