"""The fake NVML answers as real NVML did, line by line, to the real pynvml in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.nvml.fake import FakeNvml

HERE = Path(__file__).parent


def test_two_h100s_behind_an_nvswitch(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe(json.loads((HERE / "machines" / "2xh100.json").read_text()))
    done = subprocess.run(
        [sys.executable, HERE / "transcript.py"], env=fake_nvml.env(), check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == (HERE / "machines" / "2xh100.txt").read_text().splitlines()
