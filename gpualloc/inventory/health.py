"""What counts as something wrong with a GPU, whoever reports it.

Fatal is what NVIDIA answers with a reset or a replacement: the GPU Memory Error Management guide
(docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt) for row remapping, the Dynamic Page Retirement guide for retired pages,
and DCGM's health checks, which fail a GPU on any uncorrected volatile ECC error.
"""

from __future__ import annotations

from gpualloc.model import HealthIssue

GPU_LOST = HealthIssue("gpu_lost", fatal=True, detail="the GPU does not answer: it has fallen off the bus")
RESET_REQUIRED = HealthIssue("reset_required", fatal=True, detail="the GPU must be reset before it can be used")

_ROW_REMAP_PENDING = HealthIssue(
    "row_remap_pending", fatal=True, detail="memory rows wait to be remapped, which takes a reset of the GPU"
)
_ROW_REMAP_FAILED = HealthIssue(
    "row_remap_failed", fatal=True, detail="a memory row could not be remapped: the GPU needs to be replaced"
)
_PAGES_PENDING = HealthIssue(
    "retired_pages_pending", fatal=True, detail="memory pages wait to be retired, which takes a reset of the GPU"
)

_HARMLESS = frozenset({"drain p2p", "recover imex domain"})
"""Recovery actions that leave work on one GPU or one host alone."""


def issues(
    *,
    row_remap_pending: bool | None = None,
    row_remap_failed: bool | None = None,
    retired_pages_pending: bool | None = None,
    ecc_uncorrected: int | None = None,
    recovery_action: str | None = None,
) -> tuple[HealthIssue, ...]:
    """Return what is wrong, the worst first. What is unknown (None) is not held against the GPU.

    ``ecc_uncorrected`` counts uncorrected errors since the driver was loaded; ``recovery_action`` is what the driver
    asks for, in the words of ``nvidia-smi -q``: None, Reset, Reboot, Drain P2P, Drain and Reset, …
    """
    found = [
        issue
        for present, issue in (
            (row_remap_failed, _ROW_REMAP_FAILED),
            (row_remap_pending, _ROW_REMAP_PENDING),
            (retired_pages_pending, _PAGES_PENDING),
        )
        if present
    ]
    if ecc_uncorrected:
        errors = "error" if ecc_uncorrected == 1 else "errors"
        detail = f"{ecc_uncorrected} uncorrected memory {errors} since the driver was loaded"
        found.append(HealthIssue("ecc_uncorrected", fatal=True, detail=detail))
    if recovery_action is not None and recovery_action.lower() != "none":
        fatal = recovery_action.lower() not in _HARMLESS
        found.append(HealthIssue("recovery_action", fatal, f"the driver asks for: {recovery_action}"))
    return tuple(found)
