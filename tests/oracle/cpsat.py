"""The middle oracle: the plain worker x device model, solved tier by tier with OR-Tools' CP-SAT."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING

from ortools.sat.python import cp_model

from oracle.objective import TIERS, Choice, Outcome, Value, better, broken_rules, tier_names
from oracle.rules import read_case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from gpualloc.model import Inventory, Policy, Request
    from oracle.rules import Case, Job

EXACT = 2**60
"""Sums up to here stay exact in CP-SAT's 64-bit integers, with room for its own arithmetic."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What CP-SAT found: the value of every tier in order, and how many of them, from the first, it proved best."""

    choice: Choice
    values: dict[str, Value]
    proven: int

    @property
    def complete(self) -> bool:
        return self.proven == len(self.values)

    def verdict(self, values: dict[str, Value]) -> str:
        """Compare another's values: ``equal``, ``worse`` or ``better`` than what was proven, or ``no worse``.

        ``no worse``: as good up to a tier that CP-SAT did not prove, and there not behind what it found.
        """
        for position, (name, mine) in enumerate(self.values.items()):
            if better(name, mine, values[name]):
                return "worse"
            if mine != values[name]:
                return "better" if position < self.proven else "no worse"
        return "equal"


def best(
    inventory: Inventory,
    requests: tuple[Request, ...],
    policy: Policy,
    project: str | None = None,
    *,
    seconds: float = 60,
    threads: int = 1,
) -> Answer:
    """Return the best found within the time, with what of it is proven."""
    return best_of(read_case(inventory, requests, policy, project), seconds=seconds, threads=threads)


def best_of(case: Case, *, seconds: float = 60, threads: int = 1) -> Answer:
    """Return the best found for a case, one tier after the other, each held while the next is improved."""
    problem = Problem(case)
    names = tier_names(case)
    stop = time.monotonic() + seconds
    choice: Choice = tuple(None for _ in case.jobs)
    proven = 0
    for name in names:
        status, found = problem.improve(name, stop, threads)
        if found is not None:
            choice = found
        if status != "proven":
            break
        proven += 1
    outcome = Outcome(case, choice)
    faults = broken_rules(outcome)
    if faults:
        raise AssertionError(f"the model lets through what the rules forbid: {faults}")
    return Answer(choice, {name: TIERS[name][1](outcome) for name in names}, proven)


