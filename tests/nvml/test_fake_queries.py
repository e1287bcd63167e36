"""What each query answers, through the real pynvml in this process."""

from __future__ import annotations

import threading
from ctypes import byref
from typing import TYPE_CHECKING, Any

import pynvml
import pytest

from tests.nvml.fake import Code, Event, FakeNvml, Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.nvml.machine import JsonMap

    Describe = Callable[[Machine | JsonMap], list[Any]]


@pytest.fixture
def opened(fake_nvml: FakeNvml) -> Iterator[Describe]:
    """Describe a machine, and get the handles of its GPUs."""

    def describe(machine: Machine | JsonMap) -> list[Any]:
        fake_nvml.describe(machine)
        pynvml.nvmlInit()
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]

    with fake_nvml.loaded():
        yield describe


def code_of(query: Callable[..., Any], *arguments: Any) -> int:
    with pytest.raises(pynvml.NVMLError) as caught:
        query(*arguments)
    return int(caught.value.value)


def one(**answers: Any) -> Machine:
    return Machine({"gpus": [{"UUID": "GPU-0", **answers}]})


def test_nothing_is_answered_before_init_and_after_shutdown(opened: Describe) -> None:
    assert code_of(pynvml.nvmlDeviceGetCount) == Code.UNINITIALIZED
    opened(one())
    pynvml.nvmlInit()
    pynvml.nvmlShutdown()
    assert pynvml.nvmlDeviceGetCount() == 1
    pynvml.nvmlShutdown()
    assert code_of(pynvml.nvmlDeviceGetCount) == Code.UNINITIALIZED
    assert code_of(pynvml.nvmlShutdown) == Code.UNINITIALIZED


def test_shutdown_can_fail(opened: Describe) -> None:
    opened(one().fail("nvmlShutdown", Code.UNKNOWN))
    assert code_of(pynvml.nvmlShutdown) == Code.UNKNOWN
    assert pynvml.nvmlDeviceGetCount() == 1


def test_what_is_not_described_is_not_supported(opened: Describe) -> None:
    (gpu,) = opened(one(PowerUsage=None))
    for query in (
        pynvml.nvmlDeviceGetName,
        pynvml.nvmlDeviceGetPowerUsage,
        pynvml.nvmlDeviceGetMemoryInfo,
        pynvml.nvmlDeviceGetPciInfo,
        pynvml.nvmlDeviceGetMigMode,
        pynvml.nvmlDeviceGetRemappedRows,
        pynvml.nvmlDeviceGetCudaComputeCapability,
        pynvml.nvmlDeviceGetMaxMigDeviceCount,
    ):
        assert code_of(query, gpu) == Code.NOT_SUPPORTED
    assert code_of(pynvml.nvmlSystemGetDriverVersion) == Code.NOT_SUPPORTED
    assert code_of(pynvml.nvmlDeviceGetNvLinkState, gpu, 0) == Code.NOT_SUPPORTED


def test_a_query_that_the_library_lacks_is_not_found(opened: Describe) -> None:
    (gpu,) = opened(one())
    assert code_of(pynvml.nvmlDeviceGetFanSpeed, gpu) == Code.FUNCTION_NOT_FOUND


def test_handles(opened: Describe) -> None:
    pci = "00000000:3B:00.0"
    machine = Machine({"gpus": [{"UUID": "GPU-0"}, {"UUID": "GPU-1", "PciInfo": {"busId": pci}}]})
    gpus = opened(machine)
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID("GPU-1")) == 1
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByPciBusId(pci)) == "GPU-1"
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByPciBusId("0000:3b:00.0")) == "GPU-1"
    assert pynvml.nvmlDeviceGetPciInfo(gpus[1]).busIdLegacy == "0000:3B:00.0"
    assert code_of(pynvml.nvmlDeviceGetHandleByUUID, "GPU-2") == Code.NOT_FOUND
    assert code_of(pynvml.nvmlDeviceGetHandleByPciBusId, "0000:3C:00.0") == Code.NOT_FOUND
    assert code_of(pynvml.nvmlDeviceGetHandleByPciBusId, "three") == Code.INVALID_ARGUMENT
    assert code_of(pynvml.nvmlDeviceGetHandleByIndex, 2) == Code.INVALID_ARGUMENT
    assert code_of(pynvml.nvmlDeviceGetName, pynvml.c_nvmlDevice_t()) == Code.INVALID_ARGUMENT


