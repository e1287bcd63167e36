"""What a text is rendered for: a terminal of some width, or a pipe; in colour, or not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

FALLBACK_WIDTH = 80
"""Columns of a terminal that does not say how wide it is."""

NARROWEST = 40
"""Columns below which no table can be laid out; a narrower terminal wraps the lines itself."""


@dataclass(frozen=True, slots=True)
class Screen:
    """``width`` is the terminal's columns, None where there is no terminal: then no line is wrapped."""

    width: int | None = None
    colour: bool = False

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str]) -> Screen:
        """Return what ``stream`` is: a terminal or not, and whether it takes colour.

        ``NO_COLOR`` in ``environ`` forbids colour, ``FORCE_COLOR`` asks for it in a pipe, ``COLUMNS`` is the width. A
        variable that is set but empty counts as absent (https://no-color.org).
        """
        terminal = stream.isatty()
        forced = environ.get("FORCE_COLOR", "") not in {"", "0"}
        capable = terminal and environ.get("TERM", "") != "dumb"
        colour = (forced or capable) and not environ.get("NO_COLOR")
        return cls(_width(stream, environ) if terminal else None, colour)


def _width(stream: TextIO, environ: Mapping[str, str]) -> int:
    columns = environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns) > 0:
        return max(int(columns), NARROWEST)
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # no file behind the stream, or one that is no terminal
        width = 0
    return max(width or FALLBACK_WIDTH, NARROWEST)
