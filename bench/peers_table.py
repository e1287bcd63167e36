"""gpualloc beside the schedulers that place one worker at a time, on the fixed suite, scored by one judge.

For every peer, gpualloc plans the same instances under the strategy that the peer stands for. Printed are the totals of
five figures, and on how many instances the peer's plan is behind ours, equal, or ahead of it, by the tiers of the
objective in their order. The totals are to be read from left to right: whoever places fewer workers also needs fewer
devices, and moves fewer. Exits with 1 where gpualloc is ever behind.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.evaluate import METRICS, evaluate, placements_of
from bench.peers import PEERS
from bench.peers.state import one_by_one
from bench.suite import INSTANCES, suite
from gpualloc.solve import solve
from tests.oracle.rules import read_case

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.evaluate import Verdict
    from bench.peers import Peer
    from bench.suite import Instance
    from gpualloc.model import Strategy
    from tests.oracle.objective import Value

FIRST_COLUMN = 34


@dataclass(slots=True)
class Tally:
    """What one scheduler's plans come to over the suite.

    ``behind`` counts by the tier that decided against it; ``gap`` and ``base`` add up, over those instances, how far it
    is from ours there, and what ours is.
    """

    totals: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    behind: Counter[str] = field(default_factory=Counter)
    gap: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    base: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    equal: int = 0
    ahead: list[str] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        for name in METRICS:
            self.totals[name] += number(verdict.metrics[name])

    def against(self, name: str, theirs: Verdict, ours: Verdict) -> None:
        tier, sign = ours.compare(theirs)
        if sign > 0:
            self.behind[tier] += 1
            self.gap[tier] += number(theirs.tiers[tier]) - number(ours.tiers[tier])
            self.base[tier] += number(ours.tiers[tier])
        elif sign < 0:
            self.ahead.append(f"{name}: {tier} {theirs.tiers[tier]}, ours {ours.tiers[tier]}")
        else:
            self.equal += 1


def number(value: Value) -> float:
    """Return a tier's value as one number; several priorities or grants count as their sum."""
    return float(sum(value) if isinstance(value, tuple) else value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=INSTANCES, help="only the first so many")
    count = parser.parse_args().instances
    instances = suite(count)
    print(
        f"{len(instances)} instances, {sum(one.changed for one in instances)} of them after a GPU was lost,"
        f" {sum(len(request.workers) for one in instances for request in one.requests)} workers"
    )
    never_behind = True
    for strategy in dict.fromkeys(peer.strategy for peer in PEERS):
        never_behind &= _compare(strategy, [peer for peer in PEERS if peer.strategy == strategy], instances)
    if not never_behind:
        sys.exit(1)


def _compare(strategy: Strategy, peers: list[Peer], instances: Iterable[Instance]) -> bool:
    """Print one strategy's table; return whether gpualloc is never behind."""
    mine = Tally()
    tallies = {peer.name: Tally() for peer in peers}
    proven = Counter[bool]()
    times: list[tuple[float, str]] = []
    for one in (each.under(strategy) for each in instances):
        case = read_case(one.inventory, one.requests, one.policy, None)
        start = time.process_time()
        solution = solve(one.inventory, one.requests, one.policy)
        times.append((time.process_time() - start, one.name))
        proven[all(tier.proven for tier in solution.objective)] += 1
        ours = evaluate(case, solution.placements)
        mine.add(ours)
        for peer in peers:
            theirs = evaluate(case, placements_of(case, one_by_one(case, peer.choose)))
            tallies[peer.name].add(theirs)
            tallies[peer.name].against(one.name, theirs, ours)
    print(f"\n{strategy}: {proven[True]} of {proven.total()} plans proven best in every tier")
    print(
        f"CPU seconds for a plan: median {statistics.median(seconds for seconds, _ in times):.3f}; the slowest", end=" "
    )
    print(", ".join(f"{seconds:.2f} ({name})" for seconds, name in sorted(times, reverse=True)[:3]))
    titles = ("placed", "devices", "mean peak", "links", "moves")
    print(" " * FIRST_COLUMN + "".join(f"{title:>10}" for title in titles) + "   behind ours  equal  ahead")
    _print_row("gpualloc", mine, proven.total(), "")
    for name, tally in tallies.items():
        outcome = f"{tally.behind.total():14}{tally.equal:7}{len(tally.ahead):7}"
        _print_row(name, tally, proven.total(), outcome)
    print("  behind ours, by the tier that decided: on how many instances, and by how much on those")
    for name, tally in tallies.items():
        gaps = (f"{tier} {n} ({_gap(tally, tier)})" for tier, n in tally.behind.most_common())
        print(f"    {name:{FIRST_COLUMN - 4}}" + ", ".join(gaps))
    wins = [f"{name}: {text}" for name, tally in tallies.items() for text in tally.ahead]
    for text in wins:
        print(f"  AHEAD OF OURS  {text}")
    return not wins


def _gap(tally: Tally, tier: str) -> str:
    gap, base = tally.gap[tier], tally.base[tier]
    return f"{gap / base:+.1%}" if base else f"{gap:+.0f}"


def _print_row(name: str, tally: Tally, count: int, outcome: str) -> None:
    totals = tally.totals
    print(
        f"  {name:{FIRST_COLUMN - 2}}{totals['placed']:10.0f}{totals['devices_used']:10.0f}"
        f"{totals['peak_load'] / count:10.3f}{totals['link_score']:10.0f}{totals['moves']:10.0f}{outcome}"
    )


if __name__ == "__main__":
    main()
