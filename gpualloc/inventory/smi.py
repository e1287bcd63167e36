"""Reads what ``nvidia-smi -q -x`` prints, by old drivers and new, with or without ``nvidia-smi topo -m``.

The report names no host: the file's name stands for it. It leaves out the compute capability (the model tells it),
the names of MIG instances (``nvidia-smi -L`` has them), and how GPUs are joined (``topo -m``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gpualloc.errors import Diagnostic, GpuallocError, Place, fail
from gpualloc.inventory import health, topology
from gpualloc.inventory.capability import capability
from gpualloc.inventory.snapshot import GPU_UUID, PCI_BUS_ID
from gpualloc.model import ComputeMode, Gpu, HealthIssue, Host, Inventory, Link, MigInstance, Process, Reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from xml.etree.ElementTree import Element

    from gpualloc.inventory.topology import Topology

_SIZE = re.compile(r"(\d{1,12}) Mi?B")
_NUMBER = re.compile(r"\d{1,12}")
_MAX_CHARS = 64 << 20
"""A report of 16 GPUs is half a million."""

_COMPUTE_MODES: dict[str, ComputeMode] = {
    "default": "default",
    "exclusive_thread": "exclusive_process",  # its name before CUDA 8
    "exclusive_process": "exclusive_process",
    "prohibited": "prohibited",
}
_TOPO = "give what `nvidia-smi topo -m` prints with --topo FILE"
_ON_IT = "run `nvidia-smi -q -x` on the machine itself, as a user who may see its GPUs"
_LIST = "add what `nvidia-smi -L` prints to the file given with --topo"


@dataclass(slots=True)
class _Notes:
    """What the report does not tell: by fact, the indices of the GPUs concerned."""

    place: Place
    unknown: dict[str, list[int]] = field(default_factory=dict)
    warnings: list[Diagnostic] = field(default_factory=list)

    def warn(self, code: str, summary: str, hint: str | None = None) -> None:
        self.warnings.append(Diagnostic(code, summary, self.place, hint, "warning"))

    def all(self, count: int) -> tuple[Diagnostic, ...]:
        facts = [
            fact if len(indices) == count else f"{fact} of GPU {', '.join(map(str, indices))}"
            for fact, indices in self.unknown.items()
        ]
        if facts:
            hint = "gpualloc inventory --format json on the machine itself may know more"
            self.warn("smi-unknown", f"the report does not tell: {', '.join(facts)}", hint)
        return tuple(self.warnings)


def read(text: str, file: str, topo: tuple[str, str] | None = None) -> Reading:
    """Read a report; ``topo`` is the text of ``nvidia-smi topo -m`` and its file's name.

    Raises ``GpuallocError``: ``inventory-xml`` for text that is not XML, or XML that is not nvidia-smi's;
    ``inventory-no-gpu`` for a report of none; ``inventory-topo`` for a topology that is broken or another machine's.
    """
    root = _parse(text, file)
    matrix = None if topo is None else topology.parse(*topo)
    notes = _Notes(Place(file))
    elements = root.findall("gpu")
    attached = _text(root, "attached_gpus")
    if attached is not None and attached != str(len(elements)):
        summary = f"holds {len(elements)} of {attached} GPUs: their indices are counted as if there were no others"
        notes.warn("smi-part", summary, "let `nvidia-smi -q -x` print all, without -i")
    if topo is not None and matrix is not None and matrix.rows and set(matrix.rows) != set(range(len(elements))):
        summary = f"is of another machine: it has {len(matrix.rows)} GPUs, and {file} has {len(elements)}"
        raise fail("inventory-topo", summary, Place(topo[1]), "both must be printed by the same machine")
    gpus = [gpu for i, element in enumerate(elements) if (gpu := _gpu(element, i, matrix, notes)) is not None]
    if not gpus:
        raise fail("inventory-no-gpu", "the report holds no GPU that tells its UUID", Place(file), _ON_IT)
    _no_two(gpus, file)
    if len(gpus) > 1 and (matrix is None or not matrix.rows):
        notes.warn("smi-no-links", "how the GPUs are joined, and to which CPUs, is unknown", _TOPO)
    host = Host(
        name=Path(file).stem,
        driver=_text(root, "driver_version"),
        cuda=_text(root, "cuda_version"),
        gpus=tuple(gpus),
        links=_links(gpus, matrix),
    )
    return Reading(Inventory("smi", (host,)), notes.all(len(gpus)))


def _parse(text: str, file: str) -> Element:
    from xml.etree import ElementTree as ET  # noqa: PLC0415 - only this source needs it

    def broken(summary: str, line: int | None = None, column: int | None = None) -> GpuallocError:
        return fail("inventory-xml", summary, Place(file, line, column), "give the whole output of `nvidia-smi -q -x`")

    if len(text) > _MAX_CHARS:
        raise broken("too long to be a report of nvidia-smi")
    if "<!ENTITY" in text:
        # nvidia-smi defines none; a document that does can grow without bounds as it is read
        raise broken("defines entities: not a report of nvidia-smi")
    try:
        root = ET.fromstring(text.strip())  # noqa: S314 - entities are refused above; nothing outside is ever loaded
    except ET.ParseError as error:
        line, column = error.position
        skipped = text[: len(text) - len(text.lstrip())].count("\n")
        raise broken(f"not valid XML: {str(error).partition(':')[0]}", line + skipped, column + 1) from None
    if root.tag != "nvidia_smi_log":
        raise broken(f"XML, but not nvidia-smi's: its root is {root.tag}")
    return root


def _text(element: Element | None, path: str) -> str | None:
    """Return an element's text; None where it is missing, empty, or says that the fact cannot be had."""
    text = None if element is None else element.findtext(path)
    text = text.strip() if text is not None else ""
    return None if text.strip("[]").lower() in _NOT_TOLD else text


