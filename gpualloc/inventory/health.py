"""What counts as something wrong with a GPU, whoever reports it, and what to do about it.

Fatal is what NVIDIA answers with a reset or a replacement: the GPU Memory Error Management guide
(docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt) for row remapping, the Dynamic Page Retirement guide for retired pages,
and DCGM's health checks, which fail a GPU on any uncorrected volatile ECC error.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

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
_ECC_OFF = HealthIssue("ecc_off", fatal=False, detail="ECC is off: memory errors go unnoticed")
_THERMAL = HealthIssue("thermal_slowdown", fatal=False, detail="its clocks are lowered because it is too hot")
_POWER = HealthIssue("power_slowdown", fatal=False, detail="its clocks are lowered by the power supply's brake signal")
_SLOWDOWN = HealthIssue("hw_slowdown", fatal=False, detail="its clocks are at half or less, for heat or for power")

_HARMLESS = frozenset({"drain p2p", "recover imex domain"})
"""Recovery actions that leave work on one GPU or one host alone."""

HW_SLOWDOWN, SW_THERMAL, HW_THERMAL, HW_POWER_BRAKE = 0x8, 0x20, 0x40, 0x80
"""Bits of ``nvmlClocksEventReasons`` (NVML reference). The cap in software is not among them: busy GPUs meet it."""

USUAL_NVLINKS: tuple[tuple[str, int], ...] = (
    ("*P100-SXM2*", 4),
    ("*V100-SXM[23]*", 6),
    ("*A100-SXM*", 12),
    ("*A800-SXM*", 8),
    ("*H100 80GB HBM3", 18),
    ("*H800", 8),
    ("*H20", 18),
    ("*H200", 18),
    ("*B[23]00*", 18),
)
"""NVLinks by name, of the models whose board has them all wired (NVIDIA's datasheets). On cards that are joined by
bridges, how many there are depends on the bridges."""

HARMLESS_XIDS = frozenset({13, 31, 43, 45, 68, 109})
"""Xids that a program causes and that leave the GPU sound, as NVIDIA's k8s-device-plugin has them
(``internal/rm/health.go``). Every other one is held to be fatal, as there."""

_XIDS = {
    13: "a program did something illegal (graphics engine exception)",
    31: "a program touched memory that is not its own (page fault)",
    43: "a program was stopped",
    45: "a program was ended, often after another error",
    48: "an uncorrectable memory error",
    62: "its microcontroller halted",
    63: "a memory row was remapped, or waits for it",
    64: "a memory row could not be remapped",
    68: "a video decoder exception",
    74: "an NVLink error",
    79: "the GPU has fallen off the bus",
    92: "many corrected memory errors",
    94: "an uncorrectable memory error that only one program saw",
    95: "an uncorrectable memory error that was not contained",
    109: "a program's context switch timed out",
    119: "its system processor (GSP) does not answer",
    120: "its system processor (GSP) failed",
}
"""What the common Xids say (docs.nvidia.com/deploy/xid-errors)."""

_ADVICE = {
    "gpu_lost": "stop what uses it and restart the host; if it happens again, reseat or replace the GPU",
    "reset_required": "stop what uses it, then reset it: nvidia-smi --gpu-reset -i GPU",
    "row_remap_pending": "stop what uses it, then reset it: nvidia-smi --gpu-reset -i GPU",
    "row_remap_failed": "replace the GPU",
    "retired_pages_pending": "stop what uses it, then reset it or restart the host",
    "ecc_uncorrected": "stop what uses it, then reset it; if the errors come back, replace it",
    "recovery_action": "do what the driver asks for; see the GPU's section of nvidia-smi -q",
    "ecc_off": "turn it on where results matter: nvidia-smi -e 1 -i GPU, then reset it",
    "nvlink_down": "see nvidia-smi nvlink -s, then the bridges, the switches and the fabric manager; reset the GPUs",
    "thermal_slowdown": "see to its cooling: fans, dust, air flow, the room",
    "power_slowdown": "see to the power supplies and their cables",
    "hw_slowdown": "see to its cooling and its power supply; nvidia-smi -q -d PERFORMANCE says which",
    "xid": "see dmesg for the Xid and NVIDIA's Xid catalogue; if the GPU does not recover, reset it",
}


def advice(code: str) -> str:
    """Return what to do about an issue, in one sentence without a full stop."""
    return _ADVICE.get("xid" if code.startswith("xid_") else code, "see what nvidia-smi -q says of it")


def issues(
    *,
    row_remap_pending: bool | None = None,
    row_remap_failed: bool | None = None,
    retired_pages_pending: bool | None = None,
    ecc_uncorrected: int | None = None,
    recovery_action: str | None = None,
    ecc_on: bool | None = None,
    slowdowns: int | None = None,
) -> tuple[HealthIssue, ...]:
    """Return what is wrong, the worst first. What is unknown (None) is not held against the GPU.

    ``ecc_uncorrected`` counts uncorrected errors since the driver was loaded; ``recovery_action`` is what the driver
    asks for, in the words of ``nvidia-smi -q``: None, Reset, Reboot, Drain P2P, Drain and Reset, …; ``ecc_on`` is None
    for a model without ECC; ``slowdowns`` holds bits of ``nvmlClocksEventReasons``.
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
    found += _slowdowns(slowdowns or 0)
    if ecc_on is False:
        found.append(_ECC_OFF)
    return tuple(found)


def _slowdowns(reasons: int) -> list[HealthIssue]:
    found = []
    if reasons & (HW_THERMAL | SW_THERMAL):
        found.append(_THERMAL)
    if reasons & HW_POWER_BRAKE:
        found.append(_POWER)
    if reasons & HW_SLOWDOWN and not found:
        found.append(_SLOWDOWN)
    return found


def nvlinks(name: str, active: int | None) -> tuple[HealthIssue, ...]:
    """Return what is wrong with a GPU's NVLinks, of which so many are active, against what its model usually has.

    A model that may have any number is never at fault, nor is one whose number is unknown.
    """
    usual = next((count for glob, count in USUAL_NVLINKS if fnmatchcase(name, glob)), None)
    if usual is None or active is None or active >= usual:
        return ()
    detail = f"{usual - active} of its {usual} NVLinks {'is' if usual - active == 1 else 'are'} down"
    return (HealthIssue("nvlink_down", fatal=False, detail=detail),)


def xid(number: int) -> HealthIssue:
    """Return the issue that an Xid of the driver is."""
    what = _XIDS.get(number)
    detail = f"Xid {number}: {what}" if what else f"Xid {number}"
    return HealthIssue(f"xid_{number}", number not in HARMLESS_XIDS, detail)
