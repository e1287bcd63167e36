"""A stand-in for the ssh client: it answers for the hosts that a test describes, and keeps the words it was given."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = """#!{python}
import json, pathlib, sys, time
folder = pathlib.Path({folder!r})
words = sys.argv[1:]
host, command = words[-2:]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
answer = json.loads((folder / (host.rpartition("@")[2] + ".answer")).read_text())
(folder / (host.rpartition("@")[2] + ".here")).touch()
for other in answer["waits_for"]:  # hosts that are asked at the same time see each other come
    while not (folder / (other + ".here")).exists():
        time.sleep(0.01)
sys.stdout.write(answer["out"])
sys.stderr.write(answer["err"])
sys.exit(answer["code"])
"""


@dataclass(frozen=True)
class FakeSsh:
    folder: Path

    def answers(self, host: str, out: str, err: str = "", code: int = 0, waits_for: tuple[str, ...] = ()) -> None:
        answer = {"out": out, "err": err, "code": code, "waits_for": waits_for}
        (self.folder / f"{host}.answer").write_text(json.dumps(answer), encoding="utf-8")

    def calls(self) -> list[list[str]]:
        file = self.folder / "calls"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [[str(word) for word in json.loads(line)] for line in lines]


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSsh:
    folder = tmp_path / ".ssh-stand-in"
    folder.mkdir()
    program = folder / "ssh"
    program.write_text(_PROGRAM.format(python=sys.executable, folder=str(folder)), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return FakeSsh(folder)
