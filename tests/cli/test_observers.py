"""Monitors that ask for some GPUs in Compose's own ways, and are to see all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result

    Run = Callable[..., Result]

MACHINE = ("--inventory", "sim:4xl40s")
OBSERVE = "x-gpualloc: {observe: true}"
ENTRY = "deploy: {{resources: {{reservations: {{devices: [{}]}}}}}}"
AMD = "{driver: amd, count: 1, capabilities: [gpu]}"


@pytest.mark.parametrize(
    ("asks", "sees"),
    [
        ('gpus: [{device_ids: ["1"], capabilities: [utility]}]', "gpus: [{count: all, capabilities: [utility]}]"),
        ("gpus: [{count: 1}, {count: 2}]", "gpus: [{count: all}, {count: all}]"),
        (
            'runtime: nvidia, environment: {NVIDIA_VISIBLE_DEVICES: "1"}',
            'runtime: nvidia, environment: {NVIDIA_VISIBLE_DEVICES: "all"}',
        ),
        ('devices: ["nvidia.com/gpu=0"]', 'devices: ["nvidia.com/gpu=all"]'),
        (
            'devices: ["nvidia.com/gpu=0", "nvidia.com/gpu=1", /dev/fuse]',
            'devices: ["/dev/fuse", "nvidia.com/gpu=all"]',
        ),
        (
            ENTRY.format(f"{{driver: nvidia, count: 2, capabilities: [gpu]}}, {AMD}"),
            ENTRY.format(f"{{driver: nvidia, count: all, capabilities: [gpu]}}, {AMD}"),
        ),
        # The driver cdi refuses a count.
        (
            ENTRY.format(f'{{driver: cdi, device_ids: ["nvidia.com/gpu=1"], capabilities: [gpu]}}, {AMD}'),
            ENTRY.format(f'{{driver: cdi, device_ids: ["nvidia.com/gpu=all"], capabilities: [gpu]}}, {AMD}'),
        ),
    ],
)
def test_a_monitor_that_asks_for_some_gets_to_see_all(run: Run, tmp_path: Path, asks: str, sees: str) -> None:
    path = tmp_path / "compose.yaml"
    text = f"services:\n  monitor: {{image: i, {OBSERVE}, {asks}}}\n"
    path.write_text(text)
    assert run("apply", "-y", *MACHINE).code == 0
    assert path.read_text().splitlines()[1] == f"  monitor: {{image: i, {OBSERVE}, {sees}}}"
    assert "nothing to write" in run("apply", "-y", *MACHINE).err
    assert run("reset", "-y").code == 0
    assert path.read_text() == text


def test_an_override_leaves_other_drivers_entries_as_they_are(run: Run, tmp_path: Path) -> None:
    asks = ENTRY.format(f'{{driver: cdi, device_ids: ["nvidia.com/gpu=1"], capabilities: [gpu]}}, {AMD}')
    (tmp_path / "compose.yaml").write_text(f"services:\n  monitor: {{image: i, {OBSERVE}, {asks}}}\n")
    assert run("apply", "-y", "--override", "gpu.yaml", *MACHINE).code == 0
    text = (tmp_path / "gpu.yaml").read_text()
    assert 'device_ids: ["nvidia.com/gpu=all"]' in text
    assert "- driver: amd\n              count: 1\n" in text
