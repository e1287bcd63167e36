"""A host as SVG: a card for each device with its workers in a bar, boxes for what belongs together, arcs for links.

Lengths are in SVG user units, pixels at full size. Text is monospaced, so that how wide it is can be told beforehand;
what does not fit its place is put on a line of its own, and cut there, whole in the label that is shown and read out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations, groupby
from typing import TYPE_CHECKING, Literal, NamedTuple

from gpualloc.render.layout import printable, width_of
from gpualloc.render.places import islands
from gpualloc.render.report.markup import escaped
from gpualloc.render.table import MARKS
from gpualloc.render.words import counted, instance_label, memory, ranges, short_name, short_uuid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gpualloc.model import Gpu, Host, Link
    from gpualloc.render.places import HostPlaces, Place, Stay

CHAR = 7.4
"""The width of a character of 12 px: 0.6 em in most monospaced fonts, and a little more to be safe."""

CARD, PAD, GAP = 400.0, 10.0, 8.0
"""The width of a card, the space inside of cards and boxes, and the space between two of them."""

HEAD, BAR, LINE = 26.0, 24.0, 18.0
"""The heights of a title, of a bar, and of a line of text below it."""

REACH = 120.0
"""How far the widest arc goes out from the cards."""

Group = tuple[str, str, str]
"""A group's kind, its name among those of its kind, and its title."""


