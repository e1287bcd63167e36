"""Reads what ``nvidia-smi topo -m`` prints: how GPUs are joined, and which CPUs and NUMA node are near each.

As printed to a terminal (underlined header), to a file, or pasted with its tabs turned into spaces; the legend and
the rows of network cards are passed over. What ``nvidia-smi -L`` prints may stand in the same text: it alone names
MIG instances.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from gpualloc.errors import GpuallocError, Place, fail
from gpualloc.inventory.snapshot import CPU_LIST
from gpualloc.model import PcieLevel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ANSI = re.compile(r"\x1b?\[[0-9;]*m")
"""A terminal's colours and underlining; some editors drop the escape character and keep the rest."""
_GPU = re.compile(r"GPU(\d{1,6})")
_NVLINK = re.compile(r"NV(\d{1,6})")
_NODE = re.compile(r"\d{1,6}")
_LEVELS: dict[str, PcieLevel] = {level: level for level in get_args(PcieLevel)}
_ALIASES: dict[str, PcieLevel] = {"SOC": "SYS"}
"""The word before driver 375."""
_SELF = "X"
_UNKNOWN = ("N/A", "?", "DIS")

_LISTED_GPU = re.compile(r"\s*GPU (\d{1,6}):.*\(UUID: (GPU-[\w-]+)\)")
_LISTED_MIG = re.compile(r"\s*MIG (\S+)\s+Device\s+(\d{1,6}):\s*\(UUID: (MIG-[\w/-]+)\)")

_HINT = "give what `nvidia-smi topo -m` prints, from its header line to its last row"


@dataclass(frozen=True, slots=True)
class Row:
    """What a row tells of a GPU: its cells (NVLinks and PCIe level) by the other GPU's index, and what is near it."""

    cells: dict[int, tuple[int | None, PcieLevel | None]]
    cpu_affinity: str | None
    numa_node: int | None


@dataclass(frozen=True, slots=True)
class Instance:
    """A MIG instance as ``nvidia-smi -L`` lists it; ``position`` counts on its GPU."""

    position: int
    profile: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Topology:
    """What the text holds: rows by GPU index (none without a matrix), MIG instances by UUID of their GPU."""

    rows: dict[int, Row]
    instances: dict[str, tuple[Instance, ...]]


def parse(text: str, file: str) -> Topology:
    """Read the text. Raises ``GpuallocError`` (``inventory-topo``) with the line that cannot be understood."""
    lines = [_ANSI.sub("", line) for line in text.splitlines()]
    rows = _matrix(lines, file)
    instances = _listed(lines)
    if not rows and instances is None:
        raise _broken("neither a matrix of `nvidia-smi topo -m` nor a list of `nvidia-smi -L`", file, None)
    return Topology(rows, instances or {})


def joined(topology: Topology, a: int, b: int) -> tuple[int | None, PcieLevel | None]:
    """Return NVLinks and PCIe level between two GPUs: where the two rows differ, the lesser of what they say.

    The matrix names the PCIe level only where there is no NVLink.
    """
    ab, ba = topology.rows[a].cells[b], topology.rows[b].cells[a]
    if ab == ba:
        return ab
    if ab[0] is None or ba[0] is None:
        return None, None
    if ab[0] and ba[0]:
        return min(ab[0], ba[0]), None
    levels = [level for _, level in (ab, ba) if level is not None]
    return 0, max(levels, key=list(_LEVELS).index)


def _broken(summary: str, file: str, line: int | None) -> GpuallocError:
    return fail("inventory-topo", summary, Place(file, line), _HINT)


def _matrix(lines: Sequence[str], file: str) -> dict[int, Row]:
    columns: list[str] | None = None
    rows: dict[int, Row] = {}
    last = 0
    for number, line in enumerate(lines, 1):
        words = line.split()
        label = _GPU.fullmatch(words[0]) if words else None
        if label is None:
            continue
        if columns is None or not _is_row(words):
            if _is_row(words) or columns is not None:
                raise _broken(f"not a row of the matrix: {line.strip()!r}", file, number)
            columns = words[: words.index("CPU")] if "CPU" in words else words
            last = number
            continue
        index = int(label[1])
        if index in rows:
            raise _broken(f"a second row for GPU{index}", file, number)
        if label[0] not in columns:
            raise _broken(f"there is a row for {label[0]} but no column", file, number)
        rows[index] = _row(index, words[1:], columns, file, number)
        last = number
    for column in columns or ():
        label = _GPU.fullmatch(column)
        if label is not None and int(label[1]) not in rows:
            raise _broken(f"there is a column for {column} but no row", file, last)
    return rows


def _is_row(words: Sequence[str]) -> bool:
    """Tell a row from the header, whose second word is the next GPU, a network card, or ``CPU Affinity``."""
    return len(words) > 1 and _understood(words[1])


def _understood(cell: str) -> bool:
    return cell in (_SELF, *_UNKNOWN, *_LEVELS, *_ALIASES) or _NVLINK.fullmatch(cell) is not None


def _row(index: int, words: Sequence[str], columns: Sequence[str], file: str, line: int) -> Row:
    if len(words) < len(columns):
        raise _broken(f"the row of GPU{index} has {len(words)} of {len(columns)} columns", file, line)
    cells: dict[int, tuple[int | None, PcieLevel | None]] = {}
    for column, cell in zip(columns, words, strict=False):
        label = _GPU.fullmatch(column)
        if label is None:
            continue
        other = int(label[1])
        if (cell == _SELF) != (other == index) or not _understood(cell):
            raise _broken(f"GPU{index} and {column} joined by {cell!r}: no such connection", file, line)
        if other != index:
            cells[other] = _cell(cell)
    cpus, node = _near(words[len(columns) :])
    return Row(cells, cpus, node)


def _cell(cell: str) -> tuple[int | None, PcieLevel | None]:
    if cell in _UNKNOWN:
        return None, None
    nvlink = _NVLINK.fullmatch(cell)
    if nvlink is not None:
        return int(nvlink[1]), None
    return 0, _ALIASES.get(cell) or _LEVELS[cell]


def _near(words: Sequence[str]) -> tuple[str | None, int | None]:
    """Return CPU and NUMA affinity, the columns after the cells; a GPU near several nodes has none of its own."""
    cpus = words[0] if words and CPU_LIST.fullmatch(words[0]) else None
    node = int(words[1]) if len(words) > 1 and _NODE.fullmatch(words[1]) else None
    return cpus, node


def _listed(lines: Sequence[str]) -> dict[str, tuple[Instance, ...]] | None:
    """Return the MIG instances that ``nvidia-smi -L`` lists; None where there is no such list."""
    found = dict(_by_gpu(lines))
    return {uuid: tuple(instances) for uuid, instances in found.items()} if found else None


def _by_gpu(lines: Sequence[str]) -> Iterator[tuple[str, list[Instance]]]:
    instances: list[Instance] | None = None
    for line in lines:
        gpu, mig = _LISTED_GPU.match(line), _LISTED_MIG.match(line)
        if gpu is not None:
            instances = []
            yield gpu[2], instances
        elif mig is not None and instances is not None:
            instances.append(Instance(int(mig[2]), mig[1], mig[3]))
