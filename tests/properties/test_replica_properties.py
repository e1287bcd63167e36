"""Properties of roles with several workers, over compose files in random styles."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, event, given, note, settings
from hypothesis import strategies as st

from gpualloc.compose.data import at
from gpualloc.compose.document import parse
from gpualloc.compose.edits import edits
from gpualloc.compose.reader import read_demand
from gpualloc.compose.references import normal
from gpualloc.compose.replicas import unsplit
from gpualloc.compose.restore import restore
from gpualloc.compose.rewrite import rewrite
from gpualloc.compose.workers import divisions_of, fresh_workers
from gpualloc.errors import GpuallocError
from tests.long_runs import share
from tests.properties.compose_files import Written, compose_files
from tests.properties.rewriting import INVENTORY, base, project_of, solution
from tests.properties.test_rewrite_properties import REFUSALS, meaning

if TYPE_CHECKING:
    from gpualloc.compose.reader import Role

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=share(10_000), deadline=None, suppress_health_check=list(HealthCheck))
FOLDER = Path(tempfile.mkdtemp(prefix="replicas-"))
ALLOWED = REFUSALS | {"replicas-split"}


def scaled(text: str, number: int | None = None) -> tuple[str, tuple[Role, ...]]:
    """Return a file's text and roles once its first role has so many workers, or as many as it says."""
    path = FOLDER / "compose.yaml"
    path.write_bytes(text.encode())
    refusal: GpuallocError | None = None
    try:
        project = project_of(path)
        demand = read_demand(project, base())
        assume(demand.roles)
        if number is not None:
            demand = read_demand(project, base(), {demand.roles[0].name: number})
        fresh = fresh_workers(demand.roles, project)
        (divisions,) = divisions_of(demand.roles, project, fresh).values() or ([],)
        wanted = edits(demand, solution(demand), base(), INVENTORY)
        return rewrite(project.files[0], wanted, divisions).text, demand.roles
    except GpuallocError as error:
        refusal = error
    codes = {diagnostic.code for diagnostic in refusal.diagnostics}
    event(f"refused: {sorted(codes)}")
    assert codes <= ALLOWED, refusal
    assume(codes.isdisjoint(ALLOWED))
    raise refusal


def original(text: str) -> str:
    return unsplit(*restore(parse(text, "compose.yaml"))).text


def comparable(service: dict[str, Any]) -> dict[str, Any]:
    """Return what a service says but for what tells a role's workers apart, and how many there are."""
    result = {k: v for k, v in service.items() if k not in {"scale", "container_name", "networks", "ports"}}
    deploy = [{k: v for k, v in part.items() if k != "replicas"} for part in result["deploy"] if isinstance(part, dict)]
    return result | {"deploy": deploy}


def check_workers(before: str, after: str, roles: tuple[Role, ...]) -> None:
    """Each worker says what its role said, but for its GPUs; and the others, but for the workers' names."""
    old = {name: s for root in meaning(before) for name, s in root["services"].items()}
    new = {name: s for root in meaning(after) for name, s in root["services"].items()}
    workers = {m.worker.name: role.name for role in roles for m in role.members if m.worker.name != role.name}
    assert new.keys() == {*(old.keys() - set(workers.values())), *workers}
    for name, service in new.items():
        mine, theirs = service, old[workers.get(name, name)]
        mine, theirs = normal(mine, workers), normal(theirs, workers)
        assert (comparable(mine) if name in workers else mine) == (comparable(theirs) if name in workers else theirs)
        if name in workers:
            networks = service.get("networks")
            assert isinstance(networks, dict) or "extends" in service
            for network in networks or {}:
                assert workers[name] in at(networks, (network, "aliases"))


def check_promises(written: Written, numbers: list[int]) -> None:
    text = written.text
    assume(len(parse(text, "compose.yaml").roots) == 1)  # a role in several documents cannot be divided
    note(text)
    new, roles = scaled(text)
    note(new)
    check_workers(text, new, roles)
    assert original(new) == text
    assert scaled(new)[0] == new
    for number in numbers:
        new, roles = scaled(new, number)
        note(new)
        check_workers(text, new, roles)
        assert original(new) == text
    assert scaled(new)[0] == new
    several = sum(len(role.members) > 1 for role in roles)
    event(f"roles of several workers: {several}")


NUMBERS = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@QUICK
@given(compose_files(replicas=True), NUMBERS)
def test_roles_divide_and_become_whole_again(written: Written, numbers: list[int]) -> None:
    check_promises(written, numbers)


@pytest.mark.long
@LONG
@given(compose_files(replicas=True), NUMBERS)
def test_roles_divide_and_become_whole_again_long(written: Written, numbers: list[int]) -> None:
    check_promises(written, numbers)


def teardown_module() -> None:
    for path in FOLDER.iterdir():
        path.unlink()
    os.rmdir(FOLDER)  # noqa: PTH106 - a folder
