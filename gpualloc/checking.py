"""Does the compose file still fit these GPUs and this policy? Every check is a function that yields findings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpualloc.compose.forms import Form, forms_of
from gpualloc.cuda import visible
from gpualloc.errors import Diagnostic
from gpualloc.planning import open_workspace
from gpualloc.policy.filters import Demand as DeviceDemand
from gpualloc.policy.filters import gib, refused_by_policy, refused_by_request
from gpualloc.solve import solve
from gpualloc.solve.demands import demand_of, hand_shares
from gpualloc.solve.devices import flatten
from gpualloc.solve.pins import Pins, resolve_pins

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from gpualloc.compose.reader import Member, Role
    from gpualloc.errors import Place, Severity
    from gpualloc.planning import Options, Workspace
    from gpualloc.policy.filters import Device


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """What the file says now, set against the machine."""

    workspace: Workspace
    pins: Pins
    devices: dict[str, Device]
    demands: dict[str, DeviceDemand]
    forms: dict[str, tuple[Form, ...]]

    def pinned(self, member: Member) -> tuple[str, ...]:
        """Return the UUIDs that a worker is pinned to, unknown ids as written."""
        return self.pins.by_worker.get(member.worker.name, ())

    def place(self, member: Member) -> Place:
        """Return where a worker's request stands in the file as it is."""
        forms = self.forms[member.worker.name]
        path = forms[0].path if forms else ()
        for step in ("device_ids", "count"):
            if member.service.node(*path, step, current=True) is not None:
                return member.service.place(*path, step, current=True)
        return member.service.place(*path, current=True)

    def label(self, uuid: str) -> str:
        """Return what messages call a device."""
        device = self.devices.get(uuid)
        if device is None:
            return uuid
        return (
            f"GPU {device.gpu.index}" if device.mig is None else f"MIG {device.mig.profile} of GPU {device.gpu.index}"
        )


def check(
    options: Options, environ: Mapping[str, str], cwd: Path
) -> tuple[tuple[Diagnostic, ...], tuple[Diagnostic, ...]]:
    """Return warnings about the inputs, and what is wrong with a project's pins, in the order of the file.

    Raises GpuallocError if an input cannot be used.
    """
    workspace = open_workspace(options, environ, cwd)
    return workspace.warnings, tuple(findings(workspace))


def findings(workspace: Workspace) -> list[Diagnostic]:
    """Return every finding about the file as it is now."""
    state = _state(workspace)
    found: list[Diagnostic] = []
    for role in workspace.demand.roles:
        found += _replicas(role)
        # Workers that still share one service are told of as one: CUDA numbers alike in all of them.
        for member in role.members[:1] if _shares(role) else role.members:
            for rule in (_unpinned, _lost, _indices, _unfit, _cuda) if member.present else (_cuda,):
                found += rule(state, member)
    found += _crowded(state)
    told = {f.where for f in found if f.severity == "error"}
    found += (f for f in _movers(state) if f.where not in told)
    found.sort(key=lambda f: (f.where.file, f.where.line or 0, f.where.column or 0) if f.where else ("", 0, 0))
    return found


def _state(workspace: Workspace) -> _State:
    pins = resolve_pins(workspace.inventory, workspace.requests)
    devices = flatten(workspace.inventory, workspace.policy, workspace.project.name, pins.uuids())
    shares = hand_shares(workspace.requests, pins)
    demands = {w.name: demand_of(r, w, workspace.policy, shares) for r in workspace.requests for w in r.workers}
    members = [member for role in workspace.demand.roles for member in role.members]
    forms = {member.worker.name: forms_of(member.service, member.service.now) for member in members}
    return _State(workspace, pins, {d.uuid: d for d in devices}, demands, forms)


def _finding(code: str, summary: str, where: Place, hint: str, severity: Severity = "error") -> Diagnostic:
    return Diagnostic(code, summary, where, hint, severity)


_APPLY = "gpualloc apply mends it"


# --------------------------------------------------------------------------------------------------------------------
# One role


def _shares(role: Role) -> bool:
    return role.splits and not role.divided


