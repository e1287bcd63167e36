"""Compare what gpualloc gave this worker with what the probe sees in it. Standard library only.

gpualloc writes three variables into each worker, because policies/airflow.yaml asks for them:

    GPUALLOC_WORKER      worker-train
    GPUALLOC_GPUS        2
    GPUALLOC_DEVICE_IDS  GPU-1f2e…,GPU-77ab…
    GPUALLOC_MEMORY_MIB  12288    only for a worker that shares: its part of each device
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROBE = Path(__file__).with_name("probe.py")
PROBE_TIMEOUT = 600
"""Seconds. The first start of TensorFlow on a card it carries no kernels for compiles them, which takes minutes."""


class AllocationError(Exception):
    """The worker does not see exactly its GPUs; the message says what differs and what the likely cause is."""


@dataclass(frozen=True)
class Expected:
    """What gpualloc gave the worker. ``device_ids`` as written (GPU-… or MIG-…); ``memory_mib`` None: exclusive."""

    worker: str
    device_ids: tuple[str, ...]
    memory_mib: int | None


def expected(env: Mapping[str, str]) -> Expected:
    """Read what gpualloc wrote into the worker's environment.

    Raises:
        AllocationError: The variables are absent, or contradict each other.

    """
    worker = env.get("GPUALLOC_WORKER") or "this worker"
    written = {key: env.get(key, "").strip() for key in ("GPUALLOC_GPUS", "GPUALLOC_DEVICE_IDS")}
    missing = [key for key, value in written.items() if not value]
    if missing:
        raise AllocationError(
            f"{worker}: {' and '.join(missing)} not set, so it is unknown which GPUs this worker was given.\n"
            "  likely cause: the compose file was not applied with this example's policy, or the container is older "
            "than the file; run `gpualloc apply --policy airflow`, then `docker compose up -d`."
        )
    ids = tuple(part.strip() for part in written["GPUALLOC_DEVICE_IDS"].split(",") if part.strip())
    if not all(re.fullmatch(r"(GPU|MIG)-[0-9a-fA-F-]{36}", device) for device in ids):
        raise AllocationError(
            f"{worker}: GPUALLOC_DEVICE_IDS={','.join(ids)} are not UUIDs, and only those can be compared.\n"
            "  likely cause: the policy says `write: {device_ids: index}`; use `uuid`."
        )
    if written["GPUALLOC_GPUS"] != str(len(ids)):
        raise AllocationError(
            f"{worker}: GPUALLOC_GPUS={written['GPUALLOC_GPUS']}, but GPUALLOC_DEVICE_IDS names {len(ids)}.\n"
            "  likely cause: one of them was edited by hand; run `gpualloc apply` again."
        )
    memory = env.get("GPUALLOC_MEMORY_MIB", "").strip()
    return Expected(worker, ids, int(memory) if memory.isdigit() else None)


def check_allocation(stand_in: int = 0, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Check the worker that this process runs in, and return the report for the task's log and XCom.

    Args:
        stand_in: Number of logical CPU devices to use in place of GPUs, to rehearse without any; 0 looks at GPUs.
        env: The environment to check; the process's own by default.

    Raises:
        AllocationError: What is seen is not exactly what was given, or a device does not compute.

    """
    env = os.environ if env is None else env
    given = expected(env)
    seen = run_probe(stand_in, env)
    problems = differences(given, seen, stand_in=stand_in)
    if problems:
        raise AllocationError(explain(given, seen, problems, env, stand_in=stand_in))
    return report(given, seen, stand_in=stand_in)


