"""How the GPUs of this host are joined, from NVML: NVLinks counted, and the PCIe path of every pair."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.inventory.probe import Probe, QueryError, as_text
from gpualloc.model import Link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpualloc.model import PcieLevel


@dataclass(frozen=True, slots=True)
class End:
    """A GPU to be linked: its NVML index and handle, UUID and PCI bus id."""

    index: int
    handle: Any
    uuid: str
    pci_bus_id: str


@dataclass(slots=True)
class Ports:
    """Where the active NVLinks of a GPU lead: to a switch, or to PCI addresses."""

    switch: int = 0
    peers: Counter[str] = field(default_factory=Counter)

    @property
    def active(self) -> int:
        """How many NVLinks are up."""
        return self.switch + self.peers.total()


_STATE = "nvmlDeviceGetNvLinkState"
_KIND = "nvmlDeviceGetNvLinkRemoteDeviceType"
_PEER = "nvmlDeviceGetNvLinkRemotePciInfo"
_PATH = "nvmlDeviceGetTopologyCommonAncestor"
_NO_DOMAIN = "FFFFFFFF:"


def ports(probe: Probe, ends: Sequence[End]) -> dict[str, Ports | None]:
    """Return where the NVLinks of each GPU lead, by UUID: None where that cannot be had. A lone GPU is not asked."""
    return {end.uuid: _ports(probe, end) for end in ends} if len(ends) > 1 else {}


def links(probe: Probe, ends: Sequence[End], found: Mapping[str, Ports | None]) -> tuple[Link, ...]:
    """Return the link of every pair of GPUs; a count or a path that could not be had is None.

    Two GPUs with links to an NVSwitch are joined by as many as both have there, as ``nvidia-smi topo -m`` counts them.
    Where the two ends of a direct connection count differently, the smaller number holds.
    """
    return tuple(
        Link(a.uuid, b.uuid, _joined(found, a, b), _pcie(probe, a, b))
        for position, b in enumerate(ends)
        for a in ends[:position]
    )


def _joined(found: Mapping[str, Ports | None], a: End, b: End) -> int | None:
    at_a, at_b = found[a.uuid], found[b.uuid]
    if at_a is None or at_b is None:
        return None
    direct = min(at_a.peers[_comparable(b.pci_bus_id)], at_b.peers[_comparable(a.pci_bus_id)])
    return direct + min(at_a.switch, at_b.switch)


def _pcie(probe: Probe, a: End, b: End) -> PcieLevel | None:
    """Return how near two GPUs are over PCIe; None, with the reason noted, where that cannot be had."""
    if a.index in probe.dead or b.index in probe.dead:
        return None
    nvml = probe.nvml
    try:
        level = probe.call(_PATH, a.handle, b.handle)
    except QueryError as error:
        # which of the two it is does not show, not even where one is lost
        for end in (a, b):
            probe.note(end.index, "PCIe paths", _PATH, error.reason)
        return None
    levels: dict[int, PcieLevel] = {
        nvml.NVML_TOPOLOGY_INTERNAL: "PIX",  # two GPUs of one board, behind its bridge
        nvml.NVML_TOPOLOGY_SINGLE: "PIX",
        nvml.NVML_TOPOLOGY_MULTIPLE: "PXB",
        nvml.NVML_TOPOLOGY_HOSTBRIDGE: "PHB",
        nvml.NVML_TOPOLOGY_NODE: "NODE",
        nvml.NVML_TOPOLOGY_SYSTEM: "SYS",
    }
    if level not in levels:
        probe.note(a.index, "PCIe paths", _PATH, f"level {level}, which is not known")
    return levels.get(level)


def _comparable(pci_bus_id: str) -> str:
    """Write a PCI bus id so that equal ones compare equal: the domain has four digits or eight, letters any case."""
    domain, _, rest = pci_bus_id.upper().partition(":")
    return f"{domain.lstrip('0') or '0'}:{rest}"


def _ports(probe: Probe, end: End) -> Ports | None:
    """Count where the links of a GPU lead; None, with the reason noted, where that cannot be had."""
    if end.index in probe.dead:
        return None
    found = Ports()
    query = _STATE
    try:
        for link in range(probe.nvml.NVML_NVLINK_MAX_LINKS):
            query = _STATE
            active = _is_active(probe, end, link)
            if active is None:
                break
            if not active:
                continue
            query = _PEER
            peer = _peer(probe, end, link)
            if peer is None:
                found.switch += 1
            else:
                found.peers[peer] += 1
    except QueryError as error:
        probe.fail(end.index, "NVLinks", query, error)
        return None
    return found


def _is_active(probe: Probe, end: End, link: int) -> bool | None:
    """Tell whether a link is up; None where there are no more links. Raises ``QueryError``."""
    try:
        return bool(probe.call(_STATE, end.handle, link) == probe.nvml.NVML_FEATURE_ENABLED)
    except QueryError as error:
        if error.code == probe.nvml.NVML_ERROR_INVALID_ARGUMENT:
            return None
        if error.code == probe.nvml.NVML_ERROR_NOT_SUPPORTED:
            return False  # a model without NVLink, or without this one
        raise


def _peer(probe: Probe, end: End, link: int) -> str | None:
    """Return the PCI address at the other end of an active link; None for a switch. Raises ``QueryError``."""
    try:
        kind = probe.call(_KIND, end.handle, link)
    except QueryError:  # the address tells it too
        kind = None
    if kind == probe.nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
        return None
    address = as_text(probe.call(_PEER, end.handle, link).busId)
    # a driver that does not tell the kind names the switch by an address that no device has
    return None if address.upper().startswith(_NO_DOMAIN) else _comparable(address)