def _replicas(role: Role) -> Iterator[Diagnostic]:
    count = len(role.members)
    where = role.service.place(current=True)
    if _shares(role):
        if count > 1:
            hint = "gpualloc apply makes each a service of its own"
            summary = f"{role.name} has {count} replicas, which all get the same GPUs"
            yield _finding("replicas-share", summary, where, hint)
        return
    there = sum(member.present for member in role.members) + len(role.surplus)
    if there != count:
        services = "1 service" if there == 1 else f"{there} services"
        summary = f"{role.name} has {services}, and {count} {'is' if count == 1 else 'are'} asked for"
        yield _finding("replicas-differ", summary, where, _APPLY)


def _unpinned(state: _State, member: Member) -> Iterator[Diagnostic]:
    if state.pinned(member):
        return
    name = member.worker.name
    forms = state.forms[name]
    count = forms[0].count if forms else None
    if count is None:
        summary = f"{name} is not pinned: Compose gives it no GPU"
    elif count.max is None:
        summary = f"{name} is not pinned: Compose gives it every GPU"
    elif count.max == 1:
        summary = f"{name} is not pinned: Compose gives it the host's first GPU, like every other service with count: 1"
    else:
        summary = f"{name} is not pinned: Compose gives it the host's first {count.max} GPUs"
    yield _finding("not-pinned", summary, state.place(member), _APPLY)


def _lost(state: _State, member: Member) -> Iterator[Diagnostic]:
    lost = [i for i in state.pinned(member) if i not in state.devices]
    if not lost:
        return
    hosts = ", ".join(host.name for host in state.workspace.inventory.hosts)
    if state.pins.elsewhere:
        summary = f"{member.worker.name} is pinned to {', '.join(lost)}, and {hosts} has none of the file's GPUs"
        yield _finding("other-machine", summary, state.place(member), "gpualloc apply pins it to this machine's GPUs")
    else:
        summary = f"{member.worker.name} is pinned to {', '.join(lost)}, which {hosts} does not have"
        yield _finding("lost-device", summary, state.place(member), "gpualloc apply replaces it")


def _indices(state: _State, member: Member) -> Iterator[Diagnostic]:
    if state.workspace.policy.write.device_ids != "uuid" or not state.pinned(member):
        return
    known = [i for i in member.worker.pinned or () if not i.startswith(("GPU-", "MIG-"))]
    if known:
        summary = (
            f"{member.worker.name} is pinned by index ({', '.join(known)}), which may mean another GPU after a reboot"
        )
        yield _finding("index-id", summary, state.place(member), f"UUIDs stay: {_APPLY}", "warning")


def _unfit(state: _State, member: Member) -> Iterator[Diagnostic]:
    worker = member.worker.name
    for uuid in state.pinned(member):
        device = state.devices.get(uuid)
        if device is None:
            continue
        refusal = refused_by_policy(device, state.workspace.policy) or refused_by_request(device, state.demands[worker])
        if refusal is not None:
            code, detail = refusal
            code = "unhealthy-device" if code == "unhealthy" else f"unfit-{code.replace('_', '-')}"
            summary = f"{member.worker.name} is pinned to {state.label(uuid)}: {detail}"
            yield _finding(code, summary, state.place(member), "gpualloc apply moves it")
            continue
        for issue in device.gpu.health:
            if issue.fatal:
                summary = f"{member.worker.name} is pinned to {state.label(uuid)}, which is unhealthy: {issue.detail}"
                hint = "under a policy with exclude.unhealthy, gpualloc apply moves it"
                yield _finding("unhealthy-device", summary, state.place(member), hint)


def _cuda(state: _State, member: Member) -> Iterator[Diagnostic]:
    """Compare what CUDA would show in the container with what the worker was given."""
    service = member.service
    value = (service.now.get("environment") or {}).get("CUDA_VISIBLE_DEVICES")
    own = [u for u in state.pinned(member) if u in state.devices]
    own.sort(key=lambda u: state.devices[u].position)
    given = own or _first_devices(state, member)
    if not given:
        return
    where = service.place("environment", "CUDA_VISIBLE_DEVICES", current=True)
    everything = [u for u, d in state.devices.items() if d.host == state.devices[given[0]].host]
    present = everything if service.now.get("privileged") else given
    if value is None:
        if set(present) != set(given):
            summary = f"{member.worker.name} is privileged: its container sees all {len(present)} devices of the host"
            yield _finding("cuda-sees-more", summary, service.place("privileged", current=True), _APPLY)
        return
    shown = visible(value, present)
    if set(shown) == set(given):
        return
    if not shown:
        summary = f"CUDA_VISIBLE_DEVICES={value} leaves {member.worker.name} no GPU at all: {_numbering(len(present))}"
        code = "cuda-hides"
    elif set(shown) < set(given):
        summary = f"CUDA_VISIBLE_DEVICES={value} shows {member.worker.name} {len(shown)} of its {len(given)} GPUs"
        code = "cuda-hides"
    else:
        names = ", ".join(state.label(u) for u in shown)
        summary = (
            f"CUDA_VISIBLE_DEVICES={value} shows {member.worker.name} {names} in its privileged container, "
            "not what it got"
        )
        code = "cuda-sees-more"
    yield _finding(
        code, summary, where, f"CUDA numbers a container's GPUs from 0, whatever their index on the host: {_APPLY}"
    )


