"""From services to requests: every way in which a compose file asks for GPUs."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gpualloc.compose.document import Mapping, resolve
from gpualloc.errors import Diagnostic, GpuallocError, Place, fail
from gpualloc.model import Ask, GpuCount, Request, Worker
from gpualloc.policy.asks import combine, parse_ask
from gpualloc.policy.roles import ignored, roles_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpualloc.compose.project import Project, Service
    from gpualloc.model import Policy

Kind = Literal["devices", "gpus", "runtime", "cdi"]
Path = tuple["str | int", ...]

DEVICES: Path = ("deploy", "resources", "reservations", "devices")
CDI_PREFIX = "nvidia.com/gpu="
OBSERVERS = ("*dcgm-exporter*", "*nvitop-exporter*")
"""Images of monitors: they look at every GPU and use none."""

ALL = GpuCount(1, None)
_NO_GPU = frozenset(("", "void", "none"))
_ENTRY_KEYS = frozenset(("capabilities", "driver", "count", "device_ids", "options"))
"""Source: compose-spec ``schema/compose-spec.json``, ``definitions.devices``."""


@dataclass(frozen=True, slots=True)
class Form:
    """One way in which a service asks: where, for how many devices, and the ids it names, if it names them.

    ``path`` leads to the entry of a device list, to ``gpus: all``, to the variable, or to the CDI device.
    ``written`` holds the ids as they stand, before commas are split and prefixes dropped.
    """

    kind: Kind
    path: Path
    count: GpuCount
    ids: tuple[str, ...] | None
    written: tuple[str, ...]
    driver: str | None


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
            notes.append(Diagnostic("left-alone", f"{service.name} keeps its pins: {left}", service.place(), severity="note"))
        return None
    own = _own_ask(service)
    by_policy = roles_for(policy, service.name)
    forms = forms_of(service, service.data)
    if not forms and own is None and (by_policy is None or by_policy.gpus is None):
        return None
    ask = combine(own, by_policy) or Ask()
    image = service.data.get("image")
    watcher = isinstance(image, str) and any(fnmatch.fnmatchcase(image, glob) for glob in OBSERVERS)
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
        steps: list[str | int] = []
        for part in path.replace("[", ".[").split("."):
            if part:
                steps.append(int(part[1:-1]) if part.startswith("[") else part)
        found = service.place("x-gpualloc", *steps)
        return Place(found.file, found.line, found.column, ".".join(("services", service.name, "x-gpualloc", path)).rstrip("."))

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


def pinned(forms: tuple[Form, ...]) -> tuple[str, ...] | None:
    """Return the ids that a service's forms name, each once; None where it names none."""
    named = [form for form in forms if form.ids is not None]
    if not named:
        return None
    kinds = {form.kind for form in named}
    # A device request outranks NVIDIA_VISIBLE_DEVICES (NVIDIA container toolkit: the engine's own value comes last).
    if "runtime" in kinds and len(kinds) > 1:
        named = [form for form in named if form.kind != "runtime"]
    return tuple(dict.fromkeys(i for form in named for i in form.ids or ()))


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


# --------------------------------------------------------------------------------------------------------------------
# Forms


def forms_of(service: Service, data: dict[str, Any]) -> tuple[Form, ...]:
    """Return every way in which a service's data asks for NVIDIA GPUs. Raises GpuallocError for what Compose refuses."""
    return (
        *_device_requests(service, data),
        *_gpus(service, data),
        *_runtime(data),
        *_cdi(service, data),
    )


def _device_requests(service: Service, data: dict[str, Any]) -> Iterator[Form]:
    node: Any = data
    for step in DEVICES:
        node = node.get(str(step)) if isinstance(node, dict) else None
    if node is None:
        return
    if not isinstance(node, list):
        raise fail("request", f"{service.name}: devices must be a list", service.place(*DEVICES), "begin each with a dash")
    for index, entry in enumerate(node):
        form = _entry(service, entry, (*DEVICES, index), "devices")
        if form is not None:
            yield form


def _gpus(service: Service, data: dict[str, Any]) -> Iterator[Form]:
    value = data.get("gpus")
    if value is None:
        return
    if value == "all":
        yield Form("gpus", ("gpus",), ALL, None, (), None)
        return
    if not isinstance(value, list):
        hint = "write gpus: all, or gpus: [{count: 1}]"
        raise fail("request", f"{service.name}: gpus is {value!r}", service.place("gpus"), hint)
    for index, entry in enumerate(value):
        form = _entry(service, entry, ("gpus", index), "gpus")
        if form is not None:
            yield form


