"""The change to a file as a unified diff."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from gpualloc.render.layout import HIDDEN, paint

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gpualloc.render.layout import Style
    from gpualloc.render.screen import Screen

NO_NEWLINE = "\\ No newline at end of file"

STYLES: dict[str, Style] = {" ": "plain", "-": "lost", "+": "good"}

MOST_EDITS = 1000
"""A gap that takes more edits is shown as replaced: the work grows with the square of their number."""


class _Change(NamedTuple):
    """Old lines ``[old, old_end)`` become new lines ``[new, new_end)``; counted from 0."""

    old: int
    old_end: int
    new: int
    new_end: int


def unified_diff(old: str, new: str, old_name: str, new_name: str, screen: Screen, context: int = 3) -> str:
    r"""Return what turns ``old`` into ``new``, or an empty text where they are the same.

    Lines end at ``\n`` alone, as for ``patch``, and in a pipe every byte of them is kept, so that ``patch`` can apply
    what is printed. On a terminal a carriage return is shown as ``^M``, except where all lines end in one, and other
    control characters as ``^[`` and the like.
    """
    if old == new:
        return ""
    before, after = _split(old), _split(new)
    show = _Shown(screen, crlf=all(line.endswith("\r\n") for line in (*before, *after) if line.endswith("\n")))
    lines = [
        paint(f"--- {_name(old_name)}", "title", colour=screen.colour) + "\n",
        paint(f"+++ {_name(new_name)}", "title", colour=screen.colour) + "\n",
    ]
    for hunk in _hunks(_changes(before, after), context):
        start, end = max(hunk[0].old - context, 0), min(hunk[-1].old_end + context, len(before))
        new_start = hunk[0].new - (hunk[0].old - start)
        new_end = hunk[-1].new_end + (end - hunk[-1].old_end)
        ranges = f"@@ -{_range(start, end)} +{_range(new_start, new_end)} @@"
        lines.append(paint(ranges, "change", colour=screen.colour) + "\n")
        at = start
        for change in hunk:
            lines += [show.line(" ", line) for line in before[at : change.old]]
            lines += [show.line("-", line) for line in before[change.old : change.old_end]]
            lines += [show.line("+", line) for line in after[change.new : change.new_end]]
            at = change.old_end
        lines += [show.line(" ", line) for line in before[at:end]]
    return "".join(lines)


class _Shown:
    """How lines of the two texts are shown on one screen; ``crlf``: every line ends in a carriage return."""

    def __init__(self, screen: Screen, *, crlf: bool) -> None:
        self._colour = screen.colour
        self._raw = screen.width is None
        self._crlf = crlf

    def line(self, sign: str, line: str) -> str:
        text = line.removesuffix("\n")
        end = "\n" if len(text) < len(line) else f"\n{NO_NEWLINE}\n"
        if self._raw:
            # The carriage return stays outside the colour, where it is still the end of the line.
            bare = text.removesuffix("\r")
            return paint(sign + bare, STYLES[sign], colour=self._colour) + text[len(bare) :] + end
        if self._crlf and len(text) < len(line):
            text = text.removesuffix("\r")
        return paint(sign + "".join(map(_caret, text)), STYLES[sign], colour=self._colour) + end


def _caret(char: str) -> str:
    """Return a control character as terminals echo it; one beyond ASCII, or that reverses text, by its number."""
    code = ord(char)
    if code < 0x20 and char != "\t":
        return f"^{chr(code + 0x40)}"
    if code == 0x7F:
        return "^?"
    return f"<U+{code:04X}>" if re.match(HIDDEN, char) and char != "\t" else char


def _split(text: str) -> list[str]:
    lines = text.split("\n")
    last = lines.pop()
    return [f"{line}\n" for line in lines] + ([last] if last else [])


def _name(name: str) -> str:
    """Return a file's name for the head of a diff; GNU patch needs a tab after one that has a space in it."""
    shown = "".join(map(_caret, name.replace("\t", "^I")))
    return f"{shown}\t" if " " in shown else shown


def _range(start: int, end: int) -> str:
    """Return lines ``[start, end)`` as a hunk's head counts them: from 1, or 0 for none at the start of a file."""
    length = end - start
    first = start + 1 if length else start
    return str(first) if length == 1 else f"{first},{length}"


def _hunks(changes: Sequence[_Change], context: int) -> Iterator[list[_Change]]:
    """Yield changes that are shown together: those whose lines of context would touch."""
    hunk = [changes[0]]
    for change in changes[1:]:
        if change.old - hunk[-1].old_end > 2 * context:
            yield hunk
            hunk = []
        hunk.append(change)
    yield hunk


# --------------------------------------------------------------------------------------------------------------------
# What changed


def _changes(old: Sequence[str], new: Sequence[str]) -> list[_Change]:
    """Return the changes from ``old`` to ``new`` in order: lines that occur once in each are matched first.

    That is Bram Cohen's patience diff. The gaps between are small, and get the fewest edits that will do.
    """
    found: list[_Change] = []
    at, new_at = 0, 0
    for anchor, new_anchor in [*_anchors(old, new), (len(old), len(new))]:
        if (anchor, new_anchor) != (at, new_at):
            found += _compare(old, new, _Change(at, anchor, new_at, new_anchor))
        at, new_at = anchor + 1, new_anchor + 1
    return _joined(found)


def _compare(old: Sequence[str], new: Sequence[str], gap: _Change) -> Iterator[_Change]:
    at, end, new_at, new_end = gap
    while at < end and new_at < new_end and old[at] == new[new_at]:
        at, new_at = at + 1, new_at + 1
    while at < end and new_at < new_end and old[end - 1] == new[new_end - 1]:
        end, new_end = end - 1, new_end - 1
    if at == end or new_at == new_end:
        if (at, new_at) != (end, new_end):
            yield _Change(at, end, new_at, new_end)
        return
    start, new_start = at, new_at
    for same, new_same in [*_matches(old[at:end], new[new_at:new_end]), (end - start, new_end - new_start)]:
        if (at, new_at) != (start + same, new_start + new_same):
            yield _Change(at, start + same, new_at, new_start + new_same)
        at, new_at = start + same + 1, new_start + new_same + 1


def _matches(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Return a longest common subsequence as pairs of positions; none where that takes more than ``MOST_EDITS`` edits.

    Eugene Myers, "An O(ND) difference algorithm and its variations", 1986: ``furthest[k]`` is how far into ``old`` one
    gets with so many edits on diagonal ``k``, where positions in ``old`` and ``new`` differ by ``k``.
    """
    furthest = {1: 0}
    rounds: list[dict[int, int]] = []
    for edits in range(min(len(old) + len(new), MOST_EDITS) + 1):
        rounds.append(dict(furthest))
        for k in range(-edits, edits + 1, 2):
            x = _step(furthest, edits, k)
            while x < len(old) and x - k < len(new) and old[x] == new[x - k]:
                x += 1
            furthest[k] = x
            if x >= len(old) and x - k >= len(new):
                return _trace(rounds, x, x - k)
    return []


def _step(furthest: dict[int, int], edits: int, k: int) -> int:
    """Return where the last edit leads on diagonal ``k``: an inserted line from the one above, or a removed one."""
    if k == -edits or (k != edits and furthest[k - 1] < furthest[k + 1]):
        return furthest[k + 1]
    return furthest[k - 1] + 1


def _trace(rounds: list[dict[int, int]], x: int, y: int) -> list[tuple[int, int]]:
    """Return the equal lines on the way back from the end of both texts."""
    pairs: list[tuple[int, int]] = []
    for edits in range(len(rounds) - 1, -1, -1):
        furthest, k = rounds[edits], x - y
        start = _step(furthest, edits, k)
        pairs += [(at, at - k) for at in range(x - 1, start - 1, -1)]
        inserted = k == -edits or (k != edits and furthest[k - 1] < furthest[k + 1])
        x, y = (start, start - k - 1) if inserted else (start - 1, start - k)
    return pairs[::-1]


def _joined(changes: Sequence[_Change]) -> list[_Change]:
    """Return changes with those that touch made one."""
    joined: list[_Change] = []
    for change in changes:
        if joined and (joined[-1].old_end, joined[-1].new_end) == (change.old, change.new):
            joined[-1] = joined[-1]._replace(old_end=change.old_end, new_end=change.new_end)
        else:
            joined.append(change)
    return joined


def _anchors(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of equal lines, each once in both texts, ascending in both: a longest such sequence."""
    new_lines = _once(new)
    pairs = [(at, new_lines[line]) for line, at in _once(old).items() if line in new_lines]
    ends: list[int] = []  # the smallest last line of a sequence of each length
    last: list[int] = []  # and the position of that pair
    before: list[int | None] = []
    for position, (_, new_at) in enumerate(pairs):
        length = bisect_left(ends, new_at)
        before.append(last[length - 1] if length else None)
        if length == len(ends):
            ends.append(new_at)
            last.append(position)
        else:
            ends[length], last[length] = new_at, position
    chain: list[tuple[int, int]] = []
    at: int | None = last[-1] if last else None
    while at is not None:
        chain.append(pairs[at])
        at = before[at]
    return chain[::-1]


def _once(lines: Sequence[str]) -> dict[str, int]:
    """Return the lines that occur only once, in order, with where they stand."""
    places: dict[str, int | None] = {}
    for at, line in enumerate(lines):
        places[line] = None if line in places else at
    return {line: at for line, at in places.items() if at is not None}
