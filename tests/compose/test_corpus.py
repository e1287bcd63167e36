"""Every compose file of a collection of real ones, rewritten and held beside what the real Compose makes of it.

The collection lies beside the repository where there is one; elsewhere this is skipped.
"""

from __future__ import annotations

import difflib
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpualloc.compose.document import Document, parse
from gpualloc.compose.forms import forms_of
from gpualloc.compose.restore import restore
from gpualloc.compose.route import find_service, path_text
from gpualloc.errors import GpuallocError
from tests.compose_oracle import config, differences, needs_compose
from tests.properties.rewriting import OWNED, applied, policy, project_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpualloc.compose.project import Project, Service
    from tests.compose_oracle import ConfigResult

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
FILES = sorted(CORPUS.glob("*.y*ml")) if CORPUS.is_dir() else []
ENV = {"INVOKEAI_GPU_DEVICES": "0", "OLLAMA_GPU_DEVICES": "1,2"}
VARIANTS: dict[str, dict[str, Any]] = {
    "one device": {"at_most": 1},
    "several, by index, with more variables": {"index": True, "extra": True, "start": 20},
}
VARIABLES = (*OWNED, "GPU_SHARE", "GPU_ROLE")
FEW = 6
"""Diff lines that a GPU service with an environment of its own may need."""

pytestmark = [
    needs_compose,
    pytest.mark.skipif(not FILES, reason="there is no collection of compose files beside this"),
]


@dataclass
class Outcome:
    """What became of one file.

    ``completed``: it loads only with made-up variables and env files. ``refused``: gpualloc's message. ``lines``: by
    service with an environment, how many diff lines it took, and why it may take more than a few.
    """

    name: str
    loads: bool
    completed: bool = False
    refused: str | None = None
    problems: list[str] = field(default_factory=list)
    lines: dict[str, tuple[int, str | None]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """Rewrite every file in every variant, two at a time, since Compose runs beside."""
    folder = tmp_path_factory.mktemp("corpus")
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda path: _outcome(path, folder), FILES))


def _compose(path: Path, env: Mapping[str, str]) -> ConfigResult:
    return config([path], env=env, profiles=["*"], project_directory=path.parent, cwd=path.parent)


def _loaded(path: Path) -> tuple[ConfigResult, dict[str, str]]:
    """Ask Compose about a file as it lies there; if it misses variables or env files, with some made up."""
    result = _compose(path, ENV)
    if result.ok:
        return result, ENV
    text = path.read_text(encoding="utf-8", errors="replace")
    env = dict.fromkeys(re.findall(r"(?<!\$)\$\{?([A-Za-z_][A-Za-z0-9_]*)(?![A-Za-z0-9_]|:?-)", text), "1") | ENV
    for _ in range(8):
        result = _compose(path, env)
        missing = re.search(r"(?:env file |stat )(/\S+?)(?: not found)?: ", result.stderr)
        if result.ok or missing is None or not Path(missing[1]).is_relative_to(path.parent):
            break
        Path(missing[1]).parent.mkdir(parents=True, exist_ok=True)
        Path(missing[1]).touch()
    return result, env


def _outcome(path: Path, folder: Path) -> Outcome:
    place = folder / path.stem / "compose.yaml"
    place.parent.mkdir()
    place.write_bytes(path.read_bytes())
    before, env = _loaded(place)
    outcome = Outcome(path.name, before.ok, completed=before.ok and env is not ENV)
    try:
        project = project_of(place, env)
        texts = {name: applied(project, policy(**_policy(o)), **_placing(o)) for name, o in VARIANTS.items()}
    except GpuallocError as error:
        outcome.refused = str(error).replace("\n", " ")
        return outcome
    outcome.problems += _requests_differ(project, before.data) if before.ok else []
    (file,) = project.files
    for name, by_file in texts.items():
        new = parse(by_file[file.shown], file.shown)
        copy = place.with_name(f"{name.split()[0]}.yaml")
        copy.write_bytes(file.source.encode(new.text))
        found = _problems(
            file.document,
            new,
            applied(project_of(copy, env), policy(**_policy(VARIANTS[name])), **_placing(VARIANTS[name])),
        )
        if before.ok:
            after = _compose(copy, env)
            found += differences(before.data, after.data, owned=VARIABLES) if after.ok else [after.stderr.strip()]
        outcome.problems += [f"{name}: {problem}" for problem in found]
        if name == "one device":
            outcome.lines |= _changed(file.document, new)
    return outcome


def _policy(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("index", "extra") if key in options}


def _placing(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("start", "at_most") if key in options}


