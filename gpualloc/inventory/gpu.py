"""The facts of one GPU, from NVML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpualloc.inventory import health, machine, mig
from gpualloc.inventory.cpulist import bits, ranges
from gpualloc.inventory.probe import MIB, Probe, QueryError, as_text
from gpualloc.model import ComputeMode, Gpu, HealthIssue, Process

if TYPE_CHECKING:
    from pathlib import Path

_UNKNOWN_NAME = "unknown model"

_CPU_WORDS = 64
"""Room for 4096 CPUs: NVML fills as many 64-bit words as it is given."""
_NODE_WORDS = 16

_NO_GPU_INSTANCE = 0xFFFFFFFF

_RECOVERY = {
    0: "None",
    1: "Reset",
    2: "Reboot",
    3: "Drain P2P",
    4: "Drain and Reset",
    5: "Recover IMEX Domain",
    6: "Bus Reset",
    7: "System Reboot",
}
"""``nvmlDeviceGpuRecoveryAction_t`` of nvml.h, in the words of nvidia-smi."""


def read_gpu(probe: Probe, index: int, handle: Any, sys: Path) -> Gpu:
    """Read a GPU. What cannot be had is unknown and noted in the probe; processes have no containers yet.

    Raises ``QueryError`` where its UUID or its PCI address cannot be had: it could be neither pinned nor put in order.
    """
    uuid = as_text(probe.call("nvmlDeviceGetUUID", handle))
    address = as_text(probe.call("nvmlDeviceGetPciInfo", handle).busId)
    name = probe.ask(index, "name", "nvmlDeviceGetName", handle)
    total, reserved, used = _memory(probe, index, handle)
    capability = probe.ask(index, "compute_capability", "nvmlDeviceGetCudaComputeCapability", handle)
    display = probe.ask(index, "display_active", "nvmlDeviceGetDisplayActive", handle)
    cpus = probe.ask(index, "cpu_affinity", "nvmlDeviceGetCpuAffinity", handle, _CPU_WORDS)
    node = _numa_node(probe, index, handle, address, sys)
    mode = _compute_mode(probe, index, handle)
    instances = mig.instances(probe, index, handle, total)
    processes = _processes(probe, index, handle)
    found = _health(probe, index, handle)
    if index in probe.dead:
        found = (probe.dead[index], *found)
    return Gpu(
        uuid=uuid,
        index=index,
        name=as_text(name) if name else _UNKNOWN_NAME,
        pci_bus_id=address,
        memory_total_mib=total,
        memory_reserved_mib=reserved,
        memory_used_mib=used,
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
        numa_node=node,
        cpu_affinity=None if cpus is None else ranges(bits(cpus)) or None,
        display_active=None if display is None else display == probe.nvml.NVML_FEATURE_ENABLED,
        compute_mode=mode,
        mig=instances,
        health=found,
        processes=processes,
    )


def _memory(probe: Probe, index: int, handle: Any) -> tuple[int | None, int | None, int | None]:
    """Return total, reserved and used memory in MiB.

    Version 1 of the query, all that drivers before 510 have, counts what driver and firmware reserve as used: the
    reserve is unknown then, and memory in use includes it. Either way total less used less reserved is what is free.
    """
    query = "nvmlDeviceGetMemoryInfo"
    try:
        info = probe.call(query, handle, version=probe.nvml.nvmlMemory_v2)
    except QueryError as error:
        info = probe.ask(index, "memory", query, handle)
        if info is None:
            return None, None, None
        probe.note(index, "memory_reserved_mib", f"{query}_v2", error.reason)
        return info.total // MIB or None, None, info.used // MIB
    return info.total // MIB or None, info.reserved // MIB, info.used // MIB


def _numa_node(probe: Probe, index: int, handle: Any, address: str, sys: Path) -> int | None:
    """Return the NUMA node nearest to the GPU, as ``nvidia-smi topo -m`` has it under NUMA Affinity.

    ``nvmlDeviceGetNumaNodeId`` is asked second: it names the node that a GPU's own memory makes up, on the machines
    (Grace Hopper) where there is one.
    """
    if index in probe.dead:
        return None
    query, reason = "nvmlDeviceGetMemoryAffinity", "several nodes, or none"
    try:
        nodes = bits(probe.call(query, handle, _NODE_WORDS, probe.nvml.NVML_AFFINITY_SCOPE_NODE))
        if len(nodes) == 1:
            return nodes[0]
    except QueryError as error:
        reason = error.reason
    try:
        node = probe.call("nvmlDeviceGetNumaNodeId", handle)
    except QueryError:  # the usual answer is that it is not supported
        node = -1
    if node >= 0:
        return int(node)
    found = machine.numa_node(address, sys)
    if found is None:
        probe.note(index, "numa_node", query, reason)
    return found


def _compute_mode(probe: Probe, index: int, handle: Any) -> ComputeMode | None:
    mode = probe.ask(index, "compute_mode", "nvmlDeviceGetComputeMode", handle)
    if mode is None:
        return None
    nvml = probe.nvml
    modes: dict[int, ComputeMode] = {
        nvml.NVML_COMPUTEMODE_DEFAULT: "default",
        nvml.NVML_COMPUTEMODE_EXCLUSIVE_THREAD: "exclusive_process",  # its name before CUDA 8
        nvml.NVML_COMPUTEMODE_PROHIBITED: "prohibited",
        nvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS: "exclusive_process",
    }
    if mode not in modes:
        probe.note(index, "compute_mode", "nvmlDeviceGetComputeMode", f"mode {mode}, which is not known")
    return modes.get(mode)


def _processes(probe: Probe, index: int, handle: Any) -> tuple[Process, ...]:
    """Return what holds the GPU, by pid: a process that both computes and draws is in two of NVML's lists."""
    nvml = probe.nvml
    absent = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    held: dict[tuple[int, int | None], int | None] = {}
    for kind, quiet in (("Compute", ()), ("Graphics", absent), ("MPSCompute", absent)):
        entries = _running(probe, index, handle, f"nvmlDeviceGet{kind}RunningProcesses", quiet)
        for entry in entries or ():
            instance = None if entry.gpuInstanceId == _NO_GPU_INSTANCE else int(entry.gpuInstanceId)
            used = None if entry.usedGpuMemory is None else entry.usedGpuMemory // MIB
            key = (int(entry.pid), instance)
            held[key] = _larger(held.get(key), used)
    return tuple(Process(pid, used, None, gi) for (pid, gi), used in sorted(held.items(), key=_by_pid))


