"""A plan as a stack for Docker Swarm: a service for each worker on its node, and all the other services with them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gpualloc.compose.data import at, escaped
from gpualloc.compose.edits import visible_devices
from gpualloc.compose.forms import forms_of
from gpualloc.compose.merge import variables
from gpualloc.compose.ports import one_of_pool
from gpualloc.compose.record import MARK, STACK
from gpualloc.compose.swarm.dump import dump
from gpualloc.compose.swarm.notes import Notes
from gpualloc.compose.swarm.record import KEY, record_of
from gpualloc.compose.swarm.requests import without_requests
from gpualloc.compose.swarm.services import Draft, awaited, in_order, stack_service
from gpualloc.compose.swarm.top import sections_of
from gpualloc.errors import Diagnostic, fail
from gpualloc.policy.environment import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.project import Project, Service
    from gpualloc.compose.reader import Demand, Member, Observer, Role
    from gpualloc.compose.swarm.source import Whole
    from gpualloc.compose.workers import Fresh
    from gpualloc.errors import Place
    from gpualloc.model import Host, Inventory, Placement, Policy, Solution

Mode = Literal["uuid", "generic"]

KIND = "NVIDIA-GPU"
"""The kind of generic resource that a node's GPUs are (Docker docs, ``docker service create --generic-resource``)."""

_VERSIONS = ((("oom_score_adj",), "3.13", "27.1"), (("healthcheck", "start_interval"), "3.12", "25.0"))
"""Keys with the schema that first has them, and the Docker whose command line first reads that."""
_VERSION = "3.9"
"""The first schema that has every other key that is written here, so that older command lines take the file."""
_NAME = re.compile(r"[A-Za-z0-9](?:[-_]*[A-Za-z0-9]+)*")
"""What a service of Swarm can be called (moby/swarmkit ``manager/controlapi/service.go``)."""


@dataclass(frozen=True, slots=True)
class Swarm:
    """How a stack is wanted: the mode, the node of each host, and what ``--scale`` made of roles."""

    mode: Mode
    nodes: dict[str, str]
    scaled: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stack:
    """The text of a stack file, and a message for every key that it has not."""

    text: str
    notes: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Planning:
    """What a plan was made from and what it says, for whoever writes it down. ``emptied``: hosts that are drained."""

    project: Project
    whole: Whole
    demand: Demand
    policy: Policy
    inventory: Inventory
    solution: Solution
    fresh: MappingType[str, list[Fresh]]
    emptied: frozenset[str] = frozenset()

    def placements(self) -> dict[str, Placement]:
        """Return where each worker is, by its name."""
        return {placement.worker: placement for placement in self.solution.placements}


def stack_of(planning: Planning, swarm: Swarm, shown: str) -> Stack:
    """Return the stack file for a plan. ``shown``: what the file is called.

    Raises GpuallocError: ``swarm-generic`` where workers share a device in mode generic, ``swarm-name`` for a service
    that Swarm cannot call so.
    """
    if swarm.mode == "generic":
        _check_alone(planning)
    maker = _Maker(planning, swarm, Notes())
    services = dict(maker.services())
    sections = sections_of(planning.whole, services.values(), maker.notes)
    _check_names(planning, services)
    record = record_of(planning.solution, swarm.scaled)
    document = {"version": _version(services, maker.notes), "services": services, **sections}
    files = ", ".join(file.shown for file in planning.project.files)
    head = (
        f"{MARK}{STACK}. It is rewritten whole; change requests in {files}.\n"
        f"# docker stack deploy --prune --compose-file {shown} {planning.project.name}\n"
    )
    text = head + dump(escaped(document)) + dump({KEY: escaped(record)})
    notes = maker.notes.diagnostics(lambda service, key: _place(planning, service, key))
    return Stack(text, (*notes, *_any_gpu(planning, swarm), *_folders(planning, services)))


def _any_gpu(planning: Planning, swarm: Swarm) -> Iterator[Diagnostic]:
    """Tell that Swarm only counts: which of a node's devices a task gets is not the plan's to say in mode generic."""
    if swarm.mode == "generic" and planning.solution.placements:
        summary = "a task gets as many of its node's GPUs as planned, and Swarm chooses which"
        hint = "--swarm-mode uuid gives each worker the very GPUs of the plan"
        yield Diagnostic("swarm-any-gpu", summary, None, hint, "warning")


