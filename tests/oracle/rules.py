"""The stated rules of planning, read into plain numbers: what the devices are, what each worker may have.

Written from the text of the design and from nothing else, so that the planner can be judged by it. Both oracles (every
assignment, and CP-SAT) start from a `Case`; neither shares a line with the planner. Loads are exact fractions of a
device's usable memory.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import TYPE_CHECKING

from gpualloc.model import LINK_LEVELS, PcieLevel

if TYPE_CHECKING:
    from gpualloc.model import Gpu, Host, Inventory, MigInstance, Policy, Process, Request, Worker

LinkFacts = tuple[int | None, PcieLevel | None]
"""NVLinks and PCIe level of a pair; None where unknown."""

PCIE_POINTS: dict[PcieLevel | None, int] = {"PIX": 50, "PXB": 40, "PHB": 30, "NODE": 20, "SYS": 10, None: 0}


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU with MIG off, or one MIG instance; ``at`` is its place in `Case.devices`."""

    at: int
    uuid: str
    host: str
    gpu: Gpu
    profile: str | None
    total: int | None
    usable: Fraction | None
    foreign: int
    busy: bool

    @property
    def foreign_load(self) -> Fraction:
        """Foreign memory over usable memory; where that is unknown, any foreign memory takes all there is."""
        if not self.foreign:
            return Fraction(0)
        return Fraction(self.foreign) / self.usable if self.usable else Fraction(1)


@dataclass(frozen=True, slots=True)
class Job:
    """A worker with its request. ``shares``: what it takes of each device it may have, 1 where it is exclusive."""

    name: str
    role: str
    request: Request
    low: int
    high: int
    elastic: bool
    exclusive: bool
    shares: dict[int, Fraction]
    has_previous: bool
    previous: frozenset[int] | None
    """The devices it holds now; None without a previous placement, and where a device of it is lost."""


@dataclass(frozen=True, slots=True)
class Case:
    """One planning problem."""

    devices: tuple[Device, ...]
    jobs: tuple[Job, ...]
    policy: Policy
    links: dict[tuple[int, int], LinkFacts]
    eligible: frozenset[int]
    """Devices that at least one worker may have: loads are levelled over these."""

    def pair_score(self, a: int, b: int) -> int:
        nvlink, pcie = self.links.get((min(a, b), max(a, b)), (None, None))
        return 100 * (nvlink or 0) + PCIE_POINTS[pcie]

    def close_enough(self, job: Job, a: int, b: int) -> bool:
        """Whether a pair of devices satisfies the worker's ``min_link`` (NVLINK under ``topology: require``)."""
        level = "NVLINK" if self.policy.topology == "require" else job.request.min_link
        if level is None:
            return True
        nvlink, pcie = self.links.get((min(a, b), max(a, b)), (None, None))
        if nvlink:
            return True
        return pcie is not None and LINK_LEVELS.index(pcie) <= LINK_LEVELS.index(level)

    @property
    def hosts(self) -> list[str]:
        return sorted({device.host for device in self.devices})

    @property
    def priorities(self) -> list[int]:
        return sorted({job.request.priority for job in self.jobs}, reverse=True)


def set_fault(case: Case, job: Job, chosen: tuple[int, ...]) -> str | None:
    """Why these devices, each of which the worker may have, cannot be one worker's; None where they can."""
    if not job.low <= len(chosen) <= job.high:
        return f"{len(chosen)} devices"
    if len({case.devices[d].host for d in chosen}) > 1:
        return "spans hosts"
    if len(chosen) > 1 and any(case.devices[d].profile is not None for d in chosen):
        return "more than one device, one of them a MIG instance"
    if any(not case.close_enough(job, a, b) for a, b in combinations(chosen, 2)):
        return "linked less closely than min_link"
    return None


def may_stay(case: Case, job: Job) -> bool:
    """Whether a worker has devices that are all still good, satisfy its request and the policy's hard rules."""
    if job.previous is None or not job.previous <= job.shares.keys() or (job.exclusive and job.request.affinity):
        return False
    if set_fault(case, job, tuple(sorted(job.previous))):
        return False
    host = {case.devices[d].host for d in job.previous}
    free = sum(device.host in host for device in case.devices) - len(job.previous)
    return free >= case.policy.reserve and (case.policy.limit is None or len(job.previous) <= case.policy.limit)


