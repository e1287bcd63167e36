"""From services to requests: what each asks for, after x-gpualloc, the policy's roles and Compose's own keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.compose.copies import worker_name
from gpualloc.compose.forms import DEVICES, Form, Kind, Path, forms_of, pinned
from gpualloc.compose.notes import INACTIVE, Left, notes_on
from gpualloc.errors import Diagnostic, GpuallocError, Place, fail
from gpualloc.inventory.observers import observes
from gpualloc.model import Ask, GpuCount, Request, Worker
from gpualloc.policy.asks import combine, parse_ask
from gpualloc.policy.roles import ignored, roles_for
from gpualloc.policy.values import shown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.project import Project, Service
    from gpualloc.model import Policy, PortRule


@dataclass(frozen=True, slots=True)
class Member:
    """One worker of a role, with the service to write for it, and the forms that one asks in.

    ``present``: whether the worker has a service of its own. Without, ``service`` is the one that it will be made from.
    """

    worker: Worker
    service: Service
    forms: tuple[Form, ...]
    present: bool


@dataclass(frozen=True, slots=True)
class Role:
    """A service that asks for GPUs, with its request and the forms it asks in; no forms: only ``x-gpualloc`` does.

    A role that is divided into a service for each worker has the first's. ``members``: in the order of the request's
    workers. ``surplus``: services of workers that it is not to have any more. ``ports``: what its replicas do with
    host ports.
    """

    service: Service
    request: Request
    forms: tuple[Form, ...]
    members: tuple[Member, ...]
    divided: bool = False
    surplus: tuple[Service, ...] = ()
    ports: PortRule = "increment"

    @property
    def name(self) -> str:
        """The role's name, which is not that of its first service once it is divided."""
        return self.request.role

    @property
    def splits(self) -> bool:
        """Whether it is one service of the project's files, which is to become a service for each worker."""
        return self.service.name == self.name and self.members[0].worker.name != self.name

    @property
    def shares(self) -> bool:
        """Whether its workers are containers of one service now, alike in all."""
        return self.splits and not self.divided


@dataclass(frozen=True, slots=True)
class Observer:
    """A service that sees every device and takes none. ``asked`` explicitly, or known by its image."""

    service: Service
    forms: tuple[Form, ...]
    asked: bool


@dataclass(frozen=True, slots=True)
class Demand:
    """What a project asks for. ``notes`` tell of pins that are left as they are, in the services ``left`` alone."""

    roles: tuple[Role, ...]
    observers: tuple[Observer, ...]
    notes: tuple[Diagnostic, ...]
    left: frozenset[str] = frozenset()


def read_demand(project: Project, policy: Policy, scale: MappingType[str, int] | None = None) -> Demand:
    """Return what the project's enabled services ask for under a policy. ``scale``: other numbers of workers, by role.

    Raises GpuallocError with one diagnostic for every service that asks in a way Compose or gpualloc cannot take;
    ``scale`` for a number of workers that cannot be.
    """
    roles: list[Role] = []
    observers: list[Observer] = []
    alone: list[Left] = []
    problems: list[Diagnostic] = []
    left: set[str] = set()
    for subject in _subjects(project, scale or {}):
        if _left_alone(subject.service, subject.name, policy) is not None:
            left |= {one.name for one in subject.copies.values()} or {subject.service.name}
        try:
            found = _read(subject, policy, alone)
        except GpuallocError as error:
            problems += error.diagnostics
            continue
        if isinstance(found, Role):
            roles.append(found)
        elif isinstance(found, Observer):
            observers.append(found)
    if problems:
        raise GpuallocError(*problems)
    _check_scale(scale or {}, roles)
    notes = notes_on(alone, asked=bool(roles or observers))
    return Demand(tuple(roles), tuple(observers), notes, frozenset(left))


def _check_scale(scale: MappingType[str, int], roles: list[Role]) -> None:
    for name, count in scale.items():
        if count < 1:
            hint = f"docker compose stop {name} stops it; deploy.replicas: 0 in the file keeps it from starting"
            raise fail("scale", f"--scale {name}={count}: a role has at least one worker", None, hint)
        if not any(role.name == name for role in roles):
            names = ", ".join(role.name for role in roles) or "none"
            raise fail("scale", f"--scale {name}={count}: no role is so named", None, f"the roles are: {names}")


