"""The whole way from edits to a file's new text, with the record that undoes it, proven before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.compose.patch import patch
from gpualloc.compose.record import append, seal
from gpualloc.compose.restore import restore
from gpualloc.errors import Place, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.compose.project import ComposeFile
    from gpualloc.compose.route import Edit


def rewrite(file: ComposeFile, edits: Sequence[Edit]) -> str:
    """Return a file's text with these edits made to it as it was before gpualloc.

    Raises GpuallocError: ``shared-node``, ``cannot-edit``; ``cannot-undo`` where the result could not be turned back
    into the same text, which would be a defect of gpualloc.
    """
    if not edits:
        return file.document.text
    sealed, chomp = seal(file.document)
    document, inverses = patch(sealed, edits)
    document = append(document, inverses, chomp)
    restored, _ = restore(document)
    if restored.text != file.document.text:
        services = ", ".join(dict.fromkeys(edit.service for edit in edits))
        hint = "please report this with the file; nothing was written"
        raise fail("cannot-undo", f"the edit of {services} could not be undone exactly", Place(file.shown), hint)
    return document.text