@dataclass(frozen=True, slots=True)
class Pane:
    """Which of the two drawings of a host one is. ``key`` makes the ids in it unique on the page."""

    when: Literal["before", "after"]
    key: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A finished drawing, with how many lines of text each device has below its bar, by UUID."""

    svg: str
    lines: Mapping[str, int]


@dataclass(slots=True)
class _Canvas:
    """What is drawn so far, down to ``y``; ``anchors`` are the middles of each GPU's cards, by UUID."""

    pane: Pane
    colours: Mapping[str, int]
    depth: int
    largest: int
    host: HostPlaces
    room: Mapping[str, int]
    y: float = 1.0
    lines: dict[str, int] = field(default_factory=dict)
    shapes: list[str] = field(default_factory=list)
    anchors: dict[str, list[float]] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Where cards begin."""
        return 1 + self.depth * PAD


def draw(host: HostPlaces, pane: Pane, colours: Mapping[str, int], room: Mapping[str, int] | None = None) -> Drawing:
    """Return a host's drawing. ``colours`` numbers the colour of each service.

    ``room`` says for how many lines below its bar a device has room at least: so two drawings have it in one place.
    """
    paths = [_path(host, place) for place in host.places]
    largest = max((place.total_mib or 0 for place in host.places), default=0)
    canvas = _Canvas(pane, colours, max(map(len, paths), default=0), largest, host, room or {})
    _level(canvas, list(zip(paths, host.places, strict=True)), 0)
    for name, workers in host.gone:
        _gone(canvas, name, workers)
    edge = canvas.left * 2 + CARD - 1
    links = list(_links(canvas, edge))
    width, height = edge + (REACH if links else 1), canvas.y - GAP + 1
    title = f"{host.host.name}, {'now' if pane.when == 'before' else 'as planned'}"
    return Drawing(
        f'<svg viewBox="0 0 {width:g} {height:g}" role="group" aria-labelledby="{pane.key}" '
        f'xmlns="http://www.w3.org/2000/svg"><title id="{pane.key}">{escaped(title)}</title>\n'
        + "\n".join([*links, *canvas.shapes])
        + "\n</svg>",
        canvas.lines,
    )


def _path(host: HostPlaces, place: Place) -> tuple[Group, ...]:
    """Return the groups that a device is in, the widest first; a MIG instance is in its GPU as well."""
    names = {"island": "NVLink island", "NUMA": "NUMA node", "switch": "PCIe switch"}
    groups: list[Group] = []
    for grouping in host.groupings:
        name = grouping.of.get(place.gpu.uuid)
        if name is not None:
            groups.append((grouping.kind, name, f"{names[grouping.kind]} {name}"))
    if place.instance:
        groups.append(("gpu", place.gpu.uuid, f"GPU {place.gpu.index}  {short_name(place.gpu.name)}"))
    return tuple(groups)


def _level(canvas: _Canvas, devices: Sequence[tuple[tuple[Group, ...], Place]], depth: int) -> None:
    """Draw devices one below the other, those of one group at ``depth`` in a box."""

    def group_of(device: tuple[tuple[Group, ...], Place]) -> Group | None:
        return device[0][depth] if len(device[0]) > depth else None

    for group, run in groupby(devices, key=group_of):
        if group is None:
            for _, place in run:
                _card(canvas, place)
            continue
        kind, _, title = group
        top, x = canvas.y, 1 + depth * PAD
        at = len(canvas.shapes)
        canvas.y += HEAD - 2
        _level(canvas, list(run), depth + 1)
        canvas.y += PAD - GAP
        width = CARD + 2 * (canvas.depth - depth) * PAD
        text = _text(x + PAD, top + 17, title, CARD, "quiet")
        box = _rect(x, top, width, canvas.y - top, f"group {kind}", round_=6)
        canvas.shapes.insert(at, box + text)
        canvas.y += GAP


# --------------------------------------------------------------------------------------------------------------------
# Devices


class _Piece(NamedTuple):
    """A part of a bar: its fraction, its style, the text in or below it, and what is told of it."""

    part: float
    style: str
    text: str
    told: str


def _card(canvas: _Canvas, place: Place) -> None:
    x, top = canvas.left, canvas.y
    whole = CARD - 2 * PAD
    bar = max(whole * place.total_mib / canvas.largest, 48.0) if place.total_mib and canvas.largest else whole
    pieces = [*_held(place), *(_piece(canvas, place, stay) for stay in place.stays)]
    unfit = [f"unfit: {issue.code}" for issue in place.gpu.health if issue.fatal]
    shapes: list[str] = []
    below = top + HEAD + BAR
    at = x + PAD
    for piece, width in zip(pieces, _widths([piece.part for piece in pieces], bar), strict=True):
        shape = _rect(at, top + HEAD, width, BAR, f"{piece.style} edge")
        if piece.style != "held" and _fits(piece.text, width - 12):  # on hatching no text is legible
            shape += _text(at + 6, top + HEAD + 16, piece.text, width - 12, "ink")
        else:
            shape += _rect(x + PAD, below + 5, 10, 10, piece.style)
            shape += _text(x + PAD + 16, below + 14, piece.text, whole - 16)
            below += LINE
        shapes.append(_told(piece.told, shape))
        at += width
    for text in unfit:
        shapes.append(_text(x + PAD, below + 14, text, whole, "bad"))
        below += LINE
    lines = canvas.lines[place.uuid] = round((below - top - HEAD - BAR) / LINE)
    bottom = below + LINE * max(canvas.room.get(place.uuid, 0) - lines, 0) + PAD
    used = f"{'0' if place.used_mib == 0 else memory(place.used_mib)} of {memory(place.total_mib)}"
    room = whole - (width_of(used) + 2) * CHAR
    head = (
        _rect(x, top, CARD, bottom - top, "card edge", round_=4)
        + _text(x + PAD, top + 17, _title(place), room)
        + _text(x + CARD - PAD, top + 17, used, whole, "quiet", end=True)
        + _rect(x + PAD, top + HEAD, bar, BAR, "bar")
    )
    canvas.shapes += [_told(_facts(canvas.host.host, place), head), *shapes]
    canvas.anchors.setdefault(place.gpu.uuid, []).append(top + HEAD + BAR / 2)
    canvas.y = bottom + GAP


def _gone(canvas: _Canvas, name: str, workers: Sequence[str]) -> None:
    """Draw a device that the host no longer has, with the workers that had it."""
    x, top = canvas.left, canvas.y
    said = f"{short_uuid(name)}, gone"
    card = _rect(x, top, CARD, HEAD + LINE * len(workers) + PAD / 2, "card edge", round_=4)
    lines = "".join(
        _text(x + PAD, top + HEAD + 10 + LINE * n, worker, CARD - 2 * PAD) for n, worker in enumerate(workers)
    )
    told = f"{name}: no device of this host has this id now. It was given to {', '.join(workers)}"
    canvas.shapes.append(
        f'<g class="gone">{_told(told, card + _text(x + PAD, top + 17, said, CARD - 2 * PAD, "bad") + lines)}</g>'
    )
    canvas.y += HEAD + LINE * len(workers) + PAD / 2 + GAP


def _held(place: Place) -> Iterator[_Piece]:
    if place.held.left_out:
        yield _Piece(place.held_part, "held", "left out", f"{_name(place)}: this plan does without it")
    elif place.held.mib or place.held.holders:
        who = ", ".join(place.held.holders) or "others"
        said = f"held by {who}: {memory(place.held.mib)}"
        yield _Piece(place.held_part, "held", f"{who} {memory(place.held.mib)}", f"{_name(place)}: {said}")


def _piece(canvas: _Canvas, place: Place, stay: Stay) -> _Piece:
    size = "all of it" if stay.exclusive else "a share" if stay.mib is None else memory(stay.mib)
    told = f"{stay.worker} on {_name(place)}: {size}"
    text = stay.worker
    if stay.action is None:
        told = f"{stay.worker} had {_name(place)} · does not fit any more"
    elif canvas.pane.when == "after":
        mark = MARKS[stay.action]
        text = f"{mark.sign} {stay.worker}"
        told += f" · {mark.done}" + (f" · {stay.reason}" if stay.reason else "")
    else:
        told = f"{stay.worker} had {_name(place)}"
        if stay.action != "keep":
            told += f" · will be {MARKS[stay.action].done}" + (f" · {stay.reason}" if stay.reason else "")
    return _Piece(stay.part, f"work c{canvas.colours.get(stay.service, 0)}", text, told)


def _widths(parts: Sequence[float], bar: float) -> list[float]:
    """Return the widths of a bar's parts: wide enough to be seen and pointed at, as far as the bar has room."""
    least = min(6.0, bar / max(len(parts), 1))
    widths = [max(part * bar, least) for part in parts]
    over = sum(widths) - bar
    if over <= 0:
        return widths
    spare = sum(width - least for width in widths)
    return [width - over * (width - least) / spare if spare else width for width in widths]


