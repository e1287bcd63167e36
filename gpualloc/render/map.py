"""The hosts as a map: each device a bar of its memory with its workers in it, those that belong together side by side.

It is the same text on every terminal of 80 columns or more and in a pipe; on narrower ones the bars are shorter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gpualloc.render.layout import (
    GAP,
    Column,
    Line,
    Span,
    Table,
    cell,
    cell_width,
    natural_widths,
    printable,
    render,
    width_of,
)
from gpualloc.render.places import hosts_concerned, places_after
from gpualloc.render.table import MARKS, plan_table
from gpualloc.render.words import UNKNOWN, counted, instance_label, memory, short_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gpualloc.model import Inventory, Plan
    from gpualloc.render.layout import Block, Cell, Style
    from gpualloc.render.places import Held, HostPlaces, Place
    from gpualloc.render.screen import Screen

COLUMNS = 80
"""The width that a map is made for where there is no terminal, or a wider one."""

WIDEST, NARROWEST = 34, 12
"""Columns of the bar of the largest device, with its ends."""

NOTES = 18
"""Columns that are left for what stands behind a bar."""

HOSTS_DRAWN = 4
"""So many hosts are drawn; of more, only how many there are."""

USED, HELD, FREE = "━", "▒", "·"
KEYS = "abcdefghijklmnopqrstuvwxyz"
"""Letters that stand for workers whose names are too long for their part of a bar."""


def plan_map(plan: Plan, inventory: Inventory, held: Mapping[str, Held], screen: Screen) -> str:
    """Return ``plan`` as text: the hosts with their workers in place, what changes, and a line to sum up.

    ``held`` is what others hold of the devices, by UUID. Workers that stay are in the map and the last line's count.
    """
    if not plan.solution.placements:
        return plan_table(plan, inventory, screen)
    drawn = render(list(_map(plan, inventory, held, screen)), screen)
    return f"{drawn}\n{plan_table(plan, inventory, screen, kept=False)}"


def _map(plan: Plan, inventory: Inventory, held: Mapping[str, Held], screen: Screen) -> Iterator[Block]:
    """Yield the hosts that workers are on or come from, up to ``HOSTS_DRAWN``."""
    used = hosts_concerned(plan, inventory)
    for number, host in enumerate(places_after(plan, used[:HOSTS_DRAWN], held)):
        if number:
            yield Line()
        yield from _host(host, screen)
    more, idle = len(used) - HOSTS_DRAWN, len(inventory.hosts) - len(used)
    rest = [f"{counted(more, 'host')} more with workers"] if more > 0 else []
    rest += [f"{counted(idle, 'host')} without{'' if rest else ' workers'}"] if idle else []
    if rest:
        yield Line()
        yield Line(cell(f"not drawn: {', '.join(rest)}", "dim"))


def _host(host: HostPlaces, screen: Screen) -> Iterator[Line]:
    yield host_title(host)
    yield from device_lines(host, screen, "taken")


def device_lines(host: HostPlaces, screen: Screen, used: str) -> Iterator[Line]:
    """Yield a head and a host's devices, a line each; what has no room behind a bar stands below it.

    ``used`` is the title of the column that says how much of a device is not free.
    """
    room = min(screen.width or COLUMNS, COLUMNS)
    columns, names = _names(host)
    taken = [cell(_taken(place)) for place in host.places]
    rows = Table(tuple(columns), tuple(map(tuple, names)))
    start = sum(width + GAP for width in natural_widths(rows))
    widest = min(max(room - start - max(map(cell_width, taken)) - NOTES - 2 * GAP, NARROWEST), WIDEST) - len("[]")
    largest = max(place.total_mib or 0 for place in host.places)
    sizes = [max(widest * p.total_mib // largest, 4) if p.total_mib else widest for p in host.places]
    bars = [_bar(place, size) for place, size in zip(host.places, sizes, strict=True)]
    full = [(*row, bar, amount) for row, (bar, _), amount in zip(rows.rows, bars, taken, strict=True)]
    head, *lines = _aligned(Table((*columns, Column("memory"), Column(used)), tuple(full)))
    yield Line(head[:-1])
    for line, place, (_, behind) in zip(lines, host.places, bars, strict=True):
        notes = _notes(place, behind)
        if not notes or cell_width(line) + GAP + cell_width(notes) <= room:
            yield Line((*line, Span(" " * GAP), *notes) if notes else line[:-1])
        else:
            yield Line(line[:-1])
            yield Line(notes, indent=start)


def _aligned(table: Table) -> list[Cell]:
    """Return the head and the rows of a table as single cells, each with the padding of its last column at the end."""
    widths = natural_widths(table)
    rows = [tuple(cell(column.title, "title") for column in table.columns), *table.rows]
    lines: list[Cell] = []
    for row in rows:
        spans: list[Span] = []
        for width, of in zip(widths, row, strict=True):
            spans += [Span(" " * GAP)] if spans else []
            spans += [*of, Span(" " * (width - cell_width(of)))]
        lines.append(tuple(spans))
    return lines


def _names(host: HostPlaces) -> tuple[list[Column], list[list[Cell]]]:
    """Return the columns that say which device a row is: its groups, its number, and its model where they differ."""
    columns = [Column(grouping.kind) for grouping in host.groupings]
    groups = [_groups(host, at) for at in range(len(columns))]
    rows = [list(row) for row in zip(*groups, strict=True)] if groups else [[] for _ in host.places]
    columns.append(Column("GPU"))
    several = len({_model(place) for place in host.places}) > 1 or any(place.instance for place in host.places)
    if several:
        columns.append(Column("model"))
    for row, place in zip(rows, host.places, strict=True):
        row += [cell(_number(place)), *([cell(_model(place))] if several else [])]
    return columns, rows


def host_title(host: HostPlaces) -> Line:
    """Return the line above a host's devices: its name, and what its GPUs have in common."""
    models = {short_name(gpu.name) for gpu in host.host.gpus}
    text = f": {counted(len(host.host.gpus), 'GPU')}"
    if len(models) == 1:
        text += f", {models.pop()}"
    if host.one_island:
        text += ", all joined by NVLink"
    return Line((*cell(host.host.name, "title"), *cell(text)))


