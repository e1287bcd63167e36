"""The middle oracle: who has which device, in whole numbers, solved tier by tier with OR-Tools' CP-SAT."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING

from ortools.sat.python import cp_model

from tests.oracle.objective import TIERS, Choice, Outcome, Value, better, broken_rules, compared
from tests.oracle.rules import may_stay, read_case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from gpualloc.model import Inventory, Policy, Request
    from tests.oracle.rules import Case, Job

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
    names = compared(case)
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


@dataclass(frozen=True, slots=True)
class Unit:
    """Workers of which only the number on each device counts: one, or all those of a role that want one device each."""

    job: Job
    members: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.members)


def units_of(case: Case) -> list[Unit]:
    """Gather the workers of a case into units."""
    units: list[Unit] = []
    for number, job in enumerate(case.jobs):
        last = units[-1] if units else None
        alike = last is not None and job.request is last.job.request and job.shares == last.job.shares
        if last is not None and alike and job.high == 1:
            units[-1] = Unit(last.job, (*last.members, number))
        else:
            units.append(Unit(job, (number,)))
    return units


class Problem:
    """The model of a case. ``has[u, d]``: how many workers of unit ``u`` are on device ``d``."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.model = cp_model.CpModel()
        self.hint: dict[tuple[int, int], int] = {}
        self.units = units_of(case)
        self.has: dict[tuple[int, int], Any] = {}
        self.there: dict[tuple[int, int], Any] = {}
        self.holders: dict[int, list[int]] = defaultdict(list)
        for u, unit in enumerate(self.units):
            for d in sorted(unit.job.shares):
                self._presence(u, d)
                self.holders[d].append(u)
        self.placed = [self.model.new_int_var(0, unit.count, f"placed {u}") for u, unit in enumerate(self.units)]
        self.used = {device.at: self.model.new_bool_var(f"used {device.at}") for device in case.devices}
        self.size = [sum(self.has[u, d] for d in unit.job.shares) for u, unit in enumerate(self.units)]
        for u in range(len(self.units)):
            self._whole(u)
        self._alike()
        self.evicted: dict[int, Any] = {}
        self.scale: dict[int, int] = {}
        self.load: dict[int, Any] = {}
        for device in case.devices:
            self._capacity(device.at)
        self._company()
        self._free()

    def _presence(self, u: int, d: int) -> None:
        count = self.units[u].count
        there = self.model.new_bool_var(f"there {u} {d}")
        has = there
        if count > 1:
            has = self.model.new_int_var(0, count, f"has {u} {d}")
            self.model.add(has <= count * there)
            self.model.add(has >= there)
        self.has[u, d], self.there[u, d] = has, there

    # ---- hard rules

    def _whole(self, u: int) -> None:
        """A worker is placed whole, on one host, on devices linked closely enough; or it has nothing."""
        job, count, devices = self.units[u].job, self.units[u].count, self.case.devices
        if count > 1:
            self.model.add(self.size[u] == self.placed[u])
            return
        on_host = []
        for host in self.case.hosts:
            here = [d for d in sorted(job.shares) if devices[d].host == host]
            if not here:
                continue
            chosen = self.model.new_bool_var(f"host {u} {host}")
            on_host.append(chosen)
            held = sum(self.has[u, d] for d in here)
            self.model.add(held >= job.low * chosen)
            self.model.add(held <= min(job.high, len(here)) * chosen)
            for a, b in combinations(here, 2):
                mig = devices[a].profile is not None or devices[b].profile is not None
                if mig or not self.case.close_enough(job, a, b):
                    self.model.add_bool_or(~self.has[u, a], ~self.has[u, b])
        self.model.add(sum(on_host) == self.placed[u])

    def _alike(self) -> None:
        """Of workers that nothing tells apart, an earlier one gets no less than a later one."""
        for u in range(1, len(self.units)):
            one, two = self.units[u - 1].job, self.units[u].job
            if one.request is two.request and one.shares == two.shares and not (one.has_previous or two.has_previous):
                self.model.add(self.size[u - 1] >= self.size[u])

    def _capacity(self, d: int) -> None:
        device = self.case.devices[d]
        jobs = {u: self.units[u].job for u in self.holders[d]}
        shares = {u: job.shares[d] for u, job in jobs.items()}
        scale = math.lcm(device.foreign_load.denominator, *(share.denominator for share in shares.values()))
        foreign = int(device.foreign_load * scale)
        self.scale[d] = scale
        self.load[d] = foreign + sum(int(share * scale) * self.has[u, d] for u, share in shares.items())
        for u in jobs:
            self.model.add_implication(self.there[u, d], self.used[d])
        self.model.add(sum(self.there[u, d] for u in jobs) >= self.used[d])
        together = [u for u, job in jobs.items() if not job.exclusive]
        taken = sum(self.has[u, d] for u, job in jobs.items() if job.exclusive)
        self.model.add(taken <= 1)
        if together:
            # With an exclusive worker there, none shares; without, as many as the cap and the memory allow.
            cap = self.case.policy.sharing.max_workers_per_gpu
            self.model.add(sum(self.has[u, d] for u in together) + cap * taken <= cap)
            self.model.add(sum(int(shares[u] * scale) * self.has[u, d] for u in together) <= max(scale - foreign, 0))
        if device.gpu.compute_mode == "exclusive_process":
            self.model.add(sum(self.has[u, d] for u in jobs) <= 1)

    def _company(self) -> None:
        """Affinity and anti-affinity, device by device."""
        for (u, d), there in self.there.items():
            job = self.units[u].job
            for role in job.request.affinity:
                all_of_role = [self.has[v, d] for v in self.holders[d] if self.units[v].job.role == role]
                self.model.add(sum(all_of_role) >= (2 if role == job.role else 1) * there)
        for d, here in self.holders.items():
            of_role: dict[str, list[int]] = defaultdict(list)
            for u in here:
                of_role[self.units[u].job.role].append(u)
            apart = {
                tuple(sorted((self.units[u].job.role, role)))
                for u in here
                for role in self.units[u].job.request.anti_affinity
            }
            for one, other in apart:
                if one == other:
                    self.model.add(sum(self.has[u, d] for u in of_role[one]) <= 1)
                    continue
                for a in of_role.get(one, []):
                    for b in of_role.get(other, []):
                        self.model.add_bool_or(~self.there[a, d], ~self.there[b, d])

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
            status, found = self._solve(step, stop, threads)
            choice = found or choice
            if status != "proven":
                return "open", choice
        return "proven", choice

    def _solve(self, step: tuple[str, Any], stop: float, threads: int) -> tuple[str, Choice | None]:
        sense, expression = step
        left = stop - time.monotonic()
        if left <= 0:
            return "open", None
        if sense == "max":
            self.model.maximize(expression)
        else:
            self.model.minimize(expression)
        self.model.clear_hints()
        for key, value in self.hint.items():
            self.model.add_hint(self.has[key], value)
        solver = cp_model.CpSolver()
        solver.parameters.max_time_in_seconds = left
        solver.parameters.num_workers = threads
        # The bounds on how much fits come from the linear relaxation: have all of it.
        solver.parameters.linearization_level = 2
        status = solver.solve(self.model)
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return "open", None
        self.hint = {key: solver.value(has) for key, has in self.has.items()}
        choice = self._choice()
        if status == cp_model.FEASIBLE:
            return "open", choice
        reached = round(solver.objective_value)
        if sense == "max":
            self.model.add(expression >= reached)
        else:
            self.model.add(expression <= reached)
        return "proven", choice

    def _choice(self) -> Choice:
        """The assignment last found."""
        chosen: list[frozenset[int] | None] = [None] * len(self.case.jobs)
        for u, unit in enumerate(self.units):
            if unit.count == 1:
                held = frozenset(d for d in unit.job.shares if self.hint[u, d])
                chosen[unit.members[0]] = held or None
                continue
            # Whoever can stay does; then those that hold nothing now come in, and only then are workers moved, first
            # those whose own devices are still good.
            left = Counter({d: self.hint[u, d] for d in sorted(unit.job.shares)})
            waiting = []
            for number in unit.members:
                job = self.case.jobs[number]
                if job.previous is not None and len(job.previous) == 1 and left[next(iter(job.previous))]:
                    chosen[number] = job.previous
                    left.subtract(job.previous)
                else:
                    waiting.append((job.has_previous, not may_stay(self.case, job), number))
            for (_, _, number), d in zip(sorted(waiting), left.elements(), strict=False):
                chosen[number] = frozenset([d])
        return tuple(chosen)

    def _placed(self) -> list[tuple[str, Any]]:
        return [
            ("max", sum(self.placed[u] for u, unit in enumerate(self.units) if unit.job.request.priority == priority))
            for priority in self.case.priorities
        ]

    def _moves(self) -> list[tuple[str, Any]]:
        moved = [self._moved(u, unit) for u, unit in enumerate(self.units) if unit.count == 1]
        return [
            ("min", sum(moved) + sum(self._moved_of(u, unit) for u, unit in enumerate(self.units) if unit.count > 1))
        ]

    def _moved(self, u: int, unit: Unit) -> Any:
        """1 where the one worker is placed, but not where it was."""
        job = unit.job
        if not job.has_previous:
            return 0
        stays = self.model.new_bool_var(f"stays {u}")
        if job.previous is None or not job.previous <= job.shares.keys():
            self.model.add(stays == 0)
        else:
            for d in job.shares:
                self.model.add(self.has[u, d] == (1 if d in job.previous else 0)).only_enforce_if(stays)
            self.model.add(self.placed[u] == 1).only_enforce_if(stays)
        return self.placed[u] - stays

    def _moved_of(self, u: int, unit: Unit) -> Any:
        """How many of a unit are placed beyond those that stay and those that hold nothing now."""
        jobs = [self.case.jobs[number] for number in unit.members]
        before = Counter(
            next(iter(job.previous)) for job in jobs if job.previous is not None and len(job.previous) == 1
        )
        stay = []
        for d in sorted(before.keys() & unit.job.shares.keys()):
            stays = self.model.new_int_var(0, before[d], f"stay {u} {d}")
            self.model.add(stays <= self.has[u, d])
            stay.append(stays)
        moved = self.model.new_int_var(0, unit.count, f"moved {u}")
        self.model.add(moved >= self.placed[u] - sum(stay) - sum(not job.has_previous for job in jobs))
        # Moves being the fewest, these are none but those who are neither at home nor new: who might have stayed first.
        content = sum(may_stay(self.case, job) for job in jobs)
        evicted = self.model.new_int_var(0, unit.count, f"evicted {u}")
        self.model.add(evicted >= content - sum(stay) - moved)
        self.evicted[u] = evicted
        return moved

    def _evictions(self) -> list[tuple[str, Any]]:
        """How many of those whose devices are still good have no place; asked for after `_moves`."""
        alone = [
            1 - self.placed[u] for u, unit in enumerate(self.units) if unit.count == 1 and may_stay(self.case, unit.job)
        ]
        return [("min", sum(alone) + sum(self.evicted.values()))]

    def _elastic(self) -> list[int]:
        return [u for u, unit in enumerate(self.units) if unit.job.elastic]

    def _granted(self) -> list[tuple[str, Any]]:
        return [("max", sum(self.size[u] for u in self._elastic()))]

    def _grant_vector(self) -> list[tuple[str, Any]]:
        """Ascending vectors compare as the numbers of grants up to 0, up to 1, ... do: fewer is better."""
        elastic = self._elastic()
        most = max((min(self.units[u].job.high, len(self.units[u].job.shares)) for u in elastic), default=0)
        steps: list[tuple[str, Any]] = []
        for level in range(most):
            small = []
            for u in elastic:
                upto = self.model.new_bool_var(f"grant {u} up to {level}")
                self.model.add(self.size[u] + (level + 1) * upto >= level + 1)
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
        for u, unit in enumerate(self.units):
            if unit.job.high < 2:
                continue
            for a, b in combinations(sorted(unit.job.shares), 2):
                if self.case.pair_score(a, b):
                    pairs.append(self.case.pair_score(a, b) * self._both(self.has[u, a], self.has[u, b]))
        return [("max", sum(pairs))]

    def _both(self, a: Any, b: Any) -> Any:
        """Return a variable that may be 1 only where both are."""
        both = self.model.new_bool_var("both")
        self.model.add_implication(both, a)
        self.model.add_implication(both, b)
        return both

    def _device_size(self) -> list[tuple[str, Any]]:
        unnamed = [(u, d) for u, d in self.has if self.units[u].job.request.memory_mib is None]
        return [("max", sum((self.case.devices[d].total or 0) * self.has[u, d] for u, d in unnamed))]

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
