"""The GPUs of each host for people: a map with what holds them, their ids and state, and how they are linked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.render.holders import holder_name, places_now
from gpualloc.render.layout import GAP, Column, Line, Span, Table, cell, cell_width, render
from gpualloc.render.map import device_lines, host_title
from gpualloc.render.words import UNKNOWN, instance_label, memory, short_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gpualloc.model import ComputeMode, Gpu, Host, Inventory, Link, Process
    from gpualloc.render.layout import Block, Cell
    from gpualloc.render.screen import Screen

COMPUTE_MODES: dict[ComputeMode, str] = {
    "exclusive_process": "one process",
    "prohibited": "prohibited",
}

LEGEND = {
    "NV": "NV# is a bond of # NVLinks",
    "PIX": "PIX one PCIe switch",
    "PXB": "PXB several PCIe switches",
    "PHB": "PHB the PCIe host bridge of a CPU",
    "NODE": "NODE host bridges of one NUMA node",
    "SYS": "SYS from one NUMA node to another",
    UNKNOWN: f"{UNKNOWN} not known",
    "NVLINK?": f"with {UNKNOWN} unless by NVLink",
}
"""What a path crosses, named as ``nvidia-smi topo -m`` does, closest first."""

MAIN_DOMAIN = "00000000:"
"""What PCI bus ids of most machines begin with; ``lspci`` leaves it out, too."""


def inventory_text(inventory: Inventory, screen: Screen) -> str:
    """Return ``inventory`` as text for ``screen``, host by host. A fact that could not be had is shown as ``?``."""
    blocks: list[Block] = []
    for host in inventory.hosts:
        for part in _parts(host, screen):
            blocks += [Line(), *part] if blocks else part
    return render(blocks or [Line(cell("No hosts."))], screen)


def _parts(host: Host, screen: Screen) -> Iterator[list[Block]]:
    places = places_now(host)
    facts = [f"driver {host.driver or UNKNOWN}", f"CUDA {host.cuda or UNKNOWN}"]
    facts += ["WSL2"] if host.platform == "wsl2" else []
    if len({gpu.name for gpu in host.gpus}) > 1:  # the map has the profiles of these
        facts += [f"MIG on GPU {gpu.index} ({short_name(gpu.name)})" for gpu in host.gpus if gpu.mig is not None]
    about: list[Block] = [host_title(places), Line(cell(", ".join(facts)))]
    if not host.gpus:
        yield about
        return
    yield [*about, *device_lines(places, screen, "used")]
    yield [_ids(host.gpus), *_health(host.gpus)]
    yield [_processes(host.gpus)]
    if len(host.gpus) > 1:
        yield from _links(host, screen)


def _state(gpu: Gpu) -> Cell:
    """Return what is special about a GPU; ``ok`` where nothing is. What is wrong with it is told below the table."""
    marks = []
    if gpu.health:
        fatal = any(issue.fatal for issue in gpu.health)
        marks.append(cell("unfit", "bad") if fatal else cell("degraded", "warn"))
    if gpu.mig is not None:
        marks.append(cell("MIG", "change"))
    if gpu.display_active:
        marks.append(cell("display", "change"))
    if gpu.compute_mode in COMPUTE_MODES:
        marks.append(cell(COMPUTE_MODES[gpu.compute_mode], "warn"))
    if not marks:
        return cell("ok", "good")
    first, *rest = marks
    return (*first, *(span for mark in rest for span in (Span(", "), *mark)))


def _health(gpus: Sequence[Gpu]) -> Iterator[Line]:
    for gpu in gpus:
        for issue in gpu.health:
            lead = f"GPU {gpu.index} {'is unfit' if issue.fatal else 'is degraded'}: "
            text = f"{issue.detail} ({issue.code})" if issue.detail else issue.code
            yield Line(cell(text), cell(lead, "bad" if issue.fatal else "warn"))


def _ids(gpus: Sequence[Gpu]) -> Table:
    """Return the ids by which a file can name each device, with what there is to say of it besides."""
    titles = ("GPU", "uuid", "PCI", "CC", "state")
    columns = tuple(Column(title, whole=title in {"GPU", "uuid"}) for title in titles)
    rows: list[tuple[Cell, ...]] = []
    for gpu in gpus:
        facts = (cell(gpu.pci_bus_id.removeprefix(MAIN_DOMAIN)), cell(gpu.compute_capability or UNKNOWN), _state(gpu))
        rows.append((cell(str(gpu.index)), cell(gpu.uuid), *facts))
        for instance in gpu.mig or ():
            name = f"{gpu.index} {instance_label(gpu, instance)}"
            rows.append((cell(name), cell(instance.uuid), (), (), ()))
    return Table(columns, tuple(rows))


def _processes(gpus: Sequence[Gpu]) -> Block:
    rows = tuple(_process(gpu, process) for gpu in gpus for process in gpu.processes)
    if not rows:
        return Line(cell("No process holds any of them."))
    return Table((Column("GPU"), Column("held by"), Column("pid", right=True), Column("memory", right=True)), rows)


def _process(gpu: Gpu, process: Process) -> tuple[Cell, ...]:
    where = str(gpu.index) if process.gi is None else f"{gpu.index} gi {process.gi}"
    holder = "a process in no known container" if process.container is None else holder_name(process.container)
    return (cell(where), cell(holder), cell(str(process.pid)), cell(memory(process.used_mib)))


# --------------------------------------------------------------------------------------------------------------------
# Links


def _links(host: Host, screen: Screen) -> Iterator[list[Block]]:
    """Yield the link matrix: in one piece where it fits ``screen``, else in as few as it takes, about equally wide."""
    gpus = host.gpus
    pairs = {frozenset((link.a, link.b)): link for link in host.links}
    levels = {level for a in gpus for b in gpus if a != b for level in [_level(pairs, a, b)]}
    first = max(cell_width(cell(f"GPU {gpu.index}")) for gpu in gpus)
    widest = max(len(level) for level in levels)
    most = len(gpus) if screen.width is None else max((screen.width - first) // (widest + GAP), 1)
    pieces = -(-len(gpus) // most)
    size = -(-len(gpus) // pieces)
    for start in range(0, len(gpus), size):
        part: list[Block] = [_matrix(gpus, gpus[start : start + size], pairs)]
        yield [*part, _legend(levels)] if start + size >= len(gpus) else part


def _matrix(gpus: Sequence[Gpu], across: Sequence[Gpu], pairs: Mapping[frozenset[str], Link]) -> Table:
    columns = (Column("link"), *(Column(str(gpu.index)) for gpu in across))
    rows = tuple(
        (
            cell(f"GPU {gpu.index}", "title"),
            *(cell("X", "dim") if gpu == other else _link(_level(pairs, gpu, other)) for other in across),
        )
        for gpu in gpus
    )
    return Table(columns, rows)


def _level(pairs: Mapping[frozenset[str], Link], a: Gpu, b: Gpu) -> str:
    """Return how two GPUs are joined. Where the number of NVLinks is unknown, so is whether PCIe is all there is."""
    link = pairs.get(frozenset((a.uuid, b.uuid)))
    if link is None or link.nvlink is None:
        return f"{(link.pcie if link else None) or ''}{UNKNOWN}"
    if link.nvlink:
        return f"NV{link.nvlink}"
    return link.pcie or UNKNOWN


def _link(level: str) -> Cell:
    if level.endswith(UNKNOWN):
        return cell(level, "warn")
    return cell(level, "good" if level.startswith("NV") else "dim" if level == "SYS" else "plain")


def _legend(levels: set[str]) -> Line:
    words = {"NV" if level.startswith("NV") else level.rstrip(UNKNOWN) or UNKNOWN for level in levels}
    if any(level != UNKNOWN and level.endswith(UNKNOWN) for level in levels):
        words.add("NVLINK?")
    return Line(cell(" · ".join(text for word, text in LEGEND.items() if word in words), "dim"))
