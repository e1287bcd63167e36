"""What the operating system knows of this host: its name, its platform, and where a PCI device sits."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from gpualloc.model import Platform

_NVIDIA = "0x10de"


def host_name() -> str:
    """Return the name of this host."""
    return socket.gethostname() or "localhost"


def platform(proc: Path) -> Platform:
    """Return ``wsl2`` where Microsoft's kernel for Linux runs, as it says in its release, else ``linux``."""
    with contextlib.suppress(OSError):
        release = (proc / "sys/kernel/osrelease").read_text(encoding="utf-8", errors="replace")
        if "microsoft" in release.lower():
            return "wsl2"
    return "linux"


def numa_node(pci_bus_id: str, sys: Path) -> int | None:
    """Return the NUMA node of a PCI device; None where the firmware names none (-1) on a host of several nodes."""
    device = sys / "bus/pci/devices" / _sysfs_address(pci_bus_id)
    with contextlib.suppress(OSError, ValueError):
        # the address may belong to another device where NVML speaks of another machine's PCI bus (a virtual one)
        if (device / "vendor").read_text(encoding="ascii").strip() == _NVIDIA:
            node = int((device / "numa_node").read_text(encoding="ascii"))
            if node >= 0:
                return node
    with contextlib.suppress(OSError):
        if (sys / "devices/system/node/online").read_text(encoding="ascii").strip() == "0":
            return 0
    return None


def _sysfs_address(pci_bus_id: str) -> str:
    """``00000000:1B:00.0`` is ``0000:1b:00.0`` in sysfs: NVML writes the domain with eight digits."""
    domain, _, rest = pci_bus_id.lower().partition(":")
    return f"{domain[-4:].zfill(4)}:{rest}"
