"""A Compose project in a folder, planned with gpualloc and run on an engine."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpualloc.inventory import load
from gpualloc.inventory.snapshot import dump

if TYPE_CHECKING:
    from gpualloc.model import Inventory
    from tests.engine.running import Engine

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What a command of gpualloc answered."""

    code: int
    out: str
    err: str


@dataclass
class Site:
    """Where a user works: a folder with ``compose.yaml``, an engine, and snapshots of the machine, or of several."""

    engine: Engine
    folder: Path
    project: str = "site"
    sources: tuple[str, ...] = ("gpus.json",)

    def machine(self, name: str, *, without: tuple[int, ...] = (), cdi: bool = True) -> Inventory:
        """Be on a shipped machine, less the GPUs with these indices; the others keep their index."""
        inventory = load([f"sim:{name}"]).inventory
        host = inventory.hosts[0]
        gone = {gpu.uuid for gpu in host.gpus if gpu.index in without}
        gpus = tuple(gpu for gpu in host.gpus if gpu.uuid not in gone)
        links = tuple(link for link in host.links if not {link.a, link.b} & gone)
        inventory = replace(inventory, hosts=(replace(host, gpus=gpus, links=links),))
        self.be(inventory, cdi=cdi)
        return inventory

    def be(self, inventory: Inventory, *, cdi: bool = True) -> None:
        """Be on this machine. ``cdi`` false: without a new CDI spec."""
        (self.folder / "gpus.json").write_text(dump(inventory))
        self.engine.machine(inventory, cdi=cdi)

    def write(self, compose: str) -> None:
        """Write the compose file."""
        (self.folder / "compose.yaml").write_text(f"name: {self.project}\n{compose}")

    def gpualloc(self, command: str, *words: str, code: int = 0) -> Result:
        """Run a command of gpualloc on the project and these machines."""
        machines = () if command == "reset" else tuple(f"--inventory={source}" for source in self.sources)
        words = (sys.executable, "-m", "gpualloc", command, *machines, *words)
        environ = {**self.engine.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, cwd=self.folder, env=environ, capture_output=True, text=True, check=False)
        result = Result(done.returncode, done.stdout, done.stderr)
        assert result.code == code, f"{result.out}\n{result.err}"
        return result

    def placements(self, *words: str) -> dict[str, list[str]]:
        """Return what is planned for each worker: UUIDs in PCI order."""
        plan = json.loads(self.gpualloc("plan", "--format", "json", *words).out)
        return {p["worker"]: [device["uuid"] for device in p["devices"]] for p in plan["placements"]}

    def compose(self, *words: str) -> str:
        """Run docker compose on the project."""
        return self.engine.docker("compose", *words, cwd=self.folder)

    def up(self, *words: str) -> None:
        """Start what the file says."""
        self.compose("up", "--detach", "--timeout", "0", *words)

    def down(self) -> None:
        """End it all, whatever the file says by now."""
        ids = self.engine.docker(
            "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}"
        ).split()
        if ids:
            self.engine.docker("rm", "--force", *ids)

    def containers(self) -> dict[str, str]:
        """Return the id of each service's first container."""
        lines = self.engine.docker(
            *("ps", "--all", "--no-trunc", "--filter", f"label=com.docker.compose.project={self.project}"),
            *("--format", '{{.Label "com.docker.compose.service"}} {{.ID}}'),
        ).splitlines()
        return dict(sorted((line.split()[0], line.split()[1]) for line in lines))

    def verify(self, *words: str, code: int) -> dict[str, Any]:
        """Verify the project, and return the answer."""
        result = self.gpualloc("verify", "--format", "json", *words, code=code)
        return dict(json.loads(result.out))
