"""The pricing problem: the pattern of a pool that is worth most at given prices. A small knapsack, solved exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.solve.rules import apart, device_fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpualloc.solve.fleet.stock import Pool
    from gpualloc.solve.problem import Problem

MOST_NODES = 20_000
"""Nodes of one knapsack; where they do not suffice the value is bounded by what a fraction of a worker would add."""

Counts = tuple[tuple[int, int], ...]


class Pricer:
    """Prices the sharing patterns of one pool."""

    def __init__(self, problem: Problem, pool: Pool, supply: Mapping[int, int]) -> None:
        self.problem = problem
        self.pool = pool
        d = pool.example
        self.kinds = []
        for number in pool.kinds:
            kind = problem.kinds[number]
            if kind.exclusive or not supply.get(number):
                continue
            weight = kind.weight[d]
            most = min(supply[number], pool.slots, pool.room // weight if weight else pool.slots)
            if most and apart(kind, kind):
                most = 1
            there = [problem.kinds[other] for other in pool.there]
            if most and not any(apart(kind, other) for other in there):
                self.kinds.append((number, weight, most))
        self.social = any(problem.kinds[number].affinity or problem.kinds[number].anti for number, _, _ in self.kinds)

    def best(self, worth: Mapping[int, float]) -> tuple[float, Counts, float]:
        """Return the value of the best pattern, the pattern, and a bound on the value of every pattern."""
        room, slots = self.pool.room, self.pool.slots
        items = [(worth.get(k, 0.0), w, most, k) for k, w, most in self.kinds if self.social or worth.get(k, 0.0) > 0]
        items.sort(key=lambda item: (-item[0] / item[1] if item[1] else -1e9, item[3]))
        ratio = [max((v / w for v, w, _, _ in items[n:] if w), default=0.0) for n in range(len(items) + 1)]
        free = [sum(v * most for v, w, most, _ in items[n:] if not w and v > 0) for n in range(len(items) + 1)]
        high = [max((v for v, _, _, _ in items[n:]), default=0.0) for n in range(len(items) + 1)]
        best_value = 0.0
        best_counts: Counts = ()
        chosen: list[tuple[int, int]] = []
        nodes = MOST_NODES

        def optimistic(at: int, value: float, room: int, slots: int) -> float:
            return value + min(max(ratio[at], 0.0) * room + free[at], max(high[at], 0.0) * slots)

        def go(at: int, value: float, room: int, slots: int) -> None:
            nonlocal best_value, best_counts, nodes
            nodes -= 1
            if value > best_value + 1e-12 and (not self.social or self._allowed(chosen)):
                best_value, best_counts = value, tuple(sorted(chosen))
            if at == len(items) or nodes < 0 or optimistic(at, value, room, slots) <= best_value + 1e-9:
                return
            v, w, most, kind = items[at]
            for count in range(min(most, slots, room // w if w else slots), 0, -1):
                chosen.append((kind, count))
                go(at + 1, value + v * count, room - w * count, slots - count)
                chosen.pop()
            go(at + 1, value, room, slots)

        go(0, 0.0, room, slots)
        bound = best_value + 1e-9 if nodes >= 0 else optimistic(0, 0.0, room, slots)
        return best_value, best_counts, bound

    def _allowed(self, chosen: list[tuple[int, int]]) -> bool:
        kinds = [self.problem.kinds[number] for number, count in chosen for _ in range(count)]
        kinds += [self.problem.kinds[number] for number in self.pool.there]
        fault = device_fault(self.problem, self.pool.example, kinds)
        return fault is None
