"""From a plan to edits: each way of asking is answered in its own way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import Tagged, at, escaped, truth
from gpualloc.compose.document import resolve
from gpualloc.compose.forms import CDI_PREFIX, DEVICES, Form
from gpualloc.compose.patch import Edit
from gpualloc.compose.workers import taken_away
from gpualloc.errors import fail
from gpualloc.policy.environment import environment, written_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gpualloc.compose.layers import ComposeFile
    from gpualloc.compose.project import Service
    from gpualloc.compose.reader import Demand, Member, Observer
    from gpualloc.compose.route import Path
    from gpualloc.model import Host, Inventory, Placement, Policy, Solution

MIG_PREFIX = "MIG-"
NVIDIA_VISIBLE = "NVIDIA_VISIBLE_DEVICES"


def edits(
    demand: Demand, solution: Solution, policy: Policy, inventory: Inventory, *, whole: bool = False
) -> list[Edit]:
    """Return the edits that give every placed worker its devices, in the order of the demand.

    ``whole``: every list is written whole, under ``!override``, as a file that is laid over the project's must do; and
    what the project's files say already is said again. Workers that were not placed get no edit here; see ``parked``.
    The edits name each worker's own service, which a role that is divided only now does not have yet.
    """
    hosts = {host.name: host for host in inventory.hosts}
    placements = {p.worker: p for p in solution.placements}
    placed = [(m, p) for role in demand.roles for m in role.members if (p := placements.get(m.worker.name)) is not None]
    found = [list(_worker(m, p, policy, hosts[p.host], _Extent(whole))) for m, p in placed]
    if not whole:
        written = _written(zip((member for member, _ in placed), found, strict=True))
        for number, (member, placement) in enumerate(placed):
            above = {path for one in member.service.inherits() for path in written.get(one, ())}
            if above:
                extent = _Extent(whole, frozenset(above))
                found[number] = list(_worker(member, placement, policy, hosts[placement.host], extent))
    result = [
        replace(edit, service=member.worker.name)
        for (member, _), several in zip(placed, found, strict=True)
        for edit in several
    ]
    for observer in demand.observers:
        result += _observer(observer, whole=whole)
    return result


@dataclass(frozen=True, slots=True)
class _Extent:
    """What must be written of what a service says already.

    ``whole``: all of it. ``above``: the paths at which services that it extends are edited, so that it would say
    something else.
    """

    whole: bool = False
    above: frozenset[Path] = frozenset()

    def variable(self, service: Service, name: str) -> bool:
        """Return whether a variable must be written, even if the service says of it what it should."""
        path: Path = ("environment", name)
        return self.whole or (path in self.above and not any(part.own_decides(path) for part in service.parts))

    def listed(self, service: Service, path: Path) -> bool:
        """Return whether a list must be written, even if it holds what it should."""
        return self.whole or (any(one[: len(path)] == path for one in self.above) and _appends(service, path))


def _written(found: Iterable[tuple[Member, list[Edit]]]) -> dict[tuple[ComposeFile, str], set[Path]]:
    """Return the paths at which services are edited, each service by its file."""
    result: dict[tuple[ComposeFile, str], set[Path]] = {}
    for member, several in found:
        service = member.service
        for edit in several:
            result.setdefault((service.home(edit.path), service.name), set()).add(edit.path)
    return result


def parked(demand: Demand, solution: Solution, *, whole: bool = False) -> list[Edit]:
    """Return the edits that keep unplaced workers from starting: no replicas, until a later plan finds room."""
    unplaced = {u.worker for u in solution.unplaced}
    result: list[Edit] = []
    for role in demand.roles:
        for member in role.members:
            name = member.worker.name
            if name not in unplaced:
                continue
            result.append(Edit(name, ("deploy", "replicas"), 0))
            scaled = member.service.data.get("scale") is not None
            if scaled and (whole or not role.splits or ("scale",) not in taken_away(role.service)):
                result.append(Edit(name, ("scale",), 0))
    return result


def _worker(member: Member, placement: Placement, policy: Policy, host: Host, extent: _Extent) -> Iterator[Edit]:
    service = member.service
    ids = list(written_ids(policy, placement))
    if host.platform != "wsl2":  # there Docker offers all GPUs or none, and the requests stay as they are
        yield from _requests(service, member.forms, ids, extent)
    variables = variables_of(service, placement, policy, host)
    present = service.data.get("environment") or {}
    for name, value in variables.items():
        if present.get(name) != value or extent.variable(service, name):
            yield Edit(service.name, ("environment", name), value.replace("$", "$$"))
    others = {str(path[1]) for path in extent.above if path[0] == "environment"} - {*variables, NVIDIA_VISIBLE}
    for name in sorted(others):
        if extent.variable(service, name):
            yield Edit(service.name, ("environment", name), present.get(name, Tagged("!reset", None)))


def variables_of(service: Service, placement: Placement, policy: Policy, host: Host) -> dict[str, str]:
    """Return the variables that a worker must have, as its process is to see them."""
    variables: dict[str, str] = {}
    visible = visible_devices(service, placement, policy)
    if visible is not None:
        variables |= {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return variables | dict(environment(policy, placement, host))


def visible_devices(service: Service, placement: Placement, policy: Policy) -> str | None:
    """Return what CUDA_VISIBLE_DEVICES must be in a worker's container, or None to leave it out.

    CUDA numbers the devices of a container from 0, in PCI order under CUDA_DEVICE_ORDER=PCI_BUS_ID, whatever their
    index on the host. Where the container sees more than it was given, and for MIG instances, only UUIDs are right.
    """
    by_uuid = (
        policy.write.cuda_visible_devices == "uuid"
        or truth(service.data.get("privileged"))
        or any(d.uuid.startswith(MIG_PREFIX) for d in placement.devices)
    )
    value = ",".join(d.uuid if by_uuid else str(n) for n, d in enumerate(placement.devices))
    if policy.write.cuda_visible_devices != "none":
        return value
    present = (service.data.get("environment") or {}).get("CUDA_VISIBLE_DEVICES")
    return None if present is None or present == value else value


def _requests(service: Service, forms: tuple[Form, ...], ids: list[str], extent: _Extent) -> Iterator[Edit]:
    by_kind: dict[str, list[Form]] = {}
    for form in forms:
        by_kind.setdefault(form.kind, []).append(form)
    if not by_kind:
        entry = {"driver": "nvidia", "device_ids": ids, "capabilities": ["gpu"]}
        yield _new_request(service, entry, whole=extent.whole)
    for kind in ("devices", "gpus"):
        if kind in by_kind:
            yield from _device_list(service, by_kind[kind], ids, extent)
    if "cdi" in by_kind:
        yield from _cdi(service, by_kind["cdi"], ids, extent)
    variable = (service.data.get("environment") or {}).get(NVIDIA_VISIBLE)
    speaks = "runtime" in by_kind or variable not in {None, "", "void", "none"}
    right = variable is not None and set(variable.split(",")) == set(ids)
    if speaks and (not right or extent.variable(service, NVIDIA_VISIBLE)):
        yield Edit(service.name, ("environment", NVIDIA_VISIBLE), ",".join(ids))


def _new_request(service: Service, entry: dict[str, Any], *, whole: bool) -> Edit:
    existing = None if whole else service.node(*DEVICES)
    if existing is not None:
        where = service.place(*DEVICES)
        hint = "add capabilities: [gpu] with count: 1 to that list by hand, then run this again"
        raise fail("cannot-edit", f"{service.name} already lists devices, none of them a GPU", where, hint)
    return Edit(service.name, DEVICES, [entry])


def _device_list(service: Service, forms: list[Form], ids: list[str], extent: _Extent) -> Iterator[Edit]:
    """Answer device requests; several in one list get as many devices as each asked for, in order."""
    shares: list[tuple[Form, list[str]]] = []
    start = 0
    for number, form in enumerate(forms):
        end = len(ids) if number == len(forms) - 1 else start + form.count.min
        shares.append((form, [CDI_PREFIX + i if form.driver == "cdi" else i for i in ids[start:end]]))
        start = end
    path = forms[0].path[:-1] if isinstance(forms[0].path[-1], int) else forms[0].path
    named = [{i for w in form.written for i in w.split(",")} if form.ids is not None else None for form, _ in shares]
    right = all(have == set(share) for have, (_, share) in zip(named, shares, strict=True))
    if right and not extent.listed(service, path):
        return
    tagged = extent.whole or _appends(service, path)
    if tagged or any(at(service.data, form.path) == {} for form in forms):  # {} has no place for a key
        yield _whole_list(service, path, shares, tagged=tagged)
        return
    for have, (form, share) in zip(named, shares, strict=True):
        if have == set(share):
            continue
        if form.path == ("gpus",):
            yield Edit(service.name, form.path, [{"device_ids": share}])
            continue
        entry = at(service.data, form.path)
        replaces = "count" if isinstance(entry, dict) and "count" in entry else None
        yield Edit(service.name, (*form.path, "device_ids"), share, replaces)


def _appends(service: Service, path: tuple[str | int, ...]) -> bool:
    """Return whether a list written into the service's file would append to one from elsewhere."""
    if at(service.base, path) is None:
        return False
    nodes = [service.node(*path[:length]) for length in range(1, len(path) + 1)]
    return not any(node is not None and resolve(node).tag == "!override" for node in nodes)