@dataclass(frozen=True, slots=True)
class _Subject:
    """What may be a role: a service, or those it was divided into, by number. ``wanted``: how many, if not as it says.

    ``split`` where a single worker is to have a service of its own number too.
    """

    name: str
    service: Service
    copies: MappingType[int, Service]
    wanted: int | None
    divided: bool


def _subjects(project: Project, scale: MappingType[str, int]) -> Iterator[_Subject]:
    """Yield each service of the project, those of a divided role once, where the first of them stands."""
    owner = {s.name: role for role, numbers in project.copies.items() for s in numbers.values()}
    seen: set[str] = set()
    for service in project.services:
        role = owner.get(service.name, service.name)
        if role in seen:
            continue
        seen.add(role)
        copies = project.copies.get(role, {})
        first = copies[min(copies)] if service.name in owner else service
        wanted = scale.get(role, project.replicas.get(role))
        yield _Subject(role, first, copies, wanted, divided=bool(copies))


def _read(subject: _Subject, policy: Policy, alone: list[Left]) -> Role | Observer | None:
    service, name = subject.service, subject.name
    left = _left_alone(service, name, policy)
    if left is not None:
        now = [form for one in subject.copies.values() or (service,) for form in forms_of(one, one.now)]
        if now or isinstance(service.ask, dict):
            alone.append(Left(service, name, left, any(form.ids for form in now)))
        return None
    own = _own_ask(service)
    by_policy = roles_for(policy, name)
    forms = forms_of(service, service.data)
    if not forms and own is None and (by_policy is None or by_policy.gpus is None):
        return None
    ask = combine(own, by_policy) or Ask()
    image = service.data.get("image")
    watcher = isinstance(image, str) and observes(image)
    if ask.observe or (watcher and ask.observe is None):
        return Observer(service, forms, asked=bool(ask.observe))
    count = ask.gpus or _agreed(service, forms) or GpuCount(1, 1)
    written = replicas_of(service)
    replicas = written if subject.wanted is None else subject.wanted
    if count.max == 0 or replicas <= 0:
        return None
    members = _members(subject, forms, written, replicas)
    request = Request(
        role=name,
        workers=tuple(member.worker for member in members),
        gpus=count,
        memory_mib=ask.memory_mib,
        exclusive=bool(ask.exclusive),
        model=ask.model,
        min_memory_mib=ask.min_memory_mib,
        compute_capability=ask.compute_capability,
        mig_profile=ask.mig_profile,
        min_link=ask.min_link,
        priority=ask.priority or 0,
        host=ask.host,
        affinity=ask.affinity or (),
        anti_affinity=ask.anti_affinity or (),
        hand_pinned=own is None and ask.gpus is None and ask.memory_mib is None and pinned(forms) is not None,
        where=service.place(*(forms[0].path if forms else ())),
    )
    surplus = tuple(one for number, one in subject.copies.items() if number > replicas)
    return Role(service, request, forms, members, subject.divided, surplus, ask.ports or "increment")


def _members(subject: _Subject, forms: tuple[Form, ...], written: int, replicas: int) -> tuple[Member, ...]:
    """Return a role's workers: each with its own service, where it has one, else with the first's.

    Raises GpuallocError (``replicas-differ``) where services of one role ask in different ways.
    """
    service, name = subject.service, subject.name
    if service.name != name and written != 1:
        hint = f"its role's number of workers is replicas in the record, or --scale {name}=N"
        raise fail("replicas-differ", f"{service.name} has {written} replicas of its own", service.place(), hint)
    if not subject.divided and written == replicas == 1:
        return (Member(Worker(name, 1, pinned(forms_of(service, service.now))), service, forms, present=True),)
    found: list[Member] = []
    for number in range(1, replicas + 1):
        own = subject.copies.get(number)
        if own is None:
            found.append(Member(Worker(worker_name(name, number), number), service, forms, present=False))
            continue
        own_forms = forms_of(own, own.data)
        if own is not service:
            _check_alike(service, forms, own, own_forms, written)
        worker = Worker(own.name, number, pinned(forms_of(own, own.now)))
        found.append(Member(worker, own, own_forms, present=True))
    return tuple(found)


