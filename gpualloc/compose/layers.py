"""The files of a project, read and laid over each other by Compose's rules: overrides, ``extends``, ``include``.

Every file is read twice where gpualloc has written to it: as it was before (the requests people wrote) and as it is now
(the devices that are pinned). See record.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpualloc.compose.copies import worker_name
from gpualloc.compose.data import Tagged, check_merges, escaped, lookup, members, plain
from gpualloc.compose.document import Document, Mapping, parse, resolve
from gpualloc.compose.dotenv import load_environment
from gpualloc.compose.files import Source, read_source
from gpualloc.compose.interpolate import interpolate
from gpualloc.compose.merge import by_name, merge_service, strip
from gpualloc.compose.record import Record
from gpualloc.compose.replicas import present, unsplit
from gpualloc.compose.restore import restore
from gpualloc.errors import Diagnostic, GpuallocError, Place, fail
from gpualloc.policy.values import closest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.document import Node

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
    *(("environment", name) for name in GPU_VARIABLES),
)
"""What is interpolated: a variable that is missing elsewhere is Compose's business at ``up``, not ours."""


_GONE = frozenset(("extends", "file-missing"))

_TOP_LEVEL = frozenset(
    ("version", "name", "services", "networks", "volumes", "secrets", "configs", "include", "models")
)


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
class Part:
    """What one file, or one YAML document of it, says of a service.

    ``own``: in the service's own node, Compose's tags in place. ``base``: through ``extends``, from the services that
    ``lineage`` names, each by its file.
    """

    file: ComposeFile
    own: dict[str, Any]
    base: dict[str, Any]
    lineage: tuple[tuple[ComposeFile, str], ...] = ()

    def decides(self, path: tuple[str | int, ...]) -> bool:
        """Return whether this says what stands at a path, whatever what it is laid over says."""
        return self.own_decides(path) or _decides(self.base, path)

    def own_decides(self, path: tuple[str | int, ...]) -> bool:
        """Return whether the service's own node says what stands at a path, whatever it extends."""
        return _decides(self.own, path)


@dataclass(slots=True)
class Layered:
    """A service while its layers are put together. ``base``: what ``holder`` has its own node laid over."""

    data: dict[str, Any]
    base: dict[str, Any]
    holder: ComposeFile
    ask: dict[str, Any] | bool | None
    gpu: bool
    parts: tuple[Part, ...]


