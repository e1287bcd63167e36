"""Machines made from inventory documents say the same through pynvml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.nvml.fake import Code, FakeNvml, Machine
from tests.nvml.machine import mask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.nvml.machine import JsonMap


def gpu(index: int, **facts: Any) -> JsonMap:
    return {
        "uuid": f"GPU-{index}",
        "index": index,
        "name": "NVIDIA A100-SXM4-40GB",
        "pci_bus_id": f"00000000:{index + 7:02X}:00.0",
        "memory_total_mib": 40960,
        "memory_reserved_mib": 571,
        "memory_used_mib": 3,
        "compute_capability": "8.0",
        "numa_node": index // 4,
        "cpu_affinity": "0-15,64-79",
        "display_active": False,
        "compute_mode": "exclusive_process",
        "mig": None,
        "health": [],
        "processes": [],
        **facts,
    }


def inventory(gpus: list[JsonMap], links: list[JsonMap] = []) -> JsonMap:  # noqa: B006 -- only read
    host = {"name": "h", "driver": "550.54.15", "cuda": "12.4", "gpus": gpus, "links": links}
    return {"format_version": "1.0", "source": "snapshot", "hosts": [host]}


def all_pairs(count: int, nvlink: int, pcie: str | None = "SYS") -> list[JsonMap]:
    return [{"a": f"GPU-{a}", "b": f"GPU-{b}", "nvlink": nvlink, "pcie": pcie} for a in range(count) for b in range(a)]


@pytest.fixture
def nvml(fake_nvml: FakeNvml) -> Iterator[FakeNvml]:
    with fake_nvml.loaded():
        yield fake_nvml


def look(nvml: FakeNvml, machine: Machine) -> list[Any]:
    nvml.describe(machine)
    pynvml.nvmlInit()
    return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]


def ends(handle: Any) -> list[tuple[str, int]]:
    """Where the active ones of an A100's twelve NVLinks lead."""
    active = [link for link in range(12) if pynvml.nvmlDeviceGetNvLinkState(handle, link)]
    return [
        (
            pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId,
            pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link),
        )
        for link in active
    ]


def test_facts_of_a_gpu(nvml: FakeNvml) -> None:
    (handle,) = look(nvml, Machine.from_inventory(inventory([gpu(0)])))
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    assert pynvml.nvmlSystemGetDriverVersion() == "550.54.15"
    assert pynvml.nvmlSystemGetCudaDriverVersion_v2() == 12040
    assert [value >> 20 for value in (memory.total, memory.reserved, memory.used)] == [40960, 571, 3]
    assert pynvml.nvmlDeviceGetCudaComputeCapability(handle) == (8, 0)
    assert pynvml.nvmlDeviceGetComputeMode(handle) == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
    assert list(pynvml.nvmlDeviceGetCpuAffinity(handle, 2)) == [0xFFFF, 0xFFFF]
    assert list(pynvml.nvmlDeviceGetMemoryAffinity(handle, 1, 0)) == [1]
    assert pynvml.nvmlDeviceGetDisplayActive(handle) == 0
    assert pynvml.nvmlDeviceGetMigMode(handle) == [0, 0]
    assert ends(handle) == []


def test_what_is_unknown_is_not_answered(nvml: FakeNvml) -> None:
    names = ("memory_total_mib", "compute_capability", "numa_node", "cpu_affinity", "display_active", "compute_mode")
    (handle,) = look(nvml, Machine.from_inventory(inventory([gpu(0, **dict.fromkeys(names))])))
    for query, arguments in (
        (pynvml.nvmlDeviceGetMemoryInfo, ()),
        (pynvml.nvmlDeviceGetCudaComputeCapability, ()),
        (pynvml.nvmlDeviceGetMemoryAffinity, (1, 0)),
        (pynvml.nvmlDeviceGetCpuAffinity, (1,)),
        (pynvml.nvmlDeviceGetDisplayActive, ()),
        (pynvml.nvmlDeviceGetComputeMode, ()),
        (pynvml.nvmlDeviceGetMigMode, ()),
    ):
        with pytest.raises(pynvml.NVMLError_NotSupported):
            query(handle, *arguments)


def test_a_driver_that_does_not_tell_what_is_reserved(nvml: FakeNvml) -> None:
    (handle,) = look(nvml, Machine.from_inventory(inventory([gpu(0, memory_reserved_mib=None)])))
    assert pynvml.nvmlDeviceGetMemoryInfo(handle).used >> 20 == 3
    with pytest.raises(pynvml.NVMLError_FunctionNotFound):
        pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)


def test_eight_gpus_with_too_few_links_for_each_other_are_behind_switches(nvml: FakeNvml) -> None:
    document = inventory([gpu(index) for index in range(8)], all_pairs(8, 12))
    for handle in look(nvml, Machine.from_inventory(document)):
        assert ends(handle) == [("FFFFFFFF:FF:FF.0", pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH)] * 12


