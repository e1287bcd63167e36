"""The script that compares gpualloc with nvidia-smi on a real host, run where both are made up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.nvml.fake import FakeNvml

HERE = Path(__file__).parent
SCRIPT = HERE.parent / "hardware" / "inventory_report.py"
H100S = json.loads((HERE.parent / "nvml/machines/2xh100.json").read_text(encoding="utf-8"))


def report(fake: FakeNvml, described: dict[str, Any], directory: Path) -> tuple[int, dict[str, Any], str]:
    fake.describe(described)
    smi = directory / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(
        f"#!/bin/sh\ncase $1 in\n-q) cat {HERE}/data/2xh100.xml;;\ntopo) cat {HERE}/data/2xh100-topo.txt;;\n"
        "-L) echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-2b978dca-8aaa-887e-c34c-f1d89d03dc45)';;\nesac\n"
    )
    smi.chmod(0o755)
    env = fake.env() | {"PATH": f"{smi.parent}:/usr/bin:/bin"}
    into = directory / "report.json"
    done = subprocess.run([sys.executable, SCRIPT, into], env=env, check=False, capture_output=True, text=True)
    assert into.is_file(), done.stderr
    return done.returncode, json.loads(into.read_text(encoding="utf-8")), done.stdout


def test_two_h100s_are_the_same_to_both(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    code, written, said = report(fake_nvml, H100S, tmp_path)
    assert code == 0, said
    assert written["verdicts"]["different"] == 0
    assert written["verdicts"]["same"] > 25
    unknown = [row["fact"] for row in written["comparison"] if row["verdict"] == "unknown to one"]
    (pcie,) = unknown  # the matrix hides the PCIe path behind the NVLinks
    assert pcie.endswith(" pcie")
    assert written["warnings"] == []


def test_a_difference_is_told(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    described = json.loads(json.dumps(H100S))
    described["gpus"][1]["ComputeMode"] = 3
    code, written, said = report(fake_nvml, described, tmp_path)
    assert code == 1
    uuid = described["gpus"][1]["UUID"]
    assert f"different: {uuid} compute_mode: gpualloc exclusive_process, nvidia-smi default" in said
    assert written["verdicts"]["different"] == 1
