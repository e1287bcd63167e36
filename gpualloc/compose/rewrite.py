"""The whole way from edits to a file's new text, with the record that undoes it, proven before anything is written."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpualloc.compose.document import parsing_once
from gpualloc.compose.patch import patch
from gpualloc.compose.record import append, seal, unseal
from gpualloc.compose.replicas import divide, unsplit, workers_of
from gpualloc.compose.restore import restore
from gpualloc.compose.route import Inverse
from gpualloc.errors import GpuallocError, Place, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.compose.document import Document
    from gpualloc.compose.layers import ComposeFile
    from gpualloc.compose.replicas import Division
    from gpualloc.compose.route import Edit

_EXPLICIT = re.compile(r"^ *(?P<mark>\?) ", re.MULTILINE)


def rewrite(
    file: ComposeFile, edits: Sequence[Edit], divisions: Sequence[Division] = (), keep: frozenset[str] = frozenset()
) -> Document:
    """Return a file with roles divided and these edits made to it as it was before gpualloc.

    ``keep`` names services that are left alone: what was written into them before stays, and stays recorded.

    Raises GpuallocError: ``shared-node``, ``cannot-edit``, ``replicas-split``; ``cannot-undo`` where the result could
    not be turned back into the same text, which would be a defect of gpualloc.
    """
    try:
        with parsing_once(file.document, file.current):
            return _rewritten(file, edits, divisions, keep)
    except GpuallocError as error:
        if not error.diagnostics[0].code.startswith("yaml"):
            raise
        raise _no_place(file, edits, error.diagnostics[0].summary) from error
    except ValueError as error:
        raise _no_place(file, edits, str(error)) from error


def _no_place(file: ComposeFile, edits: Sequence[Edit], why: str) -> GpuallocError:
    """Return the error for an edit whose result is not YAML: the file is laid out in a way that is not provided for."""
    services = ", ".join(dict.fromkeys(edit.service for edit in edits))
    explicit = _EXPLICIT.search(file.document.text)
    where = file.document.place(explicit.start("mark")) if explicit else Place(file.shown)
    hint = (
        "write keys without a leading question mark"
        if explicit
        else "write the blocks of these services in the usual way"
    )
    return fail(
        "cannot-edit", f"there is no place to write for {services}: {why}", where, f"{hint}; nothing was written"
    )


def _rewritten(
    file: ComposeFile, edits: Sequence[Edit], divisions: Sequence[Division], keep: frozenset[str]
) -> Document:
    kept = {name: inverse for name, inverse in file.record.services.items() if name in keep}
    if not edits and not divisions and not file.record.roles and not kept:
        return file.document
    sealed, chomp = seal(restore(file.current, frozenset(kept))[0] if kept else file.document)
    split, roles = divide(sealed, file.record, divisions)
    if chomp is None and roles:  # the role's block may have ended the file; what was added to its workers follows it
        chomp = file.record.chomp
    document, inverses = patch(split, edits)
    inverses |= kept
    for name in workers_of(split, file.record, divisions):
        inverses.setdefault(name, Inverse())
    document = append(document, inverses, chomp, roles)
    restored, record = restore(document)
    alone = restore(document, frozenset(kept))[0] if kept else restored
    exact = alone.text == unseal(split, chomp).text
    if exact and (divisions or record.roles != file.record.roles):
        exact = unsplit(restored, record).text == file.original().text
    elif kept:
        exact = exact and restored.text == file.document.text
    if not exact:
        services = ", ".join(dict.fromkeys(edit.service for edit in edits))
        hint = "please report this with the file; nothing was written"
        raise fail("cannot-undo", f"the edit of {services} could not be undone exactly", Place(file.shown), hint)
    return document
