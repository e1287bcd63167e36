"""Schedulers that look at what is left over: FGD and Gandiva, as their comparison in one simulator states them.

Source: hkust-adsl/kubernetes-scheduler-simulator, ``pkg/utils/frag.go``, ``pkg/simulator/plugin/fgd_score.go``,
``gandiva_score.go`` and ``open_gpu_share.go``; the paper is Weng et al., "Beware of Fragmentation: Scheduling
GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX ATC 2023.

Devices count in thousandths. A node's fragmentation is the mean, over the kinds of workers weighted by how many there
are, of what is left on the node and of no use to that kind: all of it where the node cannot take one more, else what
lies on devices too full for it. FGD takes the node, and for a sharing worker the device, where placing the worker adds
the least: 100 x sigmoid((before - after) / 1000), in whole numbers rounded down. Whole devices are taken in order. CPU,
which the simulator counts too, is not what is planned here.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from bench.peers.state import MILLI

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.peers.state import State
    from tests.oracle.rules import Job

MAX_NODE_SCORE = 100
MAX_SPEC = 8 * MILLI
"""The most that a node holds, eight devices."""


def typical(state: State) -> list[tuple[Job, float]]:
    """Return one worker of every kind there is, with the part of all workers that are of its kind."""
    counts = Counter(job.role for job in state.case.jobs)
    kinds = {job.role: job for job in state.case.jobs}
    return [(kinds[role], count / len(state.case.jobs)) for role, count in counts.items()]


def milli_asked(job: Job, d: int) -> int:
    """Return what a worker takes of a device in thousandths; more than there is where it may not have it."""
    share = job.shares.get(d)
    return MILLI + 1 if share is None else math.ceil(share * MILLI)


def fragmentation(left: Mapping[int, int], kinds: list[tuple[Job, float]]) -> float:
    """Return how much of what is left on a node's devices is of no use, in thousandths of a device."""
    total = sum(left.values())
    amount = 0.0
    for job, part in kinds:
        too_full = [d for d, milli in left.items() if milli < milli_asked(job, d)]
        if len(left) - len(too_full) >= job.low:
            amount += part * sum(left[d] for d in too_full)
        else:
            amount += part * total
    return amount


def gradient_score(before: float, after: float) -> int:
    """Return FGD's score of a placement, 0 to 100."""
    return int(MAX_NODE_SCORE / (1 + math.exp(-(before - after) / MILLI)))


def gradient_descent(state: State, job: Job) -> list[int] | None:
    """Choose where the fragmentation grows least (FGD)."""
    kinds = typical(state)
    best: tuple[int, list[int]] | None = None
    for host, fitting in state.fitting(job).items():
        left = {d: state.milli_left(d) for d in state.hosts[host]}
        before = fragmentation(left, kinds)
        sharing_one = job.low == 1 and not job.exclusive
        for devices in [[d] for d in fitting] if sharing_one else [fitting[: job.low]]:
            after = fragmentation(left | {d: _less(left[d], job, d) for d in devices}, kinds)
            score = gradient_score(before, after)
            if best is None or score > best[0]:
                best = score, devices
    return best[1] if best else None


def _less(left: int, job: Job, d: int) -> int:
    return max(0, left - milli_asked(job, d))


def affinity_of(job: Job) -> str:
    """Return the group that Gandiva puts a worker in: those that share, and those of one number of whole devices."""
    return f"{job.low}-gpu" if job.exclusive else "share-gpu"


def affinity_score(wanted: str, on_node: set[str], left: int) -> int:
    """Return Gandiva's score of a node, 0 to 100.

    A quarter is for how full it is; three quarters go to a node with this group alone, two to one with others beside
    it, one to an idle node, none to a node with other groups.
    """
    quarter = MAX_NODE_SCORE // 4
    if not on_node:
        quarters = 1
    elif wanted not in on_node:
        quarters = 0
    else:
        quarters = 3 if len(on_node) == 1 else 2
    return quarter * (MAX_SPEC - left) // MAX_SPEC + quarter * quarters


def gandiva(state: State, job: Job) -> list[int] | None:
    """Choose the node by group, and on it the fullest devices that still take the worker (best fit)."""
    best: tuple[int, list[int]] | None = None
    for host, fitting in state.fitting(job).items():
        left = {d: state.milli_left(d) for d in state.hosts[host]}
        groups = {affinity_of(other) for d in left for other in state.jobs[d]}
        score = affinity_score(affinity_of(job), groups, sum(left.values()))
        if best is None or score > best[0]:
            best = score, sorted(fitting, key=lambda d: left[d])[: job.low]
    return best[1] if best else None
