"""What real machines answered, kept: the readers must go on reading it as they did there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpualloc.inventory import digest
from gpualloc.inventory.snapshot import parse
from tests.hardware.inventory_report import by_smi, compare

REPORTS = sorted(Path(__file__).parent.glob("*/inventory_report.json"))


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.parent.name)
def test_nvml_and_nvidia_smi_agree_on_every_fact(path: Path) -> None:
    report = json.loads(path.read_text())
    ours = parse(json.dumps(report["inventory"]), "inventory.json")
    theirs = by_smi(report["printed"]).inventory
    rows = compare(ours.hosts[0], theirs.hosts[0])
    assert len(rows) > 10 * len(ours.hosts[0].gpus)
    assert [row for row in rows if row["verdict"] == "different"] == []
    assert digest(ours) == report["inventory_sha256"]
