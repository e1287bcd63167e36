from __future__ import annotations

import json
import re

from gpualloc.errors import Diagnostic, Place
from gpualloc.render.diagnostics import diagnostics_text, findings_github, findings_json, findings_text
from gpualloc.render.screen import Screen
from tests.render.samples import check_snapshot

PIPE = Screen()

FINDINGS = (
    Diagnostic(
        "cuda-visible-devices",
        "CUDA_VISIBLE_DEVICES=1 hides the only GPU of `worker`",
        Place("compose.yaml", 41, 15, "services.worker.environment.CUDA_VISIBLE_DEVICES"),
        "write 0: CUDA counts the container's own GPUs",
    ),
    Diagnostic("not-pinned", "`web` asks for a GPU and has none", Place("compose.yaml", 7), severity="warning"),
    Diagnostic("lost-device", "GPU-1 is gone", Place("plan.json", path="placements[0]"), "plan again\nthen apply"),
    Diagnostic("no-driver", "no NVIDIA driver answers", severity="note"),
)


def test_diagnostics() -> None:
    check_snapshot("diagnostics", diagnostics_text(FINDINGS, PIPE))
    check_snapshot("diagnostics-colour", diagnostics_text(FINDINGS, Screen(colour=True)))


def test_findings() -> None:
    check_snapshot("findings", findings_text(FINDINGS, PIPE))
    check_snapshot("findings-colour", findings_text(FINDINGS, Screen(colour=True)))


def test_no_findings_is_said() -> None:
    assert findings_text((), PIPE) == "no findings\n"


def test_colour_only_adds_escapes() -> None:
    for text in (diagnostics_text, findings_text):
        assert re.sub(r"\x1b\[[\d;]*m", "", text(FINDINGS, Screen(colour=True))) == text(FINDINGS, PIPE)


def test_text_from_a_file_cannot_move_the_cursor() -> None:
    hostile = Diagnostic("x", "\x1b[2J\rgone", Place("\x1b]0;title\x07"), "\u202eback")
    shown = diagnostics_text([hostile], PIPE) + findings_text([hostile], PIPE)
    assert not set(shown) & {"\x1b", "\r", "\x07", "\u202e"}
    assert r"\x1b[2J gone" in shown


def test_findings_as_json() -> None:
    document = json.loads(findings_json(FINDINGS))
    assert list(document) == ["format_version", "findings"]
    assert document["format_version"] == "1.0"
    assert list(document["findings"][0].items()) == [
        ("code", "cuda-visible-devices"),
        ("severity", "error"),
        ("summary", "CUDA_VISIBLE_DEVICES=1 hides the only GPU of `worker`"),
        ("file", "compose.yaml"),
        ("line", 41),
        ("column", 15),
        ("path", "services.worker.environment.CUDA_VISIBLE_DEVICES"),
        ("hint", "write 0: CUDA counts the container's own GPUs"),
    ]
    nowhere = document["findings"][3]
    assert [nowhere[key] for key in ("file", "line", "column", "path", "hint")] == [None] * 5
    assert json.loads(findings_json(())) == {"format_version": "1.0", "findings": []}


def test_findings_as_annotations() -> None:
    check_snapshot("findings-github", findings_github(FINDINGS))


def test_annotations_are_escaped() -> None:
    finding = Diagnostic("x", "100% of\r\n::error::two, lines", Place("a,b:c%.yaml", 1, 2))
    assert findings_github([finding]) == (
        "::error file=a%2Cb%3Ac%25.yaml,line=1,col=2::100%25 of%0D%0A::error::two, lines [x]\n"
    )
