"""Compute capability by model: what nvidia-smi's report leaves out, from NVIDIA's table.

Source: developer.nvidia.com/cuda-gpus and /cuda-legacy-gpus. A model that the table would have to guess at is unknown.
"""

from __future__ import annotations

import re

_BY_ARCHITECTURE = {"turing": "7.5", "ada lovelace": "8.9", "hopper": "9.0"}
"""Architectures all of whose GPUs have the same."""

_BY_NAME = tuple(
    (re.compile(rf"\b(?:{pattern})", re.IGNORECASE), capability)
    for pattern, capability in (
        (r"G?B300\b", "10.3"),
        (r"G?B[12]00\b", "10.0"),
        (r"GB10\b", "12.1"),
        (r"RTX 50[5-9]0\b|RTX PRO [2-6]\d00\b.*Blackwell", "12.0"),
        (r"H[128]00\b|H20\b|GH200\b", "9.0"),
        (r"L40S?\b|L4\b|L20\b|L2\b|RTX 40[5-9]0\b|RTX [2-6]\d00 .*Ada\b", "8.9"),
        (r"A100\b|A100X\b|A800\b|A30\b|A30X\b", "8.0"),
        (r"A40\b|A10\b|A10G\b|A10M\b|A16\b|A2\b|RTX A(?:[45]00|[1-6]\d00)\b|RTX 30[5-9]0\b", "8.6"),
        (r"T4G?\b|T[46]00\b|T1000\b|RTX 20[6-8]0\b|GTX 16[356]0\b|TITAN RTX\b|Quadro RTX [3-8]000\b", "7.5"),
        (r"V100\b|V100S\b|TITAN V\b|GV100\b", "7.0"),
        (r"P100\b|GP100\b", "6.0"),
        (r"P40?\b|P6\b|GTX 10[1-8]0\b|TITAN Xp\b|TITAN X \(Pascal\)|Quadro P\d{3,4}\b", "6.1"),
    )
)


def capability(name: str, architecture: str | None = None) -> str | None:
    """Return the compute capability of a model, ``9.0``; None for one that is not in the table."""
    if architecture is not None and architecture.lower() in _BY_ARCHITECTURE:
        return _BY_ARCHITECTURE[architecture.lower()]
    return next((found for pattern, found in _BY_NAME if pattern.search(name)), None)
