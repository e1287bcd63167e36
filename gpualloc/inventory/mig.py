"""The MIG instances of a GPU, from NVML."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from gpualloc.inventory.probe import MIB, Probe, QueryError, as_text
from gpualloc.model import MigInstance

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILE = re.compile(r"(?:\d+c\.)?\d+g\.\d+gb(?:[+-][\w.]+)*")
"""``1g.10gb``, ``1c.3g.40gb`` (a part of an instance's compute), ``1g.10gb+me`` (with media engines), ``-me``."""

_EIGHTHS = 8
"""NVIDIA's tools round an instance's share of the memory up to eighths to name it (go-nvlib, ``pkg/nvlib/device``)."""


def instances(probe: Probe, index: int, handle: Any, total_mib: int | None) -> tuple[MigInstance, ...] | None:
    """Return the compute instances of a GPU in NVML's order; None where MIG is off or the GPU has none.

    An instance whose UUID, ids or profile cannot be had is left out, and the reason noted in the probe.
    """
    nvml = probe.nvml
    absent = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    mode = probe.ask(index, "MIG mode", "nvmlDeviceGetMigMode", handle, quiet=absent)
    if mode is None or mode[0] != nvml.NVML_DEVICE_MIG_ENABLE:
        return None
    count = probe.ask(index, "MIG instances", "nvmlDeviceGetMaxMigDeviceCount", handle)
    return tuple(_instances(probe, index, handle, count or 0, total_mib))


def _instances(probe: Probe, index: int, handle: Any, count: int, total_mib: int | None) -> Iterator[MigInstance]:
    for position in range(count):
        query = "nvmlDeviceGetMigDeviceHandleByIndex"
        # not found: fewer instances than fit, or a gap where one was destroyed
        instance = probe.ask(index, "MIG instances", query, handle, position, quiet=(probe.nvml.NVML_ERROR_NOT_FOUND,))
        if instance is None:
            continue
        try:
            query = "nvmlDeviceGetUUID"
            uuid = as_text(probe.call(query, instance))
            query = "nvmlDeviceGetGpuInstanceId"
            gi = probe.call(query, instance)
            query = "nvmlDeviceGetComputeInstanceId"
            ci = probe.call(query, instance)
            memory = probe.ask(index, "memory of MIG instances", "nvmlDeviceGetMemoryInfo", instance)
            query = "nvmlDeviceGetAttributes"
            profile = _profile(probe, instance, total_mib)
        except QueryError as error:
            probe.fail(index, "MIG instances", query, error)
            continue
        yield MigInstance(uuid, gi, ci, profile, None if memory is None else memory.total // MIB or None)


def _profile(probe: Probe, instance: Any, total_mib: int | None) -> str:
    """Return the profile that an instance's name ends in, else the one its attributes make. Raises ``QueryError``."""
    try:
        found = PROFILE.search(as_text(probe.call("nvmlDeviceGetName", instance)))
    except QueryError:
        found = None
    if found is not None:
        return found[0]
    attributes = probe.call("nvmlDeviceGetAttributes", instance)
    return profile_name(
        attributes.computeInstanceSliceCount, attributes.gpuInstanceSliceCount, attributes.memorySizeMB, total_mib
    )


def profile_name(compute_slices: int, gpu_slices: int, memory_mib: int, total_mib: int | None) -> str:
    """Name a profile from what it has: slices of the GPU, slices of compute, and memory (of the GPU's) in MiB."""
    gib = math.ceil(memory_mib / 1024)
    if total_mib:
        share = math.ceil(memory_mib / total_mib * _EIGHTHS) / _EIGHTHS
        gib = round(share * math.ceil(total_mib / 1024))
    name = f"{gpu_slices}g.{gib}gb"
    return name if compute_slices == gpu_slices else f"{compute_slices}c.{name}"
