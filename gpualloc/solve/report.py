"""From positions back to the plan's own words: placements with their reasons, and the objective."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from gpualloc.model import LINK_LEVELS, DeviceRef, Placement, Tier
from gpualloc.policy.filters import gib, refused_by_request
from gpualloc.policy.scoring import NOT_LINKED, NVLINK_SCORE
from gpualloc.solve.tiers import rules_of, shown, turned

if TYPE_CHECKING:
    from gpualloc.model import Action
    from gpualloc.solve.lexi import Optimum
    from gpualloc.solve.problem import Assignment, Devices, Job, Problem


class Occupants:
    """Who is on which device in an assignment, by worker's position."""

    def __init__(self, problem: Problem, assignment: Assignment) -> None:
        self.on: dict[int, list[int]] = {}
        for n, devices in enumerate(assignment):
            for d in devices or ():
                self.on.setdefault(d, []).append(n)
        self.problem = problem

    def kinds(self, d: int) -> list[int]:
        """Return the kinds of the workers on a device, one number per worker."""
        return [self.problem.jobs[n].kind for n in self.on.get(d, ())]

    def names(self, d: int) -> list[str]:
        """Return the names of the workers on a device."""
        return [self.problem.jobs[n].name for n in self.on.get(d, ())]

    def given_units(self, d: int) -> int:
        """Return what is given out of a device to sharing workers, and foreign, in its units."""
        problem = self.problem
        return problem.taken[d] + sum(problem.kinds[number].weight[d] for number in self.kinds(d))


def placements_of(problem: Problem, assignment: Assignment) -> tuple[Placement, ...]:
    """Return the placement of every placed worker, in natural order of name."""
    occupants = Occupants(problem, assignment)
    found = []
    for n, (job, devices) in enumerate(zip(problem.jobs, assignment, strict=True)):
        if devices is None:
            continue
        kind = problem.kinds[job.kind]
        action = action_of(problem, job, devices)
        found.append(
            Placement(
                worker=job.name,
                service=job.demand.request.role,
                replica=job.replica,
                host=problem.devices[devices[0]].host,
                devices=tuple(DeviceRef(problem.devices[d].uuid, problem.devices[d].gpu.index) for d in devices),
                memory_mib=None if kind.exclusive else _memory(problem, job, devices),
                exclusive=kind.exclusive,
                action=action,
                previous=job.previous,
                reason=_reason(problem, occupants, n, devices, action),
            )
        )
    return tuple(found)


def action_of(problem: Problem, job: Job, devices: Devices) -> Action:
    """Return what happens to a worker: ``resize`` where one set of devices strictly contains the other."""
    if job.previous is None:
        return "pin"
    before, after = set(job.previous), {problem.devices[d].uuid for d in devices}
    if before == after:
        return "keep"
    return "resize" if before < after or after < before else "move"


def _memory(problem: Problem, job: Job, devices: Devices) -> int | None:
    """Return what a sharing worker gets of each device, in whole MiB."""
    if job.demand.share is None:
        return job.demand.memory_mib
    usable = [problem.devices[d].usable_mib for d in devices]
    known = [amount for amount in usable if amount is not None]
    return int(min(known) * job.demand.share) if len(known) == len(usable) else None


def device_name(problem: Problem, d: int) -> str:
    """Return how a device is called in a sentence.

    ``GPU 3``, ``MIG 1g.10gb on GPU 0``, with the host if there are several.
    """
    device = problem.devices[d]
    name = f"GPU {device.gpu.index}" if device.mig is None else f"MIG {device.mig.profile} on GPU {device.gpu.index}"
    return f"{name} of {device.host}" if len(problem.hosts) > 1 else name


def joined_by(problem: Problem, devices: Devices) -> str:
    """Return the weakest link among some devices: ``NV12``, ``PXB``, or empty where nothing is known."""
    pairs = [problem.link(a, b) for n, a in enumerate(devices) for b in devices[n + 1 :]]
    worst = max(rank for _, rank in pairs)
    if worst == NOT_LINKED:
        return ""
    return f"NV{min(score for score, _ in pairs) // NVLINK_SCORE}" if worst == 0 else LINK_LEVELS[worst]


