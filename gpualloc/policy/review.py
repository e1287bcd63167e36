"""Checking a policy by itself, for ``gpualloc policy check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.errors import Diagnostic, GpuallocError
from gpualloc.policy.load import load
from gpualloc.policy.roles import oddities

if TYPE_CHECKING:
    from pathlib import Path

    from gpualloc.model import Policy


def check(
    name_or_path: str | None, *, cwd: Path, compose_dir: Path | None
) -> tuple[Policy | None, tuple[Diagnostic, ...]]:
    """Return the policy, None if it cannot be loaded, and all that is wrong (errors) or odd (warnings) about it."""
    try:
        policy = load(name_or_path, cwd=cwd, compose_dir=compose_dir)
    except GpuallocError as error:
        return None, error.diagnostics
    return policy, oddities(policy)
