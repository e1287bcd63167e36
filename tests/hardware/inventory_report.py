"""Compares what gpualloc and nvidia-smi say of this host's GPUs, fact by fact.

    python tests/hardware/inventory_report.py REPORT.json

For a host with NVIDIA GPUs. Needs gpualloc (the directory this file is in will do) and pynvml, nothing else. The report
holds the inventory, what nvidia-smi printed, every difference, and how long reading took. Exit status 1: they differ.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gpualloc.inventory import digest, load
from gpualloc.inventory.snapshot import dump, parse
from gpualloc.model import Gpu, Link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpualloc.model import Host, Reading

NOT_COMPARED = {"memory_used_mib", "processes"}
"""What changes from one moment to the next; both are in the report."""


def nvidia_smi(*arguments: str) -> str:
    return subprocess.run(["nvidia-smi", *arguments], check=True, capture_output=True, text=True).stdout


def by_smi(printed: dict[str, str]) -> Reading:
    with tempfile.TemporaryDirectory() as directory:
        report, topology = Path(directory) / "smi.xml", Path(directory) / "topo.txt"
        report.write_text(printed["nvidia-smi -q -x"], encoding="utf-8")
        topology.write_text(printed["nvidia-smi topo -m"] + printed["nvidia-smi -L"], encoding="utf-8")
        return load([str(report)], topology)


def facts(host: Host) -> Iterator[tuple[str, Any]]:
    """Yield every fact under a name that both readings have for it."""
    yield "driver", host.driver
    yield "cuda", host.cuda
    yield "number of GPUs", len(host.gpus)
    for gpu in host.gpus:
        for field in fields(Gpu):
            if field.name not in NOT_COMPARED:
                yield f"{gpu.uuid} {field.name}", getattr(gpu, field.name)
    for link in host.links:
        for field in fields(Link)[2:]:
            yield f"{' '.join(sorted((link.a, link.b)))} {field.name}", getattr(link, field.name)


def compare(ours: Host, theirs: Host) -> list[dict[str, Any]]:
    """Return a row for each fact. What one side leaves unknown is no difference: nvidia-smi does not tell all."""
    left, right = dict(facts(ours)), dict(facts(theirs))
    rows = []
    for name in [*left, *(name for name in right if name not in left)]:
        here, there = left.get(name), right.get(name)
        verdict = "same" if here == there else "unknown to one" if here is None or there is None else "different"
        rows.append({"fact": name, "gpualloc": str(here), "nvidia-smi": str(there), "verdict": verdict})
    return rows


def timed(read: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = read()
    return result, round(time.perf_counter() - start, 4)


def main() -> int:
    reading, first = timed(lambda: load(["nvml"]))
    _, again = timed(lambda: load(["nvml"]))
    text = dump(reading.inventory)
    assert parse(text, "inventory.json") == reading.inventory
    commands = (("-q", "-x"), ("topo", "-m"), ("-L",))
    printed = {" ".join(("nvidia-smi", *command)): nvidia_smi(*command) for command in commands}
    theirs = by_smi(printed)
    rows = compare(reading.inventory.hosts[0], theirs.inventory.hosts[0])
    counts = {v: sum(row["verdict"] == v for row in rows) for v in ("same", "unknown to one", "different")}
    report = {
        "inventory": json.loads(text),
        "inventory_sha256": digest(reading.inventory),
        "warnings": [str(warning) for warning in reading.warnings],
        "nvidia-smi warnings": [str(warning) for warning in theirs.warnings],
        "seconds": {"first reading, with the import of pynvml": first, "second reading": again},
        "verdicts": counts,
        "comparison": rows,
        "printed": printed,
    }
    Path(sys.argv[1]).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [
        f"{row['verdict']}: {row['fact']}: gpualloc {row['gpualloc']}, nvidia-smi {row['nvidia-smi']}"
        for row in rows
        if row["verdict"] != "same"
    ]
    sys.stdout.write("\n".join([*lines, *report["warnings"], f"{counts}, {report['seconds']}", ""]))
    return 1 if counts["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