def _groups(host: HostPlaces, at: int) -> list[Cell]:
    """Return a column that names the group of each device, once where it begins."""
    names = [tuple(g.of.get(place.gpu.uuid) for g in host.groupings[: at + 1]) for place in host.places]
    none = UNKNOWN if host.groupings[at].kind == "NUMA" else "-"
    return [
        cell("" if number and name[-1] is not None and names[number - 1] == name else name[-1] or none)
        for number, name in enumerate(names)
    ]


def _number(place: Place) -> str:
    return str(place.gpu.index) + (f" {instance_label(place.gpu, place.instance)}" if place.instance else "")


def _model(place: Place) -> str:
    return f"MIG {place.instance.profile}" if place.instance else short_name(place.gpu.name)


def _taken(place: Place) -> str:
    """Return how much of a device is given out or held: ``12 of 40 GiB``."""
    used, total = memory(place.used_mib), memory(place.total_mib)
    if place.used_mib == 0:
        return f"0 of {total}"
    return f"{used.removesuffix(' GiB') if total.endswith(' GiB') else used} of {total}"


# --------------------------------------------------------------------------------------------------------------------
# Bars


class _Part(NamedTuple):
    """A stretch of a bar: a worker's, or without a name what others hold."""

    name: str
    size: float
    style: Style


def _bar(place: Place, size: int) -> tuple[Cell, list[str]]:
    """Return a device as a bar of ``size`` columns between its ends, and the names that are not in it, with their keys.

    A worker whose name is too long for its part has a letter there; one alone in the bar needs none.
    """
    parts = [_Part("", place.held_part, "dim")] if place.held_part else []
    parts += [
        _Part(printable(stay.worker), stay.part, MARKS[stay.action].style if stay.action else "plain")
        for stay in place.stays
    ]
    widths = _columns([part.size for part in parts], size)
    free = size - sum(widths)
    behind: list[str] = []
    spans: list[Span] = []
    for number, part in enumerate(parts):
        width = widths[number] if number < len(widths) else 0
        inner = width if number == len(widths) - 1 and not free else max(width - 1, 0)
        if not part.name:
            text = HELD * inner
        elif width_of(part.name) <= inner:
            text = part.name + (" " + USED * inner)[: inner - width_of(part.name)]
        elif len(place.stays) == 1:
            behind.append(part.name)
            text = USED * inner
        else:
            key = KEYS[len(behind) % len(KEYS)]
            behind.append(f"{key} {part.name}")
            text = (key + USED * inner)[:inner]
        spans += [Span(text, part.style), Span("|" * (width - inner))]
    return (Span("["), *spans, Span(FREE * free, "dim"), Span("]")), behind


def _columns(parts: Sequence[float], size: int) -> list[int]:
    """Return how many columns each part of a bar gets: at least two, and none where there are too many for that."""
    least = 2
    widths = [max(round(part * size), least) for part in parts][: size // least]
    while sum(widths) > size:
        widths[widths.index(max(widths))] -= 1
    if widths and sum(parts) > 1 - 1e-9:
        widths[-1] += size - sum(widths)
    return widths


def _notes(place: Place, behind: Sequence[str]) -> Cell:
    """Return what stands behind a bar: the names that are not in it, who else holds the device, what is wrong."""
    notes = [cell(name) for name in behind]
    if place.held.left_out:
        notes.append(cell(f"{HELD} left out", "warn"))
    elif place.held.mib or place.held.holders:
        notes.append(cell(f"{HELD} {', '.join(place.held.holders) or 'others'}", "warn"))
    notes += [cell(issue.code, "bad") for issue in place.gpu.health if issue.fatal]
    return tuple(span for number, note in enumerate(notes) for span in ([Span(", "), *note] if number else note))
