"""How other schedulers choose GPUs, written anew from their published rules, as baselines.

Each places one worker at a time, in the order of the file, and never looks back; where the rule leaves a tie open, the
first in order wins. All of them are given the same filters, capacities and sharing (:mod:`bench.peers.state`), so that
what differs is the choice alone. One peer is a function and one line in ``PEERS``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bench.peers import besteffort, fragmentation, hami, scored
from bench.peers.state import first_fit

if TYPE_CHECKING:
    from bench.peers.state import Chooser
    from gpualloc.model import Strategy


class Peer(NamedTuple):
    """A scheduler: its name, the strategy it stands for, and how it chooses."""

    name: str
    strategy: Strategy
    choose: Chooser


PEERS: tuple[Peer, ...] = (
    Peer("first fit", "pack", first_fit),
    Peer("HAMi binpack", "pack", hami.binpack),
    Peer("Nomad BestFit v3", "pack", scored.by_score(scored.fit_bin_pack)),
    Peer("k8s MostAllocated", "pack", scored.by_score(scored.most_allocated)),
    Peer("go-gpuallocator best-effort", "pack", besteffort.best_effort),
    Peer("FGD", "pack", fragmentation.gradient_descent),
    Peer("Gandiva", "pack", fragmentation.gandiva),
    Peer("HAMi spread", "spread", hami.spread),
    Peer("k8s LeastAllocated", "spread", scored.by_score(scored.least_allocated)),
)
