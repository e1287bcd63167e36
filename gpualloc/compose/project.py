"""A Compose project as Compose itself reads it: which files, which variables, which services.

How files are laid over each other is in layers.py.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.compose.data import lookup
from gpualloc.compose.dotenv import load_environment
from gpualloc.compose.layers import ComposeFile, Layered, Layers, Part, absolute, folder_of
from gpualloc.compose.merge import strip
from gpualloc.errors import Diagnostic, Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Mapping as MappingType
    from pathlib import Path

    from gpualloc.compose.document import Document, Node

DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
OVERRIDE_FILES = (
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
)


@dataclass(frozen=True, slots=True)
class ProjectOptions:
    """What the user said on the command line, as for ``docker compose``."""

    files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    project_directory: str | None = None
    project_name: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """A service, merged and interpolated. ``data``: before gpualloc; ``now``: with what it wrote.

    ``file`` is the one to edit. ``base`` is what ``extends`` and earlier files supply under that file's own node: lists
    written there append to it.
    ``pins`` is the override file, if there is one. ``ask`` is its own ``x-gpualloc``, with False for "leave alone".
    ``parts``: what each file says of it, in the order in which they are laid over each other.
    """

    name: str
    data: dict[str, Any]
    now: dict[str, Any]
    base: dict[str, Any]
    file: ComposeFile
    ask: dict[str, Any] | bool | None
    enabled: bool
    pins: ComposeFile | None = None
    parts: tuple[Part, ...] = ()

    def home(self, path: tuple[str | int, ...]) -> ComposeFile:
        """Return the file to write a path to: the service's own, or a later one that says what stands there."""
        for part in reversed(self.parts):
            if part.file is self.file or part.decides(path):
                return part.file
        return self.file

    def inherits(self) -> frozenset[tuple[ComposeFile, str]]:
        """Return the services, each by its file, that this one extends."""
        return frozenset(one for part in self.parts for one in part.lineage)

    def node(self, *path: str | int, current: bool = False) -> Node | None:
        """Return the node at a path of this service in its file; None where the file has none."""
        return self._find(self.file.current if current else self.file.document, path)

    def _find(self, document: Document, path: tuple[str | int, ...]) -> Node | None:
        for root in reversed(document.roots):
            found = lookup(root, ("services", self.name, *path))
            if found is not None:
                return found
        return None

    def place(self, *path: str | int, current: bool = False) -> Place:
        """Return where a path of this service stands, or the nearest thing above it that does.

        ``current``: in the file as it is now, which for a project with an override file is that one.
        """
        if current and self.pins is not None:
            found = self._find(self.pins.current, path)
            if found is not None:
                return self.pins.current.place(found.start, ".".join(map(str, ("services", self.name, *path))))
        document = self.file.current if current else self.file.document
        for length in range(len(path), -1, -1):
            found = self.node(*path[:length], current=current)
            if found is not None:
                text = ".".join(map(str, ("services", self.name, *path)))
                return document.place(found.start, text)
        return Place(self.file.shown, path=f"services.{self.name}")


@dataclass(frozen=True, slots=True, eq=False)
class Project:
    """All of a Compose project that matters here. ``directory`` is where relative paths start.

    ``copies``: by role and number, the services that gpualloc divided roles into. Where it did so in an override file,
    the role itself is among ``services``, else the copies are. ``replicas``: how many each is to have, where a record
    says so. ``layers``: the files in the order in which they are laid over each other, each with its variables.
    """

    name: str
    directory: Path
    files: tuple[ComposeFile, ...]
    services: tuple[Service, ...]
    profiles: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]
    layers: tuple[tuple[Path, MappingType[str, str]], ...]
    reader: Layers
    copies: MappingType[str, MappingType[int, Service]] = field(default_factory=dict)
    replicas: MappingType[str, int] = field(default_factory=dict)
    override: ComposeFile | None = None

    def merged(self, documents: MappingType[Path, Document], *, over: Path | None = None) -> dict[str, Layered]:
        """Return the services as Compose would merge them, did these documents stand in files of these paths.

        ``over``: which of them is laid over the project's files. Raises GpuallocError for what could not be read then.
        """
        layers = self.layers if over is None else (*self.layers, (over, self.layers[0][1]))
        return self.reader.with_texts(documents).services(layers, current=True, edited=len(self.layers))


def project_files(
    options: ProjectOptions, environ: MappingType[str, str], cwd: Path
) -> tuple[list[Path], Path, dict[str, str]]:
    """Return a project's files, its directory, and the variables that are substituted in it.

    Raises GpuallocError: ``file-missing``, ``file-stdin``, and what ``.env`` files can be refused for.
    """
    local = load_environment(cwd, [cwd / f for f in options.env_files] or None, environ)
    paths = _find_files(options, local, cwd)
    directory = cwd / options.project_directory if options.project_directory else folder_of(paths[0])
    environment = load_environment(directory, [cwd / f for f in options.env_files] or None, local)
    environment.setdefault("PWD", str(cwd))  # Compose sets it before it substitutes
    return paths, directory, environment