def read_case(inventory: Inventory, requests: tuple[Request, ...], policy: Policy, project: str | None) -> Case:
    """Read an instance into a `Case`."""
    known = _resolve_pins(inventory, requests)
    pinned_now = {device for places, _ in known.values() for device in places}
    devices = _devices(inventory, policy, project, pinned_now)
    at = {device.uuid: device.at for device in devices}
    crowd = _hand_pinned_crowd(requests, known)
    only_mig = {h.name for h in inventory.hosts if all(gpu.mig is not None for gpu in h.gpus)}
    jobs = []
    for request in requests:
        # The workers of a role differ at most in how many others are pinned by hand to their devices.
        reads = {
            n: _shares(request, n, devices, policy, only_mig)
            for n in {crowd.get(worker.name, 0) for worker in request.workers}
        }
        for worker in request.workers:
            places, lost = known.get(worker.name, (frozenset(), False))
            exclusive, shares = reads[crowd.get(worker.name, 0)]
            most = len(devices) if request.gpus.max is None else request.gpus.max
            jobs.append(
                Job(
                    name=worker.name,
                    role=request.role,
                    request=request,
                    low=request.gpus.min,
                    high=most,
                    elastic=request.gpus.max is None or request.gpus.min != request.gpus.max,
                    exclusive=exclusive,
                    shares=shares,
                    has_previous=worker.name in known,
                    previous=None if lost or not places else frozenset(at[uuid] for uuid in places),
                )
            )
    eligible = frozenset(d for job in jobs for d in job.shares)
    return Case(devices, tuple(jobs), policy, _links(inventory, at), eligible)


def _resolve_pins(inventory: Inventory, requests: tuple[Request, ...]) -> dict[str, tuple[frozenset[str], bool]]:
    """Worker name -> (uuids of the devices its ids mean, whether one of its ids is lost); empty on another machine."""
    here: dict[str, str] = {}
    indices = Counter(gpu.index for host in inventory.hosts for gpu in host.gpus)
    for host in inventory.hosts:
        for gpu in host.gpus:
            if gpu.mig is None:
                here[gpu.uuid] = gpu.uuid
                if indices[gpu.index] == 1:
                    here[str(gpu.index)] = gpu.uuid
            else:
                here.update({instance.uuid: instance.uuid for instance in gpu.mig})
    pinned: list[Worker] = [worker for request in requests for worker in request.workers if worker.pinned]
    if not any(name in here for worker in pinned for name in worker.pinned or ()):
        return {}
    return {
        worker.name: (
            frozenset(here[name] for name in worker.pinned or () if name in here),
            any(name not in here for name in worker.pinned or ()),
        )
        for worker in pinned
    }


def _hand_pinned_crowd(requests: tuple[Request, ...], known: dict[str, tuple[frozenset[str], bool]]) -> dict[str, int]:
    """Worker name -> the most hand-pinned workers on any one of its devices, for hand-pinned workers."""
    by_hand = [w.name for request in requests if request.hand_pinned for w in request.workers if w.name in known]
    holders: dict[str, int] = {}
    for name in by_hand:
        for uuid in known[name][0]:
            holders[uuid] = holders.get(uuid, 0) + 1
    return {name: max((holders[uuid] for uuid in known[name][0]), default=0) for name in by_hand}


def _devices(inventory: Inventory, policy: Policy, project: str | None, pinned_now: set[str]) -> tuple[Device, ...]:
    devices: list[Device] = []
    for host in inventory.hosts:
        for gpu in host.gpus:
            for instance in (None,) if gpu.mig is None else gpu.mig:
                devices.append(_device(len(devices), host, gpu, instance, policy, project, pinned_now))
    return tuple(devices)


def _device(
    at: int,
    host: Host,
    gpu: Gpu,
    instance: MigInstance | None,
    policy: Policy,
    project: str | None,
    pinned_now: set[str],
) -> Device:
    uuid = gpu.uuid if instance is None else instance.uuid
    total = gpu.memory_total_mib if instance is None else instance.memory_total_mib
    # What the driver reserves is the GPU's; an instance's size is what the instance has.
    # Where the driver names no reserve it counts it as used.
    reserved = gpu.memory_reserved_mib if instance is None else None
    usable = None if total is None else (total - (reserved or 0)) * (1 - policy.sharing.headroom)
    here = [p for p in gpu.processes if instance is None or p.gi is None or p.gi == instance.gi]
    foreign = sum(p.used_mib or 0 for p in here if _is_foreign(_owner(p, project), uuid in pinned_now))
    if instance is None and gpu.memory_used_mib is not None:
        # What no process accounts for belongs to whoever hides its use; failing that, to someone unknown.
        hidden = {_owner(p, project) for p in here if p.used_mib is None}
        whose = "foreign" if "foreign" in hidden else "ours" if "ours" in hidden else "unknown"
        if _is_foreign(whose, uuid in pinned_now):
            foreign += max(0, gpu.memory_used_mib - sum(p.used_mib or 0 for p in here))
    held = any(_owner(p, project) == "foreign" for p in here)
    busy = held or foreign > policy.exclude.busy_above_mib
    profile = None if instance is None else instance.profile
    return Device(at, uuid, host.name, gpu, profile, total, usable, foreign, busy)


