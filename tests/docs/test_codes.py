"""Every code in the source has a page, every page a code, and the pages say what the messages say."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from gpualloc.errors import GpuallocError
from gpualloc.words import KINDS, Page, codes, page, pages, plain
from tests.docs.codes_in_source import MESSAGES, Use, uses

if TYPE_CHECKING:
    from pathlib import Path

USES = uses()
MADE: dict[str, list[Use]] = defaultdict(list)
for _use in USES:
    MADE[plain(_use.code)].append(_use)
PAGES = pages()


def test_every_code_in_the_source_has_a_page() -> None:
    without = {use.code: use.where for use in USES if plain(use.code) not in {plain(code) for code in codes()}}
    assert not without, f"write a page in gpualloc/words/pages for each of {without}"


def test_every_page_is_on_codes_that_are_in_the_source() -> None:
    unknown = [code for code in codes() if plain(code) not in MADE]
    assert not unknown, f"no message has these codes any more: {unknown}"


def test_no_code_has_two_pages() -> None:
    known = [plain(code) for code in codes()]
    assert sorted(set(known)) == sorted(known)


WITHOUT_HINT = {
    ("not-confirmed", "nothing was written"): "the user's own answer; what to do next is for them to say",
    ("swarm-translated", " "): "it says what it was translated into: nothing is to be done",
    ("swarm-left-out", " is left out: "): "what it says of Swarm is why; what to do without it is for the user to say",
    ("nvml-query", " unknown"): "a fact that the driver does not give: nothing can be done about it on this machine",
}
"""Messages that need no hint, by their code and how their words begin, each with the reason."""


def test_every_message_has_a_hint() -> None:
    without = {(plain(use.code), use.said[0][0] if use.said else ""): use.where for use in USES if not use.hinted}
    assert not without.keys() - WITHOUT_HINT.keys(), "say what to do, or why there is nothing to do"
    assert without.keys() == WITHOUT_HINT.keys(), "these have a hint now"


@pytest.mark.parametrize(
    ("body", "hinted"),
    [
        ("raise fail('a-code', 'words')", False),
        ("raise fail('a-code', 'words', None, 'do this')", True),
        ("raise fail('a-code', 'words', hint='do this' if thing else None)", False),
        ("hint = None\n    if thing:\n        hint = 'do this'\n    raise fail('a-code', 'words', None, hint)", False),
        ("hint = 'do this' if thing else 'do that'\n    raise fail('a-code', 'words', None, hint)", True),
        ("Diagnostic('a-code', 'words', None, None, 'warning')", False),
        ("Diagnostic('a-code', 'words', None, thing or 'do this')", True),
        ("own('a-code')", False),
        ("own('a-code', 'do this')", True),
    ],
)
def test_hints_are_found_in_the_source(body: str, *, hinted: bool, tmp_path: Path) -> None:
    """The reader of syntax trees sees a hint that is left out, at every depth of handing on."""
    errors = "def fail(code, summary, where=None, hint=None):\n    return Diagnostic(code, summary, where, hint)\n"
    own = "def own(code, hint=None):\n    return fail(code, 'words', None, hint)\n"
    (tmp_path / "errors.py").write_text(errors)
    (tmp_path / "one.py").write_text(f"{own}def f(thing):\n    {body}\n")
    assert [use.hinted for use in uses(tmp_path)] == [hinted]


@pytest.mark.parametrize("page_", PAGES, ids=lambda page_: page_.codes[0])
def test_a_page_is_made_as_they_all_are(page_: Page) -> None:
    parts = re.findall(r"^(?:#|##) .*$", page_.text, re.MULTILINE)
    assert parts == [f"# {', '.join(page_.codes)}", "## Why", "## What to do", "## Example"]
    assert set(page_.kinds) <= set(KINDS)
    assert page_.summary.endswith(".")
    assert page_.summary.count(". ") == 0, "one sentence"
    prose = page_.text.split("```text")[0].splitlines()[1:]
    assert max(len(line) for line in prose) <= 100
    for section in page_.text.split("## ")[1:]:
        assert section.split("\n", 2)[2].strip(), section


@pytest.mark.parametrize("page_", PAGES, ids=lambda page_: page_.codes[0])
def test_a_page_says_what_kind_its_codes_are(page_: Page) -> None:
    made = {use.kind for code in page_.codes for use in MADE[plain(code)]}
    for kind in set(MESSAGES.values()) - {"message"}:
        assert (kind in made) == (kind in page_.kinds)
    if "message" in made:
        assert {"error", "warning", "note", "finding"} & set(page_.kinds)


@pytest.mark.parametrize("page_", PAGES, ids=lambda page_: page_.codes[0])
def test_the_example_is_a_message_that_the_source_has(page_: Page) -> None:
    """The fixed parts of one of its messages stand in the example, in their order; a page cannot go stale unseen."""
    said = [use.said for code in page_.codes for use in MADE[plain(code)]]
    ways = [parts for one in said if one is not None for parts in one]
    example = page_.text.split("```text\n")[1]
    if None in said:
        return  # one of its messages is put together elsewhere: the example may be of that one
    patterns = [".*".join(re.escape(part.strip()) for part in parts) for parts in ways]
    assert any(re.search(pattern, example) for pattern in patterns), f"none of {ways} is in:\n{example}"


@pytest.mark.parametrize("page_", PAGES, ids=lambda page_: page_.codes[0])
def test_an_example_that_names_a_code_names_the_page_s_own(page_: Page) -> None:
    named = re.findall(r"\[([a-z][a-z-]+)\]$", page_.text.split("```text\n")[1], re.MULTILINE)
    assert {plain(code) for code in named} <= {plain(code) for code in page_.codes}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("lost-device", "lost-device"),
        ("[lost-device]", "lost-device"),
        ("split_nvlink_role", "split_nvlink_role"),
        ("split-nvlink-role", "split_nvlink_role"),
        ("Lost-Device ", "lost-device"),
        ("xid_79", "xid"),
        ("xid-79", "xid"),
    ],
)
def test_a_page_is_found_however_its_code_is_spelled(asked: str, found: str) -> None:
    assert page(asked).codes[0] == found


def test_an_unknown_code_names_the_nearest() -> None:
    with pytest.raises(GpuallocError) as caught:
        page("lost-devise")
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.hint) == ("unknown-code", "did you mean lost-device?")
