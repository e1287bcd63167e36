"""Sets of small numbers: NVML's bit masks, and the kernel's lists of ranges (``0-55,112-167``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def bits(words: Sequence[int]) -> list[int]:
    """Return the positions of the set bits of a mask of 64-bit words, the lowest first."""
    return [64 * position + bit for position, word in enumerate(words) if word for bit in range(64) if word >> bit & 1]


def ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers as the kernel writes a list of CPUs; empty for none."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(str(end) for end in part) for part in parts)
