"""The GPUs of this host through NVML, NVIDIA's management library. The only importer of pynvml.

Every query may fail alone: its fact is then unknown, and a warning says why. Sources of the rules: NVIDIA's NVML
reference (docs.nvidia.com/deploy/nvml-api), and what two H100s answered.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpualloc.errors import Diagnostic, GpuallocError, fail
from gpualloc.inventory import health, machine, nvlink
from gpualloc.inventory.gpu import read_gpu
from gpualloc.inventory.patience import HangsError, Patience
from gpualloc.inventory.probe import PLACE, Probe, QueryError, as_text
from gpualloc.model import Gpu, Host, Inventory, Reading

if TYPE_CHECKING:
    from collections.abc import Iterator

_ELSEWHERE = "or plan for another machine: --inventory sim:dgx-a100, say (gpualloc inventory --list), or FILE"


_PATIENCE = Patience(60)
"""Without persistence mode a driver takes seconds for each GPU to open it: 16 of them stay below this. One for the
whole process, as the library is: what hangs in one call hangs in the next."""


def read(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Reading:
    """Read the GPUs of this host, with a warning for every fact that could not be had.

    Raises ``GpuallocError`` where there is nothing to read: ``nvml-no-pynvml``, ``nvml-no-library``,
    ``nvml-no-driver``, ``nvml-version-mismatch``, ``nvml-no-permission``, ``nvml-gpu-lost``, ``nvml-no-gpu``,
    ``nvml-hangs`` where the driver does not answer within a minute, and ``nvml-failed`` for what else NVML may say.
    ``proc`` and ``sys`` are where the kernel's file systems are mounted.
    """
    try:
        host, warnings = _PATIENCE.call(lambda: _read(proc, sys))
    except HangsError:
        summary = f"the NVIDIA driver has not answered for {_PATIENCE.seconds:g} s"
        hint = f"see dmesg for Xids and hung tasks; restart the host if it stays so; {_ELSEWHERE}"
        raise fail("nvml-hangs", summary, PLACE, hint) from None
    host, unowned = _with_containers(host, proc)
    return Reading(Inventory("nvml", (host,)), (*warnings, *unowned))


def _read(proc: Path, sys: Path) -> tuple[Host, tuple[Diagnostic, ...]]:
    with session() as nvml:
        probe = Probe(nvml)
        gpus, ends, left_out = _gpus(probe, sys)
        ports = nvlink.ports(probe, ends)
        host = Host(
            name=machine.host_name(),
            driver=_driver(probe),
            cuda=_cuda(probe),
            gpus=tuple(_with_links(gpu, ports.get(gpu.uuid)) for gpu in gpus),
            links=nvlink.links(probe, ends, ports),
            platform=machine.platform(proc),
        )
    return host, (*left_out, *probe.warnings())


@contextmanager
def session() -> Iterator[Any]:
    """Open NVML for a while. Raises ``GpuallocError`` where it cannot be opened."""
    try:
        import pynvml  # noqa: PLC0415 - takes longer than reading a snapshot: only for those who ask the driver
    except ImportError as error:
        hint = f"pip install nvidia-ml-py; {_ELSEWHERE}"
        raise fail("nvml-no-pynvml", f"the Python module pynvml is missing: {error}", PLACE, hint) from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise _not_opened(pynvml, error.value, str(error)) from None
    try:
        yield pynvml
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _not_opened(nvml: Any, code: int | None, reason: str) -> GpuallocError:
    """Return the error for NVML, or all of its GPUs, not answering."""
    known = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
            "nvml-no-library",
            "no NVIDIA driver here: libnvidia-ml.so.1 is not found",
            "install the driver; in a container, give it a GPU",
        ),
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: (
            "nvml-no-driver",
            "the NVIDIA driver is not loaded",
            "load it (modprobe nvidia), or see dmesg for why it does not load",
        ),
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
            "nvml-version-mismatch",
            "the NVIDIA driver in the kernel and its library have different versions",
            "restart the host: the driver was updated since it started",
        ),
        nvml.NVML_ERROR_NO_PERMISSION: (
            "nvml-no-permission",
            "no permission to speak to the NVIDIA driver",
            "see who may open /dev/nvidiactl and /dev/nvidia0",
        ),
        nvml.NVML_ERROR_GPU_IS_LOST: (
            "nvml-gpu-lost",
            "a GPU is lost: it has fallen off the bus",
            "restart the host",
        ),
    }
    default = ("nvml-failed", f"NVML cannot be used: {reason}", "see what `nvidia-smi` says")
    name, summary, hint = known.get(code, default)
    return fail(name, summary, PLACE, f"{hint}; {_ELSEWHERE}")


def _gpus(probe: Probe, sys: Path) -> tuple[list[Gpu], list[nvlink.End], list[Diagnostic]]:
    """Read every GPU that tells who it is; a warning for each that does not. Raises ``GpuallocError`` for none."""
    try:
        count = probe.call("nvmlDeviceGetCount")
    except QueryError as error:
        raise _not_opened(probe.nvml, error.code, error.reason) from None
    if count == 0:
        hint = f"see `nvidia-smi -L`, and which GPUs a container was given; {_ELSEWHERE}"
        raise fail("nvml-no-gpu", "the NVIDIA driver sees no GPU", PLACE, hint)
    gpus: list[Gpu] = []
    ends: list[nvlink.End] = []
    left_out: list[Diagnostic] = []
    last = QueryError(None, "")
    for index in range(count):
        try:
            handle = probe.call("nvmlDeviceGetHandleByIndex", index)
            gpu = read_gpu(probe, index, handle, sys)
        except QueryError as error:
            last = error
            summary = f"GPU {index} is left out: {error.reason}"
            hint = f"see what `nvidia-smi -i {index}` says of it"
            left_out.append(Diagnostic("nvml-gpu-left-out", summary, PLACE, hint, "warning"))
            continue
        gpus.append(gpu)
        ends.append(nvlink.End(index, handle, gpu.uuid, gpu.pci_bus_id))
    if not gpus:
        raise _not_opened(probe.nvml, last.code, last.reason)
    return gpus, ends, left_out


def _with_links(gpu: Gpu, ports: nvlink.Ports | None) -> Gpu:
    """Add what is wrong with a GPU's NVLinks; of a lone GPU they are not looked at."""
    # with MIG on, links are of no use and may be off
    found = () if gpu.mig is not None else health.nvlinks(gpu.name, ports.active if ports else None)
    return replace(gpu, health=(*gpu.health, *found)) if found else gpu


