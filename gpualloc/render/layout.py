"""Lines and tables of styled text, laid out for a screen.

The same blocks give the same words everywhere. Where nothing needs wrapping (in a pipe, or when all lines fit the
terminal) they are laid out here; only lines that are too long for their terminal are handed to rich, whose import would
otherwise be a good part of the run time of ``gpualloc plan``.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.render.screen import Screen

Style = Literal["plain", "title", "good", "change", "warn", "bad", "lost", "dim"]

ANSI: dict[Style, str] = {
    "plain": "",
    "title": "1",
    "good": "32",
    "change": "36",
    "warn": "33",
    "bad": "1;31",
    "lost": "31",
    "dim": "2",
}
"""The SGR parameters of each style (ECMA-48, 8.3.117)."""

HIDDEN = "[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
"""Control characters, separators of lines and paragraphs, bidirectional overrides (Unicode Standard Annex 9, 2.1 to
2.4), lone surrogates."""

GAP = 2
"""Columns between two cells of a row."""


@dataclass(frozen=True, slots=True)
class Span:
    """A run of text in one style."""

    text: str
    style: Style = "plain"


Cell = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a table's column. Numbers stand to the ``right``; a column that is ``whole`` is wrapped last."""

    title: str
    right: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells, one for each column. The head is left out where no column has a title."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    indent: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text. Where it must be wrapped, it goes on under the start of ``body``."""

    body: Cell = ()
    lead: Cell = ()
    indent: int = 0


Block = Table | Line


def cell(text: str, style: Style = "plain") -> Cell:
    """Return a cell of one style, its control characters made visible."""
    return (Span(printable(text), style),)


def printable(text: str) -> str:
    r"""Return ``text`` on one line, with everything that could move the cursor or hide text as ``\x1b``, ``\u202e``.

    Names come from files that other people wrote: control characters, separators of lines and paragraphs, bidirectional
    overrides (Unicode Standard Annex 9, 2.1 to 2.4) and lone surrogates are shown, not sent to the terminal.
    """
    text = re.sub(r"\s*[\r\n]+\s*", " ", text)
    return re.sub(HIDDEN, _escape, text)


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape", "surrogatepass").decode("ascii")


def paint(text: str, style: Style, *, colour: bool) -> str:
    """Return ``text`` in ``style``, or as it is where there is no colour."""
    codes = ANSI[style]
    return f"\x1b[{codes}m{text}\x1b[0m" if colour and codes and text else text


def width_of(text: str) -> int:
    """Return how many columns ``text`` takes: two for each wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def plain_text(of: Cell) -> str:
    """Return the text of a cell without its styles."""
    return "".join(span.text for span in of)


def cell_width(of: Cell) -> int:
    """Return how many columns a cell takes on one line."""
    return sum(width_of(span.text) for span in of)


def head(table: Table) -> tuple[Cell, ...] | None:
    """Return the head of ``table`` as a row, or None where it has no titles."""
    if not any(column.title for column in table.columns):
        return None
    return tuple(cell(column.title, "title") for column in table.columns)


def natural_widths(table: Table) -> list[int]:
    """Return the width of each column where nothing is wrapped."""
    first = head(table)
    rows = table.rows if first is None else (first, *table.rows)
    return [max(map(cell_width, column)) for column in zip(*rows, strict=True)]


def render(blocks: Sequence[Block], screen: Screen) -> str:
    """Return ``blocks`` as text for ``screen``; every line ends in a newline and none in a space."""
    return "".join(_rendered(block, screen) for block in blocks)


def _rendered(block: Block, screen: Screen) -> str:
    if screen.width is not None and _width(block) > screen.width:
        from gpualloc.render.wrap import wrapped  # noqa: PLC0415 - imports rich

        return wrapped(block, screen.width, colour=screen.colour)
    return "".join(f"{line}\n" for line in _lines(block, colour=screen.colour))


def _width(block: Block) -> int:
    if isinstance(block, Line):
        return block.indent + cell_width(block.lead) + cell_width(block.body)
    widths = natural_widths(block)
    return block.indent + sum(widths) + GAP * (len(widths) - 1)


def _lines(block: Block, *, colour: bool) -> list[str]:
    if isinstance(block, Line):
        text = _paint_cell((*block.lead, *block.body), colour=colour)
        return [" " * block.indent + text if text else ""]
    first = head(block)
    rows = block.rows if first is None else (first, *block.rows)
    widths = natural_widths(block)
    return [_row(block, row, widths, colour=colour) for row in rows]


def _row(table: Table, row: tuple[Cell, ...], widths: list[int], *, colour: bool) -> str:
    texts = []
    for column, of, width in zip(table.columns, row, widths, strict=True):
        padding = " " * (width - cell_width(of))
        text = _paint_cell(of, colour=colour)
        texts.append(padding + text if column.right else text + padding)
    return (" " * table.indent + (" " * GAP).join(texts)).rstrip(" ")


def _paint_cell(of: Cell, *, colour: bool) -> str:
    return "".join(paint(span.text, span.style, colour=colour) for span in of)