def _entry(service: Service, entry: Any, path: Path, kind: Literal["devices", "gpus"]) -> Form | None:
    """Read one device request; None for one that is not for NVIDIA GPUs, or asks for none."""

    def bad(summary: str, hint: str, *step: str) -> GpuallocError:
        return fail("request", f"{service.name}: {summary}", service.place(*path, *step), hint)

    if not isinstance(entry, dict):
        raise bad("a device request must be a mapping", "write - capabilities: [gpu] and count: 1")
    unknown = next((k for k in entry if k not in _ENTRY_KEYS and not k.startswith("x-")), None)
    if unknown is not None:
        raise bad(f"a device request has no key {unknown!r}", f"its keys are {', '.join(sorted(_ENTRY_KEYS))}", unknown)
    capabilities = entry.get("capabilities")
    if kind == "devices" and not isinstance(capabilities, list):
        raise bad("a device request needs capabilities, a list", "write capabilities: [gpu]", "capabilities")
    driver = entry.get("driver") or None
    ids = _device_ids(entry, bad)
    if not _is_ours(driver, capabilities or [], kind, ids):
        return None
    if entry.get("count") is not None and ids is not None:
        raise bad("count and device_ids exclude each other", "Compose refuses this: keep one of them", "device_ids")
    if ids is None:
        count = _count(entry.get("count"), bad)
        return None if count.max == 0 else Form(kind, path, count, None, (), driver)
    names = tuple(i.removeprefix(CDI_PREFIX) for text in ids for i in text.split(","))
    if not names:
        return None
    if any(not name for name in names):
        raise bad("an entry of device_ids is empty", "name a GPU, or drop the entry", "device_ids")
    if any(name == "all" for name in names):
        return Form(kind, path, ALL, None, tuple(ids), driver)
    return Form(kind, path, GpuCount(len(names), len(names)), names, tuple(ids), driver)


def _is_ours(driver: str | None, capabilities: list[Any], kind: str, ids: list[str] | None) -> bool:
    if driver == "cdi":
        return any(i.startswith(CDI_PREFIX) for i in ids or ())
    return driver in {None, "nvidia"} and (kind == "gpus" or driver == "nvidia" or "gpu" in capabilities)


def _device_ids(entry: dict[str, Any], bad: Callable[..., GpuallocError]) -> list[str] | None:
    ids = entry.get("device_ids")
    if ids is None:
        return None
    if not isinstance(ids, list):
        raise bad("device_ids must be a list", 'write device_ids: ["0"]', "device_ids")
    wrong = next((i for i in ids if not isinstance(i, str)), None)
    if wrong is not None:
        raise bad(f"device_ids must hold strings, not {wrong!r}", f'put quotes around it: ["{wrong}"]', "device_ids")
    if len(set(ids)) < len(ids):
        raise bad("device_ids names a device twice", "drop one of the two", "device_ids")
    return ids


def _count(value: Any, bad: Callable[..., GpuallocError]) -> GpuCount:
    if value is None or (isinstance(value, str) and value.lower() == "all"):
        return ALL
    text = str(value).strip()
    number = int(text) if not isinstance(value, bool) and text.removeprefix("-").isdigit() else None
    if number == -1:  # what `docker compose config` prints for all
        return ALL
    if number is None or number < 0:
        raise bad(f"count is {value!r}", "write a whole number, or all", "count")
    return GpuCount(number, number)


def _runtime(data: dict[str, Any]) -> Iterator[Form]:
    if data.get("runtime") != "nvidia":
        return
    path: Path = ("environment", "NVIDIA_VISIBLE_DEVICES")
    environment = data.get("environment") or {}
    value = environment.get("NVIDIA_VISIBLE_DEVICES")
    if value is None or value == "all":
        yield Form("runtime", path, ALL, None, (value,) if value else (), None)
    elif value not in _NO_GPU:
        ids = tuple(i for i in value.split(",") if i)
        yield Form("runtime", path, GpuCount(len(ids), len(ids)), ids, (value,), None)


def _cdi(service: Service, data: dict[str, Any]) -> Iterator[Form]:
    devices = data.get("devices")
    for index, item in enumerate(devices if isinstance(devices, list) else ()):
        name = item.get("source") if isinstance(item, dict) else item
        if not isinstance(name, str) or not name.startswith(CDI_PREFIX):
            continue
        device = name.removeprefix(CDI_PREFIX)
        path: Path = ("devices", index, "source") if isinstance(item, dict) else ("devices", index)
        if not device:
            raise fail("request", f"{service.name}: the CDI name ends at =", service.place(*path), f"write {CDI_PREFIX}0")
        if device == "all":
            yield Form("cdi", path, ALL, None, (name,), None)
        else:
            yield Form("cdi", path, GpuCount(1, 1), (device,), (name,), None)


def own_entry(service: Service, path: Path, *, current: bool = False) -> bool:
    """Return whether the service's file has a node at a path, its own or inherited within the file."""
    return service.node(*path, current=current) is not None


def is_mapping(service: Service) -> bool:
    """Return whether the service is written as a mapping in its file, so that keys can be added."""
    node = service.node()
    return node is not None and isinstance(resolve(node), Mapping)
