"""A Compose project as Compose itself reads it: which files, which variables, which services.

Every file is read twice where gpualloc has written to it: as it was before (the requests people wrote) and as it is now
(the devices that are pinned). See record.py.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpualloc.compose.copies import worker_name
from gpualloc.compose.data import check_merges, lookup, members, plain
from gpualloc.compose.document import Document, Mapping, parse, resolve
from gpualloc.compose.dotenv import load_environment
from gpualloc.compose.files import Source, read_source
from gpualloc.compose.interpolate import interpolate
from gpualloc.compose.merge import merge_service, strip, variables
from gpualloc.compose.replicas import present, unsplit
from gpualloc.compose.restore import restore
from gpualloc.errors import Diagnostic, GpuallocError, Place, fail
from gpualloc.policy.values import closest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.document import Node
    from gpualloc.compose.record import Record

DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
OVERRIDE_FILES = (
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
)
GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")

_READ: tuple[tuple[str, ...], ...] = (
    ("deploy", "resources", "reservations", "devices"),
    ("deploy", "replicas"),
    ("deploy", "mode"),
    ("gpus",),
    ("runtime",),
    ("devices",),
    ("privileged",),
    ("scale",),
    ("image",),
    ("profiles",),
    ("container_name",),
    ("ports",),
    ("extends",),
    ("x-gpualloc",),
)
"""What is interpolated: a variable that is missing elsewhere is Compose's business at ``up``, not ours."""

