"""The pages on the codes of messages: what each means, why it happens, what to do, and an example.

A page is a Markdown file in ``pages/``. Its first line names its codes (``# busy, unfit-busy``), the next says what
kind of message they are, and then comes one sentence that says what they mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from gpualloc.errors import fail

KINDS = ("error", "warning", "note", "finding", "plan warning", "reason", "health")
"""What a code can be the code of: messages on stderr; findings of ``check`` and ``verify``; warnings of a plan; reasons
why a device cannot take a worker; faults of a GPU."""

_NUMBERED = re.compile(r"([a-z]+)-\d+")


@dataclass(frozen=True, slots=True)
class Page:
    """One page: its codes, their kinds, the sentence that says what they mean, and the whole text as Markdown."""

    codes: tuple[str, ...]
    kinds: tuple[str, ...]
    summary: str
    text: str


def plain(code: str) -> str:
    """Return a code in the spelling that pages are found by: codes in JSON have underscores, others have dashes."""
    return code.strip().lower().replace("_", "-")


@cache
def pages() -> tuple[Page, ...]:
    """Return all pages, in the order of their first codes."""
    folder = resources.files(__name__).joinpath("pages")
    texts = [file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".md")]
    return tuple(sorted((_read(text) for text in texts), key=lambda page: plain(page.codes[0])))


def _read(text: str) -> Page:
    title, kinds, summary = (part.strip() for part in text.split("\n\n", 3)[:3])
    return Page(
        codes=tuple(title.removeprefix("# ").split(", ")),
        kinds=tuple(kinds.removeprefix("Kind: ").split(", ")),
        summary=" ".join(summary.split("\n")),
        text=text,
    )


def codes() -> tuple[str, ...]:
    """Return every code that has a page, in the alphabet's order."""
    return tuple(sorted((code for page in pages() for code in page.codes), key=plain))


def page(code: str) -> Page:
    """Return the page on a code, however it is spelled. Raises GpuallocError (``unknown-code``)."""
    wanted = plain(code.strip("[] "))
    by_code = {plain(known): found for found in pages() for known in found.codes}
    numbered = _NUMBERED.fullmatch(wanted)  # xid-79 is on the page on xid
    found = by_code.get(wanted) or (by_code.get(numbered[1]) if numbered else None)
    if found is None:
        import difflib  # noqa: PLC0415 - only a mistake pays for it

        close = difflib.get_close_matches(wanted, by_code, n=1)
        hint = f"did you mean {close[0]}?" if close else "gpualloc explain lists all codes"
        raise fail("unknown-code", f"no message has the code {code!r}", None, hint)
    return found