def _is_foreign(owner: str, pinned: bool) -> bool:  # noqa: FBT001  # a fact, not a switch
    """Whether memory of this owner is foreign; of an unknown owner it is not, where the file pins the device."""
    return owner == "foreign" or (owner == "unknown" and not pinned)


def _owner(process: Process, project: str | None) -> str:
    if process.container is None:
        return "unknown"
    return "ours" if project is not None and process.container.project == project else "foreign"


def _shares(
    request: Request, crowd: int, devices: tuple[Device, ...], policy: Policy, only_mig: set[str]
) -> tuple[bool, dict[int, Fraction]]:
    """Whether a worker is exclusive, and its share of every device that its filters and the policy's let it have."""
    sharing = policy.sharing
    by_default = request.memory_mib is None and crowd < 2
    exclusive = request.exclusive or sharing.mode == "none" or (by_default and sharing.default_memory == "exclusive")
    memory = request.memory_mib
    if by_default and not exclusive and isinstance(sharing.default_memory, int):
        memory = sharing.default_memory
    shares = {}
    for device in devices:
        if not _passes(request, device, policy, only_mig):
            continue
        if memory is not None and (device.usable is None or device.usable - device.foreign < memory):
            continue
        share = Fraction(1) if exclusive else _part(device, memory, crowd, policy)
        if share is not None and (not device.busy if exclusive else share + device.foreign_load <= 1):
            shares[device.at] = share
    return exclusive, shares


def _part(device: Device, memory: int | None, crowd: int, policy: Policy) -> Fraction | None:
    """The part of a device that a sharing worker takes; None where that is unknown."""
    if policy.sharing.mode == "count":
        return Fraction(1, policy.sharing.max_workers_per_gpu)
    if not device.usable:
        return None
    if memory is not None:
        return Fraction(memory) / device.usable
    return Fraction(1, crowd if crowd >= 2 else policy.sharing.max_workers_per_gpu)


def _passes(request: Request, device: Device, policy: Policy, only_mig: set[str]) -> bool:
    """Whether the filters on the device alone, the policy's and the request's, let the worker have it."""
    gpu, exclude = device.gpu, policy.exclude
    return not (
        gpu.compute_mode == "prohibited"
        or (exclude.unhealthy and any(issue.fatal for issue in gpu.health))
        or (exclude.busy and device.busy)
        or (exclude.display and gpu.display_active)
        or any(_names(pattern, device) for pattern in exclude.gpus)
        or (request.model is not None and not fnmatch.fnmatchcase(gpu.name, request.model))
        or (request.min_memory_mib is not None and (device.total is None or device.total < request.min_memory_mib))
        or (request.compute_capability is not None and not _capable(request.compute_capability, gpu))
        or (request.host is not None and not fnmatch.fnmatchcase(device.host, request.host))
        or (request.mig_profile is not None and device.profile != request.mig_profile)
        or (request.mig_profile is None and device.profile is not None and device.host not in only_mig)
        # One MIG instance at most: who needs two devices has no use for any.
        or (request.gpus.min > 1 and device.profile is not None)
    )


def _names(pattern: str, device: Device) -> bool:
    """Whether an entry of ``exclude.gpus`` means this device."""
    if pattern.startswith("index:"):
        return device.gpu.index == int(pattern[6:])
    if pattern.startswith("name:"):
        return fnmatch.fnmatchcase(device.gpu.name, pattern[5:])
    return pattern in {device.uuid, device.gpu.uuid}


def _capable(wanted: str, gpu: Gpu) -> bool:
    match = re.fullmatch(r"(>=|<=|==|>|<|)\s*(\d+)\.(\d+)", wanted)
    if match is None:
        raise AssertionError(f"not a compute capability: {wanted}")
    if gpu.compute_capability is None:
        return False
    major, minor = gpu.compute_capability.split(".")
    have, want = (int(major), int(minor)), (int(match[2]), int(match[3]))
    tests = {">=": have >= want, "<=": have <= want, ">": have > want, "<": have < want}
    return tests.get(match[1], have == want)


def _links(inventory: Inventory, at: dict[str, int]) -> dict[tuple[int, int], LinkFacts]:
    """Pair of devices -> (NVLinks, PCIe level); the lesser of two reports counts, unknown least."""
    links: dict[tuple[int, int], LinkFacts] = {}
    for host in inventory.hosts:
        for link in host.links:
            if link.a not in at or link.b not in at or link.a == link.b:
                continue
            pair = (min(at[link.a], at[link.b]), max(at[link.a], at[link.b]))
            nvlink, pcie = link.nvlink, link.pcie
            if pair in links:
                before_nvlink, before_pcie = links[pair]
                nvlink = None if nvlink is None or before_nvlink is None else min(nvlink, before_nvlink)
                if pcie is None or before_pcie is None or PCIE_POINTS[before_pcie] < PCIE_POINTS[pcie]:
                    pcie = before_pcie if pcie else None
            links[pair] = (nvlink, pcie)
    return links