_TOP_LEVEL = frozenset(
    ("version", "name", "services", "networks", "volumes", "secrets", "configs", "include", "models")
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
class ComposeFile:
    """One file of a project: as it is (``current``), and without what gpualloc pinned in it (``document``).

    There a role that gpualloc divided stays so, with what people changed in its workers' services.
    """

    shown: str
    source: Source
    current: Document
    document: Document
    record: Record

    def original(self) -> Document:
        """Return the file as it was before gpualloc, roles in one piece. Raises GpuallocError (``record``)."""
        return unsplit(self.document, self.record)

    def workers(self) -> dict[str, dict[int, str]]:
        """Return the services, by role and number, that roles of this file were divided into."""
        return {
            role: {n: worker_name(role, n) for n in numbers}
            for role, numbers in present(self.document, self.record).items()
        }


@dataclass(frozen=True, slots=True, eq=False)
class Service:
    """A service, merged and interpolated. ``data``: before gpualloc; ``now``: with what it wrote.

    ``file`` is the one to edit. ``base`` is what ``extends`` and earlier files supply under that file's own node: lists
    written there append to it.
    ``pins`` is the override file, if there is one. ``ask`` is its own ``x-gpualloc``, with False for "leave alone".
    ``parts``: every file that says something of it, in the order in which they are laid over each other.
    """

    name: str
    data: dict[str, Any]
    now: dict[str, Any]
    base: dict[str, Any]
    file: ComposeFile
    ask: dict[str, Any] | bool | None
    enabled: bool
    pins: ComposeFile | None = None
    parts: tuple[ComposeFile, ...] = ()

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
    says so.
    """

    name: str
    directory: Path
    files: tuple[ComposeFile, ...]
    services: tuple[Service, ...]
    profiles: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]
    copies: MappingType[str, MappingType[int, Service]] = field(default_factory=dict)
    replicas: MappingType[str, int] = field(default_factory=dict)
    override: ComposeFile | None = None


def project_files(
    options: ProjectOptions, environ: MappingType[str, str], cwd: Path
) -> tuple[list[Path], Path, dict[str, str]]:
    """Return a project's files, its directory, and the variables that are substituted in it.

    Raises GpuallocError: ``file-missing``, ``file-stdin``, and what ``.env`` files can be refused for.
    """
    local = load_environment(cwd, [cwd / f for f in options.env_files] or None, environ)
    paths = _find_files(options, local, cwd)
    directory = cwd / options.project_directory if options.project_directory else _folder(paths[0])
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
    profiles = options.profiles or tuple(p for p in environment.get("COMPOSE_PROFILES", "").split(",") if p)
    reader = Reader(environment, cwd)
    layers = [(path, environment) for path in paths]
    reader.start_in(directory, *paths, *((override,) if override else ()))
    then = reader.services(layers, current=False)
    now = reader.services(layers, current=True) if any(f.record.services for f in reader.files.values()) else then
    pins = None
    if override is not None and override.exists():
        pins = reader.load(override, edited=False)
        now = reader.services([*layers, (override, environment)], current=True, edited=len(layers))
    services = tuple(reader.service(name, then[name], now.get(name), profiles, pins) for name in then)
    copies, replicas = _divided(services, reader.files.values())
    if pins is not None:
        copies |= {
            role: {n: reader.service(name, then[role], now[name], profiles, pins) for n, name in numbers.items()}
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


def _folder(path: Path) -> Path:
    return Path(os.path.abspath(path)).parent  # noqa: PTH100 - resolve() would follow a symlinked compose file


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


@dataclass(slots=True)
class Layered:
    """A service while its layers are put together; ``own`` is what the file in ``holder`` says itself."""

    data: dict[str, Any]
    base: dict[str, Any]
    holder: ComposeFile
    ask: dict[str, Any] | bool | None
    gpu: bool
    parts: tuple[ComposeFile, ...]


@dataclass(slots=True)
class Reader:
    """Reads a project's files, each once, and lays them over each other."""

    environment: MappingType[str, str]
    cwd: Path
    files: dict[Path, ComposeFile] = field(default_factory=dict)
    extended: dict[Path, ComposeFile] = field(default_factory=dict)
    folders: dict[Path, Path] = field(default_factory=dict)
    """Where the paths of the project's own files start: in the project's directory. Those of others start in theirs."""
    unset: set[str] = field(default_factory=set)
    project_name: str | None = None

    def start_in(self, directory: Path, *paths: Path) -> None:
        """Let the relative paths of these files start in a directory."""
        for path in paths:
            self.folders[Path(os.path.abspath(path))] = directory  # noqa: PTH100 - as in load()

    def warnings(self) -> list[Diagnostic]:
        """Return a warning for each variable that is not set."""
        return [
            Diagnostic(
                "unset-variable",
                f"the variable {name} is not set: it reads as empty",
                hint=f"set {name} in .env or the environment, or give it a default: ${{{name}:-1}}",
                severity="warning",
            )
            for name in sorted(self.unset)
        ]

    def load(self, path: Path, *, edited: bool) -> ComposeFile:
        """Return a file, read once; ``edited``: it is one of the project's own. Raises GpuallocError."""
        path = Path(os.path.abspath(path))  # noqa: PTH100 - two links to one file stay two names
        known = self.files.get(path) or self.extended.get(path)
        if known is None:
            shown = os.path.relpath(path, self.cwd) if path.is_relative_to(self.cwd) else str(path)
            source = read_source(path, shown)
            current = parse(source.text, shown)
            check_shape(current)
            document, record = restore(current)
            known = ComposeFile(shown, source, current, document, record)
        if edited:
            self.files.setdefault(path, known)
        else:
            self.extended.setdefault(path, known)
        return known

    def services(
        self, layers: Sequence[tuple[Path, MappingType[str, str]]], *, current: bool, edited: int | None = None
    ) -> dict[str, Layered]:
        """Return the services of a project's files, laid over each other in order; the first ``edited`` are its own."""
        result: dict[str, Layered] = {}
        for number, (path, environment) in enumerate(layers):
            file = self.load(path, edited=edited is None or number < edited)
            document = file.current if current else file.document
            for root in document.roots:
                if isinstance(root, Mapping):
                    for name, service in self.included(root, file, environment, current=current).items():
                        result.setdefault(name, service)
                    self.lay(result, root, file, environment, current=current)
        return result

    def lay(
        self,
        result: dict[str, Layered],
        root: Mapping,
        file: ComposeFile,
        environment: MappingType[str, str],
        *,
        current: bool,
    ) -> None:
        """Lay one document's services over those of the documents before it."""
        document = file.current if current else file.document
        top = members(root)
        if "name" in top and isinstance(plain(top["name"]), str):
            self.project_name = interpolate(plain(top["name"]), environment.get, unset=self.unset)
        services = resolve(top["services"]) if "services" in top else None
        if not isinstance(services, Mapping):
            return
        nodes = members(services)
        read = partial(self.read, document, environment)
        for name, node in nodes.items():
            place = document.at(node, f"services.{name}")
            if resolve(node).tag == "!reset":
                result.pop(name, None)
                continue
            own = read(node, name)
            base = self.extends(own, nodes, file, environment, (name,), current=current) if "extends" in own else {}
            data = merge_service(base, own, place) if base else own
            mapping = resolve(node)
            entry = mapping.entry("x-gpualloc") if isinstance(mapping, Mapping) else None
            ask = strip(own.get("x-gpualloc")) if entry is not None else None
            gpu = mentions_gpu(own)
            before = result.get(name)
            if before is None:
                result[name] = Layered(data, base, file, ask, gpu, (file,))
                continue
            parts = (*before.parts, file)
            merged = merge_service(before.data, data, place)
            if isinstance(before.ask, dict) and isinstance(ask, dict):
                ask = before.ask | ask
            ask = before.ask if ask is None else ask
            if gpu or (entry is not None and not before.gpu):
                under = merge_service(before.data, base, place) if base else before.data
                result[name] = Layered(merged, under, file, ask, gpu=True, parts=parts)
            else:
                result[name] = Layered(merged, before.base, before.holder, ask, before.gpu, parts)

    def read(self, document: Document, environment: MappingType[str, str], node: Node, name: str) -> dict[str, Any]:
        """Return a service's data as one file has it, interpolated where it is read."""
        data = plain(node)
        where = document.at(node, f"services.{name}")
        mapping = resolve(node)
        if data is None:
            return {}
        if not isinstance(mapping, Mapping):
            raise fail("compose-shape", f"the service {name!r} is not a mapping", where, "a service has keys: image: …")
        check_merges(document, mapping)
        for path in _READ:
            self.interpolate(data, path, partial(self.substitute, document, environment, node), path)
        environment_data = strip(data.get("environment"))
        if isinstance(environment_data, (dict, list)):
            data["environment"] = variables(environment_data)
            for variable in GPU_VARIABLES:
                text = data["environment"].get(variable)
                if text is not None:
                    data["environment"][variable] = self.substitute(
                        document, environment, node, ("environment", variable), text
                    )
        return dict(data)

    def interpolate(
        self,
        data: Any,
        path: tuple[str | int, ...],
        substitute: Callable[[tuple[str | int, ...], str], str],
        full: tuple[str | int, ...],
    ) -> None:
        """Replace the strings at a path of plain data, in place; copies are made on the way."""
        parent = data
        for step in path[:-1]:
            inner = parent.get(step) if isinstance(parent, dict) else None
            if not isinstance(inner, dict):
                return
            parent[step] = dict(inner)
            parent = parent[step]
        if isinstance(parent, dict) and path[-1] in parent:
            parent[path[-1]] = _deep(parent[path[-1]], full, substitute)

    def substitute(
        self,
        document: Document,
        environment: MappingType[str, str],
        node: Node,
        path: tuple[str | int, ...],
        text: str,
    ) -> str:
        """Return a text with its variables replaced. Raises GpuallocError, placed at the nearest node."""

        def place() -> Place:
            for length in range(len(path), -1, -1):
                found = lookup(node, path[:length])
                if found is not None:
                    return document.at(found)
            return document.at(node)

        return interpolate(text, environment.get, place=place, unset=self.unset)

    def extends(
        self,
        own: dict[str, Any],
        nodes: dict[str, Node],
        file: ComposeFile,
        environment: MappingType[str, str],
        chain: tuple[str, ...],
        *,
        current: bool,
    ) -> dict[str, Any]:
        """Return the data of the service that ``extends`` names, itself extended."""
        value = strip(own["extends"])
        name = value.get("service") if isinstance(value, dict) else value
        document = file.current if current else file.document
        where = document.at(nodes[chain[-1]]) if chain[-1] in nodes else Place(file.shown)
        if not isinstance(name, str):
            raise fail("extends", "extends names no service", where, "write extends: {service: NAME}")
        if isinstance(value, dict) and value.get("file"):
            home = Path(os.path.abspath(file.source.path))  # noqa: PTH100 - as in load()
            path = self.folders.get(home, home.parent) / str(value["file"])
            file = self.load(path, edited=False)
            document = file.current if current else file.document
            nodes = {}
            for root in document.roots:
                services = members(root).get("services") if isinstance(root, Mapping) else None
                mapping = resolve(services) if services is not None else None
                nodes |= members(mapping) if isinstance(mapping, Mapping) else {}
        if name not in nodes:
            meant = closest(name, nodes)
            hint = f"did you mean {meant}?" if meant else f"write the service into {file.shown}, or name another"
            raise fail("extends", f"extends names {name!r}, which {file.shown} does not define", where, hint)
        key = f"{file.shown}:{name}"
        if key in chain:
            raise fail("extends", f"{name!r} extends itself", where, "break the circle")
        base = self.read(document, environment, nodes[name], name)
        base.pop("x-gpualloc", None)
        if "extends" in base:
            under = self.extends(base, nodes, file, environment, (*chain, key, name), current=current)
            base = merge_service(under, base, where)
            base.pop("extends", None)
        return base

    def included(
        self, root: Mapping, file: ComposeFile, environment: MappingType[str, str], *, current: bool
    ) -> dict[str, Layered]:
        """Return the services of the files that ``include`` names, each read in its own folder."""
        value = members(root).get("include")
        result: dict[str, Layered] = {}
        if value is None:
            return result
        folder = _folder(file.source.path)
        for item in plain(value) or ():
            entry = {"path": item} if isinstance(item, str) else dict(item)
            names = entry.get("path")
            names = [names] if isinstance(names, str) else names or []
            paths = [folder / interpolate(str(n), environment.get, unset=self.unset) for n in names]
            if not paths:
                continue
            given = entry.get("env_file")
            env_files = [folder / str(f) for f in ([given] if isinstance(given, str) else given or [])]
            directory = (
                folder / str(entry["project_directory"]) if entry.get("project_directory") else _folder(paths[0])
            )
            inner = load_environment(directory, env_files or None, environment)
            name = self.project_name
            for path in paths:
                self.folders.setdefault(Path(os.path.abspath(path)), directory)  # noqa: PTH100 - as in load()
            services = self.services([(path, inner) for path in paths], current=current)
            self.project_name = name
            for key, service in services.items():
                result.setdefault(key, service)
        return result

    def service(
        self, name: str, then: Layered, now: Layered | None, profiles: Sequence[str], pins: ComposeFile | None
    ) -> Service:
        """Return a service whose layers have been put together."""
        wanted = strip(then.data.get("profiles")) or []
        names = [wanted] if isinstance(wanted, str) else wanted
        return Service(
            name=name,
            data=strip(then.data),
            now=strip(now.data) if now is not None else {},
            base=strip(then.base),
            file=then.holder,
            ask=then.ask,
            pins=pins,
            parts=then.parts,
            enabled=not names or "*" in profiles or any(p in profiles for p in names),
        )


def _deep(value: Any, path: tuple[str | int, ...], substitute: Callable[[tuple[str | int, ...], str], str]) -> Any:
    if isinstance(value, str):
        return substitute(path, value) if "$" in value else value
    if isinstance(value, dict):
        return {k: _deep(v, (*path, k), substitute) for k, v in value.items()}
    if isinstance(value, list):
        return [_deep(v, (*path, i), substitute) for i, v in enumerate(value)]
    if hasattr(value, "tag"):
        return type(value)(value.tag, _deep(value.value, path, substitute))
    return value


def mentions_gpu(data: dict[str, Any]) -> bool:
    """Return whether a service's data, of one file, has any of Compose's keys for devices."""
    data = strip(data)
    deploy = data.get("deploy")
    resources = deploy.get("resources") if isinstance(deploy, dict) else None
    reservations = resources.get("reservations") if isinstance(resources, dict) else None
    return bool(
        data.get("gpus")
        or data.get("runtime")
        or (isinstance(reservations, dict) and reservations.get("devices"))
        or any("nvidia.com/gpu" in str(d) for d in data.get("devices") or ())
    )


def check_shape(document: Document) -> None:
    """Raise GpuallocError (``compose-empty``, ``compose-shape``) for YAML that is no compose file."""
    where = Place(document.file, 1, 1)
    if not document.roots or all(plain(r) is None for r in document.roots):
        raise fail("compose-empty", "the file is empty", where, "a compose file has at least services:")
    for root in document.roots:
        if not isinstance(root, Mapping):
            raise fail("compose-shape", "this is not a compose file: no mapping at the top", document.at(root), _SHAPE)
        top = members(root)
        for name, node in top.items():
            if name not in _TOP_LEVEL and not name.startswith("x-"):
                key = root.entry(name)
                place = document.at(key.key if key else node)
                raise fail(
                    "compose-shape", f"this is not a compose file: it has no top-level key {name!r}", place, _SHAPE
                )
        services = resolve(top["services"]) if "services" in top else None
        if services is not None and plain(services) is not None and not isinstance(services, Mapping):
            raise fail("compose-shape", "services is not a mapping", document.at(services), "write services: {NAME: …}")
    if not any("services" in members(r) or "include" in members(r) for r in document.roots if isinstance(r, Mapping)):
        raise fail("compose-shape", "the file has no services", where, _SHAPE)


_SHAPE = "name a compose file with -f; its top-level keys are services, volumes, networks, …"


def unreadable(error: GpuallocError) -> str:
    """Return an error's first line, for a message that quotes it."""
    return error.diagnostics[0].summary
