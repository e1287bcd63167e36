from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gpualloc.compose.version import too_old_for_override

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("answer", "old"),
    [("2.24.3", True), ("v2.18.1", True), ("1.29.2", True), ("2.24.4", False), ("2.40.3-1", False), ("5.0.1", False)],
)
def test_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, *, old: bool) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$*" = "compose version --short" ] && echo {answer}\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    warning = too_old_for_override()
    assert (warning is not None) == old
    if warning is not None:
        assert answer.lstrip("v") in warning.summary


def test_no_answer_is_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert too_old_for_override() is None
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    assert too_old_for_override() is None
