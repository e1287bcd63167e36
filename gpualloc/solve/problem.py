"""The problem in whole numbers: devices, kinds of workers, and what may go where.

Everything the search needs is here as integers over positions, exact: memory is counted in units fine enough for every
share (see ``_unit``), so that capacities and loads never need rounding. Devices are numbered in the order of
:func:`gpualloc.solve.devices.flatten`, workers in natural order of name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from gpualloc.model import LINK_LEVELS
from gpualloc.policy.filters import refused_by_policy, refused_by_request
from gpualloc.policy.scoring import NOT_LINKED, level_rank, link_rank, link_score, weaker
from gpualloc.solve.demands import check_affinities, demand_of, hand_shares
from gpualloc.solve.devices import flatten, sorted_hosts
from gpualloc.solve.order import natural
from gpualloc.solve.pins import Pins, resolve_pins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.model import Inventory, Link, Policy, Request, Worker
    from gpualloc.policy.filters import Demand, Device

Devices = tuple[int, ...]
"""Positions of the devices of one worker, ascending."""

Assignment = tuple["Devices | None", ...]
"""Per worker, in the problem's order, its devices; None where it is not placed."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Workers that nothing tells apart but their names and where they were.

    ``weight`` maps each eligible device to what a sharing worker takes of it, in the device's units (0 when exclusive).
    ``most`` is at most the number of devices that any host can give. ``role``, ``affinity`` and ``anti`` are numbers of
    roles that some affinity mentions (``role`` -1: none does). ``rank`` is the furthest link admitted.
    """

    number: int
    exclusive: bool
    weight: dict[int, int]
    least: int
    most: int
    elastic: bool
    priority: int
    names_memory: bool
    rank: int
    role: int
    affinity: frozenset[int]
    anti: frozenset[int]

    @property
    def single(self) -> bool:
        """Whether every worker of this kind gets exactly one device."""
        return self.least == self.most == 1 and not self.elastic


@dataclass(frozen=True, slots=True)
class Job:
    """One worker. ``previous`` are its ids now; ``home`` their positions where the worker may stay there, else None.

    It may stay where its devices satisfy its request and the policy's hard rules, whoever else is there.
    """

    name: str
    replica: int
    demand: Demand
    kind: int
    previous: tuple[str, ...] | None
    home: Devices | None


@dataclass(slots=True)
class Problem:
    """All that the solver knows. Lists are per device, by position, unless a name says otherwise.

    ``full`` is what is usable of a device, ``taken`` the foreign part of it (same units), ``slots`` how many workers
    may share it, ``size`` its memory in MiB (0 where unknown), ``open`` whether the policy lets it be used at all,
    ``eligible`` whether any worker here may have it: loads are levelled over those. ``room`` is per host: how many of
    its devices may be used once the reserve is set aside. ``common`` is a denominator for the loads of all eligible
    devices.
    """

    policy: Policy
    devices: list[Device]
    refusals: list[tuple[str, str] | None]
    host_of: list[int]
    hosts: list[str]
    host_devices: list[list[int]]
    numa_of: list[int]
    open: list[bool]
    eligible: list[bool]
    full: list[int]
    taken: list[int]
    slots: list[int]
    size: list[int]
    room: list[int]
    limit: int | None
    kinds: list[Kind]
    jobs: list[Job]
    pins: Pins
    hand_shares: dict[str, int]
    stability: str
    common: int
    host_links: list[tuple[Link, ...]]
    where: dict[str, int] = field(default_factory=dict)
    _pairs: dict[int, dict[tuple[int, int], tuple[int, int]]] = field(default_factory=dict)

    def pairs(self, host: int) -> dict[tuple[int, int], tuple[int, int]]:
        """Return score and rank per pair of whole GPUs on a host, smaller position first.

        Pairs unheard of are absent.
        """
        known = self._pairs.get(host)
        if known is None:
            known = self._pairs[host] = self._read_pairs(host)
        return known

    def _read_pairs(self, host: int) -> dict[tuple[int, int], tuple[int, int]]:
        where = {self.devices[d].uuid: d for d in self.host_devices[host]}
        seen: dict[tuple[int, int], Link] = {}
        pairs: dict[tuple[int, int], tuple[int, int]] = {}
        for link in self.host_links[host]:
            a, b = where.get(link.a), where.get(link.b)
            if a is None or b is None or a == b:
                continue
            key = (a, b) if a < b else (b, a)
            nvlink, pcie = weaker(seen.setdefault(key, link), link)
            pairs[key] = (link_score(nvlink, pcie), link_rank(nvlink, pcie))
        return pairs

    def link(self, a: int, b: int) -> tuple[int, int]:
        """Return score and rank of the pair of devices ``a < b`` of one host."""
        return self.pairs(self.host_of[a]).get((a, b), (0, NOT_LINKED))

    def set_score(self, devices: Devices) -> int:
        """Return the link score of a set of devices of one host: the sum over its pairs."""
        return sum(self.link(a, b)[0] for n, a in enumerate(devices) for b in devices[n + 1 :])

    def set_rank(self, devices: Devices) -> int:
        """Return the rank of the worst pair of a set of devices of one host."""
        return max((self.link(a, b)[1] for n, a in enumerate(devices) for b in devices[n + 1 :]), default=0)

    @property
    def spread(self) -> bool:
        """Whether the strategy levels the load."""
        return self.policy.strategy == "spread"

    @property
    def topology(self) -> bool:
        """Whether links count in the objective."""
        return self.policy.topology != "ignore"

    def admits_pairs(self, kind: Kind, devices: Devices) -> bool:
        """Tell whether the last of some devices is close enough to all the others for a kind's ``min_link``."""
        if kind.rank == NOT_LINKED:
            return True
        last = devices[-1]
        return all(self.link(min(d, last), max(d, last))[1] <= kind.rank for d in devices[:-1])

    def admits(self, kind: Kind, devices: Devices) -> bool:
        """Tell whether a set of devices satisfies a kind's own conditions, were nobody else there."""
        return (
            kind.least <= len(devices) <= kind.most
            and len({self.host_of[d] for d in devices}) == 1
            and all(d in kind.weight for d in devices)
            and (len(devices) == 1 or self.devices[devices[0]].mig is None)
            and (kind.rank == NOT_LINKED or self.set_rank(devices) <= kind.rank)
        )


