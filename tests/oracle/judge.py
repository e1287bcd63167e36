"""What the planner's answer to an instance looks like beside an oracle's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.solve import SolveOptions, solve
from tests.oracle import brute, cpsat
from tests.oracle.rules import read_case

if TYPE_CHECKING:
    from gpualloc.model import Solution
    from tests.oracle.instances import Instance
    from tests.oracle.objective import Value


def plan(instance: Instance, *, seconds: float | None = None) -> Solution:
    """Return the planner's answer; with a time limit it may be cut off."""
    options = SolveOptions(time_limit_s=seconds)
    return solve(instance.inventory, instance.requests, instance.policy, project=instance.project, options=options)


def faults(instance: Instance, solution: Solution) -> list[str]:
    """Return the rules that a solution breaks, and the values that it reports wrongly."""
    return brute.validate(instance.inventory, instance.requests, instance.policy, solution, instance.project)


def beside_brute(instance: Instance) -> str | None:
    """Return how the planner's answer falls short of the best of all assignments; None where it does not."""
    solution = plan(instance)
    best = brute.best(instance.inventory, instance.requests, instance.policy, instance.project)
    wrong = faults(instance, solution)
    for tier in solution.objective:
        if not wrong and not brute.same(tier.value, best[tier.name]):
            wrong.append(f"{tier.name}: {tier.value}, best is {best[tier.name]}")
        if not tier.proven:
            wrong.append(f"{tier.name}: not proven")
    if not wrong:
        case = read_case(instance.inventory, instance.requests, instance.policy, instance.project)
        evictions = brute.values_of(case, solution).get("evictions")
        if evictions != best.get("evictions"):
            wrong.append(f"evictions: {evictions}, fewest are {best['evictions']}")
    return _message(instance, wrong, solution, best) if wrong else None


def beside_cpsat(instance: Instance, *, seconds: float) -> tuple[cpsat.Answer, str, str]:
    """Give both the same time; return CP-SAT's answer, its verdict on the planner's, and a message about it.

    A planner that breaks a rule is ``worse``; ``better`` than a proven value means that one of the two is mistaken.
    """
    solution = plan(instance, seconds=seconds)
    case = read_case(instance.inventory, instance.requests, instance.policy, instance.project)
    answer = cpsat.best_of(case, seconds=seconds)
    wrong = faults(instance, solution)
    # Valid means that the reported values are those of the placements, up to rounding: compare the exact ones.
    verdict = "worse" if wrong else answer.verdict(brute.values_of(case, solution))
    return answer, verdict, _message(instance, wrong or [verdict], solution, answer.values)


def _message(instance: Instance, wrong: list[str], solution: Solution, best: dict[str, Value]) -> str:
    got = {tier.name: tier.value for tier in solution.objective}
    held = {p.worker: [ref.uuid for ref in p.devices] for p in solution.placements}
    return "\n".join(
        [
            *wrong,
            f"got      {got}",
            f"expected { ({name: float(v) if not isinstance(v, (int, tuple)) else v for name, v in best.items()}) }",
            f"placed   {held}",
            instance.text(),
        ]
    )