def test_any_query_fails_alone_by_its_code(opened: Describe) -> None:
    gpus = [{"UUID": f"GPU-{index}", "Name": "NVIDIA L4", "MinorNumber": index} for index in range(2)]
    machine = Machine({"gpus": gpus, "CudaDriverVersion": 12040})
    machine.fail("nvmlDeviceGetName", Code.UNKNOWN, gpu=1).fail("nvmlSystemGetCudaDriverVersion", Code.NO_PERMISSION)
    machine.fail("nvmlDeviceGetHandleByUUID", Code.GPU_IS_LOST, gpu=0)
    first, second = opened(machine)
    assert pynvml.nvmlDeviceGetName(first) == "NVIDIA L4"
    assert code_of(pynvml.nvmlDeviceGetName, second) == Code.UNKNOWN
    assert pynvml.nvmlDeviceGetMinorNumber(second) == 1
    assert code_of(pynvml.nvmlSystemGetCudaDriverVersion) == Code.NO_PERMISSION
    assert code_of(pynvml.nvmlSystemGetCudaDriverVersion_v2) == Code.NO_PERMISSION
    assert code_of(pynvml.nvmlDeviceGetHandleByUUID, "GPU-0") == Code.GPU_IS_LOST
    opened(machine.fail("nvmlDeviceGetMinorNumber", Code.TIMEOUT))
    assert [code_of(pynvml.nvmlDeviceGetMinorNumber, gpu) for gpu in (first, second)] == [Code.TIMEOUT] * 2


def test_one_version_of_a_query_can_fail(opened: Describe) -> None:
    memory = {"total": 100, "reserved": 7, "used": 30}
    (gpu,) = opened(one(MemoryInfo=memory).fail("nvmlDeviceGetMemoryInfo_v2", Code.FUNCTION_NOT_FOUND, gpu=0))
    assert pynvml.nvmlDeviceGetMemoryInfo(gpu).used == 37
    assert code_of(pynvml.nvmlDeviceGetMemoryInfo, gpu, pynvml.nvmlMemory_v2) == Code.FUNCTION_NOT_FOUND
    opened(one(MemoryInfo=memory).fail("nvmlDeviceGetMemoryInfo", Code.UNKNOWN, gpu=0))
    assert code_of(pynvml.nvmlDeviceGetMemoryInfo, gpu) == Code.UNKNOWN
    assert code_of(pynvml.nvmlDeviceGetMemoryInfo, gpu, pynvml.nvmlMemory_v2) == Code.UNKNOWN


def test_a_lost_gpu_answers_nothing(opened: Describe) -> None:
    description: JsonMap = {"gpus": [{"UUID": f"GPU-{i}", "TopologyCommonAncestor": {"GPU-0": 10}} for i in range(2)]}
    first, second = opened(Machine(description))
    opened(Machine(description).lose(1, handle=False))
    lost = Code.GPU_IS_LOST
    assert code_of(pynvml.nvmlDeviceGetUUID, second) == lost
    assert code_of(pynvml.nvmlDeviceGetIndex, second) == lost
    assert code_of(pynvml.nvmlDeviceGetTopologyCommonAncestor, first, second) == lost
    assert pynvml.nvmlDeviceGetUUID(first) == "GPU-0"
    with pytest.raises(pynvml.NVMLError, match="GPU is lost"):
        opened(Machine(description).lose(1))
    assert pynvml.nvmlDeviceGetCount() == 2
    assert code_of(pynvml.nvmlDeviceGetUUID, second) == lost


def test_memory_v1_counts_what_is_reserved_as_used(opened: Describe) -> None:
    (gpu,) = opened(one(MemoryInfo={"total": 1 << 37, "reserved": 480 << 20, "used": 20 << 20}))
    first = pynvml.nvmlDeviceGetMemoryInfo(gpu)
    second = pynvml.nvmlDeviceGetMemoryInfo(gpu, version=pynvml.nvmlMemory_v2)
    assert (first.total, first.used, first.free) == (1 << 37, 500 << 20, (1 << 37) - (500 << 20))
    assert (second.total, second.reserved, second.used) == (1 << 37, 480 << 20, 20 << 20)
    assert second.free == first.free