def build(
    inventory: Inventory,
    remaining: Inventory,
    requests: Sequence[Request],
    policy: Policy,
    *,
    project: str | None,
    stability: str,
) -> Problem:
    """Return the problem; ``remaining`` is the inventory less the devices to do without.

    Raises :class:`GpuallocError` for an affinity with a role that does not exist.
    """
    check_affinities(requests)
    pins = resolve_pins(inventory, requests)
    shares = hand_shares(requests, pins)
    requests = sorted(requests, key=lambda request: natural(request.role))
    demands = [
        (request, worker, demand_of(request, worker, policy, shares))
        for request in requests
        for worker in sorted(request.workers, key=lambda worker: natural(worker.name))
    ]
    devices = flatten(remaining, policy, project, pins.uuids())
    refusals = [refused_by_policy(device, policy) for device in devices]
    hosts = sorted_hosts(remaining)

    unit = _unit(policy, [demand for _, _, demand in demands])
    full = [_full(device, unit) for device in devices]
    host_number = {host.name: number for number, host in enumerate(hosts)}
    host_of = [host_number[device.host] for device in devices]
    host_devices: list[list[int]] = [[] for _ in hosts]
    for device in devices:
        host_devices[host_of[device.position]].append(device.position)
    problem = Problem(
        policy=policy,
        devices=devices,
        refusals=refusals,
        host_of=host_of,
        hosts=[host.name for host in hosts],
        host_devices=host_devices,
        numa_of=_numa(devices, host_of),
        open=[refusal is None for refusal in refusals],
        eligible=[False] * len(devices),
        full=full,
        taken=[_taken(device, unit) for device in devices],
        slots=[_slots(device, policy) for device in devices],
        size=[device.total_mib or 0 for device in devices],
        room=[max(0, len(members) - policy.reserve) for members in host_devices],
        limit=policy.limit,
        kinds=[],
        jobs=[],
        pins=pins,
        hand_shares=shares,
        stability=stability,
        common=1,
        host_links=[host.links for host in hosts],
        where={device.uuid: device.position for device in devices},
    )
    _add_jobs(problem, demands, unit)
    problem.common = math.lcm(*{amount for amount, counts in zip(full, problem.eligible, strict=True) if counts})
    return problem


def _unit(policy: Policy, demands: list[Demand]) -> int:
    """Return how many units make one MiB: enough that usable memory and every share of it are whole numbers."""
    parts = {demand.share.denominator for demand in demands if demand.share is not None}
    return Fraction(policy.sharing.headroom).denominator * math.lcm(*parts)


def _full(device: Device, unit: int) -> int:
    # a device of unknown memory is one whole of its own: fractions of it can be shared, amounts cannot
    return int(device.usable_mib * unit) if device.usable_mib else unit


def _taken(device: Device, unit: int) -> int:
    if device.usable_mib:
        return device.foreign_mib * unit
    # how much of an unknown memory is taken cannot be known, so all of it is
    return unit if device.foreign_mib else 0


def _slots(device: Device, policy: Policy) -> int:
    return 1 if device.gpu.compute_mode == "exclusive_process" else policy.sharing.max_workers_per_gpu


