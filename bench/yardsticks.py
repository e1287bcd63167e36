"""What planning time is held against: the plain model with CP-SAT, and first fit, which plans nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import combinations
from typing import TYPE_CHECKING, Any

from bench.room import Room
from gpualloc.policy.scoring import link_score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.fleet import Size

THREADS = 2
TIERS = 7
"""How many tiers tell plans apart where nobody was placed before and nobody is elastic."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a yardstick came to, in how many seconds; ``note`` says what else it knows."""

    seconds: float
    placed: int
    devices_used: int
    note: str = ""


def first_fit(size: Size) -> Result:
    """Place every worker on the first devices that take it, those that have devices first. Nothing is ever moved.

    A host that refuses a role once does so for good, so each role looks at each host once.
    """
    start = time.perf_counter()
    room = Room(size.inventory, size.policy.sharing.max_workers_per_gpu)
    placed = 0
    for request in size.requests:
        for worker in request.workers:
            placed += worker.pinned is not None
            room.give(request, worker.pinned or ())
    for request in size.requests:
        at = 0
        for _ in (worker for worker in request.workers if worker.pinned is None):
            while at < len(room.hosts) and not (here := room.fitting(request, at)):
                at += 1
            if at == len(room.hosts):
                break
            room.give(request, here)
            placed += 1
    return Result(time.perf_counter() - start, placed, room.used())


def cp_sat(size: Size, seconds: float = 20) -> Result:
    """Solve the plain model, one variable per worker and device, tier after tier as ``pack`` compares them.

    All tiers together have ``seconds``; what is not proven by then stays open. For workers that were nowhere before, on
    hosts of one model each.
    """
    start = time.perf_counter()
    plain = _Plain(size)
    proven = 0
    for sense, expression in plain.tiers():
        left = seconds - (time.perf_counter() - start)
        if left <= 0 or not plain.improve(sense, expression, left):
            break
        proven += 1
    took = time.perf_counter() - start
    return Result(took, plain.placed, plain.devices_used, f"{proven} of {TIERS} tiers proven")


class _Plain:
    """The plain model. Numbers of workers, hosts and devices throughout; a device is a host's number and its own."""

    def __init__(self, size: Size) -> None:
        from ortools.sat.python import cp_model  # noqa: PLC0415 - only this yardstick needs it

        self.cp = cp_model
        self.model = cp_model.CpModel()
        new = self.model.new_bool_var
        self.hosts = [[part for gpu in host.gpus for part in gpu.mig or (gpu,)] for host in size.inventory.hosts]
        self.links = [
            {frozenset((link.a, link.b)): link_score(link.nvlink, link.pcie) for link in host.links}
            for host in size.inventory.hosts
        ]
        self.workers = [request for request in size.requests for _ in request.workers]
        devices = [(h, d) for h, parts in enumerate(self.hosts) for d in range(len(parts))]
        self.host_used = [new(f"host {h}") for h in range(len(self.hosts))]
        self.used = {(h, d): new(f"used {h} {d}") for h, d in devices}
        self.on_host = {
            (w, h): new(f"{w} on {h}")
            for w, request in enumerate(self.workers)
            for h, host in enumerate(size.inventory.hosts)
            if request.model is None or fnmatchcase(host.gpus[0].name, request.model)
        }
        self.has = {(w, h, d): new(f"{w} on {h} {d}") for w, h in self.on_host for d in range(len(self.hosts[h]))}
        self.hint: dict[Any, int] = {}
        self.placed = self.devices_used = 0
        self._constrain(size.policy.sharing.max_workers_per_gpu)

    def _constrain(self, most: int) -> None:
        model, hosts = self.model, range(len(self.hosts))
        for w in range(len(self.workers)):
            model.add_at_most_one(self.on_host[w, h] for h in hosts if (w, h) in self.on_host)
        for (w, h), there in self.on_host.items():
            model.add(sum(self.has[w, h, d] for d in range(len(self.hosts[h]))) == self.workers[w].gpus.min * there)
        for (h, d), use in self.used.items():
            room = self._size(h, d)
            here = [
                (self.has[w, h, d], request.memory_mib or room)
                for w, request in enumerate(self.workers)
                if (w, h) in self.on_host
            ]
            model.add(sum(var * amount for var, amount in here) <= room * use)
            model.add(sum(var for var, _ in here) <= most)
            model.add_implication(use, self.host_used[h])

    def _size(self, h: int, d: int) -> int:
        return self.hosts[h][d].memory_total_mib or 0

    def tiers(self) -> Iterator[tuple[str, Any]]:
        """Yield the tiers: sense and value."""
        yield "max", sum(self.on_host.values())
        yield "min", sum(self.host_used)
        yield "min", sum(self.used.values())
        yield "max", sum(self._pairs(lambda h, d: [self.has[w, h, d] for w in self._wide(h)]))
        yield (
            "max",
            sum(self._size(h, d) * var for (w, h, d), var in self.has.items() if not self.workers[w].memory_mib),
        )
        yield "min", sum(self._size(h, d) * use for (h, d), use in self.used.items())
        yield "max", sum(self._pairs(lambda h, d: [~self.used[h, d]]))

    def _wide(self, h: int) -> list[int]:
        return [w for w, request in enumerate(self.workers) if request.gpus.min > 1 and (w, h) in self.on_host]

    def _pairs(self, literals: Callable[[int, int], list[Any]]) -> Iterator[Any]:
        """Yield the score of every pair of devices, times a variable that may be 1 only where both literals are."""
        for h, parts in enumerate(self.hosts):
            for a, b in combinations(range(len(parts)), 2):
                score = self.links[h].get(frozenset((parts[a].uuid, parts[b].uuid)), 0)
                for one, other in zip(literals(h, a), literals(h, b), strict=True) if score else ():
                    both = self.model.new_bool_var("both")
                    self.model.add_implication(both, one)
                    self.model.add_implication(both, other)
                    yield score * both

    def improve(self, sense: str, expression: Any, seconds: float) -> bool:
        """Improve one tier and hold it; return whether its best value is proven."""
        solver = self.cp.CpSolver()
        solver.parameters.max_time_in_seconds = seconds
        solver.parameters.num_workers = THREADS
        (self.model.maximize if sense == "max" else self.model.minimize)(expression)
        self.model.clear_hints()
        for key, value in self.hint.items():
            self.model.add_hint(self.has[key], value)
        status = solver.solve(self.model)
        if status not in {self.cp.OPTIMAL, self.cp.FEASIBLE}:
            return False
        self.hint = {key: solver.value(var) for key, var in self.has.items()}
        self.placed = solver.value(sum(self.on_host.values()))
        self.devices_used = solver.value(sum(self.used.values()))
        best = round(solver.objective_value)
        self.model.add(expression >= best if sense == "max" else expression <= best)
        return bool(status == self.cp.OPTIMAL)
