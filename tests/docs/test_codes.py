"""Every code in the source has a page, every page a code, and the pages say what the messages say."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from gpualloc.errors import GpuallocError
from gpualloc.words import KINDS, Page, codes, page, pages, plain
from tests.docs.codes_in_source import MESSAGES, Use, uses

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