def _driver(probe: Probe) -> str | None:
    return as_text(version) if (version := _ask(probe, "driver", "nvmlSystemGetDriverVersion")) else None


def _cuda(probe: Probe) -> str | None:
    """Return the highest CUDA version that the driver supports, which NVML writes as 1000 * major + 10 * minor."""
    version = _ask(probe, "cuda", "nvmlSystemGetCudaDriverVersion")
    return None if version is None else f"{version // 1000}.{version % 1000 // 10}"


def _ask(probe: Probe, fact: str, query: str) -> Any:
    try:
        return probe.call(query)
    except QueryError as error:
        probe.note_host(fact, query, error.reason)
        return None


def _with_containers(host: Host, proc: Path) -> tuple[Host, tuple[Diagnostic, ...]]:
    """Fill in which container each process is in, and the containers that were given a GPU and do not use it now."""
    from gpualloc.inventory import containers, idle  # noqa: PLC0415 - with no engine and idle GPUs, little of it runs

    pids = {process.pid for gpu in host.gpus for process in gpu.processes}
    known = containers.look()
    owners, unowned = containers.owners(pids, proc, known)
    gpus = tuple(
        replace(gpu, processes=tuple(replace(p, container=owners.get(p.pid)) for p in gpu.processes))
        for gpu in host.gpus
    )
    return replace(host, gpus=idle.with_holders(gpus, known.running)), unowned
