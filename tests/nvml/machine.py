"""Descriptions of machines for the fake NVML: written by hand, or made from an inventory document."""

from __future__ import annotations

import copy
import re
from enum import IntEnum
from typing import Any

JsonMap = dict[str, Any]
MIB = 1 << 20
SWITCH = "FFFFFFFF:FF:FF.0"
"""The PCI address that NVML gives for an NVSwitch."""


class Code(IntEnum):
    """The error codes of NVML that queries are commonly made to fail with."""

    UNINITIALIZED = 1
    INVALID_ARGUMENT = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    INSUFFICIENT_SIZE = 7
    DRIVER_NOT_LOADED = 9
    TIMEOUT = 10
    LIBRARY_NOT_FOUND = 12
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    LIB_RM_VERSION_MISMATCH = 18
    ARGUMENT_VERSION_MISMATCH = 25
    GPU_NOT_FOUND = 28
    UNKNOWN = 999


class Event(IntEnum):
    """Event types of NVML, as bits."""

    SINGLE_BIT_ECC = 0x1
    DOUBLE_BIT_ECC = 0x2
    XID = 0x8
    GPU_UNAVAILABLE = 0x4000


PCIE_LEVELS = {"PIX": 10, "PXB": 20, "PHB": 30, "NODE": 40, "SYS": 50}
COMPUTE_MODES = {"default": 0, "prohibited": 2, "exclusive_process": 3}
EVENT_TYPES = 0x9F  # what an A100 supports

# By compute capability: how many NVLinks a GPU has, and the version that NVML reports for them.
NVLINKS = {"6.0": (4, 1), "7.0": (6, 2), "7.5": (2, 3), "8.0": (12, 4), "8.6": (4, 5), "9.0": (18, 6), "10.0": (18, 7)}
MOST_NVLINKS = 18
# Those that have ECC memory: with row remapping, and MIG; before that, with page retirement.
DATACENTER = ("8.0", "9.0", "10.0", "10.3")
RETIRES_PAGES = ("6.0", "7.0")

INSTANCES = {"gpuInstanceId": "GpuInstanceId", "computeInstanceId": "ComputeInstanceId"}
PROFILE = re.compile(r"(?:(?P<compute>\d+)c\.)?(?P<slices>\d+)g\.\d+gb")


