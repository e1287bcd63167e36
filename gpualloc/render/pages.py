"""Pages on codes, as text for a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpualloc.render.layout import paint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.render.screen import Screen
    from gpualloc.words import Page

_CODE_SPAN = re.compile(r"`([^`]+)`")


def page_text(page: Page, screen: Screen) -> str:
    """Return a page as it is read on a terminal: headings painted, the marks of Markdown left out."""
    lines = []
    in_example = False
    for line in page.text.splitlines():
        if line.startswith("```"):
            in_example = not in_example
        elif in_example:
            lines.append(f"  {line}".rstrip())
        elif line.startswith("# "):
            lines.append(paint(line[2:], "title", colour=screen.colour))
        elif line.startswith("## "):
            lines.append(paint(line[3:], "title", colour=screen.colour))
        elif line.startswith("Kind: "):
            lines.append(paint(line[6:], "dim", colour=screen.colour))
        else:
            lines.append(_CODE_SPAN.sub(lambda match: paint(match[1], "change", colour=screen.colour), line))
    return "\n".join(lines) + "\n"


def codes_text(pages: Sequence[Page], screen: Screen) -> str:
    """Return all codes, a line for each page: the codes, and below them what they mean."""
    lines = []
    for page in pages:
        kinds = paint(f"({', '.join(page.kinds)})", "dim", colour=screen.colour)
        lines.append(f"{', '.join(page.codes)} {kinds}\n    {_CODE_SPAN.sub(lambda match: match[1], page.summary)}")
    return "\n".join(lines) + "\n"
