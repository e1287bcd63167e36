"""Compose's variable substitution, as its Go library does it (compose-go ``template``, v2.9 to v2.13).

Read off that library and checked against Docker Compose 2.40.3. What may surprise:

- ``$$`` is one dollar sign; a ``$`` before anything but a name, ``{`` or ``$`` stays. ``${`` needs a name.
- An operand reaches to the brace that closes it, counting ``{`` as well as ``${`` but never looking at the character
  after a ``{``. Where the braces of a line don't balance, it reaches to the last ``}`` of that line instead.
- An operand cannot hold a line break.
- Only the operand that is needed is looked at. Compose up to 2.40 substitutes in the others too, so that
  ``${A:-${B:?}}`` fails there with ``A`` set (docker/compose#12637); later versions do as is done here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from gpualloc.errors import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpualloc.errors import GpuallocError, Place

    Lookup: TypeAlias = Callable[[str], str | None]
    """The value of a variable, or None where it is not set."""

MAX_DEPTH = 100
"""How deep operands may nest: far beyond what people write, and short of Python's own limit on recursion."""

# Go's case-insensitive [a-z] takes in two letters outside ASCII: the long s and the Kelvin sign.
_LETTER = "_a-zA-Z\u017f\u212a"
_NAME = f"[{_LETTER}][{_LETTER}0-9]*"
_TOKEN = re.compile(
    rf"\$(?:(?P<escaped>\$)|(?P<named>{_NAME})|(?P<brace>\{{)(?:(?P<braced>{_NAME})(?P<operator>:?[-+?]|\}}))?)"
)


@dataclass(frozen=True, slots=True)
class _Reference:
    """One use of a variable. ``operator`` is empty for ``$NAME`` and ``${NAME}``."""

    name: str
    operator: str = ""
    operand: str = ""


class _InvalidTemplateError(Exception):
    """``${`` stands where no valid reference follows."""


def interpolate(
    text: str,
    lookup: Lookup,
    *,
    place: Callable[[], Place] | None = None,
    unset: set[str] | None = None,
) -> str:
    """Return ``text`` with its variables replaced.

    A variable that is not set and has no default gives ""; its name is added to ``unset``, for a warning.
    ``place`` is asked for the position only when there is an error.

    Raises GpuallocError: ``required-variable`` for ``${NAME:?message}`` and ``${NAME?message}`` without a value,
    ``invalid-interpolation`` for a text that Compose cannot read or that nests deeper than MAX_DEPTH.
    """
    if "$" not in text:
        return text
    return _Substitution(text, lookup, place, set() if unset is None else unset).run(text)


def variables(text: str) -> tuple[str, ...]:
    """Return the names of the variables ``text`` uses, each once, those in operands after the others.

    An invalid text names those before the invalid part; operands deeper than MAX_DEPTH are left out.
    """
    names: dict[str, None] = {}
    level = [text]
    for _ in range(MAX_DEPTH + 1):
        operands: list[str] = []
        for reference in chain.from_iterable(map(_references, level)):
            names[reference.name] = None
            if "$" in reference.operand:
                operands.append(reference.operand)
        level = operands
    return tuple(names)


def escape(text: str) -> str:
    """Return ``text`` so written that substitution gives it back unchanged."""
    return text.replace("$", "$$")


@dataclass(frozen=True, slots=True)
class _Substitution:
    """One call of ``interpolate``; ``whole`` is the text as the user wrote it, for messages."""

    whole: str
    lookup: Lookup
    place: Callable[[], Place] | None
    unset: set[str]

    def run(self, text: str, depth: int = 0) -> str:
        if depth > MAX_DEPTH:
            raise self.error(
                "invalid-interpolation", f"{_short(self.whole)} nests variables too deep", "use fewer levels"
            )
        try:
            return "".join(part if isinstance(part, str) else self.value(part, depth) for part in _parts(text))
        except _InvalidTemplateError:
            summary = f"{_short(self.whole)} holds a '${{' that starts no valid variable"
            hint = (
                "write ${NAME}, ${NAME:-default}, ${NAME:?message} or ${NAME:+text}, in one line; $$ is a dollar sign"
            )
            raise self.error("invalid-interpolation", summary, hint) from None

    def value(self, reference: _Reference, depth: int) -> str:
        value = self.lookup(reference.name)
        kind = reference.operator[-1:]
        has_value = bool(value) if reference.operator.startswith(":") else value is not None
        if not kind and value is None:
            self.unset.add(reference.name)
        # an operand is needed with a value for +, and without one for - and ?
        if not kind or has_value != (kind == "+"):
            return value or ""
        operand = self.run(reference.operand, depth + 1)
        if kind != "?":
            return operand
        state = "is not set" if value is None else "is empty"
        summary = f"required variable {reference.name} {state}" + (f": {operand}" if operand else "")
        hint = f"set {reference.name} in the environment or in the project's .env file"
        raise self.error("required-variable", summary, hint)

    def error(self, code: str, summary: str, hint: str) -> GpuallocError:
        return fail(code, summary, self.place() if self.place else None, hint)


def _references(text: str) -> Iterator[_Reference]:
    """Give the references up to the first invalid part, without those in operands."""
    try:
        yield from (part for part in _parts(text) if isinstance(part, _Reference))
    except _InvalidTemplateError:
        return


def _parts(text: str) -> Iterator[str | _Reference]:
    """Cut ``text`` into literal pieces, escapes resolved, and references. Raises _InvalidTemplateError."""
    done = 0
    # end of the line last looked at, and of the last } on it: so a line is searched once, however much stands on it
    line_end = last_brace = -1
    while match := _TOKEN.search(text, done):
        if match.start() > done:
            yield text[done : match.start()]
        done = match.end()
        operator = match["operator"]
        if match["escaped"]:
            yield "$"
        elif match["named"]:
            yield _Reference(match["named"])
        elif not operator:
            raise _InvalidTemplateError
        elif operator == "}":
            yield _Reference(match["braced"])
        else:
            if done > line_end:
                line_end = text.find("\n", done)
                line_end = len(text) if line_end < 0 else line_end
                last_brace = text.rfind("}", done, line_end)
            if last_brace < done:
                raise _InvalidTemplateError
            end = _closing(text, match.start("brace"), last_brace)
            yield _Reference(match["braced"], operator, text[done:end])
            done = end + 1
    if done < len(text):
        yield text[done:]


_BRACE = re.compile(r"\{.?|\}", re.DOTALL)


def _closing(text: str, opening: int, last: int) -> int:
    """Return the index of the } that closes the { at ``opening``, or ``last`` if none up to there does."""
    level = 0
    for match in _BRACE.finditer(text, opening, last + 1):
        if text[match.start()] == "{":
            level += 1
        else:
            level -= 1
            if not level:
                return match.start()
    return last


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
