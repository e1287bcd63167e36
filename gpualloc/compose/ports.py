"""Host ports of a service: which it takes, and the same entry with others."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

LAST = 65535

_SHORT = re.compile(
    r"(?:(?P<ip>.*):)?(?P<host>\d{1,5}(?:-\d{1,5})?):(?P<target>\d{1,5}(?:-\d{1,5})?)(?:/(?P<protocol>[a-z]+))?\Z"
)
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z")
_ANY = frozenset(("", "0.0.0.0", "::", "[::]"))  # noqa: S104 - read from files, nothing is bound


@dataclass(frozen=True, slots=True)
class HostPorts:
    """The host's ports that one entry takes. ``pool``: one container port on any of them, as the engine finds it free.

    Source: Compose specification, ``ports``; docker/go-connections ``nat/parse.go``.
    """

    ip: str
    protocol: str
    first: int
    count: int
    pool: bool

    @property
    def text(self) -> str:
        """The ports as they are written."""
        return str(self.first) if self.count == 1 else f"{self.first}-{self.first + self.count - 1}"


def host_ports(item: Any) -> HostPorts | None:
    """Return what an entry of ``ports``, short or long, takes of the host; None where the engine may choose."""
    if isinstance(item, dict):
        published = _RANGE.match(str(item.get("published") or ""))
        target = str(item.get("target") or "")
        return _ports(published, target, str(item.get("host_ip") or ""), item.get("protocol")) if published else None
    match = _SHORT.match(str(item)) if isinstance(item, str) else None
    if match is None:
        return None
    return _ports(_RANGE.match(match["host"]), match["target"], match["ip"] or "", match["protocol"])


def _ports(published: re.Match[str] | None, target: str, ip: str, protocol: Any) -> HostPorts | None:
    if published is None:
        return None
    first, last = int(published[1]), int(published[2] or published[1])
    if not 0 < first <= last <= LAST:
        return None
    return HostPorts(ip, str(protocol or "tcp").lower(), first, last - first + 1, last > first and "-" not in target)


def with_first(item: Any, first: int) -> Any:
    """Return an entry of ``ports`` with as many host ports as it has, from another one on."""
    taken = host_ports(item)
    if taken is None:
        return item
    text = replace(taken, first=first).text
    if isinstance(item, dict):
        return item | {"published": first if isinstance(item["published"], int) else text}
    match = _SHORT.match(item)
    return item[: match.start("host")] + text + item[match.end("host") :] if match else item


def one_of_pool(item: Any, number: int) -> Any:
    """Return an entry whose port is one of a pool with the pool's port of that number, and any other as it is."""
    taken = host_ports(item)
    if taken is None or not taken.pool:
        return item
    port = taken.first + min(number, taken.count - 1)
    if isinstance(item, dict):
        return item | {"published": port}
    match = _SHORT.match(item)
    return f"{item[: match.start('host')]}{port}{item[match.end('host') :]}" if match else item


class TakenPorts:
    """The host ports that a project takes: one on every address clashes with the same one on any."""

    def __init__(self, ports: Iterable[HostPorts] = ()) -> None:
        self._addresses: dict[tuple[str, int], set[str]] = {}
        for each in ports:
            self.take(each)

    def take(self, ports: HostPorts) -> None:
        """Note that these are taken."""
        for port in range(ports.first, ports.first + ports.count):
            self._addresses.setdefault((ports.protocol, port), set()).add("" if ports.ip in _ANY else ports.ip)

    def next_free(self, ports: HostPorts) -> HostPorts | None:
        """Return the next ports after these, as many, that nothing takes; None where there are none up to 65535."""
        for first in range(ports.first + ports.count, LAST - ports.count + 2, ports.count):
            candidate = replace(ports, first=first)
            if all(self._is_free(candidate, port) for port in range(first, first + ports.count)):
                return candidate
        return None

    def _is_free(self, ports: HostPorts, port: int) -> bool:
        held = self._addresses.get((ports.protocol, port))
        return not held or (ports.ip not in _ANY and "" not in held and ports.ip not in held)