def _problems(before: Document, after: Document, again: Mapping[str, str]) -> list[str]:
    """Check one rewritten file by itself; ``again`` is what a second apply makes of it."""
    found = []
    restored, record = restore(after)
    if restored.text != before.text:
        found.append("it cannot be restored byte for byte")
    if list(again.values()) != [after.text]:
        found.append("applying twice changes it")
    return found + [
        f"{name} was not edited, and differs"
        for name in _names(before)
        if name not in record.services and _source(before, name) != _source(after, name)
    ]


def _source(document: Document, service: str) -> str | None:
    entry = find_service(document, service)
    return None if entry is None else document.text[entry.key.start : entry.value.end]


def _names(document: Document) -> list[str]:
    root = document.roots[-1]
    entry = getattr(root, "index", {}).get("services")
    return [e.key.value for e in getattr(entry.value, "entries", ())] if entry is not None else []


def _changed(before: Document, after: Document) -> dict[str, tuple[int, str | None]]:
    """Count diff lines of every edited service that had an environment."""
    result = {}
    for name, inverse in restore(after)[1].services.items():
        old, new = _source(before, name), _source(after, name)
        entry = find_service(before, name)
        if old is None or new is None or entry is None or "environment" not in getattr(entry.value, "index", {}):
            continue
        count = sum(1 for line in difflib.ndiff(old.splitlines(), new.splitlines()) if line[0] in "+-")
        reason = None
        if inverse.inherits:
            reason = f"it inherits {', '.join(path_text(path) for path in inverse.inherits)}, and gets its own"
        elif ("environment", "NVIDIA_VISIBLE_DEVICES") in inverse.original:
            reason = "it names devices in two ways, and both are brought into line"
        result[name] = count, reason
    return result


def _requests_differ(project: Project, data: Mapping[str, Any]) -> list[str]:
    """Compare what gpualloc reads of every service with what Compose makes of it."""
    found = []
    for service in project.services:
        theirs = _their_requests(data["services"].get(service.name, {}))
        ours = _our_requests(service)
        if ours != theirs:
            found.append(f"{service.name} asks for {theirs}, and is read as {ours}")
    return found


def _our_requests(service: Service) -> list[tuple[str, int | None, tuple[str, ...]]]:
    return [
        (form.kind, None if form.ids or form.count.max is None else form.count.max, form.written if form.ids else ())
        for form in forms_of(service, service.data)
        if form.kind in {"devices", "gpus"}
    ]


def _their_requests(service: Mapping[str, Any]) -> list[tuple[str, int | None, tuple[str, ...]]]:
    reservations = ((service.get("deploy") or {}).get("resources") or {}).get("reservations") or {}
    result = []
    for kind, entries in (("devices", reservations.get("devices") or ()), ("gpus", service.get("gpus") or ())):
        for entry in entries:
            driver = entry.get("driver") or None
            gpu = kind == "gpus" or driver == "nvidia" or "gpu" in (entry.get("capabilities") or ())
            ids = tuple(entry.get("device_ids") or ())
            if not gpu or driver not in {None, "nvidia"} or (entry.get("count") == 0 and not ids):
                continue
            count = entry.get("count", -1)
            named = ids and "all" not in ids
            result.append((kind, None if ids or count == -1 else count, ids if named else ()))
    return result


def _say(capsys: pytest.CaptureFixture[str], lines: list[str]) -> None:
    with capsys.disabled():
        sys.stdout.write("".join(f"\n{line}" for line in lines) + "\n")


def test_every_file_that_compose_loads_is_rewritten(
    outcomes: list[Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = [o for o in outcomes if o.loads]
    passed = sum(not o.problems and o.refused is None for o in loaded)
    completed = sum(o.completed for o in loaded)
    rewritten = sum(o.refused is None for o in outcomes)
    summary = [
        f"{passed} of the {len(loaded)} files that Compose loads pass ({completed} of them with made-up variables)",
        f"{len(outcomes) - len(loaded)} it rejects; gpualloc rewrites {rewritten} in all",
    ]
    _say(capsys, summary)
    wrong = [f"{o.name}: {problem}" for o in outcomes for problem in o.problems]
    refused = [f"{o.name}: {o.refused}" for o in loaded if o.refused is not None]
    assert wrong + refused == []


def test_few_lines_change(outcomes: list[Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    counts = {f"{o.name}: {name}": found for o in outcomes for name, found in o.lines.items()}
    many = {where: found for where, found in counts.items() if found[0] > FEW}
    few = len(counts) - len(many)
    summary = [f"{few} of {len(counts)} GPU services with an environment change within {FEW} diff lines"]
    _say(capsys, summary + [f"  {count} lines: {where}: {reason}" for where, (count, reason) in many.items()])
    assert {where: count for where, (count, reason) in many.items() if reason is None} == {}
    assert len(many) <= len(counts) // 10
