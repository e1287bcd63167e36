"""Does the compose file still fit these GPUs and this policy? Every check is a function that yields findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.checks.changes import changes, touched
from gpualloc.checks.devices import lost, unfit, unknown_holders, unused_and_sick
from gpualloc.checks.outlook import MOVES
from gpualloc.checks.state import finding, state_of
from gpualloc.compose.data import at, truth
from gpualloc.cuda import visible
from gpualloc.errors import Place
from gpualloc.inventory import load as load_inventory
from gpualloc.planning import open_workspace, with_texts
from gpualloc.policy.filters import gib
from gpualloc.render.words import counted
from gpualloc.solve.devices import flatten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from gpualloc.checks.state import State
    from gpualloc.compose.reader import Member, Role
    from gpualloc.errors import Diagnostic
    from gpualloc.model import Inventory
    from gpualloc.planning import Options, Workspace
    from gpualloc.policy.filters import Device


def check(
    options: Options, environ: Mapping[str, str], cwd: Path, since: str | None = None
) -> tuple[tuple[Diagnostic, ...], tuple[Diagnostic, ...]]:
    """Return warnings about the inputs, and what is wrong with a project's pins, in the order of the file.

    ``since`` is an earlier inventory of the machine (a snapshot, say): what has changed from it is told too.

    Raises GpuallocError if an input cannot be used.
    """
    workspace = open_workspace(options, environ, cwd)
    before = load_inventory((since,)).inventory if since is not None else None
    found = findings(workspace, before)
    if workspace.previous is not None and not any(each.severity == "error" for each in found):
        found += _not_current(workspace, options, cwd)
    return workspace.warnings, tuple(found)


def _not_current(workspace: Workspace, options: Options, cwd: Path) -> Iterator[Diagnostic]:
    """Find made files that would be made otherwise now, though every worker may stay where it is."""
    outlook = state_of(workspace).outlook
    planned = with_texts(workspace, outlook.applied, options, cwd)
    for target in planned.changes:
        if target.source is None:
            summary = "there is no such file, and gpualloc apply would write one"
        elif target.text is None:
            summary = "nothing runs on this host any more, and gpualloc apply would take the file away"
        else:
            summary = (
                "it is not what gpualloc apply would write now: it, the project, the policy or the nodes have changed"
            )
        yield finding("not-current", summary, Place(target.shown), f"{outlook.writes} mends it")


def findings(workspace: Workspace, before: Inventory | None = None) -> list[Diagnostic]:
    """Return every finding about the file as it is now, and about the machine as it was ``before``."""
    state = state_of(workspace)
    found: list[Diagnostic] = []
    for role in workspace.demand.roles:
        if workspace.whole is not None:  # the project's own files ask, and the made ones answer
            for member in role.members:
                found += (each for rule in (_not_made, lost, unfit) for each in rule(state, member))
            continue
        found += _replicas(state, role)
        # Workers that still share one service are told of as one: CUDA numbers alike in all of them.
        for member in role.members[:1] if role.shares else role.members:
            if _is_parked(member):
                found.append(_parked(state, member))
                continue
            for rule in (_unpinned, lost, _indices, unfit, _cuda) if member.present else (_cuda,):
                found += rule(state, member)
    found += _crowded(state)
    told = {f.where for f in found if f.severity == "error"}
    found += (f for f in _movers(state) if f.where not in told)
    found += unknown_holders(state)
    found.sort(key=lambda f: (f.where.file, f.where.line or 0, f.where.column or 0) if f.where else ("", 0, 0))
    found += unused_and_sick(state)
    if before is not None:
        found += _since(state, before)
    found += _outlook(state, found)
    return found


# --------------------------------------------------------------------------------------------------------------------
# One role


def _replicas(state: State, role: Role) -> Iterator[Diagnostic]:
    count = len(role.members)
    where = role.service.place(current=True)
    if role.shares:
        if count > 1:
            hint = f"{state.outlook.writes} makes each a service of its own"
            summary = f"{role.name} has {count} replicas, which all get the same GPUs"
            yield finding("replicas-share", summary, where, hint)
        return
    there = sum(member.present for member in role.members) + len(role.surplus)
    if there != count:
        services = "1 service" if there == 1 else f"{there} services"
        summary = f"{role.name} has {services}, and {count} {'is' if count == 1 else 'are'} asked for"
        yield finding("replicas-differ", summary, where, state.mends(*role.members))


def _not_made(state: State, member: Member) -> Iterator[Diagnostic]:
    if not state.pinned(member):
        summary = f"{member.worker.name} is not pinned: the files made before do not have it"
        yield finding("not-pinned", summary, state.place(member), state.mends(member))


def _is_parked(member: Member) -> bool:
    return member.present and at(member.service.now, ("deploy", "replicas")) == 0


def _parked(state: State, member: Member) -> Diagnostic:
    summary = f"{member.worker.name} is parked: the file has no replica of it, since it did not fit"
    return finding("parked", summary, state.place(member), state.fate(member))


def _unpinned(state: State, member: Member) -> Iterator[Diagnostic]:
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
    yield finding("not-pinned", summary, state.place(member), state.mends(member))


def _indices(state: State, member: Member) -> Iterator[Diagnostic]:
    if state.workspace.policy.write.device_ids != "uuid" or not state.pinned(member):
        return
    known = [i for i in member.worker.pinned or () if not i.startswith(("GPU-", "MIG-"))]
    if known and not _on_wsl2(state, member):  # there requests stay as they are
        summary = (
            f"{member.worker.name} is pinned by index ({', '.join(known)}), which may mean another GPU after a reboot"
        )
        yield finding("index-id", summary, state.place(member), f"UUIDs stay: {state.mends(member)}", "warning")


def _on_wsl2(state: State, member: Member) -> bool:
    hosts = {host.name: host.platform for host in state.workspace.inventory.hosts}
    return any(hosts[state.devices[u].host] == "wsl2" for u in state.pinned(member) if u in state.devices)


def _cuda(state: State, member: Member) -> Iterator[Diagnostic]:
    """Compare what CUDA would show in the container with what the worker was given."""
    service, name = member.service, member.worker.name
    value = (service.now.get("environment") or {}).get("CUDA_VISIBLE_DEVICES")
    own = [u for u in state.pinned(member) if u in state.devices]
    own.sort(key=lambda u: state.devices[u].position)
    given = own or _first_devices(state, member)
    if not given:
        return
    where = service.place("environment", "CUDA_VISIBLE_DEVICES", current=True)
    everything = [u for u, d in state.devices.items() if d.host == state.devices[given[0]].host]
    present = everything if truth(service.now.get("privileged")) else given
    if value is None:
        if set(present) != set(given):
            summary = f"{name} is privileged: its container sees all {len(present)} devices of the host"
            named = state.workspace.policy.write.cuda_visible_devices != "none"
            mend = "drop privileged, or the policy's write.cuda_visible_devices: none"
            hint = state.mends(member) if named else mend
            yield finding("cuda-sees-more", summary, service.place("privileged", current=True), hint)
        return
    shown = visible(value, present)
    if set(shown) == set(given):
        return
    if not shown:
        summary = f"CUDA_VISIBLE_DEVICES={value} leaves {name} no GPU at all: {_numbering(len(present))}"
        code = "cuda-hides"
    elif set(shown) < set(given):
        summary = f"CUDA_VISIBLE_DEVICES={value} shows {name} {len(shown)} of its {len(given)} GPUs"
        code = "cuda-hides"
    else:
        names = ", ".join(state.label(u) for u in shown)
        summary = f"CUDA_VISIBLE_DEVICES={value} shows {name} {names} in its privileged container, not what it got"
        code = "cuda-sees-more"
    yield finding(
        code,
        summary,
        where,
        f"CUDA numbers a container's GPUs from 0, whatever their index on the host: {state.mends(member)}",
    )


def _numbering(count: int) -> str:
    return (
        "the container has one, numbered 0" if count == 1 else f"the container has {count}, numbered 0 to {count - 1}"
    )


def _first_devices(state: State, member: Member) -> list[str]:
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


def _crowded(state: State) -> Iterator[Diagnostic]:
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
            hint = f"let them share with x-gpualloc: {{memory: …}}, or {state.mends(*members)}"
            yield finding("given-twice", summary, state.place(members[-1]), hint)
            continue
        yield from _over(state, device, members, names)


def _over(state: State, device: Device, members: list[Member], names: str) -> Iterator[Diagnostic]:
    most = state.workspace.policy.sharing.max_workers_per_gpu
    if len(members) > most:
        summary = f"{state.label(device.uuid)} holds {len(members)} workers, and the policy allows {most}: {names}"
        yield finding("over-capacity", summary, state.place(members[-1]), state.mends(*members))
        return
    demands = [state.demands[member.worker.name] for member in members]
    if device.usable_mib is None or device.free_mib is None:
        return
    asked = sum(d.memory_mib if d.memory_mib is not None else device.usable_mib * (d.share or 0) for d in demands)
    if asked > device.free_mib:
        asks = f"{names} ask for {gib(asked)}, {gib(device.free_mib)} can be given"
        summary = f"{state.label(device.uuid)} is over capacity: {asks}"
        yield finding("over-capacity", summary, state.place(members[-1]), state.mends(*members))


def _movers(state: State) -> Iterator[Diagnostic]:
    """Find workers that a new plan would move, or cannot place, for a reason no other check has told."""
    members = {member.worker.name: member for role in state.workspace.demand.roles for member in role.members}
    for placement in state.outlook.kept.placements:
        if placement.action in MOVES:
            summary = f"{placement.worker} would {placement.action}: {placement.reason}"
            yield finding(
                f"would-{placement.action}",
                summary,
                state.place(members[placement.worker]),
                state.mends(members[placement.worker]),
            )
    for unplaced in state.outlook.kept.unplaced:
        details = "; ".join(reason.detail for reason in unplaced.reasons)
        summary = f"{unplaced.worker} does not fit: {details}"
        yield finding("does-not-fit", summary, state.place(members[unplaced.worker]), unplaced.hint)


# --------------------------------------------------------------------------------------------------------------------
# The machine


def _since(state: State, before: Inventory) -> Iterator[Diagnostic]:
    """Tell what has changed on the machine, and which workers that touches."""
    workspace = state.workspace
    held = flatten(before, workspace.policy, workspace.project.name, state.pins.uuids())
    for change in changes(before, workspace.inventory, held, tuple(state.devices.values())):
        workers = touched(change, workspace.requests, state.pins.by_worker)
        whom = f"it touches {', '.join(workers)}" if workers else "it touches no worker"
        yield finding(f"changed-{change.code}", f"{change.detail}; {whom}", None, _what_then(state, workers), "note")


def _what_then(state: State, workers: tuple[str, ...]) -> str:
    if not workers:
        return "nothing needs to be done for it"
    moved = [worker for worker in workers if worker in state.outlook.moved()]
    outlook = state.outlook
    return f"{outlook.writes} moves {', '.join(moved)}" if moved else f"{outlook.command} moves none of them for it"


_OF_THE_FILE = frozenset({"replicas-share", "replicas-differ", "not-pinned", "cuda-hides", "cuda-sees-more"})
"""What is wrong with a file whatever the machine does."""


def _outlook(state: State, found: list[Diagnostic]) -> Iterator[Diagnostic]:
    """Sum up what ``gpualloc apply`` would do; where nothing is wrong, tell of a plan that would be better."""
    placements = state.outlook.applied.placements
    where = Place(state.workspace.project.files[0].shown)
    if any(f.severity == "error" and f.code not in _OF_THE_FILE for f in found):
        moved, whole = state.outlook.moved(), len(placements) + len(state.outlook.applied.unplaced)
        pinned = [p.worker for p in placements if p.action == "pin"]
        some = f"moves {len(moved)} of {counted(whole, 'worker')} ({', '.join(moved)})"
        parts = [some if moved else "moves no worker"]
        parts += [f"pins {', '.join(pinned)}"] if pinned else []
        parts += ["leaves the others where they are"] if any(p.action == "keep" for p in placements) else []
        lost = [unplaced.worker for unplaced in state.outlook.applied.unplaced]
        parts += [f"finds no place for {', '.join(lost)}"] if lost else []
        summary = f"{state.outlook.writes} {', '.join(parts)}"
        shows = " ".join(word for word in ("gpualloc plan", state.workspace.written, "shows it") if word)
        yield finding("outlook", summary, where, shows, "note")
        return
    better = state.outlook.better()
    if better is not None:
        old, new, movers = better
        summary = f"planned from scratch, {old.name} would be {new.value} instead of {old.value}"
        hint = f"{state.outlook.command} --replan moves {', '.join(movers)} for it"
        yield finding("better-plan", summary, where, hint, "note")
