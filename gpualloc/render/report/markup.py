"""Text into HTML and SVG: everything that others wrote goes through ``escaped``."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from gpualloc.render.layout import printable

if TYPE_CHECKING:
    from collections.abc import Sequence


def escaped(text: str) -> str:
    """Return ``text`` for an element or a quoted attribute, its control characters made visible."""
    return escape(printable(text), quote=True)


def element(name: str, text: str, cls: str = "") -> str:
    """Return an element that holds ``text``."""
    attribute = f' class="{cls}"' if cls else ""
    return f"<{name}{attribute}>{escaped(text)}</{name}>"


def table(caption: str, titles: tuple[str, ...], rows: Sequence[tuple[str, ...]], cls: str = "") -> str:
    """Return a table of plain cells with its caption; the first cell of a row is the row's head."""
    head = "".join(f'<th scope="col">{escaped(title)}</th>' for title in titles)
    body = "".join(
        f'<tr><th scope="row">{escaped(first)}</th>{"".join(f"<td>{escaped(of)}</td>" for of in rest)}</tr>\n'
        for first, *rest in rows
    )
    return (
        f'<div class="wide"><table class="{cls}"><caption>{escaped(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )
