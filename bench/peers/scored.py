"""Schedulers that score a machine by how full it would be: Nomad and Kubernetes.

Both score nodes over two resources. Here the two are what a GPU has of each: slots for workers, and memory. The same
score then picks the devices on the node, ties going to the first in PCI order.

- Nomad's BestFit v3 (hashicorp/nomad, ``nomad/structs/funcs.go``, ``ScoreFitBinPack``): 20 - 10^free - 10^free, kept
  within 0 and 18; the highest wins.
- Kubernetes' NodeResourcesFit (kubernetes/kubernetes, ``pkg/scheduler/framework/plugins/noderesources/``
  ``most_allocated.go`` and ``least_allocated.go``): per resource 100 x requested / capacity, or 100 x (capacity -
  requested) / capacity, in whole numbers rounded down, then their mean, rounded down; the highest wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.peers.state import State
    from tests.oracle.rules import Job

    Amounts = Sequence[tuple[int, int]]
    """Per resource, what would be in use and what there is."""

MAX_NODE_SCORE = 100
MAX_FIT_SCORE = 18.0


def fit_bin_pack(amounts: Amounts) -> float:
    """Return Nomad's score: 18 where everything is in use, 0 where nothing is."""
    total = sum(10 ** (1 - used / capacity) if capacity else 10.0 for used, capacity in amounts)
    return min(MAX_FIT_SCORE, max(0.0, 20.0 - total))


def most_allocated(amounts: Amounts) -> int:
    """Return Kubernetes' score that favours full nodes, 0 to 100."""
    return sum(_most(used, capacity) for used, capacity in amounts) // len(amounts)


def least_allocated(amounts: Amounts) -> int:
    """Return Kubernetes' score that favours empty nodes, 0 to 100."""
    return sum(_least(used, capacity) for used, capacity in amounts) // len(amounts)


def _most(used: int, capacity: int) -> int:
    return min(used, capacity) * MAX_NODE_SCORE // capacity if capacity else 0


def _least(used: int, capacity: int) -> int:
    return (capacity - used) * MAX_NODE_SCORE // capacity if capacity and used <= capacity else 0


def by_score(score: Callable[[Amounts], float]) -> Callable[[State, Job], list[int] | None]:
    """Return the chooser of a scheduler with this score."""

    def choose(state: State, job: Job) -> list[int] | None:
        fitting = state.fitting(job)
        best: tuple[float, list[int]] | None = None
        for host, devices in fitting.items():
            chosen = sorted(devices, key=lambda d: -score(device_amounts(state, job, d)))[: job.low]
            value = score(node_amounts(state, job, host, chosen))
            if best is None or value > best[0]:
                best = value, chosen
        return best[1] if best else None

    return choose


def device_amounts(state: State, job: Job, d: int) -> Amounts:
    """Return slots and memory of one device with a worker added."""
    return (
        (state.slots_used(d) + state.slots_asked(job), state.slots),
        (state.memory_used(d) + state.memory_asked(job, d), state.memory(d)),
    )


def node_amounts(state: State, job: Job, host: str, chosen: Sequence[int]) -> Amounts:
    """Return slots and memory of a whole host with a worker added on these devices."""
    devices = state.hosts[host]
    slots = sum(state.slots_used(d) for d in devices) + state.slots_asked(job) * len(chosen)
    memory = sum(state.memory_used(d) for d in devices) + sum(state.memory_asked(job, d) for d in chosen)
    return ((slots, state.slots * len(devices)), (memory, sum(state.memory(d) for d in devices)))
