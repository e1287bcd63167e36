"""The proof that a plan holds in the project as Compose merges it: it is read again with the new texts.

That each file changed as it should is proven in verify.py. What the files make together is another matter: a later one
may set the same variable, and services that extend an edited one get what was written there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import Tagged, at, lookup
from gpualloc.compose.edits import NVIDIA_VISIBLE, variables_of
from gpualloc.compose.forms import DEVICES, forms_of
from gpualloc.compose.merge import strip
from gpualloc.errors import Diagnostic, fail
from gpualloc.policy.environment import written_ids

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gpualloc.compose.document import Document, Node
    from gpualloc.compose.forms import Form
    from gpualloc.compose.layers import Layered
    from gpualloc.compose.project import Project, Service
    from gpualloc.compose.reader import Demand, Member
    from gpualloc.errors import GpuallocError, Place
    from gpualloc.model import Inventory, Placement, Policy, Solution

_Path = tuple["str | int", ...]
_TAGGED: tuple[_Path, ...] = (("environment",), DEVICES, ("gpus",), ("devices",))
"""Where gpualloc writes tags."""

_COUNTS: tuple[_Path, ...] = (("deploy", "replicas"), ("scale",))


@dataclass(slots=True)
class Proof:
    """A plan held beside the services as they would be merged.

    ``over``: the name of the override file, if there is one. ``notes``: what is no fault, and worth knowing.
    """

    project: Project
    demand: Demand
    merged: Mapping[str, Layered]
    over: str | None = None
    notes: list[Diagnostic] = field(default_factory=list)

    def check(self, solution: Solution, policy: Policy, inventory: Inventory) -> None:
        """Compare everything. Raises GpuallocError: ``overridden``, ``inherited``, ``extends-chain``."""
        hosts = {host.name: host for host in inventory.hosts}
        placements = {p.worker: p for p in solution.placements}
        unplaced = {u.worker for u in solution.unplaced}
        workers: set[str] = set()
        for role in self.demand.roles:
            workers |= {one.name for one in role.surplus} | ({role.service.name} if role.splits else set())
            for member in role.members:
                name = member.worker.name
                workers.add(name)
                placement = placements.get(name)
                if placement is not None:
                    wanted = variables_of(member.service, placement, policy, hosts[placement.host])
                    self._unchained(member)
                    self._placed(member, placement, wanted, policy, pinned=hosts[placement.host].platform != "wsl2")
                elif name in unplaced:
                    self._parked(member)
        for observer in self.demand.observers:
            if observer.asked:
                workers.add(observer.service.name)
                self._observing(observer.service)
        apart = [one for numbers in self.project.copies.values() for one in numbers.values()]
        others = {service.name: service for service in (*self.project.services, *apart)}
        for name in sorted(others.keys() & self.merged.keys() - workers):
            self._bystander(others[name])

    # Workers

    def _placed(
        self, member: Member, placement: Placement, wanted: Mapping[str, str], policy: Policy, *, pinned: bool
    ) -> None:
        name = member.worker.name
        data = self._data(name)
        ids = set(written_ids(policy, placement))
        forms = forms_of(member.service, data) if pinned else ()
        by_kind: dict[str, list[Form]] = {}
        for form in forms:
            by_kind.setdefault(form.kind, []).append(form)
        for several in by_kind.values():
            if any(form.ids is None for form in several) or {i for form in several for i in form.ids or ()} != ids:
                raise self._overridden(member.service, name, several[-1].path, "other GPUs")
        if pinned and not forms:
            raise self._overridden(member.service, name, DEVICES, "no GPU")
        self._variables(member.service, name, data, wanted)

    def _unchained(self, member: Member) -> None:
        """Check that no tag stands where Compose would sometimes overlook it.

        Seen with Docker Compose 2.40.3, in one of five runs: a service's own ``!override`` and ``!reset`` have no
        effect where another of the same file extends it without naming the file, and is read first.
        """
        name = member.worker.name
        if self.over is not None or name not in self.merged:
            return
        ours = {path for path in _TAGGED if not any(_tagged(part.own, path) for part in member.service.parts)}
        for part in self.merged[name].parts:
            # Other tags in an environment are people's own, and none of them is about what is planned.
            if not part.base or not any(_tagged(part.own, path) for path in {*_TAGGED[1:], *ours}):
                continue
            above = next(iter(self._above_in(part.file.shown, name)), None)
            if above is not None:
                summary = (
                    f"{name} extends a service, and {above} extends {name}: Compose may miss the !override it needs"
                )
                hint = f"let {above} name the file: extends: {{service: {name}, file: …}}, or plan with --override FILE"
                raise fail("extends-chain", summary, member.service.place(), hint)

    def _above_in(self, file: str, name: str) -> Iterator[str]:
        """Yield the services of a file that extend one of the same file without naming that."""
        for other, layered in self.merged.items():
            for part in layered.parts:
                value = strip(part.own.get("extends"))
                if isinstance(value, dict):
                    value = None if value.get("file") else value.get("service")
                if value == name and part.file.shown == file:
                    yield other

    def _observing(self, service: Service) -> None:
        """Check that a monitor sees every device, and has the variables that it had."""
        data = self._data(service.name)
        for form in forms_of(service, data):
            if form.count.max is not None:
                raise self._overridden(service, service.name, form.path, "some GPUs only")
        self._variables(service, service.name, data, {})

    def _parked(self, member: Member) -> None:
        data = self._data(member.worker.name)
        found = [(path, at(data, path)) for path in _COUNTS]
        for path, count in found:
            if count not in {None, 0}:
                raise self._overridden(member.service, member.worker.name, path, f"{count} containers")

    def _variables(self, service: Service, name: str, data: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
        """Compare a worker's variables: those that it must have, and all others with what they were."""
        found: Mapping[str, str | None] = data.get("environment") or {}
        given: Mapping[str, str | None] = service.data.get("environment") or {}
        for variable in sorted({*found, *given, *wanted} - {NVIDIA_VISIBLE}):
            value = found.get(variable)
            if variable in wanted:
                if value not in {wanted[variable], wanted[variable].replace("$", "$$")}:
                    raise self._overridden(service, name, ("environment", variable), _shown(value))
            elif value != given.get(variable) and not self._was(service, variable, value):
                raise self._overridden(service, name, ("environment", variable), _shown(value))

    def _was(self, service: Service, variable: str, value: str | None) -> bool:
        """Return whether the project's own files give a variable this value, which an override file lets stand."""
        return self.over is not None and (service.now.get("environment") or {}).get(variable) == value

    def _data(self, name: str) -> dict[str, Any]:
        layered = self.merged.get(name)
        if layered is None:
            summary = f"{name} would be no service any more"
            raise fail("overridden", summary, None, "please report this with the files; nothing was written")
        data = strip(layered.data)
        return dict(data)

    def _overridden(self, service: Service, name: str, path: _Path, instead: str) -> GpuallocError:
        """Return the error for a worker that would not get what was planned, with the place that decides."""
        what = path[-1] if path[0] == "environment" else ".".join(step for step in path if isinstance(step, str))
        summary = f"{name} would have {instead} all the same, by {what}"
        hint = "plan with --override FILE, which is laid over all; nothing was written"
        where = self._decisive(service, name, path)
        if where is not None:
            hint = f"take it out here, or {hint}"
        if self.over is not None:
            hint = "please report this with the files; nothing was written"
        return fail("overridden", summary, where or service.place(*path), hint)

    def _decisive(self, service: Service, name: str, path: _Path) -> Place | None:
        """Return where the files as they are now say what stands at a path; None where that is what is written."""
        names = tuple(step for step in path if isinstance(step, str))
        for part in reversed(service.parts):
            if _last(part.file.document, ("services", name, *names)) is not None:
                document = part.file.current
                node = _last(document, ("services", name, *names))
                return document.at(node, ".".join(map(str, ("services", name, *path)))) if node is not None else None
        return None

    # Everybody else

    def _bystander(self, service: Service) -> None:
        """Compare a service that is none of the plan's with what it was."""
        left = service.name in self.demand.left
        before = service.now if left else service.data
        after = strip(self.merged[service.name].data)
        one, two = _asks(service, before), _asks(service, after)
        if one != two and (self.over is None or two != _asks(service, service.now)):
            above = self._above(service)
            if left and not service.enabled:
                summary = f"{service.name} is not planned, its profile is not active, and gets the GPUs of {above}"
                hint = "plan with its profile active before you start it"
                self.notes.append(Diagnostic("inherited", summary, service.place(), hint, severity="warning"))
                return
            hint = "plan with --override FILE: there it keeps what it has; nothing was written"
            raise fail("inherited", f"{service.name} would get the GPUs of {above}", service.place(), hint)
        given, found = (data.get("environment") or {} for data in (before, after))
        names = [name for name in found if name not in given or given[name] != found[name]]
        if names and not all(self._was(service, name, found[name]) for name in names):
            summary = f"{service.name} has no GPUs, and gets {', '.join(sorted(names))} of {self._above(service)}"
            hint = "harmless where it uses none; plan with --override FILE to keep it out"
            self.notes.append(Diagnostic("inherited", summary, service.place(), hint, severity="warning"))

    def _above(self, service: Service) -> str:
        names = sorted({name for _, name in service.inherits()})
        return f"{', '.join(names)}, which it extends" if names else "another service"


def _asks(service: Service, data: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(form.kind, form.count, form.ids) for form in forms_of(service, data)]


def _tagged(data: Any, path: _Path) -> bool:
    """Return whether one of Compose's tags stands on the way to a path, there, or right below."""
    for step in path:
        if not isinstance(data, dict):
            break
        data = data.get(step)
    return isinstance(data, Tagged) or (isinstance(data, dict) and any(isinstance(v, Tagged) for v in data.values()))


def _last(document: Document, path: tuple[str, ...]) -> Node | None:
    """Return the node at a path of the last YAML document that has it."""
    found = (lookup(root, path) for root in reversed(document.roots))
    return next((node for node in found if node is not None), None)


def _shown(value: str | None) -> str:
    return "no value" if value is None else repr(value)
