"""Inventories for property tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from gpualloc.model import (
    ComputeMode,
    Container,
    Gpu,
    HealthIssue,
    Host,
    Inventory,
    Link,
    MigInstance,
    PcieLevel,
    Platform,
    Process,
)

if TYPE_CHECKING:
    from collections.abc import Callable

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
sizes = st.integers(1, 200_000)
counts = st.integers(0, 10**12)
levels: st.SearchStrategy[PcieLevel] = st.sampled_from(("PIX", "PXB", "PHB", "NODE", "SYS"))
modes: st.SearchStrategy[ComputeMode] = st.sampled_from(("default", "exclusive_process", "prohibited"))
platforms: st.SearchStrategy[Platform] = st.sampled_from(("linux", "wsl2"))
capabilities = st.sampled_from(("6.1", "7.0", "8.0", "8.9", "9.0", "12.0"))
affinities = st.sampled_from(("0-31", "0-55,112-167", "3", "0,2,4-6"))
containers = st.builds(Container, words, st.none() | words, st.none() | words)
processes = st.builds(Process, st.integers(1, 2**22), st.none() | counts, st.none() | containers, st.none() | counts)
issues = st.builds(HealthIssue, words, st.booleans(), st.text(max_size=8))


@st.composite
def mig_instances(draw: Callable[..., Any], uuid: str) -> tuple[MigInstance, ...] | None:
    if not draw(st.booleans()):
        return None
    return tuple(
        MigInstance(f"MIG-{uuid}-{i}", draw(st.integers(0, 13)), draw(st.integers(0, 6)), draw(words), draw(sizes))
        for i in range(draw(st.integers(0, 3)))
    )


@st.composite
def gpus(draw: Callable[..., Any], uuid: str, index: int) -> Gpu:
    total = draw(st.none() | sizes)
    return Gpu(
        uuid=f"GPU-{uuid}",
        index=index,
        name=draw(words),
        pci_bus_id=f"00000000:{index + 1:02X}:00.0",
        memory_total_mib=total,
        memory_reserved_mib=draw(st.none() | st.integers(0, total or 4096)),
        memory_used_mib=draw(st.none() | counts),
        compute_capability=draw(st.none() | capabilities),
        numa_node=draw(st.none() | st.integers(0, 7)),
        cpu_affinity=draw(st.none() | affinities),
        display_active=draw(st.none() | st.booleans()),
        compute_mode=draw(st.none() | modes),
        mig=draw(mig_instances(uuid)),
        health=tuple(draw(st.lists(issues, max_size=2))),
        processes=tuple(draw(st.lists(processes, max_size=2))),
    )


@st.composite
def hosts(draw: Callable[..., Any], number: int) -> Host:
    count = draw(st.integers(0, 4))
    order = draw(st.permutations(range(count)))
    found = [draw(gpus(f"{number}-{index}", index)) for index in order]
    pairs = [(a, b) for i, a in enumerate(found) for b in found[i + 1 :] if draw(st.booleans())]
    links = [Link(a.uuid, b.uuid, draw(st.none() | st.integers(0, 18)), draw(st.none() | levels)) for a, b in pairs]
    return Host(
        name=f"{draw(words)}-{number}",
        driver=draw(st.none() | words),
        cuda=draw(st.none() | words),
        gpus=tuple(found),
        links=tuple(links),
        platform=draw(platforms),
    )


@st.composite
def inventories(draw: Callable[..., Any]) -> Inventory:
    return Inventory(draw(words), tuple(draw(hosts(number)) for number in range(draw(st.integers(0, 2)))))
