"""Workers that do not fit: what stopped them on every device, and the smallest change that would let them in."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING

from gpualloc.model import LINK_LEVELS, Refusal, Unplaced
from gpualloc.policy.filters import gib, refused_by_request
from gpualloc.policy.scoring import NOT_LINKED
from gpualloc.solve.report import Occupants
from gpualloc.solve.rules import affinity_met, apart, crowd_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.solve.problem import Assignment, Job, Kind, Problem

_MOST_NAMED = 3


class Obstacles:
    """What stops workers in a finished assignment."""

    def __init__(self, problem: Problem, assignment: Assignment) -> None:
        self.problem = problem
        self.assignment = assignment
        self.occupants = Occupants(problem, assignment)
        self.used_on = [0] * len(problem.hosts)
        for d in self.occupants.on:
            self.used_on[problem.host_of[d]] += 1

    def of(self, job: Job) -> dict[int, tuple[str, str]]:
        """Return, per device, the code and detail of what keeps the worker off it."""
        problem = self.problem
        found: dict[int, tuple[str, str]] = {}
        open_on: dict[int, list[int]] = {}
        never = [self._never(host, job) for host in range(len(problem.hosts))]
        for device in problem.devices:
            d = device.position
            refusal = self._whatever(d, job) or never[problem.host_of[d]] or self._here(d, job)
            if refusal is None:
                open_on.setdefault(problem.host_of[d], []).append(d)
            else:
                found[d] = refusal
        for host, members in open_on.items():
            refusal = self._together(host, members, job)
            found.update(dict.fromkeys(members, refusal))
        return found

    def _whatever(self, d: int, job: Job) -> tuple[str, str] | None:
        """Return what keeps the worker off a device, whoever else is there."""
        return self.problem.refusals[d] or refused_by_request(self.problem.devices[d], job.demand)

    def _never(self, host: int, job: Job) -> tuple[str, str] | None:
        """Return why the devices of a host make no place for the worker even while nobody else is there."""
        problem, kind = self.problem, self.problem.kinds[job.kind]
        if kind.least == 1:
            return None
        could = [d for d in problem.host_devices[host] if d in kind.weight and self._whatever(d, job) is None]
        if could and len(could) < kind.least:
            return "count", _too_few(kind.least, len(could), problem.hosts[host])
        if kind.rank == NOT_LINKED or len(_best_joined(problem, could, kind.rank)) >= kind.least:
            return None
        return "min_link", f"no {kind.least} of its devices are all joined by {LINK_LEVELS[kind.rank]} or closer"

    def _here(self, d: int, job: Job) -> tuple[str, str] | None:
        """Return what the workers on a device, or those missing there, have against one more."""
        problem, kind = self.problem, self.problem.kinds[job.kind]
        request = job.demand.request
        if kind.exclusive and request.affinity:
            return "affinity", f"wants to be beside {', '.join(request.affinity)} and to be alone"
        if d not in kind.weight:
            return "memory", self._too_full(d, job)
        there = [problem.kinds[number] for number in self.occupants.kinds(d)]
        if there and (kind.exclusive or there[0].exclusive):
            return "taken", f"taken by {_some(self.occupants.names(d))}"
        fault = crowd_fault(problem, d, [*there, kind])
        if fault is not None:
            return fault, self._crowd_detail(fault, d, job, there)
        if not affinity_met(kind, [*there, kind]):
            return "affinity", f"holds no {' or '.join(request.affinity)} to be beside"
        return None if there else self._no_more_devices(d)

    def _crowd_detail(self, fault: str, d: int, job: Job, there: list[Kind]) -> str:
        if fault == "max_workers":
            return f"holds {len(there)} workers, {self.problem.slots[d]} may share it"
        if fault == "memory":
            return self._too_full(d, job)
        kind = self.problem.kinds[job.kind]
        names = self.occupants.names(d)
        return f"kept apart from {_some([n for n, other in zip(names, there, strict=True) if apart(kind, other)])}"

    def _no_more_devices(self, d: int) -> tuple[str, str] | None:
        problem = self.problem
        host, used = problem.host_of[d], len(self.occupants.on)
        if self.used_on[host] >= problem.room[host]:
            reserve = problem.policy.reserve
            return "reserve", f"{reserve} {'device stays' if reserve == 1 else 'devices stay'} free on each host"
        if problem.limit is not None and used >= problem.limit:
            return "limit", f"{used} of at most {problem.limit} devices are used"
        return None

    def _too_full(self, d: int, job: Job) -> str:
        needs, free = self.amounts(d, job)
        if needs is None or free is None:
            return "no part of it is left"
        return f"needs {gib(needs)}, {gib(free)} free"

    def amounts(self, d: int, job: Job) -> tuple[Fraction | None, Fraction | None]:
        """Return what a sharing worker needs of a device and what is free there, in MiB; None where unknown."""
        problem = self.problem
        usable = problem.devices[d].usable_mib
        if not usable:
            return None, None
        mib = Fraction(usable) / problem.full[d]
        weight = problem.kinds[job.kind].weight.get(d)
        free = max(problem.full[d] - self.occupants.given_units(d), 0) * mib
        return (None if weight is None else weight * mib), free

    def _together(self, host: int, members: list[int], job: Job) -> tuple[str, str]:
        """Return why devices that could each take the worker do not make a place for it."""
        problem, kind = self.problem, self.problem.kinds[job.kind]
        if kind.least > len(members):
            return "count", _too_few(kind.least, len(members), problem.hosts[host])
        new = sum(d not in self.occupants.on for d in members)
        shared = len(members) - new
        if kind.least - shared > problem.room[host] - self.used_on[host]:
            return "reserve", f"needs {kind.least} devices, {problem.policy.reserve} must stay free on each host"
        if problem.limit is not None and kind.least - shared > problem.limit - len(self.occupants.on):
            left = problem.limit - len(self.occupants.on)
            return "limit", f"needs {kind.least} devices, {left} of at most {problem.limit} are left"
        if kind.rank != NOT_LINKED and kind.least > 1:
            level = LINK_LEVELS[kind.rank]
            return "min_link", f"no {kind.least} of its free devices are all joined by {level} or closer"
        return "search", "the search ended before a place was found"


def _too_few(least: int, count: int, host: str) -> str:
    return f"needs {least} devices of one host, {count} on {host} could take it"


def _best_joined(problem: Problem, devices: list[int], rank: int) -> list[int]:
    """Return the most devices of one host of which every pair is joined at least so closely."""
    import networkx as nx  # noqa: PLC0415 - heavy

    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(devices)
    graph.add_edges_from((a, b) for a, b in combinations(devices, 2) if problem.link(a, b)[1] <= rank)
    return max(nx.find_cliques(graph), key=len, default=[])


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _merged(details: list[str]) -> list[str]:
    """Return details with those in one that end alike: "is A, and C is asked for" and "is B, …" are "is A or B, …"."""
    found: dict[tuple[str, str], list[str]] = {}
    for detail in details:
        verb, space, rest = detail.partition(" ")
        what, comma, end = rest.rpartition(", and ")
        key = (verb + space, comma + end) if verb == "is" and comma else (detail, "")
        found.setdefault(key, []).append(what if key[1] else "")
    return [f"{start}{' or '.join(filter(None, whats))}{end}" for (start, end), whats in found.items()]


def refusals_of(stops: Obstacles, obstacles: dict[int, tuple[str, str]]) -> tuple[Refusal, ...]:
    """Return the reasons grouped by code, each with its devices; every device is in exactly one."""
    problem = stops.problem
    by_code: dict[str, list[int]] = {}
    for d in sorted(obstacles):
        by_code.setdefault(obstacles[d][0], []).append(d)
    found = []
    for code, devices in by_code.items():
        details = list(dict.fromkeys(obstacles[d][1] for d in devices))
        if code == "taken":
            holders = dict.fromkeys(name for d in devices for name in stops.occupants.names(d))
            details = [f"taken by {_some(list(holders))}"]
        details = _merged(details)
        text = "; ".join(details[:_MOST_NAMED])
        if len(details) > _MOST_NAMED:
            text += f"; and {len(details) - _MOST_NAMED} more like it"
        found.append(Refusal(code, tuple(problem.devices[d].uuid for d in devices), text))
    if not problem.devices:
        found.append(Refusal("no_devices", (), "the inventory has no device to hand out"))
    return tuple(found)


def unplaced_of(
    problem: Problem,
    assignment: Assignment,
    stops: Obstacles,
    hint_for: Callable[[Job, dict[int, tuple[str, str]]], str],
) -> tuple[Unplaced, ...]:
    """Return every worker that is not placed; ``hint_for`` words the change that would let one in."""
    by_kind: dict[tuple[int, str], tuple[tuple[Refusal, ...], str]] = {}
    found = []
    for job, devices in zip(problem.jobs, assignment, strict=True):
        if devices is not None:
            continue
        # the same for every worker of a role and kind
        key = (job.kind, job.demand.request.role)
        if key not in by_kind:
            obstacles = stops.of(job)
            by_kind[key] = refusals_of(stops, obstacles), hint_for(job, obstacles)
        reasons, hint = by_kind[key]
        found.append(Unplaced(job.name, reasons, hint))
    return tuple(found)
