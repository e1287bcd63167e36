"""A Docker Swarm for the tests: an engine for each host of an inventory, with GPUs that do not exist."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.engine import image
from tests.engine.running import HERE, PACKAGES, PLAIN, CannotStartError, Engine, environment, stand_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.model import Inventory

SCRIPT = HERE / "swarm.sh"
RESOURCE = "DOCKER_RESOURCE_NVIDIA-GPU"
"""The variable in which an engine tells a container its generic resources of the kind NVIDIA-GPU."""

PATIENCE_S = 120
"""How long to wait for a Swarm before taking it for stuck: minutes beyond what it needs."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task that Swarm wants to run: its container, and the host name of its node."""

    id: str
    service: str
    node: str
    state: str
    error: str
    container: str


def until(holds: Callable[[], bool], what: str | Callable[[], str]) -> None:
    """Wait for something to hold. Fails, saying what, when it does not come about."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"it has not come about that {what if isinstance(what, str) else what()}")
        time.sleep(0.2)


@dataclass(frozen=True)
class Swarm:
    """A running Swarm. ``nodes`` are the engines, by host name; the first is the manager."""

    directory: Path
    nodes: dict[str, Engine]

    @classmethod
    def start(cls, inventory: Inventory, owner: int) -> Swarm:
        """Start a node for each host, the first as the manager; all ends with the process ``owner``, if not before.

        Raises CannotStartError, with what the script said.
        """
        directory = Path(tempfile.mkdtemp(prefix="swarm-"))
        nodes = {}
        for host in inventory.hosts:
            folder = directory / host.name
            reach = {"DOCKER_HOST": f"unix://{folder}/docker.sock", "DOCKER_CONFIG": f"{directory}/config"}
            nodes[host.name] = Engine(folder, {**environment(folder), **reach}, stand_in(folder))
            (nodes[host.name].host / "swarm-resource").write_text(RESOURCE)
        words = (f"{host.name}={','.join(gpu.uuid for gpu in host.gpus)}" for host in inventory.hosts)
        environ = {**os.environ, "PACKAGES": str(PACKAGES), "OWNER": str(owner)}
        done = subprocess.run(
            [SCRIPT, "start", directory, *words], check=False, capture_output=True, text=True, env=environ
        )
        swarm = cls(directory, nodes)
        if done.returncode:
            swarm.stop()
            raise CannotStartError(done.stderr.strip())
        root = image.busybox(directory / "bin" / "busybox")
        for host in inventory.hosts:
            nodes[host.name].machine(replace(inventory, hosts=(host,)))
            nodes[host.name].docker("import", "-", PLAIN, input=root)
        return swarm

    def stop(self) -> None:
        """End it and remove what it left."""
        subprocess.run([SCRIPT, "stop", self.directory], check=False, capture_output=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def manager(self) -> Engine:
        """The engine that takes stacks."""
        return next(iter(self.nodes.values()))

    def power_off(self, node: str) -> None:
        """End a node at once, and wait until the manager takes it for lost."""
        subprocess.run([SCRIPT, "stop-node", self.directory, node], check=True, capture_output=True)
        until(lambda: self._status(node) == "down", f"{node} is down")

    def power_on(self, node: str) -> None:
        """Start a node again, and wait until the manager has it back."""
        subprocess.run([SCRIPT, "start-node", self.directory, node], check=True, capture_output=True)
        until(lambda: self._status(node) == "ready", f"{node} is back")

    def _status(self, node: str) -> str:
        return self.manager.docker("node", "inspect", node, "--format", "{{.Status.State}}").strip()

    def deploy(self, file: Path, stack: str, *words: str) -> str:
        """Give a stack file to Swarm as it is, and return what Docker said against it on stderr."""
        done = subprocess.run(
            ["docker", "stack", "deploy", "--detach=true", "--resolve-image", "never", *words, "-c", file.name, stack],
            cwd=file.parent,
            env=self.manager.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def remove(self, stack: str) -> None:
        """Take a stack away, and wait until its containers have gone from the nodes that are up."""
        self.manager.docker("stack", "rm", stack)
        mine = ("ps", "--all", "--quiet", "--filter", f"label=com.docker.stack.namespace={stack}")
        up = [engine for node, engine in self.nodes.items() if self._status(node) == "ready"]
        until(lambda: not any(engine.docker(*mine) for engine in up), f"{stack} is gone")

    def tasks(self, stack: str) -> list[Task]:
        """Return what Swarm wants to run of a stack, sorted by service."""
        ids = self.manager.docker(
            *("stack", "ps", stack, "--quiet", "--no-trunc", "--filter", "desired-state=running"),
            *("--filter", "desired-state=ready", "--filter", "desired-state=accepted"),
        ).split()
        found = json.loads(self.manager.docker("inspect", "--type", "task", *ids)) if ids else []
        return sorted(map(self._task, found), key=lambda task: (task.service, task.id))

    def _task(self, task: dict[str, Any]) -> Task:
        node = task.get("NodeID")
        status = task["Status"]
        return Task(
            id=task["ID"],
            service=self._name("service", task["ServiceID"], ".Spec.Name"),
            node=self._name("node", node, ".Description.Hostname") if node else "",
            state=status["State"],
            error=status.get("Err", ""),
            container=status.get("ContainerStatus", {}).get("ContainerID", ""),
        )

    def _name(self, kind: str, number: str, field: str) -> str:
        return self.manager.docker(kind, "inspect", number, "--format", f"{{{{{field}}}}}").strip()

    def settled(self, stack: str, services: int) -> dict[str, Task]:
        """Wait until each of so many services runs its one task and none is being updated; return them by service."""
        while_waiting: list[Task] = []

        def holds() -> bool:
            while_waiting[:] = self.tasks(stack)
            names = {task.service for task in while_waiting}
            return (
                len(while_waiting) == len(names) == services
                and {task.state for task in while_waiting} == {"running"}
                and not any(self._updating(name) for name in names)
            )

        until(holds, lambda: f"{services} tasks run: {while_waiting}")
        return {task.service.removeprefix(f"{stack}_"): task for task in while_waiting}

    def addresses(self, service: str) -> set[str]:
        """Return the virtual addresses of a service."""
        found = json.loads(self.manager.docker("service", "inspect", service, "--format", "{{json .Endpoint}}"))
        return {entry["Addr"].partition("/")[0] for entry in found["VirtualIPs"]}

    def _updating(self, service: str) -> bool:
        status = self.manager.docker("service", "inspect", service, "--format", "{{json .UpdateStatus}}")
        return (json.loads(status) or {}).get("State") == "updating"
