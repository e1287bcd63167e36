"""Reads what a user names as an inventory file: its text, and what kind of text it is."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gpualloc.errors import Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["snapshot", "smi"]

MAX_BYTES = 256 << 20
"""A snapshot of 100,000 GPUs is a third of this. More is a mistake, such as a device that never ends."""

_SUFFIXES = frozenset((".json", ".xml"))
_HINT = "give a snapshot, the output of `nvidia-smi -q -x`, sim:NAME, or nvml"
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))

_LOOKS_LIKE = (
    ("==============NVSMI LOG", "`nvidia-smi -q` without -x"),
    ("| NVIDIA-SMI", "the table of `nvidia-smi`"),
    ("(UUID: GPU-", "`nvidia-smi -L`"),
    ("CPU Affinity", "`nvidia-smi topo -m`, which goes with --topo"),
)
"""What people paste by mistake: a mark in its first lines, and what it is."""


def read_text(path: Path) -> str:
    """Read a text file: UTF-8, or UTF-16 with a byte order mark (what a Windows shell writes).

    Raises ``GpuallocError``: ``inventory-file`` where it cannot be read or is too large, ``inventory-encoding`` where
    it is not text.
    """
    place = Place(str(path))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise fail("inventory-file", f"cannot read it: {reason}", place, _hint(path)) from None
    if len(data) > MAX_BYTES:
        raise fail("inventory-file", f"larger than {MAX_BYTES >> 20} MiB: not an inventory", place, _HINT)
    bom, encoding = next(((bom, name) for bom, name in _BOMS if data.startswith(bom)), (b"", "utf-8"))
    try:
        return data[len(bom) :].decode(encoding)
    except UnicodeDecodeError as error:
        summary = f"not {encoding.upper()} text: byte {error.start + len(bom)} cannot be read"
        raise fail("inventory-encoding", summary, place, _HINT) from None


def inside(source: str) -> Iterator[str]:
    """Yield a source, or, where it is a folder, the files in it that end in ``.json`` or ``.xml``, in order of name.

    Raises ``GpuallocError`` (``inventory-folder``) for a folder with no such file, or one that cannot be looked into.
    """
    folder = Path(source)
    if not folder.is_dir():
        yield source
        return
    hint = "save a snapshot of each host there: gpualloc inventory -o FOLDER/HOST.json"
    try:
        names = sorted(p.name for p in folder.iterdir() if p.suffix in _SUFFIXES and not p.name.startswith("."))
    except OSError as error:
        raise fail("inventory-folder", f"cannot look into it: {error.strerror}", Place(source), hint) from None
    if not names:
        raise fail("inventory-folder", "no snapshot is in this folder", Place(source), hint)
    yield from (str(folder / name) for name in names)


def _hint(path: Path) -> str:
    """Say what a file that is not there may be meant to be."""
    from gpualloc.inventory import simulated  # noqa: PLC0415 - only a mistake pays for it

    return f"did you mean sim:{path}?" if str(path) in simulated.names() else _HINT


def kind_of(text: str, path: Path) -> Kind:
    """Tell a snapshot from what nvidia-smi printed. Raises ``GpuallocError`` (``inventory-format``) for neither."""
    start = text.lstrip()
    if start.startswith("<"):
        return "smi"
    for mark, name in _LOOKS_LIKE:
        if mark in start[:2000] and not start.startswith("{"):
            summary = f"this is {name}: it does not hold what gpualloc needs"
            raise fail("inventory-format", summary, Place(str(path)), "give the output of `nvidia-smi -q -x`")
    return "snapshot"
