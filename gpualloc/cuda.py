"""What CUDA makes of ``CUDA_VISIBLE_DEVICES`` in a container.

CUDA numbers the devices that a container has from 0, whatever their index on the host. It reads entries up to the first
one that is not valid and drops the rest without a word. Seen on two H100s with driver 580.159.04: ``0,7,1`` leaves one
GPU, a UUID after an index (or the reverse) is dropped, and one device named twice leaves none at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def visible(value: str, devices: Sequence[str]) -> tuple[str, ...]:
    """Return which of a container's ``devices`` (UUIDs, in PCI order) CUDA shows for a value of the variable."""
    chosen: list[str] = []
    numbers: bool | None = None
    for part in value.split(","):
        entry = part.strip()
        is_number = entry.isdecimal()
        if numbers is not None and is_number != numbers:
            break
        numbers = is_number
        found = _by_number(entry, devices) if is_number else _by_uuid(entry, devices)
        if found is None:
            break
        if found in chosen:
            return ()
        chosen.append(found)
    return tuple(chosen)


def _by_number(entry: str, devices: Sequence[str]) -> str | None:
    number = int(entry)
    return devices[number] if number < len(devices) else None


def _by_uuid(entry: str, devices: Sequence[str]) -> str | None:
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    matches = [uuid for uuid in devices if uuid.startswith(entry)]
    return matches[0] if len(matches) == 1 else None