def _running(probe: Probe, index: int, handle: Any, query: str, quiet: tuple[int, ...]) -> Any:
    if index in probe.dead:
        return None
    try:
        return probe.call(f"{query}_v3", handle)
    except QueryError as error:
        if error.code == probe.nvml.NVML_ERROR_FUNCTION_NOT_FOUND:  # drivers before 510 have the version before
            return probe.ask(index, "processes", f"{query}_v2", handle, quiet=quiet)
        if error.code not in quiet:
            probe.fail(index, "processes", query, error)
        return None


def _by_pid(item: tuple[tuple[int, int | None], int | None]) -> tuple[int, int]:
    (pid, gi), _ = item
    return pid, -1 if gi is None else gi


def _larger(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else max(a, b)


def _health(probe: Probe, index: int, handle: Any) -> tuple[HealthIssue, ...]:
    nvml = probe.nvml
    absent = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND)

    def ask(query: str, *args: int) -> Any:
        return probe.ask(index, "health", query, handle, *args, quiet=absent)

    rows = ask("nvmlDeviceGetRemappedRows")
    pages = ask("nvmlDeviceGetRetiredPagesPendingStatus")
    ecc = ask("nvmlDeviceGetTotalEccErrors", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
    return health.issues(
        row_remap_pending=None if rows is None else bool(rows[2]),
        row_remap_failed=None if rows is None else bool(rows[3]),
        retired_pages_pending=None if pages is None else pages == nvml.NVML_FEATURE_ENABLED,
        ecc_uncorrected=ecc,
        recovery_action=_recovery_action(probe, index, handle),
        ecc_on=_ecc_on(probe, index, handle, absent),
        slowdowns=_slowdowns(probe, index, handle, absent),
    )


def _ecc_on(probe: Probe, index: int, handle: Any, absent: tuple[int, ...]) -> bool | None:
    """Tell whether ECC is on now, whatever it will be after the next reset; None for a model without it."""
    modes = probe.ask(index, "health", "nvmlDeviceGetEccMode", handle, quiet=absent)
    return None if modes is None else bool(modes[0] == probe.nvml.NVML_FEATURE_ENABLED)


def _slowdowns(probe: Probe, index: int, handle: Any, absent: tuple[int, ...]) -> int | None:
    """Return why the clocks are lower than they might be, as bits."""
    for query in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
        # the second is the name that drivers before 535 know it by
        reasons = probe.ask(index, "health", query, handle, quiet=absent)
        if reasons is not None:
            return int(reasons)
    return None


def _recovery_action(probe: Probe, index: int, handle: Any) -> str | None:
    """Return what the driver (since 560) asks to be done about this GPU."""
    if index in probe.dead:
        return None
    nvml = probe.nvml
    try:
        (field,) = probe.call("nvmlDeviceGetFieldValues", handle, [nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    except QueryError:
        return None
    return _RECOVERY.get(field.value.uiVal) if field.nvmlReturn == nvml.NVML_SUCCESS else None
