from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpualloc.render.diff import unified_diff
from gpualloc.render.screen import Screen
from tests.render.samples import check_snapshot

if TYPE_CHECKING:
    from pathlib import Path

PIPE = Screen()
TERMINAL = Screen(80)

OLD = """\
services:
  trainer:
    image: trainer:1  # keep this
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: 1
              capabilities: [gpu]
  web:
    image: web
    ports: ["8000:80"]
    restart: always
volumes:
  data:
    name: data
"""
NEW = OLD.replace("count: 1", 'device_ids: ["GPU-1"]') + "x-gpualloc:\n  version: 1\n"


def diff(old: str, new: str, screen: Screen = PIPE, context: int = 3) -> str:
    return unified_diff(old, new, "compose.yaml", "compose.yaml", screen, context)


def apply(patch: str, old: str) -> str:
    """Apply a unified diff by its own rules, refusing one that does not say what the old text is."""
    lines = re.findall(r"[^\n]*\n|[^\n]+$", old)
    body = re.findall(r"[^\n]*\n|[^\n]+$", patch)[2:]
    new: list[str] = []
    at = 0
    while body:
        head = re.fullmatch(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@\n", body.pop(0))
        assert head is not None
        start, length, new_start, new_length = (1 if part is None else int(part) for part in head.groups())
        start -= length > 0
        new += lines[at:start]
        assert len(new) == new_start - (new_length > 0)
        at = start
        while body and not body[0].startswith("@@"):
            line = body.pop(0)
            if body and body[0].startswith("\\"):
                body.pop(0)
                line = line.removesuffix("\n")
            if line[0] in " -":
                assert lines[at] == line[1:]
                at += 1
            if line[0] in " +":
                new.append(line[1:])
        assert at == start + length
        assert len(new) == new_start - (new_length > 0) + new_length
    return "".join(new + lines[at:])


def test_hunks() -> None:
    check_snapshot("diff", diff(OLD, NEW))


def test_colour() -> None:
    check_snapshot("diff-colour", diff(OLD, NEW, Screen(80, colour=True)))


def test_colour_only_adds_escapes() -> None:
    assert re.sub(r"\x1b\[[\d;]*m", "", diff(OLD, NEW, Screen(colour=True))) == diff(OLD, NEW)


def test_equal_texts_have_no_diff() -> None:
    assert diff(OLD, OLD) == ""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("a", "b", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n"),
        ("a", "a\n", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"),
        ("a\n", "a", "@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file\n"),
        ("a", "a\nb", "@@ -1 +1,2 @@\n-a\n\\ No newline at end of file\n+a\n+b\n\\ No newline at end of file\n"),
        ("", "a\n", "@@ -0,0 +1 @@\n+a\n"),
        ("a\n", "", "@@ -1 +0,0 @@\n-a\n"),
        ("x\na", "y\na", "@@ -1,2 +1,2 @@\n-x\n+y\n a\n\\ No newline at end of file\n"),
    ],
)
def test_the_ends_of_files(old: str, new: str, expected: str) -> None:
    assert diff(old, new) == f"--- compose.yaml\n+++ compose.yaml\n{expected}"


def test_carriage_returns_are_kept_in_a_pipe() -> None:
    assert diff("a\r\nb\r\n", "a\r\nc\r\n").endswith(" a\r\n-b\r\n+c\r\n")
    assert diff("a\r\n", "b\r\n", Screen(colour=True)).endswith("\x1b[31m-a\x1b[0m\r\n\x1b[32m+b\x1b[0m\r\n")


def test_a_terminal_does_not_show_the_carriage_returns_that_all_lines_have() -> None:
    assert diff("a\r\nb\r\nc", "a\r\nd\r\nc", TERMINAL).endswith(
        " a\n-b\n+d\n c\n\\ No newline at end of file\n",
    )


def test_a_terminal_shows_a_change_of_line_ends() -> None:
    assert diff("a\nb\n", "a\nb\r\n", TERMINAL).endswith(" a\n-b\n+b^M\n")
    assert diff("a\r\nb\r", "a\r\nb", TERMINAL).endswith(" a\n-b^M\n\\ No newline at end of file\n+b\n" + NO_NEWLINE)


NO_NEWLINE = "\\ No newline at end of file\n"


def test_a_terminal_shows_controls_instead_of_obeying_them() -> None:
    shown = diff("\x1b[2J\tx\x7f\n", "\x9b\u202ey\n", TERMINAL)
    assert shown.endswith("-^[[2J\tx^?\n+<U+009B><U+202E>y\n")


def test_names_with_spaces_end_in_a_tab() -> None:
    head = unified_diff("a\n", "b\n", "my compose.yaml", "/dev/null", PIPE).splitlines()[:2]
    assert head == ["--- my compose.yaml\t", "+++ /dev/null"]


def test_lines_that_occur_often_are_not_reported_as_changed() -> None:
    # difflib by itself leaves common lines of long texts out of account, and shows more than has changed.
    lines = [f"  {line}\n" for n in range(300) for line in ("a:", "b:", "c:", f"n: {n % 7}")]
    edited = [*lines[:600], "  new:\n", *lines[600:-2], "  c: x\n", lines[-1]]
    changed = [line for line in diff("".join(lines), "".join(edited)).splitlines()[2:] if line[0] in "+-"]
    assert changed == ["+  new:", "-  c:", "+  c: x"]


def test_a_gap_that_takes_too_many_edits_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = "a\na\nb\nb\n", "b\nb\na\na\n"
    assert diff(old, new).endswith("-a\n-a\n b\n b\n+a\n+a\n")
    monkeypatch.setattr("gpualloc.render.diff.MOST_EDITS", 3)
    assert diff(old, new).endswith("-a\n-a\n-b\n-b\n+b\n+b\n+a\n+a\n")


texts = st.builds(
    lambda lines, end: "\n".join(lines) + end,
    st.lists(st.sampled_from(["a", "b", "c", "", "d\r", "e\x0bf", "\u2028", "@@", "-", "\\"]), max_size=12),
    st.sampled_from(["", "\n"]),
)


@settings(max_examples=400, deadline=None)
@given(texts, texts, st.integers(0, 4))
def test_the_diff_turns_the_old_text_into_the_new_one(old: str, new: str, context: int) -> None:
    patch = diff(old, new, context=context)
    if old == new:
        assert patch == ""
    else:
        assert apply(patch, old) == new


@settings(deadline=None)
@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_texts_of_common_lines_get_the_fewest_edits(old: str, new: str) -> None:
    # Every line occurs twice or more, so that nothing is matched before the edits are counted.
    before, after = ["a", "b", "c", *old, "a", "b", "c"], ["a", "b", "c", *new, "a", "b", "c"]
    patch = diff("\n".join(before) + "\n", "\n".join(after) + "\n")
    edits = sum(line[0] in "+-" for line in patch.splitlines()[2:])
    assert edits == len(before) + len(after) - 2 * common(before, after)


def common(a: list[str], b: list[str]) -> int:
    """Return the length of a longest common subsequence, by the table of all prefixes."""
    row = [0] * (len(b) + 1)
    for x in a:
        above = row
        row = [0]
        for at, y in enumerate(b):
            row.append(above[at] + 1 if x == y else max(above[at + 1], row[at]))
    return row[-1]


@pytest.mark.parametrize(
    ("old", "new"),
    [(OLD, NEW), (OLD.replace("\n", "\r\n"), NEW.replace("\n", "\r\n")), (OLD.rstrip("\n"), NEW), ("x\n" + OLD, NEW)],
)
def test_git_applies_it(tmp_path: Path, old: str, new: str) -> None:
    target = tmp_path / "my compose.yaml"
    target.write_bytes(old.encode())
    patch = unified_diff(old, new, "a/my compose.yaml", "b/my compose.yaml", PIPE)
    subprocess.run(["git", "apply", "-"], input=patch.encode(), cwd=tmp_path, check=True)
    assert target.read_bytes().decode() == new
