"""Every compose file of a collection of real ones as a stack: nothing forgotten, and Docker's command line takes it."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from gpualloc.errors import GpuallocError
from tests.compose.test_corpus import FILES, _loaded
from tests.compose_oracle import config, needs_compose
from tests.swarm.stacks import DOCKER, docker_reads, stacked, unaccounted, warned_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    needs_compose,
    pytest.mark.skipif(not FILES, reason="there is no collection of compose files beside this"),
]
SAME = ("image", "command", "entrypoint", "working_dir", "user", "hostname", "healthcheck", "volumes")


@dataclass
class Outcome:
    """What became of one file: gpualloc's refusal, or what is wrong with its stack."""

    name: str
    loads: bool
    refused: str | None = None
    problems: list[str] = field(default_factory=list)


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.long)])
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    folder = tmp_path_factory.mktemp("stacks")
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda path: _outcome(path, folder), FILES[:: 1 if request.param == "all" else 6]))


def _outcome(path: Path, folder: Path) -> Outcome:
    place = folder / path.stem / "compose.yaml"
    place.parent.mkdir()
    place.write_bytes(path.read_bytes())
    before, env = _loaded(place)
    outcome = Outcome(path.name, before.ok)
    try:
        stack = stacked(place, {"HOME": os.environ["HOME"]} | env, profiles=("*",))
    except GpuallocError as error:
        outcome.refused = str(error)
        return outcome
    if before.ok:
        after = config([stack.path], env={}, cwd=place.parent, fmt="yaml")
        if after.ok:
            outcome.problems += _forgotten(place, stack, env, after.data["services"])
            outcome.problems += _differ(before.data, after.data)
        else:
            outcome.problems.append(f"Compose: {after.stderr}")
    outcome.problems += [f"{key} is in it" for key in sorted(warned_of(stack.services))]
    if DOCKER is not None:
        try:
            docker_reads(stack.path)
        except AssertionError as error:
            outcome.problems.append(f"docker: {error!r}")
    return outcome


def _forgotten(place: Path, stack: Any, env: dict[str, str], read: dict[str, Any]) -> list[str]:
    """Hold the source, as Compose has merged it, beside the stack and its notes."""
    model = config([place], env=env, profiles=["*"], cwd=place.parent, fmt="yaml", no_interpolate=True)
    named = stack.named()
    workers = {p.worker: p.service for p in stack.planned.plan.solution.placements}
    found = []
    for name, source in model.data["services"].items():
        made = [name] if name in stack.services else [w for w, role in workers.items() if role == name]
        if not made:
            found.append(f"{name} is not in the stack")
        for one in made:
            # short forms are long ones as Compose reads them, which leaves out what has no effect
            texts = (_as_written(read[one]), stack.services[one])
            missing = [set(unaccounted(_as_written(source), text, named.get(one, set()))) for text in texts]
            found += (f"{one}: {path} is forgotten" for path in sorted(missing[0] & missing[1]))
    top = {key for key in model.data if key not in {"services", "name"} and not key.startswith("x-")}
    for section in top:
        for name, entry in (model.data[section] or {}).items():
            if name == "default" and section == "networks":
                continue
            if name not in (stack.data.get(section) or {}):
                found.append(f"{section}.{name} is forgotten")
            keys = {
                key.removeprefix(f"{section}.{name}.")
                for key in named.get("", ())
                if key.startswith(f"{section}.{name}.")
            }
            source = {k: v for k, v in (entry or {}).items() if k != "name" and v != {}}
            found += (
                f"{section}.{name}.{p} is forgotten" for p in unaccounted(source, stack.data[section][name] or {}, keys)
            )
    return found


def _as_written(source: dict[str, Any]) -> dict[str, Any]:
    """Return a service without what Compose adds to every one."""
    result = {key: value for key, value in source.items() if value is not None}
    if result.get("networks") == {"default": None}:
        del result["networks"]
    for item in result.get("volumes", ()):
        if isinstance(item, dict) and item.get("bind") == {"create_host_path": True}:
            del item["bind"]
        if isinstance(item, dict) and item.get("volume") == {}:
            del item["volume"]
    for item in result.get("ports", ()):
        if isinstance(item, dict) and item.get("mode") == "ingress":
            del item["mode"], item["protocol"]
    return result


def _differ(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name what Compose reads otherwise in the stack than in its source, where both say the same things."""
    found = []
    for name in before["services"].keys() & after["services"].keys():
        old, new = before["services"][name], after["services"][name]
        for key in SAME:
            if key == "image" and "build" in old and "image" not in old:
                continue
            one, two = (_plain(key, each.get(key)) for each in (old, new))
            if key == "volumes":
                two = [item for item in two or () if item["type"] != "tmpfs"] or None
                one = [item for item in one or () if item["type"] != "tmpfs"] or None
            if one != two:
                found.append(f"{name}.{key}: {one!r} became {two!r}")
        own = {k: v for k, v in (new.get("environment") or {}).items() if not re.match("CUDA_|NVIDIA_VISIBLE", k)}
        theirs = {k: v for k, v in (old.get("environment") or {}).items() if not re.match("CUDA_|NVIDIA_VISIBLE", k)}
        if own != theirs:
            found.append(f"{name}.environment: {sorted(own.items() ^ theirs.items())}")
    return found


def _plain(key: str, value: Any) -> Any:
    if key == "volumes":
        return [{k: item[k] for k in ("type", "source", "target", "read_only") if k in item} for item in value or ()]
    return value


def test_nothing_is_forgotten_and_nothing_reads_otherwise(outcomes: list[Outcome]) -> None:
    problems = [f"{each.name}: {problem}" for each in outcomes for problem in each.problems]
    assert not problems, "\n".join(problems)


def test_most_files_become_a_stack(outcomes: list[Outcome]) -> None:
    refused = {each.name: each.refused for each in outcomes if each.loads and each.refused}
    assert len(refused) <= len(outcomes) // 20, "\n".join(f"{k}: {v}" for k, v in refused.items())
