"""What ``gpualloc apply`` would do about a file: who moves, where to, and whether another plan would be better."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from gpualloc.solve import SolveOptions, solve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gpualloc.model import Placement, Solution, Tier, Unplaced
    from gpualloc.planning import Workspace

_FEW_DEVICES = 64
"""Up to so many, a plan from scratch is worth making for a remark."""

_WORTH_A_MOVE = frozenset(
    {"granted", "grant_vector", "hosts_used", "devices_used", "peak_load", "link_score", "device_size"}
)
"""Tiers that a user would restart a worker for; what comes after them only levels things out."""

MOVES = frozenset({"move", "resize"})


class Outlook:
    """The plans for a workspace as it is, made when they are asked for."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @cached_property
    def kept(self) -> Solution:
        """The plan in which only those move that must, whatever the policy's stability."""
        return self._solve("keep")

    @cached_property
    def applied(self) -> Solution:
        """The plan that ``gpualloc apply`` would write."""
        stability = self._workspace.policy.stability
        return self.kept if stability == "keep" else self._solve(stability)

    def _solve(self, stability: str) -> Solution:
        workspace = self._workspace
        policy = replace(workspace.policy, stability="keep") if stability == "keep" else workspace.policy
        options = SolveOptions(replan=stability == "ignore")
        return solve(workspace.inventory, workspace.requests, policy, project=workspace.project.name, options=options)

    @cached_property
    def _placed(self) -> dict[str, Placement]:
        return {placement.worker: placement for placement in self.applied.placements}

    @cached_property
    def _unplaced(self) -> dict[str, Unplaced]:
        return {unplaced.worker: unplaced for unplaced in self.applied.unplaced}

    def moved(self) -> tuple[str, ...]:
        """Return the workers whose devices would change, of those that have some on this machine."""
        return tuple(p.worker for p in self.applied.placements if p.action in MOVES)

    @cached_property
    def command(self) -> str:
        """What makes that plan, with the option that says where it is written."""
        return " ".join(word for word in ("gpualloc apply", self._workspace.written) if word)

    @property
    def writes(self) -> str:
        """What writes that plan: where not every worker fits, only ``--partial`` writes anything."""
        return f"{self.command} --partial" if self.applied.unplaced else self.command

    def mends(self, workers: Iterable[str]) -> str:
        """Say that ``gpualloc apply`` mends what is wrong with these workers; or why it cannot."""
        hints = [self._unplaced[worker].hint for worker in workers if worker in self._unplaced]
        return f"{self.command} finds no device for it: {hints[0]}" if hints else f"{self.writes} mends it"

    def fate(self, worker: str, label: Callable[[str], str]) -> str:
        """Return what ``gpualloc apply`` would do with a worker, in a sentence; ``label`` names devices."""
        placement = self._placed.get(worker)
        if placement is None:
            return self.mends((worker,))
        if placement.action == "keep":
            return f"{self.command} leaves it there"
        to = ", ".join(label(device.uuid) for device in placement.devices)
        verb = {"move": "moves it to", "resize": "gives it", "pin": "pins it to"}[placement.action]
        return f"{self.writes} {verb} {to}"

    def better(self) -> tuple[Tier, Tier, tuple[str, ...]] | None:
        """Return the first tier that a plan from scratch would better, as it is and as it would be, and who would move.

        None where nothing is better, where somebody has to move or finds no place anyway, and where there are too many
        devices to plan twice for a remark.
        """
        count = sum(len(gpu.mig) if gpu.mig else 1 for host in self._workspace.inventory.hosts for gpu in host.gpus)
        if count > _FEW_DEVICES or self.kept.unplaced or any(p.action != "keep" for p in self.kept.placements):
            return None
        fresh = self._solve("ignore")
        movers = tuple(p.worker for p in fresh.placements if p.action in MOVES)
        now = {tier.name: tier for tier in self.kept.objective}
        for tier in fresh.objective:
            old = now.get(tier.name)
            if tier.name == "moves" or old is None or old.value == tier.value:
                continue
            worth = tier.name in _WORTH_A_MOVE and movers and _beats(tier, old)
            return (old, tier, movers) if worth else None
        return None


def _beats(tier: Tier, old: Tier) -> bool:
    a, b = tier.value, old.value
    if isinstance(a, tuple) or isinstance(b, tuple):
        return isinstance(a, tuple) and isinstance(b, tuple) and (a > b if tier.sense == "max" else a < b)
    return a is not None and b is not None and (a > b if tier.sense == "max" else a < b)