@dataclass(slots=True)
class Layers:
    """Reads files, each once, and lays their services over each other."""

    environment: MappingType[str, str]
    cwd: Path
    files: dict[Path, ComposeFile] = field(default_factory=dict)
    extended: dict[Path, ComposeFile] = field(default_factory=dict)
    folders: dict[Path, Path] = field(default_factory=dict)
    """Where the paths of the project's own files start: in the project's directory. Those of others start in theirs."""
    over: Path | None = None
    """The override file, which is made anew: a worker in it whose role is gone is nobody's."""
    unset: set[str] = field(default_factory=set)
    project_name: str | None = None

    def start_in(self, directory: Path, *paths: Path) -> None:
        """Let the relative paths in these files start in a directory."""
        for path in paths:
            self.folders[absolute(path)] = directory

    def warnings(self) -> list[Diagnostic]:
        """Return a warning for every variable that was read and is not set."""
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
        """Return a file. ``edited``: it is one of the project's own, which gpualloc may write to.

        Raises GpuallocError for one that cannot be read, or is no compose file.
        """
        path = absolute(path)
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

    def with_texts(self, documents: MappingType[Path, Document]) -> Layers:
        """Return a reader of the same files, as if these documents stood in some of them now."""
        texts = {absolute(path): document for path, document in documents.items()}

        def swapped(files: MappingType[Path, ComposeFile]) -> dict[Path, ComposeFile]:
            return {p: replace(f, current=texts[p]) if p in texts else f for p, f in files.items()}

        new = {
            path: ComposeFile(document.file, Source(path, "", b"", "utf-8", ""), document, document, Record())
            for path, document in texts.items()
            if path not in self.files
        }
        return Layers(
            self.environment, self.cwd, swapped(self.files), swapped(self.extended) | new, self.folders, self.over
        )

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
                    for name, service in self._included(root, file, environment, current=current).items():
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
            try:
                base, lineage = self._extends(own, nodes, file, environment, (name,), current=current)
            except GpuallocError as error:
                if file.source.path != self.over or error.diagnostics[0].code not in _GONE:
                    raise
                continue
            data = merge_service(base, own, place) if base else own
            mapping = resolve(node)
            entry = mapping.entry("x-gpualloc") if isinstance(mapping, Mapping) else None
            ask = strip(own.get("x-gpualloc")) if entry is not None else None
            gpu = mentions_gpu(own)
            before = result.get(name)
            if before is None:
                result[name] = Layered(data, base, file, ask, gpu, (Part(file, own, base, lineage),))
                continue
            parts = (*before.parts, Part(file, own, base, lineage))
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
        if isinstance(data, dict) and "environment" in data:
            data["environment"] = _passed(by_name(data["environment"]), environment)
        substitute = partial(self._substitute, document, environment, node)
        for path in _READ:
            data = _interpolated(data, path, substitute, path)
        return dict(data)

    def _substitute(
        self,
        document: Document,
        environment: MappingType[str, str],
        node: Node,
        path: tuple[str | int, ...],
        text: str,
    ) -> str:
        def place() -> Place:
            for length in range(len(path), -1, -1):
                found = lookup(node, path[:length])
                if found is not None:
                    return document.at(found)
            return document.at(node)

        return interpolate(text, environment.get, place=place, unset=self.unset)

    def _extends(
        self,
        own: dict[str, Any],
        nodes: dict[str, Node],
        file: ComposeFile,
        environment: MappingType[str, str],
        chain: tuple[str, ...],
        *,
        current: bool,
    ) -> tuple[dict[str, Any], tuple[tuple[ComposeFile, str], ...]]:
        """Return the data of the service that ``extends`` names, itself extended, and its lineage."""
        if "extends" not in own:
            return {}, ()
        value = strip(own["extends"])
        name = value.get("service") if isinstance(value, dict) else value
        document = file.current if current else file.document
        where = document.at(nodes[chain[-1]]) if chain[-1] in nodes else Place(file.shown)
        if not isinstance(name, str):
            raise fail("extends", "extends names no service", where, "write extends: {service: NAME}")
        if isinstance(value, dict) and value.get("file"):
            home = absolute(file.source.path)
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
        under, lineage = self._extends(base, nodes, file, environment, (*chain, key, name), current=current)
        if "extends" in base:
            base = merge_service(under, base, where)
            base.pop("extends", None)
        return base, ((file, name), *lineage)

    def _included(
        self, root: Mapping, file: ComposeFile, environment: MappingType[str, str], *, current: bool
    ) -> dict[str, Layered]:
        """Return the services of the files that ``include`` names, each read in its own folder."""
        value = members(root).get("include")
        result: dict[str, Layered] = {}
        if value is None:
            return result
        folder = folder_of(file.source.path)
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
                folder / str(entry["project_directory"]) if entry.get("project_directory") else folder_of(paths[0])
            )
            inner = load_environment(directory, env_files or None, environment)
            name = self.project_name
            for path in paths:
                self.folders.setdefault(absolute(path), directory)
            services = self.services([(path, inner) for path in paths], current=current)
            self.project_name = name
            for key, service in services.items():
                result.setdefault(key, service)
        return result


def _decides(data: Any, path: tuple[str | int, ...]) -> bool:
    for depth, step in enumerate(path):
        if isinstance(data, Tagged):
            return True
        if not isinstance(data, dict) or step not in data:
            return False
        data = data[step]
        if depth and data is None and path[0] == "environment":
            return True  # it passes the host's value
    return data is not None


def _passed(variables: Any, environment: MappingType[str, str]) -> Any:
    """Return a service's variables with the host's values of those about GPUs that are named without a value."""
    if isinstance(variables, Tagged):
        return Tagged(variables.tag, _passed(variables.value, environment))
    if isinstance(variables, dict):
        for name in GPU_VARIABLES:
            if name in variables and variables[name] is None and name in environment:
                variables[name] = escaped(environment[name])  # it is interpolated yet, which the host's value is not
    return variables


def _interpolated(
    data: Any,
    path: tuple[str | int, ...],
    substitute: Callable[[tuple[str | int, ...], str], str],
    full: tuple[str | int, ...],
) -> Any:
    """Return plain data with the strings at a path replaced; what is above them is copied."""
    if not path:
        return _deep(data, full, substitute)
    if isinstance(data, Tagged):
        return Tagged(data.tag, _interpolated(data.value, path, substitute, full))
    if not isinstance(data, dict) or path[0] not in data:
        return data
    result = data.copy() if type(data) is dict else type(data)(data)
    result[path[0]] = _interpolated(data[path[0]], path[1:], substitute, full)
    return result


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


def folder_of(path: Path) -> Path:
    """Return the folder that a file is named in, whatever links lead to."""
    return absolute(path).parent


def absolute(path: Path) -> Path:
    """Return a path from the root on. Links are not followed: two to one file stay two names, as with Compose."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow them