def test_bridges_lead_from_gpu_to_gpu(nvml: FakeNvml) -> None:
    links = [link | {"nvlink": 12 if {link["a"], link["b"]} == {"GPU-0", "GPU-2"} else 0} for link in all_pairs(3, 0)]
    document = inventory([gpu(index) for index in range(3)], links)
    handles = look(nvml, Machine.from_inventory(document))
    peer = pynvml.NVML_NVLINK_DEVICE_TYPE_GPU
    assert ends(handles[0]) == [("00000000:09:00.0", peer)] * 12
    assert ends(handles[2]) == [("00000000:07:00.0", peer)] * 12
    assert ends(handles[1]) == []
    assert pynvml.nvmlDeviceGetNvLinkState(handles[1], 11) == 0
    assert pynvml.nvmlDeviceGetTopologyCommonAncestor(handles[2], handles[1]) == pynvml.NVML_TOPOLOGY_SYSTEM


def test_two_gpus_behind_a_switch_when_told_so(nvml: FakeNvml) -> None:
    document = inventory([gpu(0), gpu(1)], all_pairs(2, 12))
    handles = look(nvml, Machine.from_inventory(document, nvswitch=True))
    assert {kind for _, kind in ends(handles[0])} == {pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH}


def test_mig_and_processes(nvml: FakeNvml) -> None:
    parts = [
        {"uuid": "MIG-a", "gi": 9, "ci": 0, "profile": "1g.5gb", "memory_total_mib": 4864},
        {"uuid": "MIG-b", "gi": 2, "ci": 1, "profile": "1c.3g.20gb+me", "memory_total_mib": 19968},
    ]
    processes = [{"pid": 4, "used_mib": 70, "gi": 2, "container": None}]
    document = inventory([gpu(0, mig=parts, processes=processes), gpu(1, processes=[processes[0] | {"gi": None}])])
    handles = look(nvml, Machine.from_inventory(document))
    seen = []
    for slot in range(2):
        part = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handles[0], slot)
        attributes = pynvml.nvmlDeviceGetAttributes(part)
        slices = (attributes.gpuInstanceSliceCount, attributes.computeInstanceSliceCount, attributes.memorySizeMB)
        pids = [process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(part)]
        seen.append((pynvml.nvmlDeviceGetName(part), slices, pynvml.nvmlDeviceGetMemoryInfo(part).total >> 20, pids))
    assert seen == [
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", (1, 1, 4864), 4864, []),
        ("NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb+me", (3, 1, 19968), 19968, [4]),
    ]
    (process,) = pynvml.nvmlDeviceGetComputeRunningProcesses(handles[1])
    assert (process.pid, process.usedGpuMemory >> 20, process.gpuInstanceId) == (4, 70, 0xFFFFFFFF)


def test_health(nvml: FakeNvml) -> None:
    codes = [[], ["row_remap_pending"], ["row_remap_failed", "ecc_uncorrected"], ["reset_required"], ["gpu_lost"]]
    health = [[{"code": code, "fatal": True, "detail": ""} for code in some] for some in codes]
    document = inventory([gpu(index, health=some) for index, some in enumerate(health)])
    handles = look(nvml, Machine.from_inventory(document))
    rows = [pynvml.nvmlDeviceGetRemappedRows(handle)[2:] for handle in handles[:3]]
    assert rows == [(0, 0), (1, 0), (0, 1)]
    errors = [pynvml.nvmlDeviceGetTotalEccErrors(handle, 1, 0) for handle in handles[:4]]
    assert errors == [0, 0, 1, 0]
    with pytest.raises(pynvml.NVMLError_ResetRequired):
        pynvml.nvmlDeviceGetRemappedRows(handles[3])
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        pynvml.nvmlDeviceGetUUID(handles[4])


def test_what_nvml_cannot_say_is_refused() -> None:
    def refused(document: JsonMap, match: str, *, nvswitch: bool | None = None) -> None:
        with pytest.raises(ValueError, match=match):
            Machine.from_inventory(document, nvswitch=nvswitch)

    refused(inventory([gpu(1)]), "numbers GPUs from 0")
    refused(inventory([gpu(0, memory_used_mib=None)]), "together with the total")
    refused(inventory([gpu(0, health=[{"code": "cursed", "fatal": True, "detail": ""}])]), "cursed")
    unknown = [{"a": "GPU-0", "b": "GPU-1", "nvlink": None, "pcie": None}]
    refused(inventory([gpu(0), gpu(1)], unknown), "unknown number of NVLinks")
    uneven = [link | {"nvlink": index + 1} for index, link in enumerate(all_pairs(3, 0))]
    refused(inventory([gpu(index) for index in range(3)], uneven), "as many NVLinks", nvswitch=True)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_mask_has_the_bits_that_are_listed(bits: set[int]) -> None:
    words = mask(",".join(map(str, bits)))
    assert {64 * word + bit for word, value in enumerate(words) for bit in range(64) if value >> bit & 1} == bits


def test_a_mask_of_ranges() -> None:
    assert mask("0-3,64") == [0xF, 1]
    assert mask("63") == [1 << 63]


def test_hand_made_machines_start_empty(nvml: FakeNvml) -> None:
    assert look(nvml, Machine()) == []
    nvml.unload_driver()
    with pytest.raises(pynvml.NVMLError) as caught:
        pynvml.nvmlDeviceGetCount()
    assert caught.value.value == Code.DRIVER_NOT_LOADED
