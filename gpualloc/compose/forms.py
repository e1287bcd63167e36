"""Every way in which a compose file asks for GPUs, read from a service's data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gpualloc.errors import GpuallocError, fail
from gpualloc.model import GpuCount
from gpualloc.policy.values import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpualloc.compose.project import Service

Kind = Literal["devices", "gpus", "runtime", "cdi"]
Path = tuple["str | int", ...]

DEVICES: Path = ("deploy", "resources", "reservations", "devices")
CDI_PREFIX = "nvidia.com/gpu="

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


def forms_of(service: Service, data: dict[str, Any]) -> tuple[Form, ...]:
    """Return every way in which a service's data asks for NVIDIA GPUs.

    Raises GpuallocError (``request``) for what Compose refuses.
    """
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
        raise fail(
            "request", f"{service.name}: devices must be a list", service.place(*DEVICES), "begin each with a dash"
        )
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
        count = value if isinstance(value, int) and value > 0 else 1
        hint = f"write gpus: [{{count: {count}}}], or gpus: all for every GPU"
        raise fail("request", f"{service.name}: gpus is {shown(value)}", service.place("gpus"), hint)
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
    _check_keys(entry, kind, bad)
    capabilities = entry.get("capabilities")
    driver = entry.get("driver") or None
    ids = _device_ids(entry, bad)
    if not _is_ours(driver, capabilities or [], kind, ids):
        return None
    if ids is None:
        count = _count(entry.get("count"), bad)
        return None if count.max == 0 else Form(kind, path, count, None, (), driver)
    if entry.get("count") is not None:
        raise bad("count and device_ids exclude each other", "Compose refuses this: keep one of them", "device_ids")
    return _named(kind, path, ids, driver, bad)


def _named(
    kind: Kind, path: Path, ids: list[str], driver: str | None, bad: Callable[..., GpuallocError]
) -> Form | None:
    """Read the ids of a device request; each may hold several, split at commas."""
    names = tuple(i.removeprefix(CDI_PREFIX) for text in ids for i in text.split(","))
    if not names:
        return None
    if any(not name for name in names):
        raise bad("an entry of device_ids is empty", "name a GPU, or drop the entry", "device_ids")
    if any(name == "all" for name in names):
        return Form(kind, path, ALL, None, tuple(ids), driver)
    if len(set(names)) < len(names):
        raise bad("device_ids names a device twice", "drop one of the two", "device_ids")
    return Form(kind, path, GpuCount(len(names), len(names)), names, tuple(ids), driver)


def _check_keys(entry: dict[str, Any], kind: Kind, bad: Callable[..., GpuallocError]) -> None:
    unknown = next((k for k in entry if k not in _ENTRY_KEYS and not k.startswith("x-")), None)
    if unknown is not None:
        raise bad(
            f"a device request has no key {shown(unknown)}", f"its keys are {', '.join(sorted(_ENTRY_KEYS))}", unknown
        )
    if kind == "devices" and not isinstance(entry.get("capabilities"), list):
        raise bad("a device request needs capabilities, a list", "write capabilities: [gpu]", "capabilities")


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
        raise bad(
            f"device_ids must hold strings, not {shown(wrong)}", f'put quotes around it: ["{wrong}"]', "device_ids"
        )
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
        raise bad(f"count is {shown(value)}", "write a whole number, or all", "count")
    return GpuCount(number, number)


def _runtime(data: dict[str, Any]) -> Iterator[Form]:
    if data.get("runtime") != "nvidia":
        return
    path: Path = ("environment", "NVIDIA_VISIBLE_DEVICES")
    environment = data.get("environment") or {}
    value = environment.get("NVIDIA_VISIBLE_DEVICES")
    # A list with "all" in it means all, and naming a device twice gives it once (libnvidia-container, select_devices).
    ids = tuple(dict.fromkeys(i for i in ("all" if value is None else value).split(",") if i))
    if "all" in ids:
        yield Form("runtime", path, ALL, None, (value,) if value else (), None)
    elif value is not None and value not in _NO_GPU:
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
            raise fail(
                "request", f"{service.name}: the CDI name ends at =", service.place(*path), f"write {CDI_PREFIX}0"
            )
        if device == "all":
            yield Form("cdi", path, ALL, None, (name,), None)
        else:
            yield Form("cdi", path, GpuCount(1, 1), (device,), (name,), None)


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