def _numa(devices: list[Device], host_of: list[int]) -> list[int]:
    numbers: dict[tuple[int, int | None], int] = {}
    for device in devices:
        numbers.setdefault((host_of[device.position], device.gpu.numa_node), len(numbers))
    return [numbers[host_of[device.position], device.gpu.numa_node] for device in devices]


def _add_jobs(problem: Problem, demands: list[tuple[Request, Worker, Demand]], unit: int) -> None:
    mentioned = {role for request, _, _ in demands for role in (*request.affinity, *request.anti_affinity)}
    role_number = {role: number for number, role in enumerate(sorted(mentioned))}
    kinds: dict[object, Kind] = {}
    by_demand: dict[object, Kind] = {}
    jobs: list[tuple[Request, Worker, Demand, Kind]] = []
    for request, worker, demand in demands:
        memo = (id(request), demand.exclusive, demand.share)
        kind = by_demand.get(memo)
        if kind is None:
            kind = _kind(problem, demand, role_number, unit, len(kinds))
            key = _identity(kind)
            kind = by_demand[memo] = kinds.setdefault(key, kind)
        jobs.append((request, worker, demand, kind))
    problem.kinds = list(kinds.values())

    where = problem.where
    for _, worker, demand, kind in sorted(jobs, key=lambda job: natural(job[1].name)):
        previous = problem.pins.previous(worker.name)
        positions = [where.get(uuid) for uuid in previous or ()]
        home: Devices | None = None
        if positions and None not in positions:
            home = tuple(sorted(d for d in positions if d is not None))
            home = home if problem.admits(kind, home) and _has_room(problem, home) else None
        problem.jobs.append(Job(worker.name, worker.replica, demand, kind.number, previous, home))


def _has_room(problem: Problem, devices: Devices) -> bool:
    """Tell whether reserve and limit admit a set of devices of one host when no others are used."""
    return len(devices) <= problem.room[problem.host_of[devices[0]]] and (
        problem.limit is None or len(devices) <= problem.limit
    )


def _kind(problem: Problem, demand: Demand, role_number: dict[str, int], unit: int, number: int) -> Kind:
    request = demand.request
    least = max(request.gpus.min, 1)
    wanted = None if request.gpus.max is None else max(request.gpus.max, least)
    rank = level_rank(request.min_link)
    if problem.policy.topology == "require" and (wanted is None or wanted > 1):
        rank = LINK_LEVELS.index("NVLINK")
    weight: dict[int, int] = {}
    memo: dict[object, bool] = {}
    for device in problem.devices:
        if not problem.open[device.position]:
            continue
        signature = _signature(device)
        fits = memo.get(signature)
        if fits is None:
            fits = memo[signature] = refused_by_request(device, demand) is None
        d = device.position
        amount = _weight(problem, demand, d, unit) if fits else 0
        if fits and (demand.exclusive or problem.taken[d] + amount <= problem.full[d]):
            problem.eligible[d] = True
            weight[d] = amount
    if demand.exclusive and request.affinity:
        weight = {}  # alone and in company at once: nowhere, although the devices are good enough
    most = _most(problem, weight)
    return Kind(
        number=number,
        exclusive=demand.exclusive,
        weight=weight,
        least=least,
        most=max(least, most if wanted is None else min(wanted, most)),
        elastic=wanted != least,
        priority=request.priority,
        names_memory=request.memory_mib is not None,
        rank=rank,
        role=role_number.get(request.role, -1),
        affinity=frozenset(role_number[role] for role in request.affinity),
        anti=frozenset(role_number[role] for role in request.anti_affinity),
    )


def _signature(device: Device) -> tuple[object, ...]:
    gpu, mig = device.gpu, device.mig
    return (
        device.host,
        gpu.name,
        gpu.compute_capability,
        device.total_mib,
        device.usable_mib,
        device.foreign_mib,
        device.busy,
        device.mig_only,
        mig.profile if mig else None,
    )


def _weight(problem: Problem, demand: Demand, device: int, unit: int) -> int:
    if demand.exclusive:
        return 0
    if demand.share is not None:
        return int(problem.full[device] * demand.share)
    return (demand.memory_mib or 0) * unit


def _most(problem: Problem, weight: dict[int, int]) -> int:
    """Return the largest number of devices that one host can give to one worker; of MIG instances that is one."""
    counts: dict[int, int] = {}
    for d in weight:
        host = problem.host_of[d]
        counts[host] = 1 if problem.devices[d].mig else counts.get(host, 0) + 1
    return max((min(count, problem.room[host]) for host, count in counts.items()), default=1)


def _identity(kind: Kind) -> tuple[object, ...]:
    return (
        kind.exclusive,
        frozenset(kind.weight.items()),
        kind.least,
        kind.most,
        kind.elastic,
        kind.priority,
        kind.names_memory,
        kind.rank,
        kind.role,
        kind.affinity,
        kind.anti,
    )
