"""Taking a service's own requests for GPUs out: the plan answers them, in words that Swarm has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import at
from gpualloc.compose.forms import CDI_PREFIX, DEVICES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpualloc.compose.forms import Form
    from gpualloc.compose.swarm.notes import Notes

_RESERVED = ".".join(map(str, DEVICES))


def without_requests(
    name: str, data: dict[str, Any], forms: Iterable[Form], answer: str, notes: Notes
) -> dict[str, Any]:
    """Return a service's data without the requests that ``forms`` stand for. ``answer``: what stands there instead."""
    kinds = {form.kind for form in forms}
    result = dict(data)
    told = f"becomes {answer}"
    if "devices" in kinds:
        result = _without_devices(name, result, [f.path[-1] for f in forms if f.kind == "devices"], notes)
        notes.translated(name, _RESERVED, told)
    if "gpus" in kinds:
        del result["gpus"]
        notes.translated(name, "gpus", told)
    if "cdi" in kinds:
        result["devices"] = [item for item in result["devices"] if not _is_gpu(item)]
        if not result["devices"]:
            del result["devices"]
        notes.translated(name, "devices", told)
    if result.get("runtime") == "nvidia":
        del result["runtime"]
        notes.translated(name, "runtime", "is the node's: nvidia must be its default-runtime")
    if "x-gpualloc" in result:
        del result["x-gpualloc"]
        notes.translated(name, "x-gpualloc", told)
    return result


def _is_gpu(item: Any) -> bool:
    name = item.get("source") if isinstance(item, dict) else item
    return str(name).startswith(CDI_PREFIX)


def _without_devices(name: str, data: dict[str, Any], ours: list[int | str], notes: Notes) -> dict[str, Any]:
    """Take the device list away; entries that are no GPU's are noted as lost."""
    for number, entry in enumerate(at(data, DEVICES) or ()):
        if number not in ours:
            driver = entry.get("driver") if isinstance(entry, dict) else None
            notes.left_out(name, _RESERVED, f"Swarm gives a task no devices of driver {driver}")
    resources = dict(data["deploy"]["resources"])
    resources["reservations"] = {k: v for k, v in resources["reservations"].items() if k != "devices"}
    return data | {"deploy": data["deploy"] | {"resources": resources}}
