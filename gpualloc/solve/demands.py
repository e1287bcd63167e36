"""From requests and policy to demands: who shares, by what amount, and who has a device alone."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

from gpualloc.errors import Diagnostic, GpuallocError
from gpualloc.policy.filters import Demand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.model import Policy, Request, Worker
    from gpualloc.solve.pins import Pins


def check_affinities(requests: Sequence[Request]) -> None:
    """Raise ``unknown-role`` for an affinity with a role that is not in the project."""
    roles = {request.role for request in requests}
    problems = [
        Diagnostic(
            "unknown-role",
            f"{request.role}: affinity names {role}, and no service called that asks for a GPU",
            request.where,
            hint=f"the roles are: {', '.join(sorted(roles))}",
        )
        for request in requests
        for role in request.affinity
        if role not in roles
    ]
    if problems:
        raise GpuallocError(*problems)


def hand_shares(requests: Sequence[Request], pins: Pins) -> dict[str, int]:
    """Return, per worker pinned by hand to a device with others, with how many it shares (itself counted).

    The number is the largest on any one of the worker's devices.
    """
    workers = [
        worker.name
        for request in requests
        if request.hand_pinned and request.memory_mib is None and not request.exclusive
        for worker in request.workers
        if worker.name in pins.by_worker
    ]
    crowd = Counter(uuid for name in workers for uuid in pins.by_worker[name])
    largest = {name: max(crowd[uuid] for uuid in pins.by_worker[name]) for name in workers}
    return {name: k for name, k in largest.items() if k > 1}


def demand_of(request: Request, worker: Worker, policy: Policy, shares: dict[str, int]) -> Demand:
    """Return what one worker demands under the policy.

    Mode ``none`` makes everyone exclusive; in mode ``count`` a sharing worker takes one of ``max_workers_per_gpu``
    equal parts; in mode ``memory`` it takes what it names, else what ``default_memory`` says. Memory that is not
    taken is still a filter.
    """
    sharing = policy.sharing
    named = request.memory_mib
    alone = Demand(request, exclusive=True, memory_mib=None, share=None, needs_mib=named, by_memory=False)
    if sharing.mode == "none" or request.exclusive:
        return alone
    part = Fraction(1, sharing.max_workers_per_gpu)
    by_memory = sharing.mode == "memory"
    if named is None:
        if worker.name in shares:
            part = Fraction(1, shares[worker.name]) if by_memory else part
            return Demand(request, exclusive=False, memory_mib=None, share=part, needs_mib=None, by_memory=by_memory)
        if sharing.default_memory == "exclusive":
            return alone
        named = None if sharing.default_memory == "share" else sharing.default_memory
    if not by_memory or named is None:
        return Demand(request, exclusive=False, memory_mib=None, share=part, needs_mib=named, by_memory=by_memory)
    return Demand(request, exclusive=False, memory_mib=named, share=None, needs_mib=named, by_memory=True)