def test_a_struct_of_an_unknown_version_is_refused(opened: Describe) -> None:
    (gpu,) = opened(one(MemoryInfo={"total": 1, "reserved": 0, "used": 0}, Temperature=34, GpuFabricInfo={"state": 3}))
    assert code_of(pynvml.nvmlDeviceGetMemoryInfo, gpu, pynvml.nvmlMemory_v2 + 1) == Code.FUNCTION_NOT_FOUND
    fabric = pynvml.c_nvmlGpuFabricInfoV_t()
    fabric.version += 1 << 24
    assert code_of(pynvml.nvmlDeviceGetGpuFabricInfoV, gpu, byref(fabric)) == Code.ARGUMENT_VERSION_MISMATCH
    assert pynvml.nvmlDeviceGetTemperatureV(gpu, pynvml.NVML_TEMPERATURE_GPU) == 34


def test_fabric(opened: Describe) -> None:
    (gpu,) = opened(one(GpuFabricInfo={"state": 3, "status": 0, "cliqueId": 5, "healthMask": 2}))
    old, new = pynvml.c_nvmlGpuFabricInfo_t(), pynvml.c_nvmlGpuFabricInfoV_t()
    for query, info in (
        (pynvml.nvmlDeviceGetGpuFabricInfo, old),
        (pynvml.nvmlDeviceGetGpuFabricInfoV, new),
    ):
        query(gpu, byref(info))
        assert (info.state, info.status, info.cliqueId) == (pynvml.NVML_GPU_FABRIC_STATE_COMPLETED, 0, 5)
    assert new.healthMask == 2


def test_affinity_is_cut_and_padded_to_what_the_caller_has_room_for(opened: Describe) -> None:
    words = [0x5, 0x8000000000000001, 0x7]
    (gpu,) = opened(one(CpuAffinity=words, CpuAffinityWithinScope={"socket": [0xFF]}, MemoryAffinity=[2]))
    node, socket = pynvml.NVML_AFFINITY_SCOPE_NODE, pynvml.NVML_AFFINITY_SCOPE_SOCKET
    assert list(pynvml.nvmlDeviceGetCpuAffinity(gpu, 2)) == words[:2]
    assert list(pynvml.nvmlDeviceGetCpuAffinity(gpu, 5)) == [*words, 0, 0]
    assert list(pynvml.nvmlDeviceGetCpuAffinityWithinScope(gpu, 1, socket)) == [0xFF]
    assert list(pynvml.nvmlDeviceGetCpuAffinityWithinScope(gpu, 3, node)) == words
    assert list(pynvml.nvmlDeviceGetMemoryAffinity(gpu, 1, node)) == [2]


def test_nvlinks_of_three_kinds(opened: Describe) -> None:
    links = [
        {"active": True, "version": 4, "remote": {"type": 0, "busId": "0000:81:00.0"}, "capabilities": [0, 5]},
        {"active": False, "version": 4, "remote": {"type": 0, "busId": "0000:81:00.0"}},
        {"active": True, "fail": {"nvmlDeviceGetNvLinkRemotePciInfo": 999}},
    ]
    (gpu,) = opened(one(nvlinks=links))
    assert [pynvml.nvmlDeviceGetNvLinkState(gpu, link) for link in range(3)] == [1, 0, 1]
    assert pynvml.nvmlDeviceGetNvLinkRemotePciInfo(gpu, 0).busId == "00000000:81:00.0"
    assert pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(gpu, 0) == pynvml.NVML_NVLINK_DEVICE_TYPE_GPU
    assert [pynvml.nvmlDeviceGetNvLinkCapability(gpu, 0, capability) for capability in range(6)] == [1, 0, 0, 0, 0, 1]
    assert pynvml.nvmlDeviceGetNvLinkVersion(gpu, 1) == 4
    assert code_of(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, gpu, 1) == Code.NOT_SUPPORTED
    assert code_of(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, gpu, 2) == Code.UNKNOWN
    assert code_of(pynvml.nvmlDeviceGetNvLinkState, gpu, 3) == Code.INVALID_ARGUMENT


def test_topology_is_the_same_from_both_ends(opened: Describe) -> None:
    machine = Machine({"gpus": [{"UUID": f"GPU-{index}"} for index in range(3)]})
    machine.gpu(0)["TopologyCommonAncestor"] = {
        "GPU-1": 40,
        "GPU-2": {"fail": {"nvmlDeviceGetTopologyCommonAncestor": 3}},
    }
    gpus = opened(machine)
    ancestor = pynvml.nvmlDeviceGetTopologyCommonAncestor
    assert ancestor(gpus[0], gpus[1]) == ancestor(gpus[1], gpus[0]) == pynvml.NVML_TOPOLOGY_NODE
    assert code_of(ancestor, gpus[2], gpus[2]) == Code.NOT_SUPPORTED
    assert code_of(ancestor, gpus[0], gpus[2]) == Code.NOT_SUPPORTED
    assert code_of(ancestor, gpus[1], gpus[2]) == Code.NOT_SUPPORTED


