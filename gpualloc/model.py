"""The values that pass between the stages. Nothing here computes; every class is frozen.

Memory is in MiB unless a name says otherwise. ``None`` means unknown (or "not asked for"), never zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fractions import Fraction

    from gpualloc.errors import Diagnostic, Place

FORMAT_VERSION = "1.0"
"""Version of the three JSON documents: inventory, plan, and the objective inside it."""

# --------------------------------------------------------------------------------------------------------------------
# Inventory

Platform = Literal["linux", "wsl2"]
ComputeMode = Literal["default", "exclusive_process", "prohibited"]
PcieLevel = Literal["PIX", "PXB", "PHB", "NODE", "SYS"]
LinkLevel = Literal["NVLINK", "PIX", "PXB", "PHB", "NODE", "SYS"]
"""How close two GPUs are, closest first, as ``nvidia-smi topo -m`` names it (NVLINK: at least one NVLink)."""

LINK_LEVELS: tuple[LinkLevel, ...] = ("NVLINK", "PIX", "PXB", "PHB", "NODE", "SYS")


@dataclass(frozen=True, slots=True)
class Container:
    """The container a process runs in; project and service are Compose's labels, if it has them."""

    id: str
    project: str | None
    service: str | None


@dataclass(frozen=True, slots=True)
class Process:
    """Something that holds a GPU. ``gi`` is the MIG GPU instance it runs on; memory is unknown where NVML hides it."""

    pid: int
    used_mib: int | None
    container: Container | None
    gi: int | None = None


@dataclass(frozen=True, slots=True)
class MigInstance:
    """A MIG compute instance: a device of its own."""

    uuid: str
    gi: int
    ci: int
    profile: str
    memory_total_mib: int | None


