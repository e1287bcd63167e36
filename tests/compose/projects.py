"""Small projects for tests: compose text in, what gpualloc reads of it out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpualloc.compose.project import ProjectOptions, load_project
from gpualloc.compose.reader import read_demand
from gpualloc.policy.load import load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpualloc.compose.project import Project
    from gpualloc.compose.reader import Demand, Role
    from gpualloc.model import Ask, Policy

ROOT = Path(__file__).resolve().parents[2]


def base_policy(**roles: Ask) -> Policy:
    return replace(load("base", cwd=ROOT, compose_dir=None), roles=tuple(roles.items()))


def project(
    folder: Path, text: str, *, env: Mapping[str, str] | None = None, profiles: tuple[str, ...] = (), dotenv: str = ""
) -> Project:
    (folder / "compose.yaml").write_text(text)
    if dotenv:
        (folder / ".env").write_text(dotenv)
    return load_project(ProjectOptions(profiles=profiles), env or {}, folder)


def demand(folder: Path, text: str, policy: Policy | None = None, **kwargs: object) -> Demand:
    return read_demand(project(folder, text, **kwargs), policy or base_policy())  # type: ignore[arg-type] # passed on


def only_role(found: Demand) -> Role:
    (role,) = found.roles
    return role
