"""Writes reports as nvidia-smi prints them, by newer and older drivers, for machines that are not here."""

from __future__ import annotations

from typing import Any

NEW = {
    "product_name": "NVIDIA A100 80GB PCIe",
    "product_architecture": "Ampere",
    "display_active": "Disabled",
    "uuid": "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f",
    "mig_mode": {"current_mig": "Disabled", "pending_mig": "Disabled"},
    "mig_devices": "\n\t\t\tNone\n\t\t",
    "gpu_recovery_action": "None",
    "fb_memory_usage": {"total": "81920 MiB", "reserved": "571 MiB", "used": "0 MiB", "free": "81348 MiB"},
    "compute_mode": "Default",
    "ecc_errors": {
        "volatile": {
            "sram_correctable": "0",
            "sram_uncorrectable_parity": "0",
            "sram_uncorrectable_secded": "0",
            "dram_correctable": "7",
            "dram_uncorrectable": "0",
        },
        "aggregate": {"dram_uncorrectable": "9"},
    },
    "retired_pages": {"pending_blacklist": "N/A", "pending_retirement": "N/A"},
    "remapped_rows": {"remapped_row_pending": "No", "remapped_row_failure": "No"},
    "processes": "\n\t\t",
}
"""A GPU as drivers since 560 report it; what is left out here is not read."""

OLD = {
    "product_name": "Tesla P100-PCIE-16GB",
    "display_active": "Disabled",
    "uuid": "GPU-1f2e3d4c-0000-1111-2222-333344445555",
    "fb_memory_usage": {"total": "16280 MiB", "used": "10 MiB", "free": "16270 MiB"},
    "compute_mode": "Exclusive_Process",
    "ecc_errors": {
        "volatile": {
            "single_bit": {"device_memory": "3", "total": "3"},
            "double_bit": {"device_memory": "0", "register_file": "0", "total": "0"},
        },
    },
    "retired_pages": {"pending_retirement": "No"},
    "processes": "\n\t\t",
}
"""A GPU as driver 396 reports it: no architecture, no reserve, no MIG, errors by single and double bit."""


def report(*gpus: dict[str, Any], **head: str | None) -> str:
    """Write a report of these GPUs; ``head`` changes what stands before them, None leaves it out."""
    top: dict[str, str | None] = {
        "timestamp": "Tue Nov 24 16:36:39 2026",
        "driver_version": "570.133.20",
        "cuda_version": "12.8",
        "attached_gpus": str(len(gpus)),
    }
    lines = ['<?xml version="1.0" ?>', '<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">', "<nvidia_smi_log>"]
    lines += [f"\t<{key}>{text}</{key}>" for key, text in {**top, **head}.items() if text is not None]
    for number, gpu in enumerate(gpus):
        lines += [f'\t<gpu id="00000000:{number + 1}B:00.0">', *_written(gpu, 2), "\t</gpu>"]
    return "\n".join([*lines, "</nvidia_smi_log>", ""])


def _written(data: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for key, value in data.items():
        indent = "\t" * depth
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                lines += [f"{indent}<{key}>", *_written(one, depth + 1), f"{indent}</{key}>"]
            else:
                lines.append(f"{indent}<{key}>{one}</{key}>")
    return lines