def _check_alike(
    first: Service, forms: tuple[Form, ...], own: Service, own_forms: tuple[Form, ...], count: int
) -> None:
    asks = [(_agreed(service, some), service.ask) for service, some in ((first, forms), (own, own_forms))]
    if asks[0] != asks[1] or replicas_of(own) != count:
        where = own.place(*(own_forms[0].path if own_forms else ()))
        hint = "let all of a role's services ask alike; its number of workers is replicas in the record, or --scale"
        raise fail("replicas-differ", f"{own.name} asks for something else than {first.name}", where, hint)


def _left_alone(service: Service, name: str, policy: Policy) -> str | None:
    """Return why a service is none of our business, or None if it may be."""
    if service.ask is False:
        return "x-gpualloc: false"
    if ignored(policy, name):
        return f"the policy {policy.name} ignores it"
    if not service.enabled:
        return INACTIVE
    return None


def _own_ask(service: Service) -> Ask | None:
    """Return the service's own ``x-gpualloc``. Raises GpuallocError, placed at the key that is wrong."""
    if service.ask is None:
        return None
    if service.ask is True:
        where = service.place("x-gpualloc")
        raise fail("ask-type", f"x-gpualloc of {service.name} is true", where, "write a mapping, or false to opt out")

    def place(path: str) -> Place:
        parts = [part for part in path.replace("[", ".[").split(".") if part]
        steps = [int(part[1:-1]) if part.startswith("[") else part for part in parts]
        found = service.place("x-gpualloc", *steps)
        return Place(found.file, found.line, found.column, f"services.{service.name}.x-gpualloc.{path}".rstrip("."))

    return parse_ask(service.ask, place)


def replicas_of(service: Service) -> int:
    """Return how many workers a service has: ``deploy.replicas``, ``scale``, or 1.

    Raises GpuallocError (``replicas``) where they disagree, as Compose does, or are no number.
    """
    deploy = service.data.get("deploy")
    found: dict[Path, int] = {}
    for path, value in (
        (("deploy", "replicas"), deploy.get("replicas") if isinstance(deploy, dict) else None),
        (("scale",), service.data.get("scale")),
    ):
        if value is None:
            continue
        try:
            number = int(str(value))
        except ValueError:
            number = -1
        if number < 0 or isinstance(value, bool):
            where = service.place(*path)
            raise fail("replicas", f"{service.name}: {'.'.join(path)} is {shown(value)}", where, "write a whole number")
        found[path] = number
    if len(set(found.values())) > 1:
        summary = f"{service.name}: scale and deploy.replicas differ"
        raise fail("replicas", summary, service.place("scale"), "Compose refuses this: keep one of them")
    return next(iter(found.values()), 1)


def _agreed(service: Service, forms: tuple[Form, ...]) -> GpuCount | None:
    """Return how many devices a service's forms ask for. Raises GpuallocError (``request-conflict``) if they differ."""
    by_kind: dict[Kind, list[Form]] = {}
    for form in forms:
        by_kind.setdefault(form.kind, []).append(form)
    if len(by_kind) > 1:
        by_kind.pop("runtime", None)
    totals = {kind: _total(service, kind, several) for kind, several in by_kind.items()}
    ids = {kind: {i for f in several for i in f.ids or ()} for kind, several in by_kind.items()}
    if len(set(totals.values())) > 1 or len({frozenset(v) for v in ids.values()}) > 1:
        kinds = " and ".join(".".join(map(str, DEVICES)) if k == "devices" else k for k in totals)
        where = service.place(*forms[-1].path)
        summary = f"{service.name} asks in two ways that differ: {kinds}"
        raise fail("request-conflict", summary, where, "Compose would add the two up: keep one of them")
    return next(iter(totals.values()), None)


def _total(service: Service, kind: Kind, forms: list[Form]) -> GpuCount:
    if len(forms) == 1:
        return forms[0].count
    if any(form.count != GpuCount(form.count.min, form.count.min) for form in forms):
        where = service.place(*forms[-1].path)
        summary = f"{service.name} asks for all GPUs and for more, in {kind}"
        raise fail("request-conflict", summary, where, "keep the one entry that asks for all of them")
    ids = [i for form in forms for i in form.ids or ()]
    twice = next((i for i in ids if ids.count(i) > 1), None)
    if twice is not None:
        summary = f"{service.name} names the GPU {twice} twice, in {kind}"
        raise fail("request-conflict", summary, service.place(*forms[-1].path), "name it once")
    total = sum(form.count.min for form in forms)
    return GpuCount(total, total)
