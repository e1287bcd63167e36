"""The set choice of NVIDIA's device plugin (NVIDIA/go-gpuallocator, ``gpuallocator/besteffort_policy.go``).

To give n devices it looks at every way of dividing the free devices of the node into sets of n, takes the division with
the highest total link score (the first of equals), and out of it the set with the highest score of its own. A last set
that cannot be filled is padded; padding never spreads over several sets. Shared devices go through another rule
(NVIDIA/k8s-device-plugin, ``internal/rm/allocate.go``), of which "packed" suits a policy that packs: the device with
the most workers. Which node, kube-scheduler's default scores do not say, for they look at CPU and memory alone: the
first that fits.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.peers.state import State
    from tests.oracle.rules import Job

    PairScore = Callable[[int, int], int]


def set_score(devices: Sequence[int], pair: PairScore) -> int:
    """Return the sum of the scores of all pairs of a set."""
    return sum(pair(a, b) for a, b in combinations(devices, 2))


def partitions(devices: tuple[int, ...], size: int, spare: int) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Yield every division into sets of ``size`` and, where ``spare`` is not 0, one of ``spare``, each once.

    Sets come in the order of their first devices.
    """
    if not devices:
        yield ()
        return
    first, rest = devices[0], devices[1:]
    for length in (size, spare) if spare else (size,):
        if length > len(devices):
            continue
        for others in combinations(rest, length - 1):
            chosen = (first, *others)
            remaining = tuple(d for d in rest if d not in others)
            for more in partitions(remaining, size, 0 if length == spare else spare):
                yield (chosen, *more)


def best_set(devices: Sequence[int], size: int, pair: PairScore) -> tuple[int, ...] | None:
    """Return the best set of the best division; None where there are too few devices."""
    if len(devices) < size:
        return None
    if size == 1:
        return (devices[0],)
    best: tuple[tuple[int, ...], ...] = ()
    best_score = -1
    for candidate in partitions(tuple(devices), size, len(devices) % size):
        score = sum(set_score(one, pair) for one in candidate)
        if score > best_score:
            best, best_score = candidate, score
    return max((one for one in best if len(one) == size), key=lambda one: set_score(one, pair))


def best_effort(state: State, job: Job) -> Sequence[int] | None:
    """Choose the first host that fits, and on it the best set, or for sharing workers the most shared devices."""
    for devices in state.fitting(job).values():
        if job.exclusive:
            return best_set(devices, job.low, state.case.pair_score)
        return sorted(devices, key=lambda d: -len(state.jobs[d]))[: job.low]
    return None
