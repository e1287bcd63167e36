"""How long planning takes and how much memory it needs, at rising sizes, each in a process of its own.

    python bench/scale.py                  the sizes up to 1,000 GPUs
    python bench/scale.py --large          all of them, up to 100,000 GPUs and as many workers
    python bench/scale.py 16 1250          these

Times are of the planning alone, after the imports and after the inventory is read. Beside each stands a yardstick from
the same run: first fit, or for 40 workers the plain model with CP-SAT and 20 seconds. Every plan is checked by code
that knows nothing of the planner; a broken one exits with 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import yardsticks
from bench.fleet import SIZES, faults
from gpualloc.solve import solve

if TYPE_CHECKING:
    from bench.yardsticks import Result
    from gpualloc.model import Tier

LARGE = {"1250", "12500"}
PLAIN = {"40a", "40b", "40c"}
"""Sizes for which the plain model is the yardstick."""

LONGEST_S = 600
SHOWN = 3
"""Values of a tier that are printed; of more, only how many."""


def measure(name: str) -> dict[str, Any]:
    """Plan one size in this process, and return what there is to say of it."""
    for module in ("numpy", "highspy", "networkx"):
        importlib.import_module(module)
    size = SIZES[name]()
    before = peak_mib()
    start, start_cpu = time.perf_counter(), time.process_time()
    solution = solve(size.inventory, size.requests, size.policy)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak = peak_mib()
    yardstick = yardsticks.cp_sat(size) if name in PLAIN else yardsticks.first_fit(size)
    return {
        "hosts": len(size.inventory.hosts),
        "devices": size.devices,
        "workers": size.workers,
        "roles": len(size.requests),
        "pinned": size.pinned,
        "seconds": seconds,
        "cpu": cpu,
        "peak_mib": peak,
        "inputs_mib": before,
        "placed": len(solution.placements),
        "devices_used": len({ref.uuid for placement in solution.placements for ref in placement.devices}),
        "tiers": [_tier(tier) for tier in solution.objective],
        "faults": faults(size, solution.placements)[:5],
        "yardstick": _yardstick("CP-SAT, plain model" if name in PLAIN else "first fit", yardstick, seconds),
    }


def peak_mib() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _tier(tier: Tier) -> str:
    value = f"({len(tier.value)} values)" if isinstance(tier.value, tuple) and len(tier.value) > SHOWN else tier.value
    if tier.proven:
        return f"{tier.name} {value} proven"
    if isinstance(tier.value, (int, float)) and isinstance(tier.bound, (int, float)):
        gap = f", within {abs(tier.value - tier.bound) / abs(tier.value):.2%}" if tier.value else ""
        return f"{tier.name} {value} (bound {tier.bound}{gap})"
    return f"{tier.name} {value} (no bound)"


def _yardstick(name: str, result: Result, ours: float) -> str:
    note = f", {result.note}" if result.note else ""
    ratio = result.seconds / ours
    times = f"{ratio:,.0f} times ours" if ratio >= 1 else f"1/{1 / ratio:,.0f} of ours"
    return f"{name}: {result.seconds:.4f} s ({times}), placed {result.placed:,}, devices {result.devices_used:,}{note}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", metavar="SIZE", help=f"which of {', '.join(SIZES)}")
    parser.add_argument("--large", action="store_true", help="also the sizes that take minutes")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.sizes if name not in SIZES]
    if unknown:
        parser.error(f"no size is called {', '.join(unknown)}; there are {', '.join(SIZES)}")
    if arguments.child:
        print(json.dumps(measure(arguments.sizes[0])))
        return
    names = arguments.sizes or [name for name in SIZES if arguments.large or name not in LARGE]
    held = [_print(name) for name in names]
    if not all(held):
        sys.exit(1)


def _print(name: str) -> bool:
    """Measure one size in a process of its own and print it; return whether the plan holds."""
    command = [sys.executable, __file__, "--child", name]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        print(f"{name}: given up after {LONGEST_S} s")
        return False
    if child.returncode:
        print(f"{name}: failed\n{child.stderr.strip()}")
        return False
    seen = json.loads(child.stdout)
    print(
        f"{seen['devices']:,} devices on {seen['hosts']:,} hosts, {seen['workers']:,} workers of {seen['roles']} roles,"
        f" {seen['pinned']:,} placed before"
    )
    print(
        f"  {seen['seconds']:.3f} s ({seen['cpu']:.3f} of CPU), peak {seen['peak_mib']:,.0f} MiB"
        f" (the inputs alone {seen['inputs_mib']:,.0f}); placed {seen['placed']:,}, devices {seen['devices_used']:,}"
    )
    print(f"  {'; '.join(seen['tiers'])}")
    print(f"  yardstick  {seen['yardstick']}")
    for fault in seen["faults"]:
        print(f"  BROKEN  {fault}")
    return not seen["faults"]


if __name__ == "__main__":
    main()