_NOT_TOLD = frozenset(
    {
        "",
        "n/a",
        "none",
        "err!",
        "not supported",
        "not found",
        "unknown error",
        "gpu is lost",
        "gpu requires reset",
        "insufficient permissions",
        "requested functionality has been deprecated",
    }
)


def _mib(element: Element | None, path: str) -> int | None:
    found = _SIZE.fullmatch(_text(element, path) or "")
    return int(found[1]) if found else None


def _number(element: Element | None, path: str) -> int | None:
    found = _NUMBER.fullmatch(_text(element, path) or "")
    return int(found[0]) if found else None


def _flag(element: Element | None, path: str) -> bool | None:
    return {"yes": True, "enabled": True, "no": False, "disabled": False}.get((_text(element, path) or "").lower())


def _gpu(element: Element, index: int, matrix: Topology | None, notes: _Notes) -> Gpu | None:
    uuid, address = _text(element, "uuid") or "", (element.get("id") or _text(element, "pci/pci_bus_id") or "").upper()
    if not GPU_UUID.fullmatch(uuid) or not PCI_BUS_ID.fullmatch(address):
        said = (element.findtext("uuid") or "nothing").strip()
        summary = f"GPU {index} is left out: its UUID and PCI address are not told ({said})"
        notes.warn("smi-gpu-left-out", summary, "save the report again; a GPU that has failed tells nothing of itself")
        return None
    row = matrix.rows.get(index) if matrix is not None else None
    name = _text(element, "product_name")
    total, reserved = _mib(element, "fb_memory_usage/total") or None, _mib(element, "fb_memory_usage/reserved")
    facts = {
        "memory_total_mib": total,
        "memory_reserved_mib": None if total and reserved and reserved > total else reserved,
        "memory_used_mib": _mib(element, "fb_memory_usage/used"),
    }
    version = capability(name or "", _text(element, "product_architecture"))
    display = _flag(element, "display_active")
    mode = _COMPUTE_MODES.get((_text(element, "compute_mode") or "").lower())
    told = {**facts, "name": name, "compute_capability": version, "display_active": display, "compute_mode": mode}
    if row is not None:
        told |= {"numa_node": row.numa_node, "cpu_affinity": row.cpu_affinity}
    for fact, value in told.items():
        if value is None:
            notes.unknown.setdefault(fact, []).append(index)
    return Gpu(
        uuid=uuid,
        index=index,
        name=name or "unknown model",
        pci_bus_id=address,
        **facts,
        compute_capability=version,
        numa_node=None if row is None else row.numa_node,
        cpu_affinity=None if row is None else row.cpu_affinity,
        display_active=display,
        compute_mode=mode,
        mig=_mig(element, index, uuid, matrix, notes),
        health=_health(element),
        processes=_processes(element),
    )


