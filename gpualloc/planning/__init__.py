"""The main job from end to end: read, plan, rewrite, write. The commands call these functions and print the results."""

from __future__ import annotations

from gpualloc.planning.plan import capacity_of, evicted, explain_plan, held_by_others, make_plan
from gpualloc.planning.saved import read_saved
from gpualloc.planning.targets import Planned, Target, with_texts
from gpualloc.planning.workspace import Options, Workspace, open_workspace, read_inventory, solve_options
from gpualloc.planning.writing import plan_reset, reset_orphans, write_file, write_plan, write_reset

__all__ = [
    "Options",
    "Planned",
    "Target",
    "Workspace",
    "capacity_of",
    "evicted",
    "explain_plan",
    "held_by_others",
    "make_plan",
    "open_workspace",
    "plan_reset",
    "read_inventory",
    "read_saved",
    "reset_orphans",
    "solve_options",
    "with_texts",
    "write_file",
    "write_plan",
    "write_reset",
]
