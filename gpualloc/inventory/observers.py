"""Containers that look at every GPU and use none."""

from __future__ import annotations

from fnmatch import fnmatchcase

OBSERVERS = ("*dcgm-exporter*", "*nvitop-exporter*")
"""Images of monitors."""


def observes(image: str) -> bool:
    """Tell whether an image is known to be a monitor's."""
    return any(fnmatchcase(image, glob) for glob in OBSERVERS)