def test_processes_of_every_kind(opened: Describe) -> None:
    machine = one(MemoryInfo={"total": 1 << 34, "reserved": 0, "used": 0})
    for pid in range(10, 20):
        machine.start(pid, 0, 100)
    machine.start(7, 0, None, "Graphics").start(8, 0, 5, "MPSCompute")
    (gpu,) = opened(machine)
    compute = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)
    assert [(process.pid, process.usedGpuMemory) for process in compute] == [(pid, 100 << 20) for pid in range(10, 20)]
    (graphics,) = pynvml.nvmlDeviceGetGraphicsRunningProcesses(gpu)
    assert (graphics.pid, graphics.usedGpuMemory, graphics.gpuInstanceId) == (7, None, 0xFFFFFFFF)
    assert [process.pid for process in pynvml.nvmlDeviceGetMPSComputeRunningProcesses(gpu)] == [8]
    assert pynvml.nvmlDeviceGetMemoryInfo(gpu).used == 1005 << 20
    opened(machine.fail("nvmlDeviceGetComputeRunningProcesses_v3", Code.FUNCTION_NOT_FOUND))
    assert code_of(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, gpu) == Code.FUNCTION_NOT_FOUND
    older = pynvml.nvmlDeviceGetComputeRunningProcesses_v2(gpu)
    assert [process.pid for process in older] == [process.pid for process in compute]


def test_process_names(opened: Describe) -> None:
    opened(Machine({"gpus": [], "ProcessName": {"1258": "/usr/bin/pythôn \U0001f40d"}}))
    assert pynvml.nvmlSystemGetProcessName(1258) == "/usr/bin/pythôn \U0001f40d"
    assert code_of(pynvml.nvmlSystemGetProcessName, 1) == Code.NOT_FOUND


def test_memory_that_has_gone_bad(opened: Describe) -> None:
    single, double = (
        pynvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
        pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
    )
    uncorrected, volatile = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    (gpu,) = opened(
        one(
            RemappedRows=[1, 2, 0, 1],
            RetiredPages={"single_bit": [], "double_bit": [[0xABC, 1700000000], [0xDEF, 1700000001]]},
            RetiredPagesPendingStatus=1,
            EccMode=[1, 0],
            TotalEccErrors={"uncorrected": {"volatile": 3, "aggregate": 1 << 40}},
            MemoryErrorCounter={"uncorrected": {"volatile": {"dram": 2, "sram": 1}}},
            FieldValues={"142": 1, "138:2": 9},
        )
    )
    assert pynvml.nvmlDeviceGetRemappedRows(gpu) == (1, 2, 0, 1)
    assert pynvml.nvmlDeviceGetRetiredPages(gpu, single) == []
    assert pynvml.nvmlDeviceGetRetiredPages(gpu, double) == [0xABC, 0xDEF]
    pages = pynvml.nvmlDeviceGetRetiredPages_v2(gpu, double)
    assert [(page["address"], page["timestamp"]) for page in pages] == [(0xABC, 1700000000), (0xDEF, 1700000001)]
    assert pynvml.nvmlDeviceGetRetiredPagesPendingStatus(gpu) == 1
    assert pynvml.nvmlDeviceGetEccMode(gpu) == [1, 0]
    assert pynvml.nvmlDeviceGetTotalEccErrors(gpu, uncorrected, volatile) == 3
    assert pynvml.nvmlDeviceGetTotalEccErrors(gpu, uncorrected, pynvml.NVML_AGGREGATE_ECC) == 1 << 40
    counter = pynvml.nvmlDeviceGetMemoryErrorCounter
    assert counter(gpu, uncorrected, volatile, pynvml.NVML_MEMORY_LOCATION_DEVICE_MEMORY) == 2
    assert code_of(counter, gpu, uncorrected, volatile, pynvml.NVML_MEMORY_LOCATION_REGISTER_FILE) == Code.NOT_SUPPORTED
    values = pynvml.nvmlDeviceGetFieldValues(gpu, [142, (138, 2), 138])
    assert [(value.nvmlReturn, value.value.ullVal) for value in values] == [(0, 1), (0, 9), (Code.NOT_SUPPORTED, 0)]