def _numbering(count: int) -> str:
    return (
        "the container has one, numbered 0" if count == 1 else f"the container has {count}, numbered 0 to {count - 1}"
    )


def _first_devices(state: _State, member: Member) -> list[str]:
    """Return what the engine gives a service that is not pinned: the first N GPUs by index."""
    forms = state.forms[member.worker.name]
    if not forms or state.pins.by_worker.get(member.worker.name):
        return []
    whole = sorted((d for d in state.devices.values() if d.mig is None), key=lambda d: (d.host, d.gpu.index))
    first = [d for d in whole if d.host == whole[0].host]
    count = forms[0].count.max
    chosen = first if count is None else first[:count]
    return [d.uuid for d in sorted(chosen, key=lambda d: d.position)]


# --------------------------------------------------------------------------------------------------------------------
# All roles together


def _crowded(state: _State) -> Iterator[Diagnostic]:
    """Find devices given to more workers than they can take."""
    holders: dict[str, list[Member]] = {}
    for role in state.workspace.demand.roles:
        for member in role.members:
            for uuid in state.pinned(member):
                holders.setdefault(uuid, []).append(member)
    for uuid, members in holders.items():
        device = state.devices.get(uuid)
        if device is None or len(members) < 2:
            continue
        names = ", ".join(member.worker.name for member in members)
        alone = [m for m in members if state.demands[m.worker.name].exclusive]
        if alone:
            summary = f"{state.label(uuid)} is given twice: to {names}, of which {alone[0].worker.name} wants it alone"
            hint = f"let them share with x-gpualloc: {{memory: …}}, or {_APPLY}"
            yield _finding("given-twice", summary, state.place(members[-1]), hint)
            continue
        yield from _over(state, device, members, names)


def _over(state: _State, device: Device, members: list[Member], names: str) -> Iterator[Diagnostic]:
    most = state.workspace.policy.sharing.max_workers_per_gpu
    if len(members) > most:
        summary = f"{state.label(device.uuid)} holds {len(members)} workers, and the policy allows {most}: {names}"
        yield _finding("over-capacity", summary, state.place(members[-1]), _APPLY)
        return
    demands = [state.demands[member.worker.name] for member in members]
    if device.usable_mib is None or device.free_mib is None:
        return
    asked = sum(d.memory_mib if d.memory_mib is not None else device.usable_mib * (d.share or 0) for d in demands)
    if asked > device.free_mib:
        asks = f"{names} ask for {gib(asked)}, {gib(device.free_mib)} can be given"
        summary = f"{state.label(device.uuid)} is over capacity: {asks}"
        yield _finding("over-capacity", summary, state.place(members[-1]), _APPLY)


def _movers(state: _State) -> Iterator[Diagnostic]:
    """Find workers that a new plan would move, or cannot place, for a reason no other check has told."""
    workspace = state.workspace
    policy = replace(workspace.policy, stability="keep")
    solution = solve(workspace.inventory, workspace.requests, policy, project=workspace.project.name)
    members = {member.worker.name: member for role in workspace.demand.roles for member in role.members}
    for placement in solution.placements:
        if placement.action in {"move", "resize"}:
            summary = f"{placement.worker} would {placement.action}: {placement.reason}"
            yield _finding(f"would-{placement.action}", summary, state.place(members[placement.worker]), _APPLY)
    for unplaced in solution.unplaced:
        details = "; ".join(reason.detail for reason in unplaced.reasons)
        summary = f"{unplaced.worker} does not fit: {details}"
        yield _finding("does-not-fit", summary, state.place(members[unplaced.worker]), unplaced.hint)
