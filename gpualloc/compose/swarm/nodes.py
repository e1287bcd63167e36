"""Which Swarm node is which host of the inventory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.compose.data import members
from gpualloc.compose.document import Mapping, Scalar, parse, resolve
from gpualloc.compose.files import read_source
from gpualloc.errors import Place, fail

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Mapping as MappingType
    from pathlib import Path

_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""What a constraint can name (moby/swarmkit ``constraint/constraint.go``), and a host can be called."""


@dataclass(frozen=True, slots=True)
class _Named:
    node: str
    where: Place | None


def node_map(given: Sequence[str], hosts: Iterable[str], cwd: Path) -> dict[str, str]:
    """Return the node of each host: as ``--node-map`` says (``NAME=NODE``, or a file of ``NAME: NODE``), else alike.

    Raises GpuallocError: ``unknown-host`` for a host that is not in the inventory, ``node-map`` for a file or a name
    that cannot be read, and where two hosts would be one node.
    """
    known = list(hosts)
    mapped: dict[str, _Named] = {}
    for item in given:
        name, equals, node = item.partition("=")
        mapped |= {name: _Named(node, None)} if equals else _read(cwd / item, item)
    result: dict[str, str] = {}
    for name, named in mapped.items():
        if name not in known:
            hint = f"the hosts are: {', '.join(known)}"
            raise fail("unknown-host", f"--node-map: no host is called {name}", named.where, hint)
    for host in known:
        found = mapped.get(host, _Named(host, None))
        if not _NODE.fullmatch(found.node):
            hint = f"name it as docker node ls does: --node-map {host}=NODE"
            raise fail("node-map", f"{found.node!r} cannot be the name of a Swarm node", found.where, hint)
        other = next((one for one, node in result.items() if node == found.node), None)
        if other is not None:
            hint = "give each host its own: docker node ls names them"
            raise fail("node-map", f"{other} and {host} would both be the node {found.node}", found.where, hint)
        result[host] = found.node
    return result


def _read(path: Path, shown: str) -> MappingType[str, _Named]:
    hint = "write a line NAME: NODE for each host, or give --node-map NAME=NODE"
    if not path.exists():
        raise fail("node-map", "there is no such file", Place(shown), hint)
    document = parse(read_source(path, shown).text, shown)
    root = document.roots[0] if document.roots else None
    if not isinstance(root, Mapping):
        raise fail("node-map", "this is no map of nodes: no mapping at the top", Place(shown, 1, 1), hint)
    result: dict[str, _Named] = {}
    for name, node in members(root).items():
        real = resolve(node)
        if not isinstance(real, Scalar):
            raise fail("node-map", f"the node of {name} is no name", document.at(node), hint)
        result[name] = _Named(real.value, document.at(node))
    return result