def _mig(
    element: Element, index: int, uuid: str, matrix: Topology | None, notes: _Notes
) -> tuple[MigInstance, ...] | None:
    if not _flag(element, "mig_mode/current_mig"):
        return None
    listed = {i.position: i for i in (matrix.instances.get(uuid, ()) if matrix is not None else ())}
    instances = []
    left_out = 0
    for device in element.findall("mig_devices/mig_device"):
        gi, ci = _number(device, "gpu_instance_id"), _number(device, "compute_instance_id")
        position = _number(device, "index")
        named = None if position is None else listed.get(position)
        if named is None or gi is None or ci is None:
            left_out += 1
            continue
        instances.append(MigInstance(named.uuid, gi, ci, named.profile, _mib(device, "fb_memory_usage/total") or None))
    if left_out:
        summary = f"{left_out} MIG instance{'' if left_out == 1 else 's'} of GPU {index} left out: not named here"
        notes.warn("smi-mig-left-out", summary, _LIST)
    return tuple(instances)


def _processes(element: Element) -> tuple[Process, ...]:
    found = {
        (pid, gi): Process(pid, _mib(info, "used_memory"), None, gi)
        for info in element.findall("processes/process_info")
        if (pid := _number(info, "pid"))
        for gi in [_number(info, "gpu_instance_id")]
    }
    return tuple(found[key] for key in sorted(found, key=lambda key: (key[0], -1 if key[1] is None else key[1])))


def _health(element: Element) -> tuple[HealthIssue, ...]:
    said = (element.findtext("fb_memory_usage/total") or "").strip().lower()
    found = health.issues(
        row_remap_pending=_flag(element, "remapped_rows/remapped_row_pending"),
        row_remap_failed=_flag(element, "remapped_rows/remapped_row_failure"),
        retired_pages_pending=_flag(element, "retired_pages/pending_retirement"),
        ecc_uncorrected=_uncorrected(element.find("ecc_errors/volatile")),
        recovery_action=_text(element, "gpu_recovery_action"),
        ecc_on=_flag(element, "ecc_mode/current_ecc"),
        slowdowns=_slowdowns(element),
    )
    dead = {"gpu is lost": health.GPU_LOST, "gpu requires reset": health.RESET_REQUIRED}.get(said)
    if dead is None and _flag(element, "gpu_reset_status/reset_required"):
        dead = health.RESET_REQUIRED
    return found if dead is None else (dead, *found)


def _slowdowns(element: Element) -> int:
    """Return why the clocks are lower than they might be, as the bits that NVML has for it."""
    bits = 0
    for group in ("clocks_event_reasons", "clocks_throttle_reasons"):  # the second before driver 535
        for name, bit in _SLOWDOWNS.items():
            if (_text(element, f"{group}/{group[:-1]}_{name}") or "").lower() == "active":
                bits |= bit
    return bits


_SLOWDOWNS = {
    "hw_slowdown": health.HW_SLOWDOWN,
    "sw_thermal_slowdown": health.SW_THERMAL,
    "hw_thermal_slowdown": health.HW_THERMAL,
    "hw_power_brake_slowdown": health.HW_POWER_BRAKE,
}


def _uncorrected(volatile: Element | None) -> int | None:
    """Add up the uncorrected errors: by memory since Turing, under double_bit (with a total of its own) before."""
    if volatile is None:
        return None
    total = _number(volatile, "double_bit/total")
    if total is not None:
        return total
    counts = [_number(volatile, child.tag) for child in volatile if "uncorrectable" in child.tag]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _links(gpus: Sequence[Gpu], matrix: Topology | None) -> tuple[Link, ...]:
    if matrix is None or not matrix.rows:
        return ()
    return tuple(
        Link(a.uuid, b.uuid, *topology.joined(matrix, a.index, b.index))
        for position, b in enumerate(gpus)
        for a in gpus[:position]
    )


def _no_two(gpus: Sequence[Gpu], file: str) -> None:
    seen: set[str] = set()
    for gpu in gpus:
        for uuid in (gpu.uuid, *(instance.uuid for instance in gpu.mig or ())):
            if uuid in seen:
                raise fail(
                    "inventory-duplicate",
                    f"{uuid} is there twice",
                    Place(file),
                    "print the report again: `nvidia-smi -q -x`",
                )
            seen.add(uuid)
