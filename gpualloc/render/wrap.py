"""Lines and tables wrapped to a terminal that they do not fit, by rich: imported only where that is so."""

from __future__ import annotations

import re
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from gpualloc.render.layout import GAP, Line, Span, cell_width, head, plain_text, width_of

if TYPE_CHECKING:
    from gpualloc.render.layout import Block, Cell, Style, Table

RICH_STYLES: dict[Style, str] = {
    "plain": "",
    "title": "bold",
    "good": "green",
    "change": "cyan",
    "warn": "yellow",
    "bad": "bold red",
    "lost": "red",
    "dim": "dim",
}
"""The names rich has for the codes in ``layout.ANSI``."""

RESET = r"\x1b\[0m"
"""The end of a style, as a regular expression."""


def wrapped(block: Block, width: int, *, colour: bool) -> str:
    """Return ``block`` as text of at most ``width`` columns: cells are wrapped at spaces, longer words are folded."""
    # Everything that rich would look up in the environment is given, so that the text depends on the arguments alone.
    console = Console(
        file=StringIO(),
        width=width,
        height=25,
        force_terminal=colour,
        force_jupyter=False,
        color_system="standard" if colour else None,
        no_color=not colour,
        legacy_windows=False,
        highlight=False,
    )
    with console.capture() as capture:
        console.print(_line(block, width) if isinstance(block, Line) else _table(block, width))
    return re.sub(rf"(?: |{RESET})+$", _without_spaces, capture.get(), flags=re.MULTILINE)


def _without_spaces(line_end: re.Match[str]) -> str:
    return "\x1b[0m" if "\x1b" in line_end.group() else ""


def _line(line: Line, width: int) -> RichTable:
    start = min(line.indent + cell_width(line.lead), width // 2)
    grid = RichTable.grid()
    if start:
        grid.add_column(width=start, overflow="fold")
    grid.add_column(width=width - start, overflow="fold")
    lead = [_text((Span(" " * line.indent), *line.lead))] if start else []
    grid.add_row(*lead, _text(line.body))
    return grid


def _table(table: Table, width: int) -> RichTable:
    first = head(table)
    rows = table.rows if first is None else (first, *table.rows)
    room = width - table.indent - GAP * (len(table.columns) - 1)
    cells = [list(map(cell_width, column)) for column in zip(*rows, strict=True)]
    words = [max(map(_longest_word, column)) for column in zip(*rows, strict=True)]
    least = [max(c) if column.whole else w for column, c, w in zip(table.columns, cells, words, strict=True)]
    widths = _shrink(cells, least, room)
    # Gaps are columns of their own: rich has counted the padding of the last column in one way and in another.
    gaps = [table.indent, *[GAP] * (len(widths) - 1)]
    grid = RichTable.grid()
    for column, gap, columns in zip(table.columns, gaps, widths, strict=True):
        if gap:
            grid.add_column(width=gap)
        grid.add_column(width=columns, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        texts: list[Text | str] = []
        for gap, of in zip(gaps, row, strict=True):
            texts += ["", _text(of)] if gap else [_text(of)]
        grid.add_row(*texts)
    return grid


def _text(of: Cell) -> Text:
    return Text.assemble(*((span.text, RICH_STYLES[span.style]) for span in of))


def _longest_word(of: Cell) -> int:
    return max(map(width_of, plain_text(of).split(" ")))


def _shrink(cells: list[list[int]], least: list[int], room: int) -> list[int]:
    """Return a width for each column that adds up to ``room``; ``cells`` are the widths of the cells of each column.

    No column gets less than ``least``, its longest word, while there is room for all of those; what is left goes
    to where it saves most lines. Where there is no room for them, the widest columns give way.
    """
    natural = [max(column) for column in cells]
    if sum(natural) <= room:
        return natural
    widths = list(least)
    while sum(widths) > room and max(widths) > 1:
        widths[widths.index(max(widths))] -= 1
    while sum(widths) < room:
        added = [
            sum((cell - 1) // width for cell in column if cell) for column, width in zip(cells, widths, strict=True)
        ]
        widths[added.index(max(added))] += 1
    return widths