def _name(place: Place) -> str:
    return f"GPU {place.gpu.index}" + (f" {instance_label(place.gpu, place.instance)}" if place.instance else "")


def _title(place: Place) -> str:
    if place.instance:
        return f"{instance_label(place.gpu, place.instance)}  MIG {place.instance.profile}"
    return f"{_name(place)}  {short_name(place.gpu.name)}"


def _facts(host: Host, place: Place) -> str:
    """Return what is told of a device: its name and memory, where it is, its links, what is wrong with it."""
    gpu = place.gpu
    facts = [f"{_name(place)}: {place.instance.profile if place.instance else gpu.name}"]
    facts.append(f"{memory(place.total_mib)} of memory")
    facts.append(place.uuid)
    facts.append(f"PCI {gpu.pci_bus_id}")
    facts += [f"NUMA node {gpu.numa_node}"] if gpu.numa_node is not None else []
    facts += ["drives a display"] if gpu.display_active else []
    facts += _link_facts(host, gpu)
    facts += [f"{issue.code}: {issue.detail}" if issue.detail else issue.code for issue in gpu.health]
    facts.append(f"{counted(len(place.stays), 'worker')}" if place.stays else "free")
    return " · ".join(facts)


# --------------------------------------------------------------------------------------------------------------------
# Links

NEAR = ("PIX", "PXB", "PHB", "NODE")
"""The PCIe paths that are drawn where there is no NVLink: all but those from one NUMA node to another."""


RAIL = 4
"""So many GPUs that are all joined alike have one rail instead of arcs."""


def _link_facts(host: Host, gpu: Gpu) -> list[str]:
    """Return a GPU's links as ``nvidia-smi topo -m`` names them, those of one kind together."""
    index = {other.uuid: other.index for other in host.gpus}
    found: dict[str, list[int]] = {}
    for link in host.links:
        if gpu.uuid in {link.a, link.b}:
            other = link.b if link.a == gpu.uuid else link.a
            kind = f"NV{link.nvlink}" if link.nvlink else link.pcie or ""
            if kind and other in index:
                found.setdefault(kind, []).append(index[other])
    return [f"{kind} to GPU {ranges(others)}" for kind, others in sorted(found.items())]


