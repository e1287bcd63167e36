"""Prints what NVML answers, query by query, through pynvml: on a real machine the record that tests compare with.

``python tests/nvml/transcript.py > tests/nvml/machines/NAME.txt``
"""

from __future__ import annotations

from typing import Any

import pynvml

QUERIES = """
Name UUID Serial Index MinorNumber PciInfo MemoryInfo Brand Architecture CudaComputeCapability MigMode MaxMigDeviceCount
ComputeMode PersistenceMode NumaNodeId EccMode DisplayActive DisplayMode ComputeRunningProcesses
GraphicsRunningProcesses MPSComputeRunningProcesses RetiredPages_v2 RetiredPagesPendingStatus RemappedRows
UtilizationRates PowerUsage CurrPcieLinkGeneration MaxPcieLinkGeneration CurrPcieLinkWidth MaxPcieLinkWidth
VirtualizationMode BoardId MultiGpuBoard SupportedEventTypes NumGpuCores MemoryBusWidth PcieSpeed CpuAffinity
MemoryAffinity
"""

ARGUMENTS: dict[str, tuple[int, ...]] = {
    "RetiredPages_v2": (pynvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,),
    "CpuAffinity": (4,),
    "MemoryAffinity": (1, pynvml.NVML_AFFINITY_SCOPE_NODE),
}


def shown(value: Any) -> Any:
    """Turn pynvml's structs and arrays into what prints as their content."""
    if hasattr(value, "_fields_"):
        return {name: getattr(value, name) for name, *_ in value._fields_}
    return list(value) if hasattr(value, "_length_") else value


def link_line(gpu: Any, link: int) -> str:
    """State, version, and the other end of an NVLink."""
    try:
        state, version = pynvml.nvmlDeviceGetNvLinkState(gpu, link), pynvml.nvmlDeviceGetNvLinkVersion(gpu, link)
        remote = pynvml.nvmlDeviceGetNvLinkRemotePciInfo(gpu, link).busId
        return f"{state} {version} {remote} {pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(gpu, link)}"
    except pynvml.NVMLError as error:
        return f"ERR {error}"


def transcript() -> list[str]:
    """Return the answers, a line each."""
    driver, nvml = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetNVMLVersion()
    lines = [f"driver {driver} {nvml} {pynvml.nvmlSystemGetCudaDriverVersion_v2()}"]
    for index in range(pynvml.nvmlDeviceGetCount()):
        gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
        for query in QUERIES.split():
            try:
                answer = shown(getattr(pynvml, f"nvmlDeviceGet{query}")(gpu, *ARGUMENTS.get(query, ())))
            except pynvml.NVMLError as error:
                answer = f"ERR {type(error).__name__} {error}"
            lines.append(f"{query} {answer}")
        lines += [f"nvlink {link} {link_line(gpu, link)}" for link in range(20)]
    return lines


if __name__ == "__main__":
    pynvml.nvmlInit()
    print("\n".join(transcript()))  # noqa: T201 -- a script
