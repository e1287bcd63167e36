"""A plan as a file for each host, to be laid over the project's own there: what runs on other hosts is taken out.

For ``docker --context HOST compose -f compose.yaml -f DIR/HOST.yaml up -d``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpualloc.compose import emit
from gpualloc.compose.data import Tagged, escaped
from gpualloc.compose.edits import edits, parked
from gpualloc.compose.merge import strip
from gpualloc.compose.override import STYLE, override_services
from gpualloc.compose.record import HOST, MARK
from gpualloc.compose.references import KEYS, split_name
from gpualloc.compose.swarm.record import KEY, record_of
from gpualloc.errors import Diagnostic, fail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping as MappingType

    from gpualloc.compose.project import Service
    from gpualloc.compose.swarm.stack import Planning

_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_JOINS = ("network_mode", "ipc", "pid")


@dataclass(frozen=True, slots=True)
class HostFiles:
    """The text for each host that runs something, and notes on what is no longer named there."""

    texts: dict[str, str]
    notes: tuple[Diagnostic, ...]


def host_files(planning: Planning, main: str, scaled: dict[str, int], folder: str) -> HostFiles:
    """Return a file for each host. ``main`` runs what needs no GPU; monitors run wherever workers do.

    Raises GpuallocError: ``host-file`` for a host that no file can be called after, ``other-host`` for a service that
    must run beside another one which is elsewhere, and ``replicas-split``.
    """
    changes = edits(planning.demand, planning.solution, planning.policy, planning.inventory, whole=True)
    changes += parked(planning.demand, planning.solution, whole=True)
    services = override_services(planning.demand, planning.project, changes, planning.fresh)
    homes = _homes(planning, main)
    hosts = sorted({main, *(placement.host for placement in planning.solution.placements)})
    texts: dict[str, str] = {}
    notes: list[Diagnostic] = []
    for host in hosts:
        if not _FILE.fullmatch(host):
            raise fail(
                "host-file", f"no file can be called after the host {host!r}", None, "give the host another name"
            )
        here = _Here(planning, host, homes, services)
        notes += here.notes()
        texts[host] = _text(planning, host, here.services(), record_of(planning.solution, scaled, host, main), folder)
    return HostFiles(texts, tuple(notes))


def _text(planning: Planning, host: str, services: dict[str, Any], record: dict[str, Any], folder: str) -> str:
    files = [file.shown for file in planning.project.files]
    command = " ".join(f"-f {name}" for name in (*files, f"{folder}/{host}.yaml"))
    lines = [
        f"{MARK}{HOST}, {host}. It is rewritten whole; change requests in {', '.join(files)}.",
        f"# docker --context {host} compose {command} up -d --remove-orphans    (Compose 2.24.4 or newer)",
        *emit.entry_lines("services", services, STYLE),
        *emit.entry_lines(KEY, escaped(record), STYLE),
    ]
    return "\n".join(lines) + "\n"


def _homes(planning: Planning, main: str) -> dict[str, str | None]:
    """Return where each service runs: None for everywhere."""
    homes: dict[str, str | None] = {service.name: main for service in planning.project.services}
    homes |= {member.worker.name: main for role in planning.demand.roles for member in role.members}
    homes |= {placement.worker: placement.host for placement in planning.solution.placements}
    return homes | {observer.service.name: None for observer in planning.demand.observers}


@dataclass(frozen=True, slots=True, eq=False)
class _Here:
    """One host's part of an override. ``made``: the services of the override for all hosts."""

    planning: Planning
    host: str
    homes: MappingType[str, str | None]
    made: MappingType[str, Any]

    def services(self) -> dict[str, Any]:
        """Return what is laid over the project's services on this host."""
        result: dict[str, Any] = {}
        own = {service.name: service for service in self.planning.project.services}
        for name, service in own.items():
            if isinstance(self.made.get(name), Tagged):  # a role that is divided: it goes wherever its workers are
                result[name] = self.made[name]
            elif not self._is_here(name):
                if service.enabled:
                    result[name] = Tagged("!reset", None)
            elif laid := self._laid(name, service):
                result[name] = laid
        for role in self.planning.demand.roles:
            for member in role.members:
                name = member.worker.name
                if name not in own and self._is_here(name):
                    result[name] = self._laid(name, role.service)
        return result

    def notes(self) -> Iterator[Diagnostic]:
        """Tell of services here that name others which are not."""
        groups: dict[tuple[str, tuple[str, ...]], list[tuple[str, Service]]] = {}
        for name, service, key, others in self._missing():
            groups.setdefault((key, tuple(others)), []).append((name, service))
        for (key, missing), users in groups.items():
            names = ", ".join(name for name, _ in users)
            verb = "runs" if len(users) == 1 else "run"
            elsewhere = f"{', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} elsewhere"
            summary = f"{names} {verb} on {self.host}, and {key} names {elsewhere}"
            yield Diagnostic("other-host", summary, users[0][1].place(key), "let it find them by an address", "note")

    def _is_here(self, name: str) -> bool:
        return self.homes.get(name, self.host) in {self.host, None}

    def _laid(self, name: str, service: Service) -> dict[str, Any]:
        laid = dict(self.made.get(name, {}))
        for key in _JOINS:
            kind, _, other = str(service.data.get(key) or "").partition(":")
            if kind == "service" and not self._is_here(other):
                summary = f"{name} runs on {self.host}, and {key} joins {other}, which runs elsewhere"
                hint = f"hold them together: x-gpualloc: {{host: …}} for {name}, or --main {self.host}"
                raise fail("other-host", summary, service.place(key), hint)
        for key in KEYS:
            value = self._named(name, service, key)
            kept = self._kept(key, value)
            if len(kept) < len(value or ()):
                laid[key] = Tagged("!override", kept) if kept else Tagged("!reset", None)
        return laid

    def _named(self, name: str, service: Service, key: str) -> Any:
        laid = self.made.get(name, {})
        value = laid[key].value if isinstance(laid, dict) and isinstance(laid.get(key), Tagged) else None
        return escaped(strip(service.data.get(key))) if value is None else value

    def _kept(self, key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: entry for name, entry in value.items() if self._is_here(name)}
        return [item for item in value or () if self._is_here(_name(key, item))]

    def _missing(self) -> Iterator[tuple[str, Service, str, list[str]]]:
        members = {m.worker.name: role.service for role in self.planning.demand.roles for m in role.members}
        services = {s.name: s for s in self.planning.project.services if s.enabled} | members
        for name, service in services.items():
            if isinstance(self.made.get(name), Tagged) or not self._is_here(name):
                continue
            for key in KEYS:
                others = [
                    n for item in self._named(name, service, key) or () if not self._is_here(n := _name(key, item))
                ]
                if others:
                    yield name, service, key, others


def _name(key: str, item: Any) -> str:
    return str(item) if key == "depends_on" else split_name(str(item))[0]