@dataclass(frozen=True, slots=True)
class HealthIssue:
    """Something wrong with a GPU; a fatal one makes it unfit for work."""

    code: str
    fatal: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Gpu:
    """One physical GPU. ``mig`` is None with MIG off; with MIG on, only its instances can be handed out."""

    uuid: str
    index: int
    name: str
    pci_bus_id: str
    memory_total_mib: int | None
    memory_reserved_mib: int | None
    memory_used_mib: int | None
    compute_capability: str | None
    numa_node: int | None
    cpu_affinity: str | None
    display_active: bool | None
    compute_mode: ComputeMode | None
    mig: tuple[MigInstance, ...] | None
    health: tuple[HealthIssue, ...]
    processes: tuple[Process, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """How two GPUs of one host are joined; ``a`` and ``b`` are GPU UUIDs. ``nvlink`` counts active NVLinks."""

    a: str
    b: str
    nvlink: int | None
    pcie: PcieLevel | None


@dataclass(frozen=True, slots=True)
class Host:
    """One machine with GPUs."""

    name: str
    driver: str | None
    cuda: str | None
    gpus: tuple[Gpu, ...]
    links: tuple[Link, ...]
    platform: Platform = "linux"


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that can be handed out. ``source`` says how it was read: ``nvml``, ``snapshot``, ``smi`` or ``sim``."""

    source: str
    hosts: tuple[Host, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """An inventory as read just now, with a warning for every fact that could not be had."""

    inventory: Inventory
    warnings: tuple[Diagnostic, ...] = ()


# --------------------------------------------------------------------------------------------------------------------
# Requests

PortRule = Literal["increment", "error"]


@dataclass(frozen=True, slots=True)
class GpuCount:
    """How many devices a worker wants. ``max`` None: as many as there are. Elastic where min and max differ."""

    min: int
    max: int | None


@dataclass(frozen=True, slots=True)
class Ask:
    """The keys of ``x-gpualloc``, as written on a service or in a policy's ``roles``; None where a key is absent."""

    gpus: GpuCount | None = None
    memory_mib: int | None = None
    exclusive: bool | None = None
    model: str | None = None
    min_memory_mib: int | None = None
    compute_capability: str | None = None
    mig_profile: str | None = None
    min_link: LinkLevel | None = None
    priority: int | None = None
    host: str | None = None
    affinity: tuple[str, ...] | None = None
    anti_affinity: tuple[str, ...] | None = None
    ports: PortRule | None = None
    observe: bool | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """One replica of a role. ``pinned`` holds the ids in the file now (UUIDs, indices, as written), if it pins any."""

    name: str
    replica: int
    pinned: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What every worker of one role asks for, after x-gpualloc, policy roles and Compose's own keys are combined.

    ``memory_mib`` is per device. ``hand_pinned``: the user wrote the ids, with no x-gpualloc: workers so pinned to one
    device share it. ``exclusive`` is the explicit wish never to share; a request that names no memory is exclusive or
    not as the policy says. Affinities name roles.
    """

    role: str
    workers: tuple[Worker, ...]
    gpus: GpuCount
    memory_mib: int | None = None
    exclusive: bool = False
    model: str | None = None
    min_memory_mib: int | None = None
    compute_capability: str | None = None
    mig_profile: str | None = None
    min_link: LinkLevel | None = None
    priority: int = 0
    host: str | None = None
    affinity: tuple[str, ...] = ()
    anti_affinity: tuple[str, ...] = ()
    hand_pinned: bool = False
    where: Place | None = None


# --------------------------------------------------------------------------------------------------------------------
# Policy

Strategy = Literal["pack", "spread"]
Stability = Literal["keep", "prefer", "ignore"]
Topology = Literal["prefer", "require", "ignore"]
SharingMode = Literal["none", "memory", "count"]


@dataclass(frozen=True, slots=True)
class Sharing:
    """How devices are shared. ``default_memory`` in MiB, or the words. ``headroom`` is a fraction of each device."""

    mode: SharingMode
    default_memory: Literal["exclusive", "share"] | int
    max_workers_per_gpu: int
    headroom: Fraction


@dataclass(frozen=True, slots=True)
class Exclude:
    """Which devices are never handed out. ``gpus`` holds UUIDs, ``index:N`` and ``name:GLOB``."""

    unhealthy: bool
    busy: bool
    busy_above_mib: int
    display: bool
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """What is written into the compose file. ``env`` and ``env_shared``: name and ``string.Template`` text."""

    device_ids: Literal["uuid", "index"]
    cuda_visible_devices: Literal["ordinal", "uuid", "none"]
    env: tuple[tuple[str, str], ...]
    env_shared: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """How to choose. ``roles`` maps globs on service names to asks, in the file's order.

    ``sha256`` covers what the policy says, not how its files are written. ``places`` says where each value stands, by
    its path: ``limit``, ``exclude.gpus[0]``, ``roles["trainer*"]``.
    """

    name: str
    description: str
    strategy: Strategy
    stability: Stability
    topology: Topology
    sharing: Sharing
    exclude: Exclude
    reserve: int
    limit: int | None
    write: Write
    ignore: tuple[str, ...]
    roles: tuple[tuple[str, Ask], ...]
    sha256: str
    places: tuple[tuple[str, Place], ...] = field(default=(), compare=False, repr=False)


# --------------------------------------------------------------------------------------------------------------------
# Plan

Action = Literal["pin", "keep", "move", "resize"]


@dataclass(frozen=True, slots=True)
class DeviceRef:
    """A device that was handed out: UUID of the GPU or MIG instance, and the GPU's NVML index on its host."""

    uuid: str
    index: int


@dataclass(frozen=True, slots=True)
class Placement:
    """The devices a worker got, in PCI order. ``memory_mib``: its share of each device, None when exclusive."""

    worker: str
    service: str
    replica: int
    host: str
    devices: tuple[DeviceRef, ...]
    memory_mib: int | None
    exclusive: bool
    action: Action
    previous: tuple[str, ...] | None
    reason: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why some devices could not take a worker; ``devices`` are UUIDs, empty where the reason is not a device's."""

    code: str
    devices: tuple[str, ...]
    detail: str


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A worker that does not fit, with every device's reason and the smallest change that would let it in."""

    worker: str
    reasons: tuple[Refusal, ...]
    hint: str


TierValue = int | float | tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Tier:
    """One level of the objective: its value, the proven bound (None: none), and whether the two meet."""

    name: str
    sense: Literal["min", "max"]
    value: TierValue
    bound: TierValue
    proven: bool


@dataclass(frozen=True, slots=True)
class PlanWarning:
    """Something worth knowing about a plan that is valid all the same."""

    code: str
    detail: str
    workers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Solution:
    """What the solver answers. ``reproducible`` is false only where a time limit cut the search."""

    placements: tuple[Placement, ...]
    unplaced: tuple[Unplaced, ...]
    objective: tuple[Tier, ...]
    warnings: tuple[PlanWarning, ...]
    reproducible: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one device was to a worker: chosen, open to it, or refused, with the filter's code and the numbers."""

    uuid: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Cost:
    """A tier whose value would have been another."""

    name: str
    sense: str
    value: TierValue
    instead: TierValue


@dataclass(frozen=True, slots=True)
class Alternative:
    """The best plan in which the worker has other devices (empty: it would have none), and what it would cost.

    ``costs`` are in the order of the tiers, so the first is what decided; none: the two are equally good, and the
    lower PCI bus ids were taken.
    """

    devices: tuple[str, ...]
    costs: tuple[Cost, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One worker's placement, None where it does not fit, with every device's verdict in PCI order."""

    worker: str
    placement: Placement | None
    verdicts: tuple[Verdict, ...]
    alternative: Alternative | None


@dataclass(frozen=True, slots=True)
class Capacity:
    """``more`` workers of a role fit beside all that are placed now, which may move.

    ``stops`` says what keeps one more out.
    """

    role: str
    placed: int
    more: int
    stops: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class ComposeInput:
    """A compose file that a plan rests on."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """What a plan was made from, so that a saved one can be checked before use.

    ``inventory`` names the sources as given to ``--inventory``, so that ``apply PLAN`` can read them again. ``scale``:
    the numbers of workers that ``--scale`` gave roles.
    """

    compose: tuple[ComposeInput, ...]
    inventory: tuple[str, ...]
    inventory_sha256: str
    policy: str
    policy_sha256: str
    profiles: tuple[str, ...] = ()
    scale: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A solution with what it was made from. ``changed``: applying it would change the file."""

    inputs: PlanInputs
    solution: Solution
    changed: bool

    @property
    def complete(self) -> bool:
        """Whether every worker was placed."""
        return not self.solution.unplaced
