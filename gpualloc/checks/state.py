"""What a file says now, set against the machine: what every check looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.checks.outlook import Outlook
from gpualloc.compose.forms import forms_of
from gpualloc.errors import Diagnostic
from gpualloc.solve.demands import demand_of, hand_shares
from gpualloc.solve.devices import flatten
from gpualloc.solve.pins import resolve_pins

if TYPE_CHECKING:
    from gpualloc.compose.forms import Form
    from gpualloc.compose.reader import Member
    from gpualloc.errors import Place, Severity
    from gpualloc.model import Gpu
    from gpualloc.planning import Workspace
    from gpualloc.policy.filters import Demand, Device
    from gpualloc.solve.pins import Pins


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A workspace with its pins resolved; devices and GPUs by UUID, demands and forms by worker."""

    workspace: Workspace
    pins: Pins
    devices: dict[str, Device]
    gpus: dict[str, Gpu]
    demands: dict[str, Demand]
    forms: dict[str, tuple[Form, ...]]
    outlook: Outlook

    def pinned(self, member: Member) -> tuple[str, ...]:
        """Return the UUIDs that a worker is pinned to, unknown ids as written."""
        return self.pins.by_worker.get(member.worker.name, ())

    def place(self, member: Member) -> Place:
        """Return where a worker's request stands in the file as it is, or its devices in one that is made whole."""
        previous = self.workspace.previous
        if previous is not None and member.worker.name in previous.where:
            return previous.where[member.worker.name]
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
            return f"GPU {self.gpus[uuid].index}" if uuid in self.gpus else uuid
        name = (
            f"GPU {device.gpu.index}" if device.mig is None else f"MIG {device.mig.profile} of GPU {device.gpu.index}"
        )
        return f"{name} of {device.host}" if len(self.workspace.inventory.hosts) > 1 else name

    def labels(self, uuids: tuple[str, ...]) -> str:
        """Return what messages call several devices."""
        return ", ".join(self.label(uuid) for uuid in uuids)

    def mends(self, *members: Member) -> str:
        """Say that ``gpualloc apply`` mends what is wrong with these workers, or why not, as a hint."""
        return self.outlook.mends(member.worker.name for member in members)

    def fate(self, member: Member) -> str:
        """Return what ``gpualloc apply`` would do with a worker, as a hint."""
        return self.outlook.fate(member.worker.name, self.label)


def state_of(workspace: Workspace) -> State:
    """Set a workspace's file against its machine."""
    pins = resolve_pins(workspace.inventory, workspace.requests)
    devices = flatten(workspace.inventory, workspace.policy, workspace.project.name, pins.uuids())
    shares = hand_shares(workspace.requests, pins)
    return State(
        workspace,
        pins,
        {device.uuid: device for device in devices},
        {gpu.uuid: gpu for host in workspace.inventory.hosts for gpu in host.gpus},
        {w.name: demand_of(r, w, workspace.policy, shares) for r in workspace.requests for w in r.workers},
        {m.worker.name: forms_of(m.service, m.service.now) for role in workspace.demand.roles for m in role.members},
        Outlook(workspace),
    )


def finding(code: str, summary: str, where: Place | None, hint: str, severity: Severity = "error") -> Diagnostic:
    """Return one finding."""
    return Diagnostic(code, summary, where, hint, severity)
