"""Measures a project: reads the machine again and again for as long as it is asked to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gpualloc.durations import parse_duration
from gpualloc.planning import open_workspace, read_inventory
from gpualloc.usage.measure import Meter, parse_margin, unseen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gpualloc.errors import Diagnostic
    from gpualloc.model import Inventory
    from gpualloc.planning import Options
    from gpualloc.usage.measure import Usage

_EVERY_S = 1.0


def measure(
    options: Options, environ: Mapping[str, str], cwd: Path, duration: str | None, margin: str
) -> tuple[Usage, Inventory, tuple[Diagnostic, ...]]:
    """Return what workers use, the machine, and warnings. Without a ``duration`` the machine is read once.

    Raises GpuallocError if an input cannot be used.
    """
    seconds = parse_duration(duration, "--for") if duration is not None else 0.0
    part = parse_margin(margin)
    workspace = open_workspace(options, environ, cwd)
    meter = Meter(workspace, part)
    meter.take(workspace.inventory)
    start = time.monotonic()
    while (left := start + seconds - time.monotonic()) > 0:
        time.sleep(min(_EVERY_S, left))
        meter.take(read_inventory(options).inventory)
    usage = meter.result(seconds)
    return usage, workspace.inventory, (*workspace.warnings, *unseen(usage))
