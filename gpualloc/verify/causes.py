"""Why a worker sees other devices than it should: each likely cause is a function, asked in this order.

The first that explains the difference is told. Sources: CUDA's programming guide, "CUDA environment variables";
NVIDIA container toolkit, "Specialized configurations with Docker"; runs on two H100s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gpualloc.cuda import visible
from gpualloc.verify.given import by_cdi

if TYPE_CHECKING:
    from gpualloc.verify.docker import Container
    from gpualloc.verify.expect import Expectation
    from gpualloc.verify.look import Sight
    from gpualloc.verify.machine import Machine

APPLY = "gpualloc apply, then docker compose up -d"
RECREATE = "docker compose up -d makes it anew"


class Cause(NamedTuple):
    """A likely cause: its code, what it is, and what mends it. ``cuda``: it is about CUDA_VISIBLE_DEVICES."""

    code: str
    detail: str
    hint: str
    cuda: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One worker whose container does not have what it should.

    ``expected``: by the file. ``reachable``: by what Docker was asked. ``present``: in the container by nvidia-smi,
    else the same as reachable. ``seen``: by CUDA. ``older``: how the container differs from the file.
    """

    expectation: Expectation
    container: Container
    sight: Sight
    machine: Machine
    expected: tuple[str, ...]
    reachable: tuple[str, ...]
    present: tuple[str, ...]
    seen: tuple[str, ...]
    older: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        """The variables as the worker has them, as far as is known."""
        return dict(self.container.environment if self.sight.environment is None else self.sight.environment)


def likely_cause(case: Case) -> Cause:
    """Return the likeliest cause of a worker's seeing other devices than the file gives it."""
    for rule in (_lost, _older, _wsl2, _privileged, _no_driver, _stale_cdi, _hidden, _other_devices, _cuda_fails):
        cause = rule(case)
        if cause is not None:
            return cause
    return Cause("differs", "nothing that Docker or the container says explains it", "docker inspect shows the rest")


def _lost(case: Case) -> Cause | None:
    lost = [uuid for uuid in case.expected if uuid not in case.machine.names]
    if not lost:
        return None
    return Cause("lost-device", f"this machine has no {', '.join(lost)}", f"{APPLY} replaces it")


def _older(case: Case) -> Cause | None:
    if not case.older:
        return None
    return Cause("older-than-file", f"its container is older than the file: {'; '.join(case.older)}", RECREATE)


def _wsl2(case: Case) -> Cause | None:
    if not (case.sight.wsl or case.machine.wsl2) or not set(case.seen) - set(case.expected):
        return None
    detail = "on WSL2 a container gets every GPU, whatever it asks for"
    return Cause("wsl2", detail, "CUDA_VISIBLE_DEVICES with the UUIDs hides the others: cuda_visible_devices: uuid")


def _privileged(case: Case) -> Cause | None:
    if not case.container.privileged or not set(case.present) - set(case.expected):
        return None
    value = case.environment.get("CUDA_VISIBLE_DEVICES")
    detail = "its container is privileged, so it has every GPU of the host"
    if value is not None:
        detail += f", and CUDA_VISIBLE_DEVICES={value} chooses among all of them"
    return Cause("privileged", detail, f"drop privileged: true, or let UUIDs choose: {APPLY}")


def _no_driver(case: Case) -> Cause | None:
    """Find out why there is no libcuda: it is put in at start, by what NVIDIA_DRIVER_CAPABILITIES names."""
    if case.sight.cuda is None or case.sight.loaded:
        return None
    capabilities = case.environment.get("NVIDIA_DRIVER_CAPABILITIES")
    if capabilities and not {"compute", "all"} & set(capabilities.split(",")):
        detail = (
            f"NVIDIA_DRIVER_CAPABILITIES={capabilities} leaves out compute, so CUDA's library is not in the container"
        )
        return Cause("no-compute", detail, "let it name compute,utility")
    detail = f"CUDA's library is not in the container ({case.sight.cuda_error})"
    if not case.reachable:
        return Cause("no-request", f"{detail}: it asks for no GPU", APPLY)
    hint = "is NVIDIA's container toolkit set up on this host? nvidia-ctk --version"
    return Cause("no-driver", detail, hint)


