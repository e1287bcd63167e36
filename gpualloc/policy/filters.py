"""Which devices may not be handed out at all, and which may not be given to one request.

A filter is a function and one line in ``POLICY_FILTERS`` or ``REQUEST_FILTERS``. It returns None where the device
passes, else one sentence with the numbers that stopped it. Unknown facts fail a filter that needs them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import TYPE_CHECKING

from gpualloc.errors import Diagnostic, GpuallocError, fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gpualloc.model import Gpu, MigInstance, Policy, Request


@dataclass(frozen=True, slots=True)
class Device:
    """What can be handed out: a GPU, or a MIG instance of one, with what the filters need to know about it.

    ``position`` orders all devices of an inventory: hosts by name, then PCI bus id, then MIG instance. ``usable_mib``
    is (total - reserved) x (1 - headroom); ``foreign_mib`` is memory held by something outside the project,
    ``holders`` names the containers that hold the device. ``mig_only`` says that its host has no whole GPU to give.
    """

    position: int
    host: str
    gpu: Gpu
    mig: MigInstance | None
    total_mib: int | None
    usable_mib: Fraction | None
    foreign_mib: int
    holders: tuple[str, ...]
    busy: bool
    mig_only: bool

    @property
    def uuid(self) -> str:
        """The UUID of the instance, or of the GPU."""
        return self.mig.uuid if self.mig else self.gpu.uuid

    @property
    def free_mib(self) -> Fraction | None:
        """What can be given out when nothing of this project is here; None where the memory is unknown."""
        return None if self.usable_mib is None else self.usable_mib - self.foreign_mib


@dataclass(frozen=True, slots=True)
class Demand:
    """A request as the policy reads it.

    A worker that is not ``exclusive`` takes ``memory_mib`` of a device, or the fraction ``share`` of what is usable
    on it. ``needs_mib`` is the filter: what the device must be able to give out. ``by_memory``: what it takes is
    memory, so that the device's must be known; not so for an exclusive worker, or for one of a number of equal parts.
    """

    request: Request
    exclusive: bool
    memory_mib: int | None
    share: Fraction | None
    needs_mib: int | None
    by_memory: bool


def gib(mib: Fraction | float) -> str:
    """Return an amount of memory as people write it: ``512 MiB``, ``12 GiB``, ``43.5 GiB`` (never rounded up)."""
    whole = int(mib)
    if abs(whole) < 1024:
        return f"{whole} MiB"
    tenths = whole * 10 // 1024
    return f"{tenths // 10} GiB" if tenths % 10 == 0 else f"{tenths / 10:.1f} GiB"


# --------------------------------------------------------------------------------------------------------------------
# What the policy excludes for everybody


def _excluded(device: Device, policy: Policy) -> str | None:
    for pattern in policy.exclude.gpus:
        if names_gpu(pattern, device.gpu, device.mig):
            return f"excluded by the policy ({pattern})"
    return None


def _unhealthy(device: Device, policy: Policy) -> str | None:
    if not policy.exclude.unhealthy:
        return None
    fatal = [issue.code for issue in device.gpu.health if issue.fatal]
    return f"unhealthy: {', '.join(fatal)}" if fatal else None


def _busy(device: Device, policy: Policy) -> str | None:
    return busy_detail(device) if policy.exclude.busy and device.busy else None


def _display(device: Device, policy: Policy) -> str | None:
    return "drives a display" if policy.exclude.display and device.gpu.display_active else None


def _prohibited(device: Device, policy: Policy) -> str | None:  # noqa: ARG001 - one signature for every filter
    return "its compute mode is Prohibited" if device.gpu.compute_mode == "prohibited" else None


POLICY_FILTERS: tuple[tuple[str, Callable[[Device, Policy], str | None]], ...] = (
    ("excluded", _excluded),
    ("compute_mode", _prohibited),
    ("unhealthy", _unhealthy),
    ("busy", _busy),
    ("display", _display),
)
"""What takes a device away from every worker, in the order in which a reason is given."""


def refused_by_policy(device: Device, policy: Policy) -> tuple[str, str] | None:
    """Return the code and detail of the first filter that takes the device away from everybody, else None."""
    for code, check in POLICY_FILTERS:
        detail = check(device, policy)
        if detail is not None:
            return code, detail
    return None


# --------------------------------------------------------------------------------------------------------------------
# What one request excludes


def _host(device: Device, demand: Demand) -> str | None:
    glob = demand.request.host
    return None if glob is None or fnmatchcase(device.host, glob) else f"host {device.host} does not match {glob}"


def _kind(device: Device, demand: Demand) -> str | None:
    profile = demand.request.mig_profile
    if profile is None:
        return "is a MIG instance, and whole GPUs are asked for" if device.mig and not device.mig_only else None
    if device.mig is None:
        return f"is a whole GPU, and {profile} is asked for"
    return None if device.mig.profile == profile else f"is {device.mig.profile}, and {profile} is asked for"


def _model(device: Device, demand: Demand) -> str | None:
    glob = demand.request.model
    return None if glob is None or fnmatchcase(device.gpu.name, glob) else f"{device.gpu.name} does not match {glob}"


def _min_memory(device: Device, demand: Demand) -> str | None:
    wanted = demand.request.min_memory_mib
    if wanted is None:
        return None
    if device.total_mib is None:
        return f"wants a device of {gib(wanted)}, its memory is unknown"
    return None if device.total_mib >= wanted else f"wants a device of {gib(wanted)}, it has {gib(device.total_mib)}"


def _compute_capability(device: Device, demand: Demand) -> str | None:
    wanted = demand.request.compute_capability
    if wanted is None:
        return None
    has = device.gpu.compute_capability
    if has is None:
        return f"wants compute capability {wanted}, its own is unknown"
    return None if capability_matches(has, wanted) else f"wants compute capability {wanted}, it has {has}"


def _memory(device: Device, demand: Demand) -> str | None:
    free = device.free_mib
    if free is None or device.usable_mib is None:
        if demand.needs_mib is not None:
            return f"needs {gib(demand.needs_mib)}, its memory is unknown"
        return "shares by memory, and its memory is unknown" if demand.by_memory else None
    needs = Fraction(demand.needs_mib or 0)
    if demand.share is not None:
        needs = max(needs, device.usable_mib * demand.share)
    return None if free >= needs or not needs else f"needs {gib(needs)}, {gib(max(free, Fraction(0)))} free"


def _held(device: Device, demand: Demand) -> str | None:
    return busy_detail(device) if demand.exclusive and device.busy else None


def _one_instance(device: Device, demand: Demand) -> str | None:
    wants = demand.request.gpus.min
    # CUDA uses one MIG instance per process
    return f"wants {wants} devices, and a worker can use one MIG instance" if device.mig and wants > 1 else None


REQUEST_FILTERS: tuple[tuple[str, Callable[[Device, Demand], str | None]], ...] = (
    ("host", _host),
    ("kind", _kind),
    ("model", _model),
    ("compute_capability", _compute_capability),
    ("min_memory", _min_memory),
    ("memory", _memory),
    ("mig_count", _one_instance),
    ("busy", _held),
)
"""What takes a device away from the workers of one request, in the order in which a reason is given."""


def refused_by_request(device: Device, demand: Demand) -> tuple[str, str] | None:
    """Return the code and detail of the first filter that takes the device away from this request, else None."""
    for code, check in REQUEST_FILTERS:
        detail = check(device, demand)
        if detail is not None:
            return code, detail
    return None


# --------------------------------------------------------------------------------------------------------------------
# Helpers


def busy_detail(device: Device) -> str:
    """Return who or what holds a busy device."""
    held = f"held by {', '.join(device.holders)}" if device.holders else "in use outside this project"
    return f"{held}, {gib(device.foreign_mib)} used" if device.foreign_mib else held


def names_gpu(pattern: str, gpu: Gpu, mig: MigInstance | None) -> bool:
    """Tell whether an entry of ``exclude.gpus`` (a UUID, ``index:N``, ``name:GLOB``) names this device."""
    if pattern.startswith("name:"):
        return fnmatchcase(gpu.name, pattern[5:])
    if pattern.startswith("index:"):
        return pattern[6:].strip() == str(gpu.index)
    return pattern == gpu.uuid or (mig is not None and pattern == mig.uuid)


def check_exclusions(patterns: Iterable[str], gpus: Iterable[Gpu], option: str) -> None:
    """Raise ``unknown-gpu`` for every UUID or index that no GPU has; ``name:`` globs may match nothing."""
    ids: set[str] = set()
    for gpu in gpus:
        ids |= {gpu.uuid, f"index:{gpu.index}", *(instance.uuid for instance in gpu.mig or ())}
    unknown = [p for p in patterns if not p.startswith("name:") and p.replace(" ", "") not in ids]
    if unknown:
        raise GpuallocError(
            *(
                Diagnostic(
                    "unknown-gpu",
                    f"{option}: no GPU is called {pattern}",
                    hint="`gpualloc inventory` lists the GPUs; write a full UUID, index:N or name:GLOB",
                )
                for pattern in unknown
            )
        )


_CLAUSE = re.compile(r"\s*(>=|<=|==|=|!=|>|<)?\s*(\d+)(?:\.(\d+))?\s*")


def capability_matches(has: str, wanted: str) -> bool:
    """Tell whether a compute capability such as ``8.9`` satisfies ``>=8.0``, ``==9.0`` or ``>=8.0,<9``.

    A bare number means exactly that. Raises ``compute-capability`` for a condition that cannot be read.
    """
    major, _, minor = has.partition(".")
    mine = (int(major), int(minor or 0))
    for clause in wanted.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise fail(
                "compute-capability",
                f"compute_capability {wanted!r} cannot be read",
                hint="write a number with a comparison, such as '>=8.0'",
            )
        theirs = (int(match[2]), int(match[3] or 0))
        if not _COMPARE[match[1] or "=="](mine, theirs):
            return False
    return True


_COMPARE: dict[str, Callable[[tuple[int, int], tuple[int, int]], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    "==": lambda a, b: a == b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
