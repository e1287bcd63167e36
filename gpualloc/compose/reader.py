"""From services to requests: what each asks for, after x-gpualloc, the policy's roles and Compose's own keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.compose.forms import DEVICES, Form, Kind, Path, forms_of, pinned
from gpualloc.errors import Diagnostic, GpuallocError, Place, fail
from gpualloc.inventory.observers import observes
from gpualloc.model import Ask, GpuCount, Request, Worker
from gpualloc.policy.asks import combine, parse_ask
from gpualloc.policy.roles import ignored, roles_for

if TYPE_CHECKING:
    from gpualloc.compose.project import Project, Service
    from gpualloc.model import Policy


@dataclass(frozen=True, slots=True)
class Role:
    """A service that asks for GPUs, with its request and the forms it asks in; no forms: only ``x-gpualloc`` does."""

    service: Service
    request: Request
    forms: tuple[Form, ...]


@dataclass(frozen=True, slots=True)
class Observer:
    """A service that sees every device and takes none. ``asked`` explicitly, or known by its image."""

    service: Service
    forms: tuple[Form, ...]
    asked: bool


@dataclass(frozen=True, slots=True)
class Demand:
    """What a project asks for. ``notes`` tell of pins that are left as they are."""

    roles: tuple[Role, ...]
    observers: tuple[Observer, ...]
    notes: tuple[Diagnostic, ...]


def read_demand(project: Project, policy: Policy) -> Demand:
    """Return what the project's enabled services ask for under a policy.

    Raises GpuallocError with one diagnostic for every service that asks in a way Compose or gpualloc cannot take.
    """
    roles: list[Role] = []
    observers: list[Observer] = []
    notes: list[Diagnostic] = []
    problems: list[Diagnostic] = []
    for service in project.services:
        try:
            found = _read(service, policy, notes)
        except GpuallocError as error:
            problems += error.diagnostics
            continue
        if isinstance(found, Role):
            roles.append(found)
        elif isinstance(found, Observer):
            observers.append(found)
    if problems:
        raise GpuallocError(*problems)
    return Demand(tuple(roles), tuple(observers), tuple(notes))


def _read(service: Service, policy: Policy, notes: list[Diagnostic]) -> Role | Observer | None:
    left = _left_alone(service, policy)
    if left is not None:
        if any(form.ids for form in forms_of(service, service.now)):
            notes.append(
                Diagnostic("left-alone", f"{service.name} keeps its pins: {left}", service.place(), severity="note")
            )
        return None
    own = _own_ask(service)
    by_policy = roles_for(policy, service.name)
    forms = forms_of(service, service.data)
    if not forms and own is None and (by_policy is None or by_policy.gpus is None):
        return None
    ask = combine(own, by_policy) or Ask()
    image = service.data.get("image")
    watcher = isinstance(image, str) and observes(image)
    if ask.observe or (watcher and ask.observe is None):
        return Observer(service, forms, asked=bool(ask.observe))
    count = ask.gpus or _agreed(service, forms) or GpuCount(1, 1)
    replicas = replicas_of(service)
    if count.max == 0 or replicas == 0:
        return None
    current = pinned(forms_of(service, service.now)) if replicas == 1 else None
    request = Request(
        role=service.name,
        workers=_workers(service.name, replicas, current),
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
    return Role(service, request, forms)


def _left_alone(service: Service, policy: Policy) -> str | None:
    """Return why a service is none of our business, or None if it may be."""
    if service.ask is False:
        return "x-gpualloc: false"
    if ignored(policy, service.name):
        return f"the policy {policy.name} ignores it"
    if not service.enabled:
        return "its profile is not active"
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


def _workers(role: str, replicas: int, current: tuple[str, ...] | None) -> tuple[Worker, ...]:
    if replicas == 1:
        return (Worker(role, 1, current),)
    return tuple(Worker(f"{role}-{n}", n) for n in range(1, replicas + 1))


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
            raise fail("replicas", f"{service.name}: {'.'.join(path)} is {value!r}", where, "write a whole number")
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
    total = sum(form.count.min for form in forms)
    return GpuCount(total, total)