def _folders(planning: Planning, services: MappingType[str, dict[str, Any]]) -> Iterator[Diagnostic]:
    """Tell of every folder of a node that services use: Swarm neither makes nor copies it."""
    users: dict[str, list[str]] = {}
    for name, service in services.items():
        for item in service.get("volumes") or ():
            bound = isinstance(item, dict) and item.get("type") == "bind"
            source = item.get("source") if bound else None if isinstance(item, dict) else str(item).split(":")[0]
            if source and (bound or str(source).startswith(("/", "~"))) and ":" in f"{item}":
                users.setdefault(str(source), []).append(name)
    for folder, names in users.items():
        summary = (
            f"{', '.join(names)}: {folder} must be on every node that may run {'it' if len(names) == 1 else 'them'}"
        )
        hint = "make it there, or use a volume on storage that the nodes share"
        yield Diagnostic("swarm-folder", summary, _place(planning, names[0], "volumes"), hint, "note")


def _version(services: MappingType[str, dict[str, Any]], notes: Notes) -> str:
    for path, version, docker in _VERSIONS:
        users = [name for name, each in services.items() if at(each, path) is not None]
        for name in users:
            notes.translated(name, ".".join(path), f"takes Docker {docker} or newer where the stack is deployed")
        if users:
            return version
    return _VERSION


def _check_alone(planning: Planning) -> None:
    holders: dict[str, list[str]] = {}
    for placement in planning.solution.placements:
        for device in placement.devices:
            holders.setdefault(device.uuid, []).append(placement.worker)
    for uuid, workers in holders.items():
        if len(workers) > 1:
            summary = f"{', '.join(workers)} share {uuid}, and Swarm gives a generic resource to one task only"
            raise fail("swarm-generic", summary, None, "use --swarm-mode uuid, or a policy with sharing: {mode: none}")


def _check_names(planning: Planning, services: MappingType[str, Any]) -> None:
    for name in services:
        if not _NAME.fullmatch(name):
            hint = "call it by letters, digits, - and _, with a letter or digit at both ends"
            raise fail("swarm-name", f"Swarm cannot call a service {name!r}", _place(planning, name, ""), hint)


def _place(planning: Planning, name: str, key: str) -> Place | None:
    """Return where a key of a service stands; of the project's own keys, the file's place for those that are kept."""
    if not name:
        return planning.whole.others.get(key)
    for role in planning.demand.roles:
        for member in role.members:
            if member.worker.name == name:
                return member.service.place(*(key.split(".") if key else ()))
    found = next((service for service in planning.project.services if service.name == name), None)
    return found.place(*(key.split(".") if key else ())) if found is not None else None


# --------------------------------------------------------------------------------------------------------------------
# Services