class Machine:
    """A host for the fake NVML to answer for. ``description`` is what the library reads; change it as you like.

    Its GPUs are maps of answers keyed by query: ``machine.gpu(0)["PowerUsage"] = 71466``. ``tests/nvml/library/fake.h``
    has the rules, and the sources beside it the form of each answer.
    """

    def __init__(self, description: JsonMap | None = None) -> None:
        self.description: JsonMap = copy.deepcopy(description) if description is not None else {"gpus": []}

    @classmethod
    def from_inventory(cls, document: JsonMap, host: int = 0, *, nvswitch: bool | None = None) -> Machine:
        """Describe a host of an inventory document, so that reading it through NVML gives the same facts.

        ``nvswitch``: whether NVLinks go to switches; if not said, they do where the GPUs have too few links to be
        joined directly. Raises ``ValueError`` for what NVML has no way to say.
        """
        facts = document["hosts"][host]
        machine = cls()
        if facts["driver"] is not None:
            machine.description["DriverVersion"] = facts["driver"]
        if facts["cuda"] is not None:
            major, minor = map(int, facts["cuda"].split("."))
            machine.description["CudaDriverVersion"] = major * 1000 + minor * 10
            if facts["driver"] is not None:
                machine.description["NVMLVersion"] = f"{major}.{facts['driver']}"
        gpus = sorted(facts["gpus"], key=lambda gpu: int(gpu["index"]))
        if [gpu["index"] for gpu in gpus] != list(range(len(gpus))):
            raise ValueError("NVML numbers GPUs from 0 without gaps")
        machine.description["gpus"] = [describe_gpu(gpu) for gpu in gpus]
        machine._join(facts["links"], {gpu["uuid"]: gpu["compute_capability"] for gpu in gpus}, nvswitch=nvswitch)
        for gpu in gpus:
            for issue in gpu["health"]:
                machine.make_unhealthy(gpu["uuid"], issue["code"])
        return machine

    def gpu(self, which: int | str) -> JsonMap:
        """Return the answers of a GPU or a MIG device, by index or UUID."""
        gpus: list[JsonMap] = self.description["gpus"]
        if isinstance(which, int):
            return gpus[which]
        parts: list[JsonMap] = [part for gpu in gpus for part in gpu.get("mig") or () if part]
        return next(device for device in [*gpus, *parts] if device["UUID"] == which)

    def fail(self, query: str, code: int, gpu: int | str | None = None) -> Machine:
        """Make a query fail: for one device, or everywhere. A name without its version means every version."""
        self._where(gpu).setdefault("fail", {})[query] = int(code)
        return self

    def hang(self, query: str, seconds: float, gpu: int | str | None = None) -> Machine:
        """Make a query take ``seconds`` before it answers."""
        self._where(gpu).setdefault("hang", {})[query] = seconds
        return self

    def lose(self, gpu: int | str, *, handle: bool = True) -> Machine:
        """Let a GPU fall off the bus: every query on it fails, and with ``handle`` so does asking for its handle."""
        self.gpu(gpu)["lost"] = True if handle else "queries"
        return self

    def remove(self, gpu: int | str) -> Machine:
        """Take a GPU out of the machine; those after it move up."""
        self.description["gpus"].remove(self.gpu(gpu))
        return self

    def start(self, pid: int, device: int | str, used_mib: int | None, kind: str = "Compute") -> Machine:
        """Let a process hold a GPU or a MIG device; ``kind``: Compute, Graphics or MPSCompute.

        What it uses counts as memory in use; None is a process whose memory the driver hides.
        """
        facts = self.gpu(device)
        gpu = next(gpu for gpu in self.description["gpus"] if gpu is facts or facts in (gpu.get("mig") or ()))
        used = None if used_mib is None else used_mib * MIB
        instances = {key: facts.get(name) for key, name in INSTANCES.items()}
        gpu.setdefault(f"{kind}RunningProcesses", []).append({"pid": pid, "usedGpuMemory": used} | instances)
        for holder in [gpu] if gpu is facts else [gpu, facts]:
            if holder.get("MemoryInfo"):
                holder["MemoryInfo"]["used"] = holder["MemoryInfo"].get("used", 0) + (used or 0)
        return self

    def happen(self, gpu: int | str, data: int = 0, event: Event = Event.XID) -> Machine:
        """Let an event happen; ``data`` of an Xid is its number."""
        told = {"uuid": self.gpu(gpu)["UUID"], "type": int(event), "data": data}
        self.description.setdefault("events", []).append(told)
        return self

    def make_unhealthy(self, gpu: int | str, code: str) -> Machine:
        """Give the answers behind a health code of the inventory."""
        if code not in UNHEALTHY:
            raise ValueError(f"no NVML answer stands for the health code {code!r}")
        answers, facts = copy.deepcopy(UNHEALTHY[code]), self.gpu(gpu)
        for key in ("fail", "FieldValues"):
            if key in answers:
                answers[key] = facts.get(key, {}) | answers[key]
        facts.update(answers)
        return self

    def _where(self, gpu: int | str | None) -> JsonMap:
        return self.description if gpu is None else self.gpu(gpu)

    def _join(self, links: list[JsonMap], capabilities: dict[str, str | None], *, nvswitch: bool | None) -> None:
        for link in links:
            if link["pcie"] is not None:
                ancestors = self.gpu(link["a"]).setdefault("TopologyCommonAncestor", {})
                ancestors[link["b"]] = PCIE_LEVELS[link["pcie"]]
        if any(link["nvlink"] is None for link in links):
            raise ValueError("NVML has no answer for an unknown number of NVLinks: make nvmlDeviceGetNvLinkState fail")
        joined: dict[str, list[tuple[str, int]]] = {uuid: [] for uuid in capabilities}
        for link in links:
            if link["nvlink"]:
                joined[link["a"]].append((link["b"], link["nvlink"]))
                joined[link["b"]].append((link["a"], link["nvlink"]))
        for uuid, peers in joined.items():
            has, version = NVLINKS.get(capabilities[uuid] or "", (0, None))
            counts = [count for _, count in peers]
            if sum(counts) > (has or MOST_NVLINKS) if nvswitch is None else nvswitch:
                if len(set(counts)) > 1:
                    raise ValueError("through NVSwitches a GPU has as many NVLinks to one GPU as to any other")
                ends = [nvlink(SWITCH, 2, version)] * max(counts, default=0)
            else:
                ends = [nvlink(self.gpu(peer)["PciInfo"]["busId"], 0, version) for peer, k in peers for _ in range(k)]
            idle: JsonMap = {"active": False, "version": version}
            ends += [idle] * (has - len(ends))
            if ends:
                self.gpu(uuid)["nvlinks"] = copy.deepcopy(ends)


NO_ERRORS = {"dram": 0, "sram": 0}


def ecc_errors(count: int | dict[str, int]) -> JsonMap:
    """Describe ECC errors: as many of either kind, since the last reset and ever."""
    return {kind: {"volatile": count, "aggregate": count} for kind in ("corrected", "uncorrected")}


UNHEALTHY: dict[str, JsonMap] = {
    "row_remap_pending": {"RemappedRows": [0, 1, 1, 0]},
    "row_remap_failed": {"RemappedRows": [0, 0, 0, 1]},
    "retired_pages_pending": {"RetiredPagesPendingStatus": 1},
    "ecc_uncorrected": {"TotalEccErrors": ecc_errors(0) | {"uncorrected": {"volatile": 1, "aggregate": 1}}},
    "recovery_action": {"FieldValues": {"230": 1}},  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION: reset the GPU
    "reset_required": {"fail": {"nvmlDeviceGetRemappedRows": int(Code.RESET_REQUIRED)}},
    "gpu_lost": {"lost": "queries"},
}
"""The answers behind health codes of the inventory."""


