"""All of a project, resolved: what ``docker compose config`` would show, for a reader that knows less than Compose.

``docker stack deploy`` reads no ``.env``, no ``extends``, ``include`` or profiles, and takes relative paths from the
folder of the stack file. So here variables are replaced, files of variables read, layers merged, and paths absolute.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import members, plain
from gpualloc.compose.document import Mapping, resolve
from gpualloc.compose.dotenv import parse as parse_variables
from gpualloc.compose.interpolate import interpolate
from gpualloc.compose.layers import Layers
from gpualloc.compose.merge import by_name, merge_service, strip, variables
from gpualloc.compose.project import project_files
from gpualloc.errors import Place, fail

if TYPE_CHECKING:
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.document import Document, Node
    from gpualloc.compose.layers import ComposeFile, Layered
    from gpualloc.compose.project import ProjectOptions
    from gpualloc.errors import Diagnostic

SECTIONS = ("networks", "volumes", "configs", "secrets")
"""The top-level sections beside ``services`` that Compose and Swarm both have."""

_TAKES_PATH = frozenset(("file",))
_BY_TARGET = ("volumes", "configs", "secrets")
"""Lists in which a later entry for the same place takes the place of an earlier one (compose-go ``override``)."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A project with everything resolved. ``others``: its other top-level keys, with the file of each.

    ``services`` have ``env_file`` read into ``environment``; ``read_from`` names those files, by service.
    """

    services: dict[str, dict[str, Any]]
    sections: dict[str, dict[str, Any]]
    others: dict[str, Place]
    read_from: dict[str, tuple[str, ...]]
    warnings: tuple[Diagnostic, ...]


def read_whole(options: ProjectOptions, environ: MappingType[str, str], cwd: Path) -> Whole:
    """Return all of a project, as it was before gpualloc pinned anything in it.

    Raises GpuallocError for whatever keeps it from being read: see ``load_project``; ``required-variable`` and
    ``invalid-interpolation`` for variables anywhere in it, ``env-file-missing`` for an ``env_file``.
    """
    paths, directory, environment = project_files(options, environ, cwd)
    reader = _WholeLayers(environment, cwd)
    reader.start_in(directory, *paths)
    layered = reader.services([(path, environment) for path in paths], current=False)
    services: dict[str, dict[str, Any]] = {}
    read_from: dict[str, tuple[str, ...]] = {}
    for name, each in layered.items():
        data = {key: value for key, value in strip(each.data).items() if value is not None}
        for key in _BY_TARGET:
            if isinstance(data.get(key), list):
                data[key] = _last_of_each(data[key])
        files = tuple(str(file) for file, _ in _files_of(data))
        if files:
            read_from[name] = files
        data["environment"] = _variables_of(data, environment)
        if not data["environment"]:
            del data["environment"]
        services[name] = data
    return Whole(services, reader.sections, reader.others, read_from, tuple(reader.warnings()))


def _last_of_each(items: list[Any]) -> list[Any]:
    """Keep the last entry for each target, where the first one stands."""
    kept: dict[str, Any] = {}
    for number, item in enumerate(items):
        kept[target_of(item) or f"#{number}"] = item
    return list(kept.values())


def target_of(item: Any) -> str | None:
    """Return where an entry of ``volumes``, ``configs`` or ``secrets`` is in the container; None for unclear ones."""
    if isinstance(item, dict):
        found = item.get("target") or item.get("source")
        return str(found) if found else None
    parts = str(item).split(":")
    return parts[1] if len(parts) > 1 and parts[1].startswith("/") else parts[0]


def _files_of(data: dict[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
    named = data.get("env_file")
    entries = [named] if isinstance(named, (str, dict)) else named or []
    rows = [entry if isinstance(entry, dict) else {"path": entry} for entry in entries]
    return [(Path(str(row.get("path"))), row) for row in rows]


def _variables_of(data: dict[str, Any], environment: MappingType[str, str]) -> dict[str, str | None]:
    """Return a service's variables: those of its files, its own over them; without a value, the shell's."""
    values: dict[str, str] = {}
    for path, row in _files_of(data):
        try:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            if row.get("required") in {False, "false"}:
                continue
            raise fail("env-file-missing", "there is no such env file", Place(str(path)), "check its name") from None
        except OSError as error:
            hint = "let this user read it"
            raise fail("env-file-unreadable", f"cannot read it: {error.strerror}", Place(str(path)), hint) from None
        if row.get("format") == "raw":
            lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
            values |= {name.strip(): value for name, equals, value in (ln.partition("=") for ln in lines) if equals}
        else:
            values = parse_variables(text, environment.get, file=str(path), earlier=values)
    own = variables(data.get("environment"))
    return values | {name: environment.get(name) if value is None else value for name, value in own.items()}


@dataclass(slots=True)
class _WholeLayers(Layers):
    """Reads everything, with every variable replaced and every path absolute."""

    sections: dict[str, dict[str, Any]] = field(default_factory=lambda: {name: {} for name in SECTIONS})
    others: dict[str, Place] = field(default_factory=dict)

    def read(self, document: Document, environment: MappingType[str, str], node: Node, name: str) -> dict[str, Any]:
        """Return a service's data as one file has it."""
        super(_WholeLayers, self).read(document, environment, node, name)  # for what it refuses
        data = self._plain(document, environment, node)
        if data is None:
            return {}
        folder = self._folder(document)
        if data.get("environment") is not None:
            data["environment"] = by_name(data["environment"])
        if isinstance(data.get("volumes"), list):
            data["volumes"] = [_absolute_bind(item, folder) for item in data["volumes"]]
        if data.get("env_file") is not None:
            named = data["env_file"]
            data["env_file"] = [_absolute(f, folder) for f in (named if isinstance(named, list) else [named])]
        return dict(data)

    def lay(
        self,
        result: dict[str, Layered],
        root: Mapping,
        file: ComposeFile,
        environment: MappingType[str, str],
        *,
        current: bool,
    ) -> None:
        """Lay one document's services and sections over those before it."""
        super(_WholeLayers, self).lay(result, root, file, environment, current=current)
        document = file.current if current else file.document
        for key, node in members(root).items():
            place = document.at(node, key)
            real = resolve(node)
            if key not in SECTIONS:
                if key not in {"services", "version", "include"}:
                    self.others.setdefault(key, place)
                continue
            if not isinstance(real, Mapping):
                continue
            for name, inner in members(real).items():
                data = self._plain(document, environment, inner)
                own = dict(data) if isinstance(data, dict) else {}
                for path in _TAKES_PATH & own.keys():
                    own[path] = _absolute(str(own[path]), self._folder(document))
                before = self.sections[key].get(name, {})
                self.sections[key][name] = strip(merge_service(before, own, place)) if before else strip(own)

    def _plain(self, document: Document, environment: MappingType[str, str], node: Node) -> Any:
        def substitute(text: str, at: Node) -> str:
            return interpolate(text, environment.get, place=lambda: document.at(at), unset=self.unset)

        return plain(node, substitute)

    def _folder(self, document: Document) -> Path:
        home = Path(os.path.abspath(self.cwd / document.file))  # noqa: PTH100 - as in load()
        return self.folders.get(home, home.parent)


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return value | {"path": _absolute(value["path"], folder)} if "path" in value else value
    text = str(value)
    return text if text.startswith("~") or os.path.isabs(text) else os.path.normpath(folder / text)  # noqa: PTH117 - text


def _absolute_bind(item: Any, folder: Path) -> Any:
    """Make the host's side of a bind mount absolute: what starts with a dot is relative, other names are volumes."""
    if isinstance(item, dict):
        source = item.get("source")
        if item.get("type") == "bind" and isinstance(source, str):
            return item | {"source": _absolute(source, folder)}
        return item
    source, colon, rest = str(item).partition(":")
    return f"{_absolute(source, folder)}:{rest}" if colon and source.startswith(".") else item
