"""What the compose file, as it is now, gives each worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpualloc.compose.forms import forms_of
from gpualloc.compose.layers import GPU_VARIABLES
from gpualloc.solve.pins import resolve_pins
from gpualloc.verify.machine import machine_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpualloc.compose.forms import Form
    from gpualloc.compose.project import Service
    from gpualloc.compose.reader import Role
    from gpualloc.errors import Place
    from gpualloc.model import Worker
    from gpualloc.planning import Workspace
    from gpualloc.verify.machine import Machine

DEFAULT_CAPABILITIES = "compute,utility"
"""What NVIDIA's container toolkit puts in where NVIDIA_DRIVER_CAPABILITIES is not set."""


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """One worker by the file. ``devices`` None: it is not pinned, and ``given`` is what Docker then gives it.

    ``environment``: what the file sets of the variables that gpualloc writes, as the container should have them.
    ``copies``: how many workers share the one service. ``parked``: the file has no replica of it.
    """

    worker: str
    service: str
    replica: int
    copies: int
    devices: tuple[str, ...] | None
    given: tuple[str, ...]
    environment: Mapping[str, str]
    cdi: bool
    parked: bool
    where: Place
    cuda_where: Place


def expectations(workspace: Workspace) -> tuple[Machine, tuple[Expectation, ...]]:
    """Return the host that the containers run on, and each worker with the devices the file gives it."""
    pins = resolve_pins(workspace.inventory, workspace.requests).by_worker
    machine = machine_of(workspace, (uuid for uuids in pins.values() for uuid in uuids))
    written = _written_names(workspace)
    found = []
    for role in workspace.demand.roles:
        for member in role.members:
            if not member.present and not role.shares:
                continue  # `check` tells of a worker that has no service yet
            worker = member.worker
            found.append(_expectation(role, worker, member.service, machine, pins.get(worker.name), written))
    return machine, tuple(found)


def _written_names(workspace: Workspace) -> frozenset[str]:
    write = workspace.policy.write
    return frozenset((*GPU_VARIABLES, *(name for name, _ in (*write.env, *write.env_shared))))


def _expectation(
    role: Role,
    worker: Worker,
    service: Service,
    machine: Machine,
    pinned: tuple[str, ...] | None,
    written: frozenset[str],
) -> Expectation:
    forms = forms_of(service, service.now)
    # a device request outranks NVIDIA_VISIBLE_DEVICES: the engine puts its own value last
    deciding = [form for form in forms if form.kind != "runtime"] or forms
    given = machine.ordered(uuid for form in deciding for uuid in _given(form, machine))
    devices = None if pinned is None else machine.ordered(pinned)
    if machine.wsl2 and devices is None:  # there Docker offers all GPUs or none, and the requests stay as they are
        devices = given
    path = forms[0].path if forms else ()
    step = next((s for s in ("device_ids", "count") if service.node(*path, s, current=True) is not None), None)
    return Expectation(
        worker=worker.name,
        service=service.name,
        replica=worker.replica,
        copies=1 if service.name == worker.name else len(role.request.workers),
        devices=devices,
        given=given,
        environment=_environment(service, written),
        cdi=any(form.kind == "cdi" or form.driver == "cdi" for form in forms),
        parked=_replicas(service.now) == 0,
        where=service.place(*path, *([step] if step else []), current=True),
        cuda_where=service.place("environment", "CUDA_VISIBLE_DEVICES", current=True),
    )


def _given(form: Form, machine: Machine) -> tuple[str, ...]:
    if form.ids is not None:
        return machine.resolve(form.ids)
    return machine.everything if form.count.max is None else machine.first(form.count.max)


def _environment(service: Service, written: frozenset[str]) -> dict[str, str]:
    """Return the variables that the file sets itself; one whose value rests on another variable is left out."""
    found = {}
    for name, value in (service.now.get("environment") or {}).items():
        if name not in written or value is None:
            continue
        text = value if name in GPU_VARIABLES else value.replace("$$", "\0")
        if "$" not in text:
            found[name] = text.replace("\0", "$")
    return found


def _replicas(data: Mapping[str, Any]) -> int | None:
    deploy = data.get("deploy")
    value = deploy.get("replicas") if isinstance(deploy, dict) else None
    return value if isinstance(value, int) else None
