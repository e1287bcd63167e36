"""HAMi's binpack and spread (Project-HAMi/HAMi, ``pkg/scheduler/policy/gpu_policy.go`` and ``node_policy.go``).

A device scores 10 x (slots + cores + memory), each the part that would be in use with the request added. The list of
devices is ordered by NUMA node and then by score, and ``Fit`` in ``pkg/device/nvidia/device.go`` walks it from its end:
binpack meets the lowest NUMA node and the highest score first, spread the highest NUMA node and the lowest score. A
node scores by the same three parts over all its devices, before the request; binpack takes the highest, spread the
lowest. A request that names neither memory nor cores takes all of both.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.peers.state import State
    from tests.oracle.rules import Job

WEIGHT = 10
CORES = 100
"""A device's cores, in per cent; a sharing worker that names none is not limited, and counts as 0."""


def parts_score(*parts: tuple[int, int]) -> Fraction:
    """Return the score for what would be in use of each resource, and what there is."""
    return WEIGHT * sum((Fraction(used, total) for used, total in parts if total), Fraction(0))


def device_score(state: State, job: Job, d: int) -> Fraction:
    """Return the score of a device with a worker's request added."""
    cores = CORES if job.exclusive else 0
    return parts_score(
        (job.low + len(state.jobs[d]), state.slots),
        (cores + _cores_used(state, d), CORES),
        (state.memory_asked(job, d) + state.memory_used(d), state.memory(d)),
    )


def node_score(state: State, host: str) -> Fraction:
    """Return the score of a host as it is."""
    devices = state.hosts[host]
    return parts_score(
        (sum(len(state.jobs[d]) for d in devices), state.slots * len(devices)),
        (sum(_cores_used(state, d) for d in devices), CORES * len(devices)),
        (sum(state.memory_used(d) for d in devices), sum(state.memory(d) for d in devices)),
    )


def _cores_used(state: State, d: int) -> int:
    return sum(CORES for job in state.jobs[d] if job.exclusive)


def binpack(state: State, job: Job) -> list[int] | None:
    """Choose the fullest host, and on it the fullest devices of the lowest NUMA node."""
    fitting = state.fitting(job)
    if not fitting:
        return None
    host = max(fitting, key=lambda name: node_score(state, name))
    return sorted(fitting[host], key=lambda d: (_numa(state, d), -device_score(state, job, d)))[: job.low]


def spread(state: State, job: Job) -> list[int] | None:
    """Choose the emptiest host, and on it the emptiest devices of the highest NUMA node."""
    fitting = state.fitting(job)
    if not fitting:
        return None
    host = min(fitting, key=lambda name: node_score(state, name))
    return sorted(fitting[host], key=lambda d: (-_numa(state, d), device_score(state, job, d)))[: job.low]


def _numa(state: State, d: int) -> int:
    return state.device(d).gpu.numa_node or 0