def _whole_list(service: Service, path: Path, shares: list[tuple[Form, list[str]]], *, tagged: bool) -> Edit:
    merged = at(service.data, path)
    entries = [dict(e) if isinstance(e, dict) else e for e in merged] if isinstance(merged, list) else [{}]
    for form, share in shares:
        index = form.path[-1] if isinstance(form.path[-1], int) else 0
        entries[index] = {k: v for k, v in entries[index].items() if k not in {"count", "device_ids"}} | {
            "device_ids": share
        }
    value = escaped(entries)
    return Edit(service.name, path, Tagged("!override", value) if tagged else value)


def _cdi(service: Service, forms: list[Form], ids: list[str], extent: _Extent) -> Iterator[Edit]:
    """Answer CDI devices: in place where there are as many names as devices, else with the list written anew."""
    wanted = [CDI_PREFIX + i for i in ids]
    tagged = extent.whole or _appends(service, ("devices",))
    if {w for f in forms for w in f.written} == set(wanted) and not extent.listed(service, ("devices",)):
        return
    if len(forms) == len(wanted) and not tagged:
        for form, name in zip(forms, wanted, strict=True):
            if form.written != (name,):
                yield Edit(service.name, form.path, name)
        return
    ours = {form.path[1] for form in forms}
    others = [d for n, d in enumerate(service.data["devices"]) if n not in ours]
    value: Any = [*escaped(others), *wanted]
    yield Edit(service.name, ("devices",), Tagged("!override", value) if tagged else value)


