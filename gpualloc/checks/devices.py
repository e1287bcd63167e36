"""What is wrong with the devices that workers are pinned to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.checks.state import finding
from gpualloc.inventory.health import advice
from gpualloc.policy.filters import gib, refused_by_policy, refused_by_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpualloc.checks.state import State
    from gpualloc.compose.reader import Member
    from gpualloc.errors import Diagnostic, Severity
    from gpualloc.model import HealthIssue
    from gpualloc.policy.filters import Device

_REMARKS = frozenset({"ecc_off"})
"""Issues that may be meant: people turn ECC off for its memory."""


def lost(state: State, member: Member) -> Iterator[Diagnostic]:
    """Find pins to devices that are not there: gone, split by MIG, or cut anew."""
    name, gone = member.worker.name, [i for i in state.pinned(member) if i not in state.devices]
    split = [i for i in gone if i in state.gpus]
    for uuid in split:
        count = len(state.gpus[uuid].mig or ())
        parts = f"{count} instance{'' if count == 1 else 's'}"
        summary = f"{name} is pinned to {state.label(uuid)}, which MIG has split since: it has {parts} now"
        yield finding("mig-on", summary, state.place(member), state.fate(member))
    gone = [i for i in gone if i not in state.gpus]
    if not gone:
        return
    hosts = ", ".join(host.name for host in state.workspace.inventory.hosts)
    if state.pins.elsewhere and not split:
        summary = f"{name} is pinned to {', '.join(gone)}, and {hosts} has none of the file's GPUs"
        yield finding("other-machine", summary, state.place(member), state.fate(member))
        return
    code, why = "lost-device", f"which {hosts} does not have"
    if all(uuid.startswith("MIG-") for uuid in gone) and any(gpu.mig is not None for gpu in state.gpus.values()):
        code, why = "mig-changed", "an instance that is no more: MIG has been set up anew"
    yield finding(code, f"{name} is pinned to {', '.join(gone)}, {why}", state.place(member), state.fate(member))


def unfit(state: State, member: Member) -> Iterator[Diagnostic]:
    """Find pins to devices that the policy, the request, or another project's file takes away."""
    name = member.worker.name
    policy = state.workspace.policy
    for uuid in state.pinned(member):
        device = state.devices.get(uuid)
        if device is None:
            continue
        twice = _promised(state, member, device)
        if twice is not None:
            yield twice
            continue
        refusal = refused_by_policy(device, policy) or refused_by_request(device, state.demands[name])
        if refusal is None:
            yield from _sick(state, member, device)
            continue
        code, detail = refusal
        hint = state.fate(member)
        if code == "unhealthy":
            issue = next(issue for issue in device.gpu.health if issue.fatal)
            code, detail = "unhealthy-device", f"it is unhealthy: {issue.detail} ({issue.code})"
            hint = f"{hint}; then {advice(issue.code)}"
        else:
            code = f"unfit-{code.replace('_', '-')}"
        yield finding(code, f"{name} is pinned to {state.label(uuid)}: {detail}", state.place(member), hint)


def _sick(state: State, member: Member, device: Device) -> Iterator[Diagnostic]:
    """Tell what is wrong with a device that its worker may keep all the same."""
    for issue in device.gpu.health:
        where, hint = f"{member.worker.name} is pinned to {state.label(device.uuid)}", advice(issue.code)
        if issue.fatal:
            summary = f"{where}, which is unhealthy: {issue.detail} ({issue.code})"
            hint = f"{hint}; under a policy with exclude.unhealthy, {state.outlook.writes} moves it"
            yield finding("unhealthy-device", summary, state.place(member), hint)
        else:
            code = issue.code.replace("_", "-")
            yield finding(code, f"{where}: {issue.detail}", state.place(member), hint, _severity(issue))


def _severity(issue: HealthIssue) -> Severity:
    return "note" if issue.code in _REMARKS else "warning"


def _promised(state: State, member: Member, device: Device) -> Diagnostic | None:
    """Find a device that another project's file pins too, where one of the two wants it alone or both are too many."""
    theirs = [promise for promise in state.workspace.promises if promise.uuid == device.uuid]
    if not theirs:
        return None
    name, others = member.worker.name, ", ".join(f"{p.service} of {p.project} ({p.where})" for p in theirs)
    demand = state.demands[member.worker.name]
    hint = f"{state.fate(member)}; or run gpualloc apply --beside on the other project"
    if demand.exclusive or any(promise.memory_mib is None for promise in theirs):
        summary = f"{state.label(device.uuid)} is promised twice: to {name}, and to {others}"
        return finding("promised-twice", summary, state.place(member), hint)
    sum_mib = sum(promise.memory_mib or 0 for promise in theirs)
    usable = device.usable_mib
    mine = demand.memory_mib if demand.share is None or usable is None else usable * demand.share
    if usable is None or mine is None or mine + sum_mib <= usable:
        return None
    summary = (
        f"memory of {state.label(device.uuid)} is promised twice: {gib(mine)} to {name} and {gib(sum_mib)} to "
        f"{others}, and {gib(usable)} can be given"
    )
    return finding("promised-twice", summary, state.place(member), hint)


def unknown_holders(state: State) -> Iterator[Diagnostic]:
    """Tell of memory on pinned devices that belongs to nobody known: it is taken to be the workers' own.

    Only where the engine tells of containers, so that the workers' own processes are known.
    """
    project = state.workspace.project.name
    above = state.workspace.policy.exclude.busy_above_mib
    for member in (member for role in state.workspace.demand.roles for member in role.members):
        for uuid in state.pinned(member):
            device = state.devices.get(uuid)
            seen = device.gpu.processes if device else ()
            if device is None or not any(p.container and p.container.project == project for p in seen):
                continue
            strange = [p for p in seen if p.container is None and (device.mig is None or p.gi == device.mig.gi)]
            mib = sum(p.used_mib or 0 for p in strange)
            if mib > above:
                pids = ", ".join(str(p.pid) for p in strange)
                summary = (
                    f"{gib(mib)} of {state.label(uuid)}, which {member.worker.name} is pinned to, is used by {pids}"
                )
                hint = "no container is known to hold it: see what it is (ps -p), and stop it or let it be"
                yield finding("unknown-holder", summary, state.place(member), hint, "note")


def unused_and_sick(state: State) -> Iterator[Diagnostic]:
    """Tell of GPUs that are unfit for work and that no worker is pinned to."""
    pinned = state.pins.uuids()
    for host in state.workspace.inventory.hosts:
        for gpu in host.gpus:
            if gpu.uuid in pinned or any(part.uuid in pinned for part in gpu.mig or ()):
                continue
            for issue in gpu.health:
                if issue.fatal:
                    summary = f"GPU {gpu.index} of {host.name} is unhealthy and no worker is on it: {issue.detail}"
                    yield finding("unhealthy-spare", summary, None, advice(issue.code), "note")
