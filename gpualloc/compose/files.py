"""Compose files on disk: decoding, and writing so that a crash leaves the old file or the new one."""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpualloc.compose.document import MAX_BYTES
from gpualloc.errors import GpuallocError, Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True, slots=True)
class Source:
    """A file's text with what is needed to write it back: its byte order mark and encoding; and its digest."""

    path: Path
    text: str
    bom: bytes
    encoding: str
    sha256: str

    def encode(self, text: str) -> bytes:
        """Return text as this file stores it."""
        return self.bom + text.encode(self.encoding)


NAMED = 3
"""So many files are named where another one was meant."""


def _meant(path: Path, shown: str) -> str:
    """Say which file may be meant by one that is not there: the YAML files of its folder, the nearest name first."""
    import difflib  # noqa: PLC0415 - only a mistake pays for it

    try:
        names = sorted(p.name for p in path.parent.iterdir() if p.suffix in {".yaml", ".yml"} and p.is_file())
    except OSError:
        names = []
    close = difflib.get_close_matches(path.name, names, n=1) or names[: len(names) == 1]
    if close:
        return f"did you mean {os.path.join(os.path.dirname(shown), close[0])}?"  # noqa: PTH118, PTH120 - as it was named
    if names:
        rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return f"name the compose file with -f; the YAML files there are {', '.join(names[:NAMED])}{rest}"
    return "name the compose file with -f"


def read_source(path: Path, shown: str) -> Source:
    """Read a compose file. ``shown`` is its name in messages.

    Raises GpuallocError: ``file-missing``, ``file-unreadable``, ``file-size``, ``file-encoding``.
    """
    where = Place(shown)
    try:
        with path.open("rb") as stream:
            data = stream.read(4 * MAX_BYTES + 1)
    except FileNotFoundError:
        raise fail("file-missing", "there is no such file", where, _meant(path, shown)) from None
    except OSError as error:
        raise fail(
            "file-unreadable", f"cannot read it: {error.strerror}", where, "name a compose file with -f"
        ) from None
    if len(data) > MAX_BYTES:
        size = f"more than {MAX_BYTES // (1024 * 1024)} MiB"
        raise fail("file-size", f"the file has {size}", where, "compose files are smaller; is this the right file?")
    return decode(data, path, shown)


def decode(data: bytes, path: Path, shown: str) -> Source:
    """Decode a compose file's bytes, as UTF-8 or by its byte order mark. Raises GpuallocError (``file-encoding``)."""
    bom, encoding = next(((b, e) for b, e in _BOMS if data.startswith(b)), (b"", "utf-8"))
    try:
        text = data[len(bom) :].decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: len(bom) + error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        where = Place(shown, line, column)
        raise fail("file-encoding", f"this byte is not {encoding.upper()}", where, "save the file as UTF-8") from None
    return Source(path, text, bom, encoding, hashlib.sha256(data).hexdigest())


def make_folders(paths: Iterable[Path]) -> None:
    """Make the folders that files are to be in. Raises GpuallocError (``file-write``)."""
    folder = Path()
    try:
        for folder in dict.fromkeys(path.parent for path in paths):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "let this user write there, or name another place"
        raise fail("file-write", f"cannot make the folder: {error.strerror}", Place(str(folder)), hint) from None


@dataclass(slots=True)
class Staged:
    """A file's new content in a temporary file beside it, on disk, ready to take its place."""

    target: Path
    shown: str
    temporary: Path | None

    def commit(self) -> None:
        """Put it in place at once. Raises GpuallocError (``file-write``); the old file is whole then."""
        try:
            if self.temporary is not None:
                self.temporary.replace(self.target)
                self.temporary = None
                _sync_directory(self.target.parent)
        except OSError as error:
            raise _cannot_write(error, self.shown) from None

    def discard(self) -> None:
        """Leave nothing of it, unless it was put in place."""
        if self.temporary is not None:
            self.temporary.unlink(missing_ok=True)


def stage(path: Path, data: bytes, shown: str) -> Staged:
    """Write a file's new content beside it; symlinks are followed, mode and owner kept.

    Raises GpuallocError (``file-write``), and leaves nothing then.
    """
    target = Path(os.path.realpath(path))
    staged = Staged(target, shown, None)
    try:
        status = _status(target)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        staged.temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            if status is not None:
                os.fchmod(stream.fileno(), status.st_mode & 0o7777)
                if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(stream.fileno(), status.st_uid, status.st_gid)
            else:
                os.fchmod(stream.fileno(), 0o666 & ~_umask())
            os.fsync(stream.fileno())
    except BaseException as error:
        staged.discard()
        if isinstance(error, OSError):
            raise _cannot_write(error, shown) from None
        raise
    return staged


def _status(target: Path) -> os.stat_result | None:
    """Return a file's mode and owner; None where there is no file. Raises OSError where it must not be written."""
    try:
        status = target.stat()
    except FileNotFoundError:
        return None
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is read-only")
    return status


def write_atomic(path: Path, data: bytes, shown: str) -> None:
    """Replace a file's content at once, through a temporary file beside it.

    Raises GpuallocError (``file-write``); the old file is whole then.
    """
    staged = stage(path, data, shown)
    try:
        staged.commit()
    finally:
        staged.discard()


def _cannot_write(error: OSError, shown: str) -> GpuallocError:
    hint = "make the file and its folder writable, or write elsewhere with -o FILE"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        hint = "free some space, then run this again; the file is as it was"
    return fail("file-write", f"cannot write: {error.strerror or error}", Place(shown), hint)


def remove(path: Path, shown: str) -> None:
    """Remove a file of gpualloc's own. Raises GpuallocError (``file-write``)."""
    try:
        path.unlink()
    except OSError as error:
        raise fail(
            "file-write", f"cannot remove it: {error.strerror}", Place(shown), "make its folder writable"
        ) from None


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def lock(path: Path, shown: str) -> Iterator[None]:
    """Hold the lock that keeps two applies to one file from interleaving: an advisory lock on the file's folder.

    The folder is locked, since the file itself is replaced, and a lock file would be left behind. Raises GpuallocError
    (``locked``) if another process holds it.
    """
    import fcntl  # noqa: PLC0415 - POSIX only, and only writing needs it

    folder = Path(os.path.realpath(path)).parent
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        hint = "let this user read and write the folder, or write elsewhere with -o FILE"
        raise fail("file-write", f"cannot open its folder: {error.strerror}", Place(shown), hint) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise _locked(shown) from error
    try:
        yield
    finally:
        os.close(descriptor)


def _locked(shown: str) -> GpuallocError:
    hint = "wait for the other gpualloc to finish, then run this again"
    return fail("locked", "another gpualloc is writing in this folder", Place(shown), hint)