def _observer(observer: Observer, *, whole: bool) -> Iterator[Edit]:
    """Let a monitor that asks for some devices, or in no way Compose knows, see them all."""
    service = observer.service
    if not observer.asked:
        return
    if not observer.forms:
        yield _new_request(service, {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}, whole=whole)
    if whole:
        yield from _observing(service, observer.forms)
        return
    cdi = [form for form in observer.forms if form.kind == "cdi"]
    if cdi:
        yield from _cdi(service, cdi, ["all"], _Extent())
    for form in observer.forms:
        if form.count.max is None or form.kind == "cdi":
            continue
        if form.kind == "runtime":
            yield Edit(service.name, form.path, "all")
        else:
            key, value = _every_device(form)
            entry = at(service.data, form.path)
            replaces = next((k for k in ("count", "device_ids") if isinstance(entry, dict) and k in entry), None)
            yield Edit(service.name, (*form.path, key), value, None if replaces == key else replaces)


def _every_device(form: Form) -> tuple[str, str | list[str]]:
    """Return the key, and its value, by which a device request asks for all GPUs. The driver cdi takes no count."""
    return ("device_ids", [f"{CDI_PREFIX}all"]) if form.driver == "cdi" else ("count", "all")


def _observing(service: Service, forms: tuple[Form, ...]) -> Iterator[Edit]:
    """Let a monitor see every device, in a file that is laid over the project's."""
    for path in dict.fromkeys(form.path[:-1] if form.kind != "runtime" else form.path for form in forms):
        if path == ("environment", "NVIDIA_VISIBLE_DEVICES"):
            yield Edit(service.name, path, "all")
        elif path[:1] == ("devices",):
            ours = {form.path[1] for form in forms if form.kind == "cdi"}
            others = [d for n, d in enumerate(service.data["devices"]) if n not in ours]
            yield Edit(service.name, ("devices",), Tagged("!override", [*escaped(others), f"{CDI_PREFIX}all"]))
        elif path:
            entries = [dict(entry) for entry in at(service.data, path)]
            for form in forms:
                if form.path[:-1] == path:
                    index = int(form.path[-1])
                    kept = {k: v for k, v in entries[index].items() if k not in {"count", "device_ids"}}
                    entries[index] = kept | dict([_every_device(form)])
            yield Edit(service.name, path, Tagged("!override", escaped(entries)))
