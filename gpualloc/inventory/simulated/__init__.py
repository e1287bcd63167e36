"""Machines that come with gpualloc, as snapshots: for trying it without a GPU, for tests and for what-if questions.

The link matrices of real machines, as published; UUIDs are made up. Adding one is adding its file here.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from gpualloc.errors import fail
from gpualloc.inventory.snapshot import parse

if TYPE_CHECKING:
    from gpualloc.model import Inventory

_SUFFIX = ".json"


def names() -> tuple[str, ...]:
    """Name the shipped machines, sorted."""
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)))


def read(name: str) -> Inventory:
    """Read a shipped machine. Raises ``GpuallocError`` (``inventory-unknown-machine``) for a name that is none."""
    known = names()
    if name not in known:
        import difflib  # noqa: PLC0415 - only a mistake pays for it

        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean sim:{close[0]}?" if close else f"these come with gpualloc: {', '.join(known)}"
        raise fail("inventory-unknown-machine", f"no machine named {name!r} comes with gpualloc", hint=hint)
    file = resources.files(__name__).joinpath(name + _SUFFIX)
    return parse(file.read_text(encoding="utf-8"), f"sim:{name}")