def load_project(
    options: ProjectOptions, environ: MappingType[str, str], cwd: Path, *, override: Path | None = None
) -> Project:
    """Read a project as ``docker compose`` would with these options.

    ``override``: a file of gpualloc's that is laid over the project's, if it is there: the devices pinned now are its.

    Raises GpuallocError for whatever keeps it from being read; see the modules that raise.
    """
    paths, directory, environment = project_files(options, environ, cwd)
    # As Compose splits it: where nothing is named, a profile "" is active, and real files use that.
    active = options.profiles or tuple(p.strip() for p in environment.get("COMPOSE_PROFILES", "").split(","))
    profiles = tuple(filter(None, active))
    reader = Layers(environment, cwd, over=absolute(override) if override else None)
    layers = [(path, environment) for path in paths]
    reader.start_in(directory, *paths, *((override,) if override else ()))
    then = reader.services(layers, current=False)
    now = reader.services(layers, current=True) if any(f.record.services for f in reader.files.values()) else then
    pins = None
    if override is not None and override.exists():
        pins = reader.load(override, edited=False)
        now = reader.services([*layers, (override, environment)], current=True, edited=len(layers))
    services = tuple(_service(name, then[name], now.get(name), active, pins) for name in then)
    copies, replicas = _divided(services, reader.files.values())
    if pins is not None:
        copies |= {
            role: {n: _service(name, then[role], now[name], active, pins) for n, name in numbers.items()}
            for role, numbers in _divided_over(pins, then, now).items()
        }
        replicas |= {role: divided.replicas for role, divided in pins.record.roles.items() if role in then}
    name = options.project_name or environment.get("COMPOSE_PROJECT_NAME") or reader.project_name
    return Project(
        name=normalize_name(name or directory.resolve().name),
        directory=directory,
        files=tuple(reader.files.values()),
        services=services,
        profiles=profiles,
        warnings=tuple(reader.warnings()),
        copies=copies,
        replicas=replicas,
        override=pins,
        layers=tuple(layers),
        reader=reader,
    )


def _service(
    name: str, then: Layered, now: Layered | None, profiles: Sequence[str], pins: ComposeFile | None
) -> Service:
    wanted = strip(then.data.get("profiles")) or []
    names = [wanted] if isinstance(wanted, str) else wanted
    data = strip(then.data)
    return Service(
        name=name,
        data=data,
        now=data if now is then else strip(now.data) if now is not None else {},
        base=strip(then.base),
        file=then.holder,
        ask=then.ask,
        pins=pins,
        parts=then.parts,
        enabled=not names or "*" in profiles or any(p in profiles for p in names),
    )


def _divided(
    services: tuple[Service, ...], files: Iterable[ComposeFile]
) -> tuple[dict[str, dict[int, Service]], dict[str, int]]:
    """Return the services of the roles that were divided in place, and how many each role is to have."""
    by_name = {service.name: service for service in services}
    copies: dict[str, dict[int, Service]] = {}
    replicas: dict[str, int] = {}
    for file in files:
        for role, numbers in file.workers().items():
            found = {n: by_name[name] for n, name in numbers.items() if name in by_name}
            if found:
                copies[role], replicas[role] = found, file.record.roles[role].replicas
    return copies, replicas


def _divided_over(
    pins: ComposeFile, then: MappingType[str, Layered], now: MappingType[str, Layered]
) -> dict[str, dict[int, str]]:
    """Return the services, by role and number, that an override file divides the project's roles into."""
    result: dict[str, dict[int, str]] = {}
    for name, layered in now.items():
        extends = strip(layered.data.get("extends"))
        role = str(extends.get("service")) if isinstance(extends, dict) else ""
        number = name.removeprefix(f"{role}-")
        if layered.holder is pins and role in then and name not in then and number.isdecimal():
            result.setdefault(role, {})[int(number)] = name
    return result


def normalize_name(name: str) -> str:
    """Return a project name as Compose makes it: lower case, no other characters than ``[a-z0-9_-]``."""
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-")


def _find_files(options: ProjectOptions, environment: MappingType[str, str], cwd: Path) -> list[Path]:
    names = list(options.files)
    if not names and environment.get("COMPOSE_FILE"):
        separator = environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        names = [n for n in environment["COMPOSE_FILE"].split(separator) if n]
    if "-" in names:
        raise fail("file-stdin", "a compose file on standard input cannot be edited", None, "name a file with -f")
    if names:
        return [cwd / n for n in names]
    start = cwd / options.project_directory if options.project_directory else cwd
    for folder in (start, *start.resolve().parents):
        found = next((folder / n for n in DEFAULT_FILES if (folder / n).is_file()), None)
        if found is not None:
            override = next((folder / n for n in OVERRIDE_FILES if (folder / n).is_file()), None)
            return [found, override] if override else [found]
    raise fail(
        "file-missing",
        "there is no compose.yaml here or in a folder above",
        Place(str(start)),
        "go to the project's folder, or name the compose file with -f",
    )