def nvlink(bus_id: str, remote_type: int, version: int | None) -> JsonMap:
    """Describe an active NVLink to the device at ``bus_id``; ``remote_type`` 0 is a GPU, 2 a switch."""
    return {
        "active": True,
        "version": version,
        "remote": {"type": remote_type, "busId": bus_id},
        "capabilities": [0, 1, 2, 3, 5],
    }


def mask(numbers: str) -> list[int]:
    """Turn ``0-3,64`` into 64-bit words, least first: ``[15, 1]``."""
    bits = 0
    for part in numbers.split(","):
        first, _, last = part.partition("-")
        for bit in range(int(first), int(last or first) + 1):
            bits |= 1 << bit
    return [bits >> shift & (1 << 64) - 1 for shift in range(0, max(bits.bit_length(), 1), 64)]


def memory(total_mib: int, reserved_mib: int | None, used_mib: int | None) -> JsonMap:
    """Describe a device's memory, in bytes."""
    return {"total": total_mib * MIB, "reserved": (reserved_mib or 0) * MIB, "used": (used_mib or 0) * MIB}


def describe_gpu(gpu: JsonMap) -> JsonMap:
    """Describe one GPU of an inventory document, but for its links and its health."""
    capability = gpu["compute_capability"]
    active, mode = gpu["display_active"], gpu["compute_mode"]
    numa, cpus = gpu["numa_node"], gpu["cpu_affinity"]
    device: JsonMap = {
        "UUID": gpu["uuid"],
        "Name": gpu["name"],
        "MinorNumber": gpu["index"],
        "PciInfo": {"busId": gpu["pci_bus_id"]},
        "CudaComputeCapability": None if capability is None else [int(part) for part in capability.split(".")],
        # NumaNodeId is another thing: the node of the GPU's own memory, on machines where it is one
        "MemoryAffinity": None if numa is None else mask(str(numa)),
        "CpuAffinity": None if cpus is None else mask(cpus),
        "DisplayActive": None if active is None else int(active),
        "ComputeMode": None if mode is None else COMPUTE_MODES[mode],
        "SupportedEventTypes": EVENT_TYPES,
        "ComputeRunningProcesses": describe_processes(gpu),
    }
    if capability in DATACENTER or capability in RETIRES_PAGES:
        device |= {"EccMode": [1, 1], "TotalEccErrors": ecc_errors(0), "MemoryErrorCounter": ecc_errors(NO_ERRORS)}
    if capability in DATACENTER:
        device |= {"MigMode": [0, 0], "MaxMigDeviceCount": 0, "RemappedRows": [0, 0, 0, 0]}
    if capability in RETIRES_PAGES:
        device |= {"RetiredPages": {"single_bit": [], "double_bit": []}, "RetiredPagesPendingStatus": 0}
    if gpu["memory_total_mib"] is not None:
        if gpu["memory_used_mib"] is None:
            raise ValueError("NVML answers memory in use together with the total")
        device["MemoryInfo"] = memory(gpu["memory_total_mib"], gpu["memory_reserved_mib"], gpu["memory_used_mib"])
        if gpu["memory_reserved_mib"] is None:  # as with a driver that has only the first version
            device["fail"] = {"nvmlDeviceGetMemoryInfo_v2": int(Code.FUNCTION_NOT_FOUND)}
    if gpu["mig"] is not None:
        device |= {"MigMode": [1, 1], "MaxMigDeviceCount": 7}
        device["mig"] = [describe_part(gpu["name"], part) for part in gpu["mig"]]
    return device


def describe_processes(gpu: JsonMap) -> list[JsonMap]:
    """Describe what runs on one GPU of an inventory document."""
    instance = {part["gi"]: part["ci"] for part in gpu["mig"] or ()}
    answers = []
    for process in gpu["processes"]:
        used, gi = process["used_mib"], process.get("gi")
        answer = {"pid": process["pid"], "usedGpuMemory": None if used is None else used * MIB}
        answers.append(answer | {"gpuInstanceId": gi, "computeInstanceId": instance.get(gi)})
    return answers


def describe_part(gpu_name: str, part: JsonMap) -> JsonMap:
    """Describe one MIG instance of an inventory document."""
    device: JsonMap = {
        "UUID": part["uuid"],
        "Name": f"{gpu_name} MIG {part['profile']}",
        "GpuInstanceId": part["gi"],
        "ComputeInstanceId": part["ci"],
    }
    if part["memory_total_mib"] is not None:
        device["MemoryInfo"] = memory(part["memory_total_mib"], 0, 0)
        profile = PROFILE.match(part["profile"])
        if profile is not None:
            device["Attributes"] = {
                "gpuInstanceSliceCount": int(profile["slices"]),
                "computeInstanceSliceCount": int(profile["compute"] or profile["slices"]),
                "memorySizeMB": part["memory_total_mib"],
            }
    return device
