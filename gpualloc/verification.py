"""What a verification found, worker by worker: passes from ``gpualloc.verify`` to the renderers. Nothing here computes.

Devices are UUIDs, with their prefix (``GPU-…``, ``MIG-…``). None means unknown: nobody looked, or nobody could.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gpualloc.errors import Diagnostic
    from gpualloc.model import Inventory

Verdict = Literal["ok", "wrong", "unseen"]
"""``unseen``: nothing is wrong as far as Docker knows, and nobody could look inside."""

How = Literal["cuda", "nvidia-smi", "docker"]
"""What is known of a worker's devices rests on: CUDA in its container; what ``nvidia-smi -L`` lists there, less what
``CUDA_VISIBLE_DEVICES`` hides; or only what Docker was asked to give it, less the same."""

FRAMEWORKS = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
"""How the packages that are asked are called."""


@dataclass(frozen=True, slots=True)
class Framework:
    """What one installed framework says. ``gpu_build`` is false where it was built without CUDA."""

    name: str
    version: str | None
    count: int | None
    uuids: tuple[str, ...] | None
    gpu_build: bool | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a worker has. ``devices``: in CUDA's order. ``listed``: by ``nvidia-smi -L``, whatever CUDA shows of it."""

    devices: tuple[str, ...] | None
    how: How
    listed: tuple[str, ...] | None
    cuda_visible_devices: str | None
    frameworks: tuple[Framework, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerCheck:
    """One worker: its devices by the compose file (None: the file pins none), and what its container has.

    ``container`` is None where there is none. ``state`` is Docker's word (``running``, ``exited`` …), or ``missing``.
    """

    worker: str
    service: str
    replica: int
    container: str | None
    state: str
    expected: tuple[str, ...] | None
    seen: Seen | None
    verdict: Verdict
    findings: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """All workers of a project. ``findings``: on containers that are no worker's; ``warnings``: on the inputs."""

    project: str
    inventory: Inventory
    workers: tuple[WorkerCheck, ...]
    findings: tuple[Diagnostic, ...]
    warnings: tuple[Diagnostic, ...]

    @property
    def all_findings(self) -> tuple[Diagnostic, ...]:
        """Every finding: the workers' in their order, then the others."""
        return (*(finding for worker in self.workers for finding in worker.findings), *self.findings)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong; notes do not count."""
        return all(finding.severity == "note" for finding in self.all_findings)