def run_probe(stand_in: int, env: Mapping[str, str]) -> dict[str, Any]:
    """Run probe.py in a process of its own and return what it saw."""
    command = [sys.executable, str(PROBE), "--stand-in", str(stand_in)]
    try:
        done = subprocess.run(
            command, env=dict(env), capture_output=True, text=True, timeout=PROBE_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise AllocationError(f"the probe did not end within {PROBE_TIMEOUT} s: a GPU or its driver hangs") from error
    print(done.stderr, file=sys.stderr, end="")  # TensorFlow's own messages, into the task's log
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        tail = "\n  ".join(done.stderr.splitlines()[-10:])
        raise AllocationError(f"the probe ended with {done.returncode} before it could say what it sees:\n  {tail}")
    seen: dict[str, Any] = json.loads(lines[-1])  # a library may have printed before it
    return seen


def bare(device_id: str) -> str:
    """Return a UUID without its prefix, as CUDA knows it."""
    return device_id.split("-", 1)[1].lower()


def differences(given: Expected, seen: Mapping[str, Any], *, stand_in: int = 0) -> list[str]:
    """Return in what the worker's view differs from what it was given; empty if it sees exactly its GPUs."""
    listed, cuda = seen["tensorflow"]["devices"], seen["cuda"]
    problems = [f"{device['name']}: {device['error']}" for device in listed if device["error"]]
    if seen["tensorflow"]["error"]:
        problems.append(seen["tensorflow"]["error"])
    if len(listed) != len(given.device_ids):
        kind = "stand-in device" if stand_in else "GPU"
        problems.insert(0, f"TensorFlow lists {counted(len(listed), kind)}, gpualloc gave {len(given.device_ids)}")
    if stand_in and not cuda["loaded"]:
        return problems  # a rehearsal without a driver: there is nothing to compare UUIDs with
    visible = [device["uuid"] for device in cuda["devices"]]
    if sorted(visible) != sorted(bare(device) for device in given.device_ids):
        problems.append(f"CUDA shows {', '.join(spelled(visible, given)) or 'no device'}")
    elif not stand_in:
        # TensorFlow's GPU:n is CUDA's device n. The names must agree, or the UUIDs say nothing about TensorFlow.
        problems += [
            f"{tensorflow['name']} is {tensorflow['model']} to TensorFlow and {device['name']} to CUDA"
            for tensorflow, device in zip(listed, cuda["devices"], strict=False)
            if tensorflow["model"] != device["name"]
        ]
    return problems


def counted(number: int, kind: str = "GPU") -> str:
    """Return a number of things in words that fit it."""
    return f"{number or 'no'} {kind}{'' if number == 1 else 's'}"


def spelled(uuids: Sequence[str], given: Expected) -> list[str]:
    """Return CUDA's UUIDs with a prefix: the one of the id they match, else GPU-."""
    known = {bare(device): device for device in given.device_ids}
    return [known.get(uuid, f"GPU-{uuid}") for uuid in uuids]


def explain(
    given: Expected, seen: Mapping[str, Any], problems: Sequence[str], env: Mapping[str, str], *, stand_in: int = 0
) -> str:
    """Return the message of a failed check: what was given, what is seen, and why that may be."""
    lines = [f"{given.worker} does not see exactly the GPUs that gpualloc gave it:"]
    lines += [f"  {problem}" for problem in problems]
    lines.append(f"  given: {', '.join(given.device_ids)}")
    lines.append(f"  CUDA_VISIBLE_DEVICES={env.get('CUDA_VISIBLE_DEVICES', '(not set)')}")
    lines.append(f"  likely cause: {likely_cause(given, seen, stand_in=stand_in)}")
    return "\n".join(lines)


def likely_cause(given: Expected, seen: Mapping[str, Any], *, stand_in: int = 0) -> str:
    """Return the likeliest reason for a difference, and what to do about it."""
    cuda, tensorflow, wanted = seen["cuda"], seen["tensorflow"], {bare(device) for device in given.device_ids}
    visible, container = {device["uuid"] for device in cuda["devices"]}, set(seen["container"] or ())
    recreate = "run `gpualloc apply`, then `docker compose up -d`"
    causes = (
        (
            stand_in and (visible == wanted or not cuda["loaded"]),
            "this rehearsal has other than as many stand-in devices as the worker was given GPUs.",
        ),
        (
            not cuda["loaded"],
            (
                f"there is no NVIDIA driver in this container ({cuda['error']}): it was started without a GPU request, "
                "or the host lacks the NVIDIA Container Toolkit."
            ),
        ),
        (
            visible == wanted and not (tensorflow["version"] and tensorflow["cuda_build"]),
            "this image's TensorFlow cannot use GPUs; build it with `tensorflow[and-cuda]`.",
        ),
        (
            visible == wanted,
            "TensorFlow cannot use what CUDA shows; its own messages above say why (often a CUDA library).",
        ),
        (
            visible < container and container & wanted,
            (
                "CUDA_VISIBLE_DEVICES hides GPUs that are in the container. It counts from 0 inside the container, "
                f"whatever the GPU's number on the host is; {recreate}."
            ),
        ),
        (
            visible > wanted,
            "the container sees more than it was given: is it `privileged`, or started without a device request?",
        ),
    )
    otherwise = f"the container is older than the compose file, or a GPU has gone or changed since; {recreate}."
    return next((cause for holds, cause in causes if holds), otherwise)


def report(given: Expected, seen: Mapping[str, Any], *, stand_in: int = 0) -> dict[str, Any]:
    """Return name and memory of each device, and how long its matrix product took, for a check that passed."""
    cuda = seen["cuda"]["devices"] or [{"uuid": None, "name": None, "memory_mib": None}] * len(given.device_ids)
    return {
        "worker": given.worker,
        "stand_in": bool(stand_in),
        "tensorflow": seen["tensorflow"]["version"],
        "memory_mib": given.memory_mib,
        "devices": [
            {
                "device": device["name"],
                "uuid": spelled([facts["uuid"]], given)[0] if facts["uuid"] else None,
                "name": facts["name"],
                "memory_mib": facts["memory_mib"],
                "matmul_seconds": device["seconds"],
            }
            for device, facts in zip(seen["tensorflow"]["devices"], cuda, strict=True)
        ],
    }


def describe(result: Mapping[str, Any]) -> str:
    """Return a report as text for the log."""
    share = f", {result['memory_mib']} MiB of each" if result["memory_mib"] is not None else ""
    if result["stand_in"]:
        head = f"{result['worker']}: REHEARSAL, logical CPU devices stand in for its GPUs{share}"
    else:
        head = f"{result['worker']} sees exactly its {counted(len(result['devices']))}{share}"
    return "\n".join(
        [f"{head} (TensorFlow {result['tensorflow']})"]
        + [
            f"  {device['device']}: {device['name'] or 'no CUDA device'}, {device['memory_mib'] or '?'} MiB, "
            f"{device['uuid'] or 'no UUID'}, matrix product in {device['matmul_seconds']:.3f} s"
            for device in result["devices"]
        ]
    )