@dataclass(frozen=True, slots=True, eq=False)
class _Maker:
    planning: Planning
    swarm: Swarm
    notes: Notes

    def services(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every service of the stack, workers in the place of their role."""
        planning = self.planning
        roles = {member.service.name: role for role in planning.demand.roles for member in role.members}
        surplus = {service.name: role for role in planning.demand.roles for service in role.surplus}
        observers = {observer.service.name: observer for observer in planning.demand.observers}
        ends = awaited(planning.whole.services.values())
        done: set[str] = set()
        for service in planning.project.services:
            name = service.name
            role = roles.get(name) or surplus.get(name)
            if role is not None:
                if role.name not in done:
                    done.add(role.name)
                    yield from self._workers(role, ends)
            elif not service.enabled:
                self.notes.left_out(name, "profiles", "its profile is not active, so it is not in the stack")
            else:
                data = dict(planning.whole.services[name])
                watcher = observers.get(name)
                data = self._left_alone(service, data) if watcher is None else self._observer(watcher, data)
                yield name, self._made(name, name, data, ends)

    def _made(self, name: str, source: str, data: dict[str, Any], ends: frozenset[str]) -> dict[str, Any]:
        if data.get("depends_on"):
            data["depends_on"] = self._renamed(data["depends_on"])
        built = f"{self.planning.project.name}-{source}"
        return stack_service(Draft(name, built, self.notes, data, ends=source in ends))

    def _renamed(self, value: Any) -> Any:
        """Name the workers of a role that is divided here, in its place."""
        workers = {r.name: [m.worker.name for m in r.members] for r in self.planning.demand.roles if r.splits}
        if isinstance(value, dict):
            return {name: entry for old, entry in value.items() for name in workers.get(old, [old])}
        return [name for old in value for name in workers.get(str(old), [str(old)])]

    def _workers(self, role: Role, ends: frozenset[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        placements = self.planning.placements()
        own = {worker.number: worker for worker in self.planning.fresh.get(role.name, ())}
        for service in role.surplus:
            self.notes.left_out(service.name, "replicas", f"{role.name} is to have fewer workers")
        for number, member in enumerate(role.members):
            name = member.worker.name
            data = dict(self.planning.whole.services[member.service.name])
            answer = "a generic resource" if self.swarm.mode == "generic" else "NVIDIA_VISIBLE_DEVICES"
            data = without_requests(name, data, member.forms, answer, self.notes)
            if role.splits:
                data = self._divided(role, member, data, own.get(member.worker.replica))
            data = self._one_task(name, self._own_ports(name, number, data))
            placement = placements.get(name)
            made = self._made(name, member.service.name, data, ends)
            if placement is None:
                yield name, in_order(made | {"deploy": {"replicas": 0} | made.get("deploy", {})})
            else:
                yield name, self._placed(member, placement, made)

    def _divided(self, role: Role, member: Member, data: dict[str, Any], fresh: Fresh | None) -> dict[str, Any]:
        """Return the data of one worker of a role, whose name leads to all of them."""
        data = dict(data)
        if fresh is not None and fresh.ports is not None:
            data["ports"] = fresh.ports
            self.notes.translated(member.worker.name, "ports", "count up from worker to worker")
        if data.get("network_mode") is None:
            joined = data.get("networks") or ["default"]
            named = dict(joined) if isinstance(joined, dict) else {str(name): None for name in joined}
            for network, entry in named.items():
                inner = dict(entry or {})
                named[network] = inner | {"aliases": [*(inner.get("aliases") or []), role.name]}
            data["networks"] = named
        return data

    def _own_ports(self, name: str, number: int, data: dict[str, Any]) -> dict[str, Any]:
        """Give a worker a port of its own of a pool that all of its role are to find one in."""
        ports = [one_of_pool(item, number) for item in data.get("ports") or ()]
        if ports == (data.get("ports") or []):
            return data
        self.notes.translated(name, "ports", "publishes one of a range: Swarm would publish all of it")
        return data | {"ports": ports}

    def _one_task(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data of a service that is one task: what speaks of several goes."""
        data, deploy = dict(data), dict(data.get("deploy") or {})
        if deploy.get("mode") == "global":
            why = "it is one worker on one node, whose GPUs it has; deploy.replicas tells how many there are to be"
            self.notes.left_out(name, "deploy.mode", f"global: {why}")
            del deploy["mode"]
        for key in ("mode", "replicas"):
            if deploy.pop(key, None) is not None:
                self.notes.translated(name, f"deploy.{key}", "becomes a service for each worker")
        if data.pop("scale", None) is not None:
            self.notes.translated(name, "scale", "becomes a service for each worker")
        if "deploy" in data:
            data["deploy"] = deploy
        return data

    def _placed(self, member: Member, placement: Placement, made: dict[str, Any]) -> dict[str, Any]:
        """Return a worker's service on its node, with its devices."""
        deploy = self._stop_first(placement.worker, dict(made.get("deploy") or {}))
        placed = dict(deploy.get("placement") or {})
        node = self.swarm.nodes[placement.host]
        there = [each for each in placed.get("constraints") or () if not self._elsewhere(placement.worker, each)]
        placed["constraints"] = [*there, f"node.hostname == {node}"]
        deploy["placement"] = placed
        if self.swarm.mode == "generic":
            resources = dict(deploy.get("resources") or {})
            reserved = dict(resources.get("reservations") or {})
            others = [
                each for each in reserved.get("generic_resources") or () if not self._ours(placement.worker, each)
            ]
            ours = {"discrete_resource_spec": {"kind": KIND, "value": len(placement.devices)}}
            reserved["generic_resources"] = [*others, ours]
            deploy["resources"] = resources | {"reservations": reserved}
        own = variables(made.get("environment") or {}) | self._variables(member, placement)
        if self.swarm.mode == "generic":
            own.pop("NVIDIA_VISIBLE_DEVICES", None)
        return in_order(made | {"environment": own, "deploy": deploy})

    def _stop_first(self, name: str, deploy: dict[str, Any]) -> dict[str, Any]:
        """Return a worker's ``deploy`` by which its old task, and what that holds, is gone before a new one starts."""
        for key in ("update_config", "rollback_config"):
            if at(deploy, (key, "order")) == "start-first":
                deploy[key] = deploy[key] | {"order": "stop-first"}
                text = "becomes stop-first: a new task gets the GPUs of the old one"
                self.notes.translated(name, f"deploy.{key}.order", text)
        return deploy

    def _elsewhere(self, name: str, constraint: str) -> bool:
        if not re.match(r"\s*node\.hostname\s*==", constraint):
            return False
        self.notes.left_out(name, "deploy.placement.constraints", f"{constraint}: the plan says which node it is")
        return True

    def _ours(self, name: str, resource: Any) -> bool:
        if at(resource, ("discrete_resource_spec", "kind")) != KIND:
            return False
        self.notes.translated(name, "deploy.resources.reservations.generic_resources", "is what the plan gives")
        return True

    def _variables(self, member: Member, placement: Placement) -> dict[str, str | None]:
        planning = self.planning
        found: dict[str, str | None] = {}
        visible = visible_devices(member.service, placement, planning.policy)
        if self.swarm.mode == "uuid":
            found["NVIDIA_VISIBLE_DEVICES"] = ",".join(device.uuid for device in placement.devices)
        elif visible is not None:
            mig = any(device.uuid.startswith("MIG-") for device in placement.devices)
            visible = None if mig else ",".join(str(n) for n in range(len(placement.devices)))
        if visible is not None:
            found |= {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return found | dict(environment(planning.policy, placement, self._host(placement)))

    def _host(self, placement: Placement) -> Host:
        return next(host for host in self.planning.inventory.hosts if host.name == placement.host)

    def _observer(self, observer: Observer, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data of a monitor: one on every node, which sees all that is there."""
        name = observer.service.name
        data = without_requests(name, data, observer.forms, "NVIDIA_VISIBLE_DEVICES=all", self.notes)
        data["environment"] = variables(data.get("environment") or {}) | {"NVIDIA_VISIBLE_DEVICES": "all"}
        deploy = dict(data.get("deploy") or {})
        if deploy.get("mode") is None and deploy.get("replicas") is None and data.get("scale") is None:
            data["deploy"] = {"mode": "global"} | deploy
            self.notes.translated(name, "deploy.mode", "is global: it watches the GPUs of every node")
        return data

    def _left_alone(self, service: Service, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data of a service that gets no GPUs by this plan; its own requests cannot be kept."""
        forms = forms_of(service, service.data)
        data = without_requests(service.name, data, (), "nothing", Notes())
        if service.data.get("x-gpualloc") is not None:
            self.notes.left_out(service.name, "x-gpualloc", "it asks for nothing here", harmless=True)
        if service.data.get("runtime") == "nvidia":
            self.notes.translated(service.name, "runtime", "is the node's: nvidia must be its default-runtime")
        ids = [i for form in forms if form.kind != "runtime" for i in form.ids or ()]
        own = variables(data.get("environment") or {})
        if ids:  # pins that people keep by hand stay theirs
            data["environment"] = own | {"NVIDIA_VISIBLE_DEVICES": ",".join(ids)}
        elif not forms and "NVIDIA_VISIBLE_DEVICES" not in own:
            # where nvidia is the runtime of all, an image made on CUDA's sees every GPU unless it is told otherwise
            data["environment"] = own | {"NVIDIA_VISIBLE_DEVICES": "void"}
        return data