def test_what_changes_all_the_time(opened: Describe) -> None:
    (gpu,) = opened(
        one(
            Temperature=61,
            UtilizationRates={"gpu": 97, "memory": 40},
            CurrentClocksEventReasons=0x8,
            EnforcedPowerLimit=700000,
            VbiosVersion="96.00.74.00.01",
            Serial="1650522003820",
        )
    )
    assert pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU) == 61
    rates = pynvml.nvmlDeviceGetUtilizationRates(gpu)
    assert (rates.gpu, rates.memory) == (97, 40)
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(gpu) == 8
    assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu) == 8
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(gpu) == 700000
    assert pynvml.nvmlDeviceGetVbiosVersion(gpu) == "96.00.74.00.01"
    assert pynvml.nvmlDeviceGetSerial(gpu) == "1650522003820"


def test_mig_devices(opened: Describe) -> None:
    parts: list[JsonMap | None] = [
        {
            "UUID": "MIG-a",
            "GpuInstanceId": 9,
            "ComputeInstanceId": 0,
            "Attributes": {"gpuInstanceSliceCount": 1, "memorySizeMB": 4864},
        },
        None,
        {"UUID": "MIG-b", "GpuInstanceId": 3, "ComputeInstanceId": 1, "MemoryInfo": {"total": 20 << 30}},
    ]
    machine = one(MigMode=[1, 1], MaxMigDeviceCount=7, mig=parts).start(5, "MIG-a", 10).start(6, "MIG-b", 20)
    (gpu,) = opened(machine)
    assert pynvml.nvmlDeviceGetMigMode(gpu) == [1, 1]
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu) == 7
    first = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 0)
    last = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 2)
    assert code_of(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, 1) == Code.NOT_FOUND
    assert code_of(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, 7) == Code.NOT_FOUND
    assert [pynvml.nvmlDeviceIsMigDeviceHandle(device).value for device in (gpu, first)] == [0, 1]
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(last)) == "GPU-0"
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByUUID("MIG-b")) == "MIG-b"
    assert (pynvml.nvmlDeviceGetGpuInstanceId(last), pynvml.nvmlDeviceGetComputeInstanceId(last)) == (3, 1)
    assert pynvml.nvmlDeviceGetMemoryInfo(last).total == 20 << 30
    attributes = pynvml.nvmlDeviceGetAttributes(first)
    assert (attributes.gpuInstanceSliceCount, attributes.memorySizeMB) == (1, 4864)
    assert pynvml.nvmlDeviceGetIndex(last) == 2
    assert code_of(pynvml.nvmlDeviceGetGpuInstanceId, gpu) == Code.INVALID_ARGUMENT
    everything = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)
    assert [(p.pid, p.gpuInstanceId, p.computeInstanceId) for p in everything] == [(5, 9, 0), (6, 3, 1)]
    assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(last)] == [6]
    opened(machine.lose(0, handle=False))
    assert code_of(pynvml.nvmlDeviceGetUUID, first) == Code.GPU_IS_LOST


def test_events(opened: Describe, fake_nvml: FakeNvml) -> None:
    machine = Machine({"gpus": [{"UUID": f"GPU-{i}", "SupportedEventTypes": 0x1F} for i in range(2)]})
    machine.description["gpus"].append({"UUID": "GPU-2"})
    machine.happen(1, 13).happen(0, 79).happen(0, event=Event.DOUBLE_BIT_ECC)
    gpus = opened(machine)
    events = pynvml.nvmlEventSetCreate()
    pynvml.nvmlDeviceRegisterEvents(gpus[0], pynvml.nvmlEventTypeXidCriticalError, events)
    assert code_of(pynvml.nvmlDeviceRegisterEvents, gpus[2], Event.XID, events) == Code.NOT_SUPPORTED
    told = pynvml.nvmlEventSetWait(events, 0)
    assert (told.eventType, told.eventData, told.gpuInstanceId) == (Event.XID, 79, 0xFFFFFFFF)
    assert pynvml.nvmlDeviceGetIndex(told.device) == 0
    assert code_of(pynvml.nvmlEventSetWait, events, 1) == Code.TIMEOUT

    later: list[int] = []
    waiting = threading.Thread(target=lambda: later.append(pynvml.nvmlEventSetWait(events, 600_000).eventData))
    waiting.start()
    fake_nvml.describe(machine.happen(0, 48))
    waiting.join()
    assert later == [48]
    pynvml.nvmlEventSetFree(events)