class Problem:
    """The model of a case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.model = cp_model.CpModel()
        self.hint: dict[int, int] = {}
        new = self.model.new_bool_var
        self.has = {(w, d): new(f"has {w} {d}") for w, job in enumerate(case.jobs) for d in sorted(job.shares)}
        self.placed = [new(f"placed {w}") for w in range(len(case.jobs))]
        self.used = {device.at: new(f"used {device.at}") for device in case.devices}
        self.holders: dict[int, list[int]] = defaultdict(list)
        for w, d in self.has:
            self.holders[d].append(w)
        self.size = [sum(self.has[w, d] for d in job.shares) for w, job in enumerate(case.jobs)]
        for w, job in enumerate(case.jobs):
            self._whole(w, job)
        self.scale: dict[int, int] = {}
        self.load: dict[int, Any] = {}
        for device in case.devices:
            self._capacity(device.at)
        self._company()
        self._free()

    # ---- hard rules

    def _whole(self, w: int, job: Job) -> None:
        """A worker is placed whole, on one host, on devices linked closely enough; or it has nothing."""
        devices = self.case.devices
        on_host = []
        for host in self.case.hosts:
            here = [d for d in sorted(job.shares) if devices[d].host == host]
            if not here:
                continue
            chosen = self.model.new_bool_var(f"host {w} {host}")
            on_host.append(chosen)
            count = sum(self.has[w, d] for d in here)
            most = min(job.high, len(here))
            self.model.add(count >= job.low * chosen)
            self.model.add(count <= most * chosen)
            for a, b in combinations(here, 2):
                mig = devices[a].profile is not None or devices[b].profile is not None
                if mig or not self.case.close_enough(job, a, b):
                    self.model.add_bool_or(~self.has[w, a], ~self.has[w, b])
        self.model.add(sum(on_host) == self.placed[w])

    def _capacity(self, d: int) -> None:
        device, jobs = self.case.devices[d], self.case.jobs
        here = self.holders[d]
        shares = {w: jobs[w].shares[d] for w in here}
        scale = math.lcm(device.foreign_load.denominator, *(share.denominator for share in shares.values()))
        self.scale[d] = scale
        self.load[d] = int(device.foreign_load * scale) + sum(
            int(share * scale) * self.has[w, d] for w, share in shares.items()
        )
        for w in here:
            self.model.add_implication(self.has[w, d], self.used[d])
        self.model.add(sum(self.has[w, d] for w in here) >= 1).only_enforce_if(self.used[d])
        alone = [w for w in here if jobs[w].exclusive]
        together = [w for w in here if not jobs[w].exclusive]
        taken = sum(self.has[w, d] for w in alone)
        self.model.add(taken <= 1)
        if together:
            # With an exclusive worker there, none shares; without, as many as the cap and the memory allow.
            cap = self.case.policy.sharing.max_workers_per_gpu
            self.model.add(sum(self.has[w, d] for w in together) + cap * taken <= cap)
            room = scale - int(device.foreign_load * scale)
            self.model.add(sum(int(shares[w] * scale) * self.has[w, d] for w in together) <= max(room, 0))
        if device.gpu.compute_mode == "exclusive_process":
            self.model.add(sum(self.has[w, d] for w in here) <= 1)

    def _company(self) -> None:
        """Affinity and anti-affinity, device by device."""
        for (w, d), has in self.has.items():
            request = self.case.jobs[w].request
            for role in request.affinity:
                others = [self.has[v, d] for v in self.holders[d] if v != w and self.case.jobs[v].role == role]
                self.model.add(sum(others) >= has)
        for d, here in self.holders.items():
            by_role = defaultdict(list)
            for w in here:
                by_role[self.case.jobs[w].role].append(self.has[w, d])
            apart = {
                tuple(sorted((self.case.jobs[w].role, role)))
                for w in here
                for role in self.case.jobs[w].request.anti_affinity
            }
            for one, other in apart:
                if one == other:
                    self.model.add(sum(by_role[one]) <= 1)
                    continue
                for a in by_role[one]:
                    for b in by_role.get(other, []):
                        self.model.add_bool_or(~a, ~b)

    def _free(self) -> None:
        """Limit and reserve."""
        policy = self.case.policy
        if policy.limit is not None:
            self.model.add(sum(self.used.values()) <= policy.limit)
        if policy.reserve:
            for host in self.case.hosts:
                here = [self.used[device.at] for device in self.case.devices if device.host == host]
                self.model.add(sum(here) <= max(0, len(here) - policy.reserve))

    # ---- tiers

    def improve(self, name: str, stop: float, threads: int) -> tuple[str, Choice | None]:
        """Improve one tier while the ones before it hold: ``proven`` or ``open``, and what was found."""
        steps = getattr(self, f"_{name}")()
        if steps is None:
            return "open", None
        choice: Choice | None = None
        for step in steps:
            status, found = self._solve(*step, stop, threads)
            choice = found or choice
            if status != "proven":
                return "open", choice
        return "proven", choice

    def _solve(self, sense: str, expression: Any, stop: float, threads: int) -> tuple[str, Choice | None]:
        left = stop - time.monotonic()
        if left <= 0:
            return "open", None
        if sense == "max":
            self.model.maximize(expression)
        else:
            self.model.minimize(expression)
        self.model.clear_hints()
        for has, value in self.hint.items():
            self.model.add_hint(self.model.get_bool_var_from_proto_index(has), value)
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = left
        solver.parameters.num_workers = threads
        status = solver.solve(self.model)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return "open", None
        self.hint = {var.index: solver.value(var) for var in self.has.values()}
        choice = tuple(
            frozenset(d for d in job.shares if solver.value(self.has[w, d])) if solver.value(self.placed[w]) else None
            for w, job in enumerate(self.case.jobs)
        )
        if status == cp_model.FEASIBLE:
            return "open", choice
        reached = round(solver.objective_value)
        if sense == "max":
            self.model.add(expression >= reached)
        else:
            self.model.add(expression <= reached)
        return "proven", choice

    def _placed(self) -> list[tuple[str, Any]]:
        jobs = self.case.jobs
        return [
            ("max", sum(self.placed[w] for w, job in enumerate(jobs) if job.request.priority == priority))
            for priority in self.case.priorities
        ]

    def _moves(self) -> list[tuple[str, Any]]:
        moved = []
        for w, job in enumerate(self.case.jobs):
            if not job.has_previous:
                continue
            stays = self.model.new_bool_var(f"stays {w}")
            if job.previous is None or not job.previous <= job.shares.keys():
                self.model.add(stays == 0)
            else:
                for d in job.shares:
                    self.model.add(self.has[w, d] == (1 if d in job.previous else 0)).only_enforce_if(stays)
                self.model.add_implication(stays, self.placed[w])
            moved.append(self.placed[w] - stays)
        return [("min", sum(moved))]

    def _elastic(self) -> list[int]:
        return [w for w, job in enumerate(self.case.jobs) if job.elastic]

    def _granted(self) -> list[tuple[str, Any]]:
        return [("max", sum(self.size[w] for w in self._elastic()))]

    def _grant_vector(self) -> list[tuple[str, Any]]:
        """Ascending vectors of one sum compare as the numbers of grants up to 1, up to 2, ... do: fewer is better."""
        elastic = self._elastic()
        most = max((min(self.case.jobs[w].high, len(self.case.jobs[w].shares)) for w in elastic), default=0)
        steps: list[tuple[str, Any]] = []
        for level in range(1, most):
            small = []
            for w in elastic:
                upto = self.model.new_bool_var(f"grant {w} up to {level}")
                self.model.add(self.size[w] >= level + 1).only_enforce_if([~upto, self.placed[w]])
                self.model.add_implication(upto, self.placed[w])
                small.append(upto)
            steps.append(("min", sum(small)))
        return steps

    def _hosts_used(self) -> list[tuple[str, Any]]:
        hosts = {host: self.model.new_bool_var(f"used {host}") for host in self.case.hosts}
        for d, used in self.used.items():
            self.model.add_implication(used, hosts[self.case.devices[d].host])
        return [("min", sum(hosts.values()))]

    def _devices_used(self) -> list[tuple[str, Any]]:
        return [("min", sum(self.used.values()))]

    def _peak_load(self) -> list[tuple[str, Any]]:
        top = max((math.ceil(1 + self.case.devices[d].foreign_load) for d in self.case.eligible), default=0)
        peak = self.model.new_int_var(0, 20 * top, "peak")
        for d in self.case.eligible:
            self.model.add(20 * self.load[d] <= self.scale[d] * peak)
        return [("min", peak)]

    def _link_score(self) -> list[tuple[str, Any]]:
        pairs = []
        for w, job in enumerate(self.case.jobs):
            if job.high < 2:
                continue
            for a, b in combinations(sorted(job.shares), 2):
                if self.case.pair_score(a, b):
                    pairs.append(self.case.pair_score(a, b) * self._both(self.has[w, a], self.has[w, b]))
        return [("max", sum(pairs))]

    def _both(self, a: Any, b: Any) -> Any:
        """Return a variable that may be 1 only where both are."""
        both = self.model.new_bool_var("both")
        self.model.add_implication(both, a)
        self.model.add_implication(both, b)
        return both

    def _device_size(self) -> list[tuple[str, Any]]:
        unnamed = [(w, d) for w, d in self.has if self.case.jobs[w].request.memory_mib is None]
        return [("max", sum((self.case.devices[d].total or 0) * self.has[w, d] for w, d in unnamed))]

    def _used_memory_total(self) -> list[tuple[str, Any]]:
        return [("min", sum((self.case.devices[d].total or 0) * used for d, used in self.used.items()))]

    def _free_link_score(self) -> list[tuple[str, Any]]:
        scores = {pair: self.case.pair_score(*pair) for pair in self.case.links}
        return [("max", sum(s * self._both(~self.used[a], ~self.used[b]) for (a, b), s in sorted(scores.items()) if s))]

    def _sum_sq_load(self) -> list[tuple[str, Any]] | None:
        return self._squares([[d] for d in sorted(self.case.eligible)])

    def _numa_sum_sq(self) -> list[tuple[str, Any]] | None:
        devices = self.case.devices
        return self._squares(self._grouped(lambda d: (devices[d].host, devices[d].gpu.numa_node)))

    def _host_sum_sq(self) -> list[tuple[str, Any]] | None:
        return self._squares(self._grouped(lambda d: self.case.devices[d].host))

    def _grouped(self, key: Callable[[int], object]) -> Iterable[list[int]]:
        groups: dict[object, list[int]] = defaultdict(list)
        for d in sorted(self.case.eligible):
            groups[key(d)].append(d)
        return groups.values()

    def _squares(self, groups: Iterable[Sequence[int]]) -> list[tuple[str, Any]] | None:
        """The sum over groups of the squared mean load, over one common denominator; None where that is too large."""
        groups = [list(group) for group in groups]
        terms = []
        worst = 0
        denominators = [len(group) * math.lcm(*(self.scale[d] for d in group)) for group in groups]
        common = math.lcm(*(n * n for n in denominators)) if groups else 1
        for group, denominator in zip(groups, denominators, strict=True):
            parts = [(denominator // len(group) // self.scale[d], d) for d in group]
            high = sum(factor * self._highest(d) for factor, d in parts)
            worst += high * high * (common // (denominator * denominator))
            if worst > EXACT:
                return None
            total = self.model.new_int_var(0, high, "load")
            self.model.add(total == sum(factor * self.load[d] for factor, d in parts))
            square = self.model.new_int_var(0, high * high, "square")
            self.model.add_multiplication_equality(square, [total, total])
            terms.append(common // (denominator * denominator) * square)
        return [("min", sum(terms))]

    def _highest(self, d: int) -> int:
        return math.ceil((1 + Fraction(self.case.devices[d].foreign_load)) * self.scale[d])
