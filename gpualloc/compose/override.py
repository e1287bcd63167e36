"""The override form: a small file with only the GPU facts, to be laid over the project's own files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpualloc.compose import emit
from gpualloc.errors import GpuallocError, Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpualloc.compose.patch import Edit

MARK = "# Written by gpualloc: "
STYLE = emit.Style(step=2, dash=2, newline="\n")


def override_text(edits: Iterable[Edit], files: Sequence[str], shown: str) -> str:
    """Return the override file for these edits, all of them made with ``whole``. ``files``: the project's own."""
    services: dict[str, Any] = {}
    for edit in edits:
        node = services.setdefault(edit.service, {})
        for step in edit.path[:-1]:
            node = node.setdefault(str(step), {})
        node[str(edit.path[-1])] = edit.value
    command = " ".join(f"-f {name}" for name in (*files, shown))
    lines = [
        f"{MARK}the GPUs of each worker on this host. It is rewritten whole; change requests in {', '.join(files)}.",
        f"# docker compose {command} up -d    (Compose 2.24.4 or newer, for !override)",
    ]
    lines += emit.entry_lines("services", services, STYLE)
    return "\n".join(lines) + "\n"


def check_ours(text: str, shown: str) -> None:
    """Raise GpuallocError (``override-foreign``) for a file that gpualloc has not written, and so must not rewrite."""
    if not text.startswith(MARK):
        raise _foreign(shown)


def _foreign(shown: str) -> GpuallocError:
    hint = "name a new file, or remove this one if nothing in it is needed"
    return fail(
        "override-foreign",
        "the file was not written by gpualloc, which would rewrite it whole",
        Place(shown, 1, 1),
        hint,
    )
