"""What a half-finished plan can still reach: an optimistic value of every tier, for :mod:`gpualloc.solve.search`.

Every bound relaxes something (links to the best anywhere, capacities to fractions of devices), so that no completion is
better; they are compared tier by tier in order, with less being better as in :func:`gpualloc.solve.tiers.score_of`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gpualloc.policy.scoring import peak_steps
from gpualloc.solve.tiers import common_loads, domain_weights, moved, rules_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.solve.problem import Devices, Problem
    from gpualloc.solve.search import Search
    from gpualloc.solve.tiers import Amount, Score

_EPSILON = 1e-9


class Bounds:
    """Optimistic values, kept up to date as the search goes down and up."""

    def __init__(self, problem: Problem, search: Search) -> None:
        self.problem = problem
        self.search = search
        self.rules = [(n, rule.name) for n, rule in enumerate(rules_of(problem))]
        kinds = [problem.kinds[job.kind] for job in problem.jobs]
        self.kinds = kinds
        priorities = sorted({kind.priority for kind in kinds}, reverse=True)
        self.level = [priorities.index(kind.priority) for kind in kinds]
        self.wanted = [self.level.count(level) for level in range(len(priorities))]
        self.lost = [0] * len(priorities)
        self.members = [d for d, counts in enumerate(problem.eligible) if counts]
        self.moves = 0
        self.evictions = 0
        self.grants: list[int] = []
        self.score = 0
        self.sizes = 0
        self.shared_room = 0.0
        options = search.options
        self.need = [self._need(n) for n in range(len(kinds))]
        self.best_score = [max((problem.set_score(s) for s in options[n]), default=0) for n in range(len(kinds))]
        self.homeless = [job.previous is not None and job.home is None for job in problem.jobs]
        self.alone_after = _suffix([kind.least if kind.exclusive else 0 for kind in kinds])
        self.shared_after = _suffix([0.0 if k.exclusive else need for k, need in zip(kinds, self.need, strict=True)])
        self.score_after = _suffix(self.best_score)
        self.elastic_after = _suffix([int(kind.elastic) for kind in kinds])
        self.grants_after = _suffix([kind.most if kind.elastic else 0 for kind in kinds])
        self.fixed_alone_after = _suffix([kind.least if kind.exclusive and not kind.elastic else 0 for kind in kinds])
        self.only_alone = all(kind.exclusive for kind in kinds if kind.elastic)
        self._orders: dict[int, list[tuple[int, float]]] = {}
        self.tight = False
        self.grants_left: int | None = None
        self.numa_weights = domain_weights(problem, problem.numa_of)[0]
        self.host_weights = domain_weights(problem, problem.host_of)[0]

    def _need(self, n: int) -> float:
        """Return the least part of whole devices that a worker takes."""
        kind, problem = self.kinds[n], self.problem
        if kind.exclusive:
            return float(kind.least)
        return kind.least * min(
            (
                w / (problem.full[d] - problem.taken[d])
                for d, w in kind.weight.items()
                if w and problem.full[d] > problem.taken[d]
            ),
            default=0.0,
        )

    # what the search tells

    def placed(self, at: int, devices: Devices) -> None:
        """Note that worker ``at`` has got devices."""
        self._count(at, devices, 1)

    def unplaced(self, at: int, devices: Devices) -> None:
        """Take that back."""
        self._count(at, devices, -1)

    def _count(self, at: int, devices: Devices, sign: int) -> None:
        problem, kind = self.problem, self.kinds[at]
        job = problem.jobs[at]
        if job.previous is not None and (devices != job.home if job.home else moved(problem, job.previous, devices)):
            self.moves += sign
        if kind.elastic:
            if sign > 0:
                self.grants.append(len(devices))
            else:
                self.grants.remove(len(devices))
        if len(devices) > 1:
            self.score += sign * problem.set_score(devices)
        if not kind.names_memory:
            self.sizes += sign * sum(problem.size[d] for d in devices)

    def skip(self, at: int) -> None:
        """Note that worker ``at`` stays without devices."""
        self.lost[self.level[at]] += 1
        self.evictions += self.problem.jobs[at].home is not None
        if self.kinds[at].elastic:
            self.grants.append(0)

    def unskip(self, at: int) -> None:
        """Take that back."""
        self.lost[self.level[at]] -= 1
        self.evictions -= self.problem.jobs[at].home is not None
        if self.kinds[at].elastic:
            self.grants.remove(0)

    # the comparison

    def promising(self, score: Score, *, strictly: bool) -> bool:
        """Tell whether a completion may be better than ``score``, or as good unless ``strictly``."""
        self._measure()
        for number, name in self.rules:
            known = score[number]
            bound = _BOUNDS[name](self, known)
            if bound != known:
                return bound < known  # type: ignore[operator]  # the two are of one kind
        return not strictly

    def _measure(self) -> None:
        """Measure the room that is left: whole devices not yet used, and parts of devices that are shared."""
        search, problem = self.search, self.problem
        empty_on = [0] * len(problem.hosts)
        self.empty: list[int] = []
        room = 0.0
        for d in self.members:
            there = search.on[d]
            if not there:
                empty_on[problem.host_of[d]] += 1
                self.empty.append(d)
            elif not problem.kinds[there[0]].exclusive:
                capacity = problem.full[d] - problem.taken[d]
                room += (problem.full[d] - search.load[d]) / capacity if capacity else 0.0
        new = sum(min(n, problem.room[host] - search.used_on[host]) for host, n in enumerate(empty_on))
        if problem.limit is not None:
            new = min(new, problem.limit - search.used)
        self.empty_on = empty_on
        self.new = max(new, 0)
        self.shared_room = room

    def _needed_new(self) -> int:
        """Return how many unused devices the remaining workers need at least, all of them being placed."""
        if not self.tight:
            return 0
        at = len(self.search.chosen)
        over = max(0.0, self.shared_after[at] - self.shared_room)
        return math.ceil(self.alone_after[at] + over - _EPSILON)

    def lost_at_least(self) -> list[int]:
        """Return, by priority from the highest, how many workers cannot be placed."""
        at = len(self.search.chosen)
        lost = list(self.lost)
        over = max(0.0, self.shared_after[at] - self.shared_room)
        if self.alone_after[at] + over <= self.new + _EPSILON:
            return lost
        order = self._orders.get(at)
        if order is None:
            rest = sorted((self.level[n], self.need[n]) for n in range(at, len(self.kinds)))
            order = self._orders[at] = rest
        left = self.new + self.shared_room + _EPSILON
        for level, need in order:
            left -= need
            if left < 0:
                lost[level] += 1
                left += need
        return lost

    def bound_placed(self, known: Amount) -> Amount:
        """Bound ``placed``; also tell whether every remaining worker must be placed to match what is known."""
        lost = self.lost_at_least()
        value = tuple(-(wanted - gone) for wanted, gone in zip(self.wanted, lost, strict=True)) or (0,)
        self.tight = value == known and lost == self.lost
        return value

    def bound_moves(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``moves``: workers that cannot stay at home any more have to move."""
        if not self.tight:
            return self.moves
        rest = 0
        for n in range(len(self.search.chosen), len(self.kinds)):
            home = self.problem.jobs[n].home
            if self.homeless[n] or (home and not self.search.takes_all(home, self.kinds[n])):
                rest += 1
        return self.moves + rest

    def bound_evictions(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``evictions``: nobody else goes."""
        return self.evictions

    def bound_granted(self, known: Amount) -> Amount:
        """Bound ``granted``."""
        at = len(self.search.chosen)
        rest = self.grants_after[at]
        if self.only_alone:
            rest = min(rest, self.new - (self.fixed_alone_after[at] if self.tight else 0))
        value = -(sum(self.grants) + rest)
        self.grants_left = -known - sum(self.grants) if value == known and isinstance(known, int) else None
        return value

    def bound_grant_vector(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``grant_vector``: what is left to grant is divided evenly."""
        at = len(self.search.chosen)
        count = self.elastic_after[at]
        if not count:
            return tuple(-grant for grant in sorted(self.grants))
        if self.grants_left is None:
            rest = [self.kinds[n].most for n in range(at, len(self.kinds)) if self.kinds[n].elastic]
        else:
            share, extra = divmod(max(self.grants_left, 0), count)
            rest = [share] * (count - extra) + [share + 1] * extra
        return tuple(-grant for grant in sorted((*self.grants, *rest)))

    def bound_hosts_used(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``hosts_used``: at least one more where the hosts in use cannot take the rest."""
        search = self.search
        used = [host for host, count in enumerate(search.used_on) if count]
        needed = self._needed_new()
        here = sum(min(self.empty_on[host], self.problem.room[host] - search.used_on[host]) for host in used)
        return len(used) + (1 if needed > here else 0)

    def bound_devices_used(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``devices_used``."""
        return self.search.used + self._needed_new()

    def bound_peak_load(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``peak_load``: it never falls."""
        full, load = self.problem.full, self.search.load
        return max((peak_steps(load[d], full[d]) for d in self.members), default=0)

    def bound_link_score(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``link_score``: everybody gets the best set there is."""
        return -(self.score + self.score_after[len(self.search.chosen)])

    def bound_device_size(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``device_size``: the largest devices go to those who name no memory."""
        size = self.problem.size
        alone = shared = 0
        for n in range(len(self.search.chosen), len(self.kinds)):
            kind = self.kinds[n]
            if kind.names_memory:
                continue
            if kind.exclusive:
                alone += kind.most
            else:
                shared += kind.most * max((size[d] for d in kind.weight), default=0)
        largest = sorted((size[d] for d in self.empty), reverse=True) if alone else []
        return -(self.sizes + shared + sum(largest[:alone]))

    def bound_used_memory_total(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``used_memory_total``: the smallest devices are used next."""
        size, on = self.problem.size, self.search.on
        used = sum(size[d] for d in self.members if on[d])
        needed = self._needed_new()
        return used + (sum(sorted(size[d] for d in self.empty)[:needed]) if needed else 0)

    def bound_free_link_score(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``free_link_score``: no further device is used."""
        problem, on = self.problem, self.search.on
        return -sum(
            pair[0]
            for host in range(len(problem.hosts))
            for (a, b), pair in problem.pairs(host).items()
            if not on[a] and not on[b]
        )

    def _rest_load(self) -> tuple[int, list[int]]:
        """Return, in common units, whole devices still to be filled and the smallest load of each part to be shared."""
        if not self.tight:
            return 0, []
        problem = self.problem
        alone, parts = 0, []
        for n in range(len(self.search.chosen), len(self.kinds)):
            kind = self.kinds[n]
            if kind.exclusive:
                alone += kind.least
            elif kind.weight:
                least = min(w * (problem.common // problem.full[d]) for d, w in kind.weight.items())
                parts += [least] * kind.least
        return alone, parts

    def bound_sum_sq_load(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``sum_sq_load``: the shared rest is poured over all devices that are not taken alone."""
        problem, on = self.problem, self.search.on
        loads = common_loads(problem, dict(enumerate(self.search.load)))
        now = sum(amount * amount for amount in loads.values())
        alone, parts = self._rest_load()
        now += alone * problem.common * problem.common
        if not parts:
            return now
        open_loads = [amount for d, amount in loads.items() if not (on[d] and problem.kinds[on[d][0]].exclusive)]
        if len(set(parts)) == 1:
            part = parts[0]
            steps = sorted(part * (2 * amount + (2 * k + 1) * part) for amount in open_loads for k in range(len(parts)))
            return now + sum(steps[: len(parts)])
        return now + pour([(1.0, float(amount)) for amount in open_loads], float(sum(parts)))

    def _domains(self, domain_of: list[int], weights: dict[int, int]) -> int:
        totals = dict.fromkeys(weights, 0)
        for d, amount in common_loads(self.problem, dict(enumerate(self.search.load))).items():
            totals[domain_of[d]] += amount
        now = sum(weights[domain] * total * total for domain, total in totals.items())
        alone, parts = self._rest_load()
        rest = alone * self.problem.common + sum(parts)
        if not rest:
            return now
        return now + pour([(float(weights[domain]), float(total)) for domain, total in totals.items()], float(rest))

    def bound_numa_sum_sq(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``numa_sum_sq``."""
        return self._domains(self.problem.numa_of, self.numa_weights)

    def bound_host_sum_sq(self, known: Amount) -> Amount:  # noqa: ARG002 - one signature for every bound
        """Bound ``host_sum_sq``."""
        return self._domains(self.problem.host_of, self.host_weights)


def pour(vessels: list[tuple[float, float]], amount: float) -> int:
    """Return by how much at least the sum of a * t^2 over (a, t) grows when ``amount`` is divided among the t."""
    vessels = sorted(vessels, key=lambda vessel: vessel[0] * vessel[1])
    inverse = level_sum = 0.0
    before = 0.0
    level = 0.0
    for n, (a, t) in enumerate(vessels):
        inverse += 1.0 / a
        level_sum += t
        before += a * t * t
        level = (amount + level_sum) / inverse
        if n + 1 == len(vessels) or level <= vessels[n + 1][0] * vessels[n + 1][1]:
            break
    grown = level * level * inverse - before
    return max(0, int(grown - (abs(before) + abs(grown)) * _EPSILON))


def _suffix(values: list[int] | list[float]) -> list[int]:
    """Return the sums of what follows each position, itself included; one more entry, 0, at the end."""
    sums = [0] * (len(values) + 1)
    for n in range(len(values) - 1, -1, -1):
        sums[n] = sums[n + 1] + values[n]  # type: ignore[assignment]  # floats stay floats
    return sums


_BOUNDS: dict[str, Callable[[Bounds, Amount], Amount]] = {
    "placed": Bounds.bound_placed,
    "moves": Bounds.bound_moves,
    "evictions": Bounds.bound_evictions,
    "granted": Bounds.bound_granted,
    "grant_vector": Bounds.bound_grant_vector,
    "hosts_used": Bounds.bound_hosts_used,
    "devices_used": Bounds.bound_devices_used,
    "peak_load": Bounds.bound_peak_load,
    "link_score": Bounds.bound_link_score,
    "device_size": Bounds.bound_device_size,
    "used_memory_total": Bounds.bound_used_memory_total,
    "free_link_score": Bounds.bound_free_link_score,
    "sum_sq_load": Bounds.bound_sum_sq_load,
    "numa_sum_sq": Bounds.bound_numa_sum_sq,
    "host_sum_sq": Bounds.bound_host_sum_sq,
}
"""How each tier is bounded; a new tier is one method and one line here."""
