"""Cases in ``tests/cases``: a file as it was and as it is after an apply, to the byte.

Most were found by the properties in ``tests/properties``, and are kept here small enough to read. Every worker gets
as many made-up GPUs as it asks for, at most two.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gpualloc.compose.document import parse
from gpualloc.compose.restore import restore
from tests.compose_oracle import config, differences, needs_compose
from tests.properties.rewriting import OWNED, applied, policy, project_of

CASES = sorted(path.parent for path in (Path(__file__).parents[1] / "cases").glob("*/before.yaml"))


def text_of(path: Path) -> str:
    return path.read_bytes().decode().removeprefix("\ufeff")


def rewritten(path: Path) -> str:
    (new,) = applied(project_of(path), policy(), at_most=2).values()
    return new


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_file_becomes_what_it_should(case: Path, tmp_path: Path) -> None:
    new = rewritten(case / "before.yaml")
    assert new == text_of(case / "after.yaml")
    again = tmp_path / "compose.yaml"
    again.write_bytes(new.encode())
    assert rewritten(again) == new
    assert restore(parse(new, "compose.yaml"))[0].text == text_of(case / "before.yaml")


@needs_compose
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_compose_agrees(case: Path) -> None:
    before, after = (config([case / name], project_directory=case) for name in ("before.yaml", "after.yaml"))
    assert after.ok or not before.ok, after.stderr
    if before.ok:
        assert differences(before.data, after.data, owned=OWNED) == []
