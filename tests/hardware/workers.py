"""Runs the main job on this host's GPUs: plans, then starts each worker as a process and asks CUDA what it sees.

    python tests/hardware/workers.py REPORT.json [PYTHON]

For a host with two NVIDIA GPUs or more and no need of Docker: each worker is a process with the environment that the
rewritten compose file gives it. Nothing renumbers devices for a process, so the policy writes UUIDs; one run with
ordinals shows why. PYTHON runs the probe (one with PyTorch and JAX shows what they see too). Exit status 1: not as it
should be.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gpualloc.compose.project import ProjectOptions
from gpualloc.inventory import load
from gpualloc.planning import Options, make_plan, open_workspace, write_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpualloc.model import Placement

PROBE = ROOT / "gpualloc" / "verify" / "probe.py"
SECONDS = 60
HOLDER = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
context, memory, device = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_int()
assert cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device) == 0
assert cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(8 << 30)) == 0
print("holding", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Seen:
    """What one worker was given, and what each way of asking shows it."""

    worker: str
    planned: list[str]
    visible: str
    libcuda: list[str]
    frameworks: dict[str, Any]
    right: bool


def service(name: str, ask: str, environment: str = "") -> str:
    return f"  {name}:\n    image: worker\n    x-gpualloc: {ask}\n{environment}"


def write(folder: Path, services: str, *, visible: str = "uuid", policy: str = "") -> Options:
    (folder / "compose.yaml").write_text("services:\n" + services)
    (folder / "policy.yaml").write_text(f"version: 1\nwrite: {{cuda_visible_devices: {visible}}}\n{policy}")
    return Options(ProjectOptions(), ("nvml",), policy="./policy.yaml")


def environments(options: Options, folder: Path) -> dict[str, dict[str, str]]:
    """Read the variables of each service from the file as it stands."""
    workspace = open_workspace(options, {}, folder)
    return {s.name: dict(s.now.get("environment") or {}) for s in workspace.project.services}


def probe(python: str, variables: dict[str, str]) -> dict[str, Any]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "NVIDIA_"))}
    done = subprocess.run(
        [python, str(PROBE), str(SECONDS), "--own-environment"],
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("gpualloc-probe:"))
    return dict(json.loads(line.removeprefix("gpualloc-probe:")))


def shown(answer: dict[str, Any]) -> list[str]:
    """Return the UUIDs that libcuda showed the probe, as NVML writes them."""
    return [f"GPU-{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}" for h in answer["cuda"]["devices"]]


def look(python: str, options: Options, folder: Path, placements: tuple[Placement, ...]) -> Iterator[Seen]:
    variables = environments(options, folder)
    for placement in placements:
        planned = [device.uuid for device in placement.devices]
        own = variables[placement.worker]
        answer = probe(python, own)
        uuids = shown(answer)
        yield Seen(
            worker=placement.worker,
            planned=planned,
            visible=own.get("CUDA_VISIBLE_DEVICES", ""),
            libcuda=uuids,
            frameworks=answer["frameworks"],
            right=sorted(uuids) == sorted(planned),
        )


def planned_and_seen(python: str, services: str, **policy: str) -> dict[str, Any]:
    """Plan, apply to a file, and start every worker with what the file gives it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = write(folder, services, **policy)
        planned = make_plan(options, {}, folder)
        write_plan(planned)
        seen = list(look(python, options, folder, planned.plan.solution.placements))
        return {"file": (folder / "compose.yaml").read_text(), "workers": [asdict(s) for s in seen]}


def host_index(python: str) -> dict[str, Any]:
    """A file with a host index in CUDA_VISIBLE_DEVICES that is not the worker's GPU: the probe must tell."""
    first, second = load(["nvml"]).inventory.hosts[0].gpus[:2]
    answer = probe(python, {"CUDA_VISIBLE_DEVICES": str(second.index), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    beyond = probe(python, {"CUDA_VISIBLE_DEVICES": "99", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    return {
        "given": first.uuid,
        "index of another GPU shows": shown(answer),
        "index that is not there shows": shown(beyond),
        "caught": shown(answer) != [first.uuid] and not shown(beyond),
    }


def busy(python: str) -> dict[str, Any]:
    """A process of somebody else's holds 8 GiB of the GPU that a plan would take first: the plan must avoid it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = write(folder, service("a", "{gpus: 1}"), policy="exclude: {busy: true}\n")
        first = make_plan(options, {}, folder).plan.solution.placements[0].devices[0].uuid
        variables = {**os.environ, "CUDA_VISIBLE_DEVICES": first}
        holder = subprocess.Popen(
            [python, "-c", HOLDER], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline().strip() == "holding"
            reading = load(["nvml"])
            gpu = next(gpu for gpu in reading.inventory.hosts[0].gpus if gpu.uuid == first)
            then = make_plan(options, {}, folder).plan.solution.placements[0]
            assert holder.stdin is not None
            holder.stdin.close()
        return {
            "first choice": first,
            "memory in use there": gpu.memory_used_mib,
            "processes there": [asdict(process) for process in gpu.processes],
            "choice while it is busy": then.devices[0].uuid,
            "avoided": then.devices[0].uuid != first,
        }


def main() -> int:
    target, python = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else sys.executable
    inventory = load(["nvml"]).inventory
    host = inventory.hosts[0]
    two = service("first", "{gpus: 1}") + service("second", "{gpus: 1}")
    three = "".join(service(name, "{memory: 20GiB}") for name in ("red", "green", "blue"))
    right_ways = {
        "two workers": planned_and_seen(python, two),
        "three sharing workers": planned_and_seen(python, three),
        "one worker with every GPU": planned_and_seen(python, service("all", "{gpus: all}")),
    }
    ordinals = planned_and_seen(python, two, visible="ordinal")
    wrong, taken = host_index(python), busy(python)
    right = [worker["right"] for part in right_ways.values() for worker in part["workers"]]
    verdicts = {
        "every worker sees exactly its GPUs": all(right) and len(right) == 6,
        "ordinals are wrong outside a container": not all(worker["right"] for worker in ordinals["workers"]),
        "a host index is caught": wrong["caught"],
        "a busy GPU is avoided": taken["avoided"],
    }
    report = {
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "driver": host.driver,
        "cuda": host.cuda,
        "gpus": [f"{gpu.name} {gpu.uuid}" for gpu in host.gpus],
        "verdicts": verdicts,
        **right_ways,
        "ordinals without a container": ordinals,
        "a host index in the file": wrong,
        "somebody else's memory": taken,
    }
    target.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write("".join(f"{'yes' if good else 'NO'}: {text}\n" for text, good in verdicts.items()))
    return 0 if all(verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