def _reason(problem: Problem, occupants: Occupants, n: int, devices: Devices, action: Action) -> str:
    job = problem.jobs[n]
    what = _what(problem, occupants, n, devices)
    if action == "keep":
        return "keeps its device" if len(devices) == 1 else "keeps its devices"
    if action == "pin":
        return what
    cause = _cause(problem, job)
    if action == "resize":
        before = len(job.previous or ())
        grown = "grows" if len(devices) > before else "shrinks"
        return (
            f"{grown} from {before} to {len(devices)} {_devices(len(devices))}{f': {cause}' if cause else ''}; {what}"
        )
    return f"moved: {cause or 'its place is needed by others'}; {what}"


def _devices(count: int) -> str:
    return "device" if count == 1 else "devices"


def _cause(problem: Problem, job: Job) -> str:
    """Return what is wrong with a worker's previous devices, empty where nothing is."""
    where = problem.where
    kind = problem.kinds[job.kind]
    held = len(job.previous or ())
    for uuid in job.previous or ():
        d = where.get(uuid)
        if d is None:
            split = next((device.gpu for device in problem.devices if device.gpu.uuid == uuid), None)
            return f"{uuid} is gone" if split is None else f"GPU {split.index} is split by MIG now"
        refusal = problem.refusals[d] or refused_by_request(problem.devices[d], job.demand)
        if refusal is not None:
            return f"{device_name(problem, d)} {refusal[1]}"
    if not kind.least <= held <= kind.most:
        wanted = kind.least if held < kind.least else kind.most
        return f"asks for {wanted} {_devices(wanted)}, had {held}"
    if job.home is None:
        return "its devices no longer satisfy its request together"
    return "planned from scratch" if problem.stability == "ignore" else ""


def _what(problem: Problem, occupants: Occupants, n: int, devices: Devices) -> str:
    kind = problem.kinds[problem.jobs[n].kind]
    if len(devices) > 1:
        link = joined_by(problem, devices)
        text = f"{len(devices)} GPUs joined by {link}" if link else f"{len(devices)} GPUs"
        others = sorted({problem.jobs[m].name for d in devices for m in occupants.on[d] if m != n})
        return f"{text}, shared with {_few(others)}" if others else text
    d = devices[0]
    name = device_name(problem, d)
    if kind.exclusive:
        return f"{name} for itself"
    device = problem.devices[d]
    fill = ""
    if device.usable_mib:
        given = device.usable_mib * Fraction(occupants.given_units(d), problem.full[d])
        fill = f" ({gib(given)} of {gib(device.usable_mib)} used)"
    others = [problem.jobs[m].name for m in occupants.on[d] if m != n]
    if not others:
        return f"{name}, nobody else there yet{fill}"
    return f"shares {name} with {_few(others)}{fill}"


def _few(names: list[str]) -> str:
    if len(names) > 3:
        return f"{', '.join(names[:2])} and {len(names) - 2} others"
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def objective_of(problem: Problem, optimum: Optimum) -> tuple[Tier, ...]:
    """Return every tier that the plan reports, as it does."""
    pairs = zip(rules_of(problem), tiers_of(problem, optimum), strict=True)
    return tuple(tier for rule, tier in pairs if rule.reported)


def tiers_of(problem: Problem, optimum: Optimum) -> tuple[Tier, ...]:
    """Return every tier that decides, in the form in which a plan reports its own."""
    tiers = []
    for rule, value, proof in zip(rules_of(problem), optimum.score, optimum.proofs, strict=True):
        bound = proof.bound
        if isinstance(bound, Fraction):
            turned_back: object = bound if rule.sense == "min" else -bound
        else:
            turned_back = None if bound is None else turned(bound, rule.sense)
        tiers.append(
            Tier(
                name=rule.name,
                sense=rule.sense,
                value=shown(problem, rule, turned(value, rule.sense)),
                bound=shown(problem, rule, turned_back),  # type: ignore[arg-type]  # one of the amounts above
                proven=proof.proven,
            )
        )
    return tuple(tiers)