def link_words(host: Host) -> str:
    """Return what the lines beside a host's drawing mean; empty where there are none."""
    rails = _switched(host)
    words = []
    if rails:
        words.append("A bar at the side joins GPUs of which NVLink joins every pair alike.")
    if any(link.nvlink and not _within(link, rails) for link in host.links):
        words.append("Solid arcs are NVLink, the more links the wider.")
    if any(not link.nvlink and link.pcie in NEAR for link in host.links):
        words.append("Dashed arcs are PCIe within a NUMA node.")
    return " ".join(words)


def _switched(host: Host) -> list[frozenset[str]]:
    """Return the islands, of ``RAIL`` GPUs or more, in which every pair has equally many NVLinks, as by an NVSwitch."""
    counts = {frozenset((link.a, link.b)): link.nvlink for link in host.links if link.nvlink}

    def alike(island: Sequence[Gpu]) -> bool:
        return len({counts.get(frozenset((a.uuid, b.uuid))) for a, b in combinations(island, 2)}) == 1

    return [frozenset(gpu.uuid for gpu in island) for island in islands(host) if len(island) >= RAIL and alike(island)]


def _within(link: Link, rails: Sequence[frozenset[str]]) -> bool:
    return bool(link.nvlink) and any({link.a, link.b} <= rail for rail in rails)


def _links(canvas: _Canvas, edge: float) -> Iterator[str]:
    """Yield what joins GPUs: a rail for those that are all joined alike, else an arc for each pair.

    Pairs that only a path between NUMA nodes joins have none. What the lines say, the cards say in words.
    """
    where = {uuid: sum(ys) / len(ys) for uuid, ys in canvas.anchors.items()}
    host, start = canvas.host.host, canvas.left + CARD
    most = max((link.nvlink or 0 for link in host.links), default=0)
    rails = _switched(host)
    for number, rail in enumerate(rails):
        ys = sorted(where[uuid] for uuid in rail)
        x = edge + 20 + 14 * (number % 5)
        stubs = "".join(f"M{start:g} {y:.1f}H{x:g}" for y in ys)
        yield f'<path class="link nv w3" aria-hidden="true" d="{stubs}"/>'
        yield f'<path class="link nv rail" aria-hidden="true" d="M{x:g} {ys[0]:.1f}V{ys[-1]:.1f}"/>'
    for link in host.links:
        style = _link_style(link, most)
        if style is None or _within(link, rails) or link.a not in where or link.b not in where:
            continue
        first, last = sorted((where[link.a], where[link.b]))
        # the control points of a cubic curve: it goes out to three quarters of their distance
        out = edge + (24 + (REACH - 32) * (last - first) / max(canvas.y, 1)) / 0.75
        yield (
            f'<path class="link {style}" aria-hidden="true" '
            f'd="M{start:g} {first:.1f}C{out:.1f} {first:.1f} {out:.1f} {last:.1f} {start:g} {last:.1f}"/>'
        )


def _link_style(link: Link, most: int) -> str | None:
    if link.nvlink:
        return f"nv w{1 + 2 * (link.nvlink - 1) // (most - 1)}" if most > 1 else "nv w1"
    return "pcie" if link.pcie in NEAR else None


# --------------------------------------------------------------------------------------------------------------------
# Shapes


def _told(label: str, shapes: str) -> str:
    """Return shapes that can be pointed at and focused, with what is told of them then."""
    return f'<g tabindex="0" role="img" aria-label="{escaped(label)}">{shapes}</g>'


def _rect(x: float, y: float, width: float, height: float, cls: str, round_: float = 2) -> str:
    return f'<rect class="{cls}" x="{x:g}" y="{y:g}" width="{max(width, 0):.2f}" height="{height:g}" rx="{round_:g}"/>'


def _fits(text: str, room: float) -> bool:
    return width_of(printable(text)) * CHAR <= room


def _text(x: float, y: float, text: str, room: float, cls: str = "", *, end: bool = False) -> str:
    """Return a line of text that begins, or with ``end`` ends, at ``x``; cut where it is wider than ``room``."""
    text = printable(text)
    if not _fits(text, room):
        while text and not _fits(text + "…", room):
            text = text[:-1]
        text += "…"
    attributes = (f' class="{cls}"' if cls else "") + (' text-anchor="end"' if end else "")
    return f'<text x="{x:g}" y="{y:g}"{attributes} xml:space="preserve">{escaped(text)}</text>'
