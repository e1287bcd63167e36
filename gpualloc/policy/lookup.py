"""Where policies are found: ``./policies/``, beside the compose file, and among those shipped."""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gpualloc.errors import Diagnostic, GpuallocError, Place, fail
from gpualloc.policy.document import MAX_BYTES, Node, parse
from gpualloc.policy.schema import POLICY_KEYS
from gpualloc.policy.values import closest, listed, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

Origin = Literal["project", "compose", "shipped"]
"""``./policies/``, beside the compose file (or in ``policies/`` there), or part of gpualloc."""

SUFFIXES = (".yaml", ".yml")

_COMPOSE_KEYS = frozenset({"services", "include", "volumes", "networks", "configs", "secrets"})
_COMPOSE_TEXT = re.compile(rf"^(?:{'|'.join(sorted(_COMPOSE_KEYS))})\s*:".encode(), re.MULTILINE)
_TELLING_KEYS = frozenset(POLICY_KEYS) - {"version", "description"}


@dataclass(frozen=True, slots=True)
class FoundPolicy:
    """A policy that a name would load. ``problem``: why it cannot even be read."""

    name: str
    path: Path
    description: str
    origin: Origin
    problem: Diagnostic | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """Where names are looked up, and how files are called in messages: relative to ``cwd`` where below it."""

    cwd: Path
    compose_dir: Path | None

    def folders(self) -> list[tuple[Path, Origin]]:
        """Return the folders to look into, in order, each once."""
        shipped = shipped_dir()
        found: dict[str, tuple[Path, Origin]] = {}
        for folder in (self.cwd / "policies", self.compose_dir, self.compose_dir and self.compose_dir / "policies"):
            if folder is not None and is_dir(folder):
                origin: Origin = "project" if folder == self.cwd / "policies" else "compose"
                found.setdefault(os.path.realpath(folder), (folder, origin))
        # in a checkout of gpualloc itself, ./policies/ is what is shipped
        found[os.path.realpath(shipped)] = (shipped, "shipped")
        return list(found.values())

    def candidates(self, name: str) -> Iterator[Path]:
        """Yield the files that a name may mean, the first one first."""
        for folder, _ in self.folders():
            for suffix in SUFFIXES:
                path = folder / f"{name}{suffix}"
                if is_file(path) and not (self._beside_compose(folder) and _is_compose(self, path)):
                    yield path

    def _beside_compose(self, folder: Path) -> bool:
        return self.compose_dir is not None and folder == self.compose_dir

    def display(self, path: Path) -> str:
        """Return what messages call a file."""
        return str(path.relative_to(self.cwd)) if path.is_relative_to(self.cwd) else str(path)


def is_file(path: Path) -> bool:
    """Whether there is a file, or what leads to one."""
    return os.path.isfile(path)  # noqa: PTH113  # Path.is_file raises where the name is too long, or may not be looked at


def is_dir(path: Path) -> bool:
    """Whether there is a folder, or what leads to one."""
    return os.path.isdir(path)  # noqa: PTH112  # for the same reason


def is_path(name_or_path: str) -> bool:
    """Whether the text names a file rather than a policy."""
    return "/" in name_or_path or name_or_path.endswith(SUFFIXES)


def shipped_dir() -> Path:
    """Return the folder of the shipped policies: beside the package in a checkout, inside it once installed.

    Raises GpuallocError (``policies-missing``) where an installation lacks them.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "policies", package.parent / "policies"):
        if (folder / "base.yaml").is_file():
            return folder
    raise fail(
        "policies-missing", "the policies shipped with gpualloc are missing", Place(str(package)), "reinstall it"
    )


def find(name: str, search: Search) -> Path:
    """Return the file of a named policy.

    Raises GpuallocError (``policy-not-found``) that names the nearest policy there is.
    """
    for path in search.candidates(name):
        return path
    names = [found.name for found in find_policies(search.cwd, search.compose_dir)]
    meant = closest(name, names)
    hint = f"did you mean {meant}?" if meant else f"there are {listed(names, 'and')}; a file is named by its path"
    raise fail("policy-not-found", f"no policy is named {shown(name)}", None, hint)


def find_policies(cwd: Path, compose_dir: Path | None) -> list[FoundPolicy]:
    """Return every policy that can be named, in the order of lookup; one that hides another of its name is alone.

    A file that cannot be read is listed with its problem. Files directly beside the compose file count only if they
    look like policies.
    """
    search = Search(cwd, compose_dir)
    found: dict[str, FoundPolicy] = {}
    for folder, origin in search.folders():
        files = [path for suffix in SUFFIXES for path in sorted(folder.glob(f"*{suffix}")) if is_file(path)]
        for path in sorted(files, key=lambda path: path.stem):
            if path.stem not in found and (folder != compose_dir or _looks_like_policy(search, path)):
                found[path.stem] = _described(path, origin, search)
    return list(found.values())


def _described(path: Path, origin: Origin, search: Search) -> FoundPolicy:
    try:
        root = read(path, search)
    except GpuallocError as error:
        return FoundPolicy(path.stem, path, "", origin, error.diagnostics[0])
    entry = root.value.get("description") if isinstance(root.value, dict) else None
    description = entry[1].value if entry else ""
    return FoundPolicy(path.stem, path, description if isinstance(description, str) else "", origin)


def read(path: Path, search: Search) -> Node:
    """Return the tree of a policy file.

    Raises GpuallocError: ``policy-not-found``, ``policy-unreadable``, ``policy-too-large`` (over a mebibyte),
    ``policy-empty``, and what :func:`~gpualloc.policy.document.parse` raises.
    """
    where = Place(search.display(path))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise fail("policy-not-found", "there is no such policy file", where, _name_hint(path, search)) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise fail("policy-unreadable", f"cannot read it: {reason}", where, "name a file that you may read") from error
    if len(data) > MAX_BYTES:
        raise fail("policy-too-large", "larger than 1 MiB, which no policy is", where, "is it the right file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        place = Place(where.file, line, column)
        raise fail("policy-unreadable", "not UTF-8 text", place, "save it as UTF-8") from error
    root = parse(text, where.file)
    if root is None or root.value is None:
        raise fail("policy-empty", "holds no policy", where, "write version: 1, then what differs from base")
    return root


def _name_hint(path: Path, search: Search) -> str:
    for known in search.candidates(path.stem):
        return f"the policy {path.stem} is {search.display(known)}: name it without a suffix"
    return "policies are named as gpualloc policy list shows them, or by the path of a file"


def _keys(search: Search, path: Path) -> frozenset[str]:
    try:
        root = read(path, search)
    except GpuallocError:
        return frozenset()
    return frozenset(root.value) if isinstance(root.value, dict) else frozenset()


def _is_compose(search: Search, path: Path) -> bool:
    """Whether a file beside the compose file is one of its own kind, as ``prod.yaml`` often is.

    Its text may tell without parsing, since compose files have tags that policies do not.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES)
    except OSError:
        return False
    return bool(_COMPOSE_TEXT.search(text)) or bool(_keys(search, path) & _COMPOSE_KEYS)


def _looks_like_policy(search: Search, path: Path) -> bool:
    return bool(_keys(search, path) & _TELLING_KEYS) and not _is_compose(search, path)
