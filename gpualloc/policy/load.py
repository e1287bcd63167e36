"""Loading a policy: its file, what it extends, and ``base`` underneath."""

from __future__ import annotations

import os.path
from pathlib import Path
from typing import TYPE_CHECKING

from gpualloc.errors import fail
from gpualloc.policy.document import Document, Node, document, merge
from gpualloc.policy.lookup import SUFFIXES, Search, find, find_policies, is_file, is_path, read, shipped_dir
from gpualloc.policy.schema import build
from gpualloc.policy.values import closest, listed, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpualloc.model import Policy

DEFAULT = "base"
"""The policy where none is named."""


def load(name_or_path: str | None, *, cwd: Path, compose_dir: Path | None) -> Policy:
    """Return a policy, complete and checked.

    A name is looked up in ``cwd/policies``, in ``compose_dir``, in ``compose_dir/policies``, then among the shipped
    ones; a file directly in ``compose_dir`` that is itself a compose file is passed over. Text with a slash, or that
    ends in ``.yaml`` or ``.yml``, is a path, relative to ``cwd``. None means ``base``.

    ``extends`` names a file beside the extending one, or a policy by the same lookup; a policy that extends its own
    name means the next one of that name. Where a file extends nothing, the shipped ``base`` is underneath. Mappings
    merge deep, lists replace, and a null variable in ``write.env`` takes away what is underneath.

    Raises GpuallocError with a diagnostic for each problem, at its file, line and column.
    """
    search = Search(cwd, compose_dir)
    name = DEFAULT if name_or_path is None else name_or_path
    first = cwd / name if is_path(name) and "\0" not in name else find(name, search)
    chain = _chain(first, search)
    # each file must be right by itself, over base alone, so that a mistake is found even where it is overridden
    for node in chain[1:-1]:
        build(_merged([node, chain[-1]]), name)
    return build(_merged(chain), name)


def _chain(first: Path, search: Search) -> list[Node]:
    """Return a policy's file and all that are underneath it, the last one being the shipped base."""
    base = shipped_dir() / "base.yaml"
    nodes: list[Node] = []
    path, seen = first, [os.path.realpath(first)]
    while True:
        node = read(path, search)
        nodes.append(node)
        if seen[-1] == os.path.realpath(base):
            return nodes
        path = _extended(node, path, seen, search) or base
        seen.append(os.path.realpath(path))


_EXTENDS_ONE = "policies extend one another in a chain: name the nearest one"
_EXTENDS = "for example extends: prod.yaml"


def _extended(node: Node, path: Path, seen: list[str], search: Search) -> Path | None:
    """Return the file that a policy extends, or None where it extends none."""
    if not isinstance(node.value, dict) or "extends" not in node.value:
        return None
    value = node.value["extends"][1]
    where = value.spot.place("extends")
    if not isinstance(value.value, str) or not value.value:
        hint = _EXTENDS_ONE if isinstance(value.value, list) else _EXTENDS
        raise fail(
            "policy-type", f"extends: must be the name of a policy or file, not {shown(value.value)}", where, hint
        )
    candidates = list(_candidates(value.value, path, search))
    if not candidates:
        known = [found.name for found in find_policies(search.cwd, search.compose_dir)]
        meant = closest(value.value, known)
        hint = f"did you mean {meant}?" if meant else f"there are {listed(known, 'and')}, and files beside this one"
        raise fail("policy-not-found", f"extends: no policy or file is named {shown(value.value)}", where, hint)
    others = [candidate for candidate in candidates if os.path.realpath(candidate) != seen[-1]]
    chosen = others[0] if others else path
    again = os.path.realpath(chosen)
    if again in seen:
        names = [search.display(Path(file)) for file in (*seen[seen.index(again) :], again)]
        raise fail("policy-cycle", f"extends: goes round in a circle: {' → '.join(names)}", where, "break the circle")
    return chosen


def _candidates(text: str, path: Path, search: Search) -> Iterator[Path]:
    """Yield the files that ``extends: text`` may mean: beside the extending file, then those that lookup finds."""
    names = [text] if text.endswith(SUFFIXES) else [f"{text}{suffix}" for suffix in SUFFIXES]
    if "/" in text:
        names.insert(0, text)
    for name in dict.fromkeys(names):
        if is_file(path.parent / name):
            yield path.parent / name
    if "/" not in text:
        stem = text.rsplit(".", 1)[0] if text.endswith(SUFFIXES) else text
        yield from search.candidates(stem)


def _merged(chain: list[Node]) -> Document:
    """Return the data of policies laid over one another, the first one on top. Only its own description counts."""
    *above, merged = chain
    for node in reversed(above):
        if isinstance(merged.value, dict):
            entries = {key: entry for key, entry in merged.value.items() if key != "description"}
            merged = merge(Node(entries, merged.spot, merged.size), node)
    return document(merged)
