"""How well two GPUs are joined, and how loaded a device is: the scales that the objective adds up.

The link scale is the one the field uses (go-gpuallocator's best-effort policy and its descendants): 100 for every
NVLink, plus a score for the PCIe path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.model import LINK_LEVELS

if TYPE_CHECKING:
    from gpualloc.model import Link, LinkLevel

NVLINK_SCORE = 100
"""Score of one NVLink between two GPUs."""

PCIE_SCORE = {"PIX": 50, "PXB": 40, "PHB": 30, "NODE": 20, "SYS": 10}
"""Score of the PCIe path between two GPUs; an unknown path scores 0."""

PEAK_STEPS = 20
"""``peak_load`` is rounded up to this many steps of a full device: 5 % each."""

NOT_LINKED = len(LINK_LEVELS)
"""Rank of a pair about which nothing is known: further away than any level."""


def link_score(nvlink: int | None, pcie: str | None) -> int:
    """Return the score of one pair of GPUs; what is unknown adds nothing."""
    return NVLINK_SCORE * (nvlink or 0) + (PCIE_SCORE[pcie] if pcie else 0)


def link_rank(nvlink: int | None, pcie: str | None) -> int:
    """Return how far apart a pair is: 0 for NVLINK up to 5 for SYS, ``NOT_LINKED`` when nothing is known.

    NVLink is closer than any PCIe path, whatever that path is.
    """
    if nvlink:
        return 0
    return LINK_LEVELS.index(pcie) if pcie else NOT_LINKED


def level_rank(level: LinkLevel | None) -> int:
    """Return the largest rank that a ``min_link`` admits; None admits every pair."""
    return NOT_LINKED if level is None else LINK_LEVELS.index(level)


def weaker(first: Link, second: Link) -> tuple[int | None, str | None]:
    """Return what both reports of one pair admit: links may be reported asymmetrically, and the smaller holds."""
    nvlink = None if first.nvlink is None or second.nvlink is None else min(first.nvlink, second.nvlink)
    if first.pcie is None or second.pcie is None:
        return nvlink, None
    return nvlink, max(first.pcie, second.pcie, key=LINK_LEVELS.index)


def peak_steps(load: int, full: int) -> int:
    """Return ``load / full`` rounded up to whole steps of 5 %."""
    return -(-load * PEAK_STEPS // full)