def _stale_cdi(case: Case) -> Cause | None:
    if not by_cdi(case.container) or set(case.present) == set(case.reachable) or case.sight.listed is None:
        return None
    has, asked = case.machine.label(case.present) or "no GPU", case.machine.label(case.reachable)
    detail = f"its CDI name stands for {asked} and leads to {has}: the CDI spec is older than this machine's state"
    return Cause(
        "stale-cdi",
        detail,
        "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, then docker compose up -d --force-recreate",
    )


def _hidden(case: Case) -> Cause | None:
    """Explain what CUDA makes of CUDA_VISIBLE_DEVICES where that alone is the difference."""
    value = case.environment.get("CUDA_VISIBLE_DEVICES")
    if value is None or set(visible(value, case.present)) == set(case.present):
        return None
    shown = visible(value, case.present)
    if set(case.seen) != set(shown):
        if len(case.seen) != len(shown) or case.environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
            return None
        why = f"CUDA_VISIBLE_DEVICES={value} counts the fastest GPU first unless CUDA_DEVICE_ORDER is PCI_BUS_ID"
        return Cause("cuda-order", why, APPLY, cuda=True)
    origin, hint = "", APPLY
    if case.container.environment.get("CUDA_VISIBLE_DEVICES") != value:
        origin, hint = " (set by its entry point, not by the file)", "let the entry point leave it alone"
    elif "CUDA_VISIBLE_DEVICES" not in case.expectation.environment:
        origin = " (from the image or an env_file)"
    code, why = _reading(value, case)
    return Cause(code, f"CUDA_VISIBLE_DEVICES={value}{origin}: {why}", hint, cuda=True)


def _reading(value: str, case: Case) -> tuple[str, str]:
    """Return the code and the words for what CUDA makes of a value that does not show all devices present."""
    entries = [entry.strip() for entry in value.split(",")]
    numbers = [entry for entry in entries if entry.isdecimal()]
    if not numbers and not any(entry.startswith(("GPU-", "MIG-")) for entry in entries):
        return "cuda-hides", "it names no device, which hides them all"
    if numbers and len(numbers) < len(entries):
        return "cuda-mixed", "numbers and UUIDs are mixed, and CUDA drops everything from the first of the other kind"
    if len(set(entries)) < len(entries):
        return "cuda-twice", "it names a device twice, and then CUDA shows none"
    if numbers:
        return _numbers([int(number) for number in numbers], case)
    gone = next((e for e in entries if not any(uuid.startswith(e) for uuid in case.present)), None)
    if gone is not None:
        return "cuda-hides", f"{gone} is not in the container{_dropped(case)}"
    return "cuda-hides", "it names only some of the container's GPUs"


def _numbers(numbers: list[int], case: Case) -> tuple[str, str]:
    count = len(case.present)
    numbered = "the container has no GPU" if not count else "the container numbers its one GPU 0"
    if count > 1:
        numbered = f"the container numbers its {count} GPUs from 0 to {count - 1}"
    beyond = next((number for number in numbers if number >= count), None)
    if beyond is None:
        return "cuda-hides", f"{numbered}, and it names only some of them"
    if beyond in {device.gpu.index for device in case.machine.devices}:
        return "cuda-host-index", f"{beyond} is a number of the host, and {numbered}{_dropped(case)}"
    return "cuda-hides", f"there is no {beyond}: {numbered}{_dropped(case)}"


def _dropped(case: Case) -> str:
    return "; CUDA drops it and what follows" if case.seen else "; CUDA drops it, and nothing is left"


def _other_devices(case: Case) -> Cause | None:
    """Tell of devices in the container that are not those that Docker was asked for."""
    if case.sight.listed is None or set(case.present) == set(case.reachable):
        return None
    has, asked = case.machine.label(case.present) or "no GPU", case.machine.label(case.reachable) or "none"
    detail = f"its container asks for {asked} and has {has}"
    by_index = any(
        not name.rpartition("=")[2].startswith(("GPU-", "MIG-")) for r in case.container.requests for name in r.ids
    )
    if by_index:
        detail += ": it names GPUs by index, and an index may mean another GPU after a reboot"
        return Cause("index-id", detail, f"UUIDs stay: {APPLY}")
    return Cause(
        "other-devices",
        detail,
        "docker compose up -d --force-recreate; does NVIDIA_VISIBLE_DEVICES of the image get in?",
    )


def _cuda_fails(case: Case) -> Cause | None:
    error = case.sight.cuda_error
    if error is None:
        return None
    return Cause("cuda-error", f"CUDA fails in its container: {error}", "nvidia-smi and dmesg on the host tell more")
