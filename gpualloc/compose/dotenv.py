r"""``.env`` files, read as Compose reads them (compose-go ``dotenv``, v2.9 to v2.13).

Checked against Docker Compose 2.40.3. python-dotenv is something else: it knows neither ``$NAME`` nor ``${NAME:?}``,
``${NAME:+}``, ``$$`` and ``KEY: value``, takes a comment after a tab, and passes over lines that it cannot read, where
Compose stops.

Rules of Compose's that one would not guess:

- A comment after an unquoted value starts at a space and ``#``. ``KEY= # text`` has the value ``# text``.
- What follows a closing quote on the same line is read as the next entry.
- ``KEY`` alone takes the environment's value, or leaves the key out; without a line break after it, at the very end of
  the file, it is a value without a name.
- In double quotes ``\$`` is a dollar sign; octal escapes are written ``\0NNN``; what is no escape keeps its backslash.
  In single quotes only ``\'`` is an escape.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpualloc.compose.interpolate import interpolate
from gpualloc.errors import Place, fail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpualloc.compose.interpolate import Lookup

# Space as Go sees it: the control characters 1C to 1F, which Python counts as space, are not.
_BLANK = "\t\v\f\r \x85\xa0"
_SPACE = (
    _BLANK + "\n\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)

_GAP = re.compile(rf"(?:[{_SPACE}]+|#[^\n]*)*")
_EXPORT = re.compile(rf"(?:export(?=[\t\n\f\r ])[{_BLANK}]*)?")
_BLANKS = re.compile(rf"[{_BLANK}]*")
_KEY_END = re.compile(r"[=:\n]")
_QUOTED = {quote: re.compile(rf"{quote}([^\\{quote}]*(?:\\.[^\\{quote}]*)*){quote}", re.DOTALL) for quote in "'\""}
_PAIR = re.compile(r"\\(.)", re.DOTALL)
_ESCAPE = re.compile(r"\\([abfnrtv$\"\\]|0[0-9]{0,3})")
_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "$": "$$",
    '"': '"',
    "\\": "\\",
}


def parse(
    text: str,
    lookup: Lookup,
    *,
    file: str = ".env",
    earlier: Mapping[str, str] | None = None,
    unset: set[str] | None = None,
) -> dict[str, str]:
    """Return the entries of the file whose content is ``text``, added to those of ``earlier`` files.

    ``lookup`` answers for the environment. Where a value names a variable, the environment is asked first, then this
    file up to there, then ``earlier``; names that none of them has are added to ``unset``.

    Raises GpuallocError with the line: ``env-file-syntax``, and what ``interpolate`` raises.
    """
    text = text.removeprefix("\ufeff")
    values = dict(earlier or {})

    def known(name: str) -> str | None:
        value = lookup(name)
        return values.get(name) if value is None else value

    at = _after(_GAP, text, 0)
    while at < len(text):
        at = _after(_EXPORT, text, at)
        end = _KEY_END.search(text, at)
        _check_name(text, at, end.start() if end else len(text), file)
        key = text[at : end.start()].rstrip(_SPACE) if end else ""
        if end and end[0] == "\n":
            at = end.end()
            inherited = lookup(key)
            if inherited is not None:
                values[key] = inherited
        else:
            start = _after(_BLANKS, text, end.end() if end else at)
            value, literal, at = _read_value(text, start, file)
            place = partial(_place, text, start, file)
            values[key] = value if literal else interpolate(value, known, place=place, unset=unset)
        at = _after(_GAP, text, at)
    return values


def load_environment(
    project_dir: Path,
    env_files: Sequence[Path] | None,
    environ: Mapping[str, str],
    *,
    unset: set[str] | None = None,
) -> dict[str, str]:
    """Return the variables that substitution in compose files sees: ``environ`` over those of the files.

    The files are ``env_files``, later ones winning; where none are given, those named in COMPOSE_ENV_FILES, separated
    by commas; else the project directory's ``.env`` if it has one, unless COMPOSE_DISABLE_ENV_FILE is true. Relative
    paths start at the working directory. Compose reads the working directory's ``.env`` before it knows the project
    directory: for that, call this twice, the second time with the first answer as ``environ``.

    Raises GpuallocError: ``env-file-missing``, ``env-file-unreadable``, ``env-file-disable`` where
    COMPOSE_DISABLE_ENV_FILE is no boolean, and what ``parse`` raises.
    """
    files = list(env_files or ()) or [Path(name) for name in environ.get("COMPOSE_ENV_FILES", "").split(",") if name]
    needed = bool(files)
    if not files and not _default_disabled(environ):
        files = [project_dir / ".env"]
    values: dict[str, str] = {}
    for path in files:
        values = parse(_read(path, needed=needed), environ.get, file=str(path), earlier=values, unset=unset)
    return {**values, **environ}


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _place(text: str, at: int, file: str) -> Place:
    return Place(file, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))


def _check_name(text: str, start: int, end: int, file: str) -> None:
    if start == len(text):
        raise fail("env-file-syntax", "nothing follows 'export'", _place(text, start, file), _HINT)
    for at in range(start, end):
        char = text[at]
        if not (char.isalnum() or char in "_.-[]" or char in _BLANK):
            raise fail("env-file-syntax", f"{char!r} cannot stand in a variable's name", _place(text, at, file), _HINT)
    name = text[start:end].rstrip(_SPACE)
    if end < len(text) and " " in name:
        raise fail("env-file-syntax", f"the name {name!r} holds a space", _place(text, start, file), _HINT)


_HINT = "write NAME=value, one a line, and quote values that span lines"


def _read_value(text: str, start: int, file: str) -> tuple[str, bool, int]:
    """Return the value at ``start`` with escapes resolved, whether it is literal, and where reading goes on."""
    quote = text[start : start + 1]
    if quote not in _QUOTED:
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        return text[start:end].partition(" #")[0].rstrip(_SPACE), False, end
    match = _QUOTED[quote].match(text, start)
    if not match:
        raise fail("env-file-syntax", f"no {quote} ends the value that starts here", _place(text, start, file), _HINT)
    if quote == "'":
        return _PAIR.sub(lambda pair: "'" if pair[1] == "'" else pair[0], match[1]), True, match.end()
    return _ESCAPE.sub(_unescape, match[1]), False, match.end()


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] != "0":
        return _ESCAPES[code]
    octal = code[1:]
    if re.fullmatch("[0-3][0-7][0-7]", octal):
        return chr(int(octal, 8))
    return "\\" + octal  # Go's own octal escapes have no 0: Compose drops it, and what is then no escape stays so


def _default_disabled(environ: Mapping[str, str]) -> bool:
    value = environ.get("COMPOSE_DISABLE_ENV_FILE")
    if value in {None, "0", "f", "F", "false", "False", "FALSE"}:
        return False
    if value in {"1", "t", "T", "true", "True", "TRUE"}:
        return True
    raise fail("env-file-disable", f"COMPOSE_DISABLE_ENV_FILE is {value!r}, no boolean", hint="set it to true or false")


def _read(path: Path, *, needed: bool) -> str:
    """Return the file's text; where it is not ``needed``, a missing file or a directory is an empty one."""
    where = Place(str(path))
    try:
        # bytes that are not UTF-8 pass through a value unchanged, as os.environ has them
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except (FileNotFoundError, IsADirectoryError) as error:
        if not needed:
            return ""
        if isinstance(error, IsADirectoryError):
            raise fail("env-file-unreadable", "it is a folder", where, "name a file") from None
        raise fail("env-file-missing", "there is no such env file", where, "check its name") from None
    except OSError as error:
        hint = "see its permissions, or name another with --env-file"
        raise fail("env-file-unreadable", f"cannot read it: {error.strerror}", where, hint) from None
