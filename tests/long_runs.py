"""How long the long runs are: GPUALLOC_LONG=0.1 makes tests marked ``long`` a tenth as long."""

from __future__ import annotations

import os


def share(count: int) -> int:
    """Return how many of ``count`` examples to run, at least one."""
    return max(1, round(count * float(os.environ.get("GPUALLOC_LONG") or 1)))
