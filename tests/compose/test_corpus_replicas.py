"""Every role of a collection of real compose files with three workers, held beside what the real Compose makes of it.

The collection lies beside the repository where there is one; elsewhere this is skipped.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from gpualloc.compose.document import parse
from gpualloc.compose.edits import edits
from gpualloc.compose.reader import read_demand
from gpualloc.compose.replicas import unsplit
from gpualloc.compose.restore import restore
from gpualloc.compose.rewrite import rewrite
from gpualloc.compose.workers import divisions_of, fresh_workers
from gpualloc.errors import GpuallocError
from tests.compose.test_corpus import FILES
from tests.compose.test_replicas import divided, without_ports
from tests.compose_oracle import config, differences, needs_compose
from tests.properties.rewriting import INVENTORY, OWNED, base, project_of, solution

if TYPE_CHECKING:
    from pathlib import Path

    from gpualloc.compose.project import Project

pytestmark = [
    pytest.mark.long,
    needs_compose,
    pytest.mark.skipif(not FILES, reason="there is no collection of compose files beside this"),
]

WORKERS = 3
REASONS = ("its host port is behind a variable", "it has a fixed address in")
"""What a file of the collection may be refused for."""


def scaled(project: Project, role: str | None) -> str:
    """Return a file's text with three workers of a role, or as many as it has."""
    demand = read_demand(project, base(), {} if role is None else {role: WORKERS})
    divisions = divisions_of(demand.roles, project, fresh_workers(demand.roles, project))
    (file,) = project.files
    wanted = edits(demand, solution(demand, at_most=2), base(), INVENTORY)
    return rewrite(file, wanted, divisions.get(file, ())).text


def problems(path: Path, role: str, text: bytes) -> list[str]:
    path.write_bytes(text)
    before = config([path], profiles=["*"], cwd=path.parent)
    project = project_of(path)
    new = scaled(project, role)
    (file,) = project.files
    found = []
    if unsplit(*restore(parse(new, path.name))).text != file.source.text:
        found.append("it cannot be restored byte for byte")
    path.write_bytes(file.source.encode(new))
    if scaled(project_of(path), None) != new:
        found.append("applying twice changes it")
    if before.ok:
        after = config([path], profiles=["*"], cwd=path.parent)
        if not after.ok:
            return [*found, after.stderr.strip()]
        expected = without_ports(divided(before.data, {role: WORKERS}))
        found += [d for d in differences(expected, without_ports(after.data), owned=OWNED) if not d.startswith("x-")]
    return found


def test_every_role_divides_or_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {}
    for source in FILES:
        folder = tmp_path / source.stem
        folder.mkdir()
        path = folder / "compose.yaml"
        path.write_bytes(source.read_bytes())
        try:
            roles = [role.name for role in read_demand(project_of(path), base()).roles]
        except GpuallocError:
            continue  # what gpualloc refuses to read is another test's
        for role in roles:
            name = f"{source.name}: {role}"
            try:
                found = problems(path, role, source.read_bytes())
            except GpuallocError as error:
                counts["refused"] += 1
                if not any(reason in str(error) for reason in REASONS):
                    wrong[name] = [str(error)]
                continue
            counts["divided"] += 1
            if found:
                wrong[name] = found
    with capsys.disabled():
        print(f"\n{counts['divided'] - len(wrong)} of {counts.total()} roles divided, {counts['refused']} refused")  # noqa: T201 - the summary
    assert not wrong
