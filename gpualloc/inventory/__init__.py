"""The inventory: which GPUs there are, what holds them, and how they are linked.

A source is ``nvml`` (this host's driver), ``sim:NAME`` (a machine that comes with gpualloc), ``ssh://user@host``
(another host, asked of its own gpualloc), a file: a snapshot, or what ``nvidia-smi -q -x`` printed, or a folder of such
files. Each kind of source is one module here and one line in ``_read``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpualloc.errors import Diagnostic, Place, fail
from gpualloc.inventory.digest import digest
from gpualloc.model import Inventory, Reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["digest", "load", "shipped"]

_SIMULATED = "sim:"
_SSH = "ssh://"
_NVML = "nvml"
_ONCE = "give each host once"


def load(sources: Sequence[str], topo: Path | None = None, *, skip_unreachable: bool = False) -> Reading:
    """Read the inventory from one source or several; from this host's driver where none is given.

    Hosts that are asked through ssh answer at the same time. ``skip_unreachable``: one that cannot be reached is left
    out with a warning, instead of being an error; the others must then hold a host.

    ``topo`` is a file with what ``nvidia-smi topo -m`` printed (``nvidia-smi -L`` may stand in it too), for the one
    source that is nvidia-smi's XML. Raises ``GpuallocError`` where a source cannot be read, where two sources name the
    same host or UUID, and where ``topo`` has no source to go with.
    """
    sources = _unfolded(sources) or (_NVML,)
    texts = _texts(sources)
    if topo is not None:
        _check_topo(topo, texts)
    remote = _remote(sources, skip_unreachable=skip_unreachable)
    answers = [(source, remote.get(source) or _read(source, texts, topo)) for source in sources]
    left_out = tuple(answer for _, answer in answers if isinstance(answer, Diagnostic))
    named = [(source, answer) for source, answer in answers if isinstance(answer, Reading)]
    readings = [reading for _, reading in named]
    _no_two(named)
    kinds = sorted({kind for reading in readings for kind in reading.inventory.source.split("+")})
    hosts = tuple(host for reading in readings for host in reading.inventory.hosts)
    warnings = tuple(warning for reading in readings for warning in reading.warnings)
    return Reading(Inventory("+".join(kinds), hosts), (*left_out, *warnings))


def shipped() -> tuple[str, ...]:
    """Name the machines that ``sim:NAME`` knows, sorted."""
    from gpualloc.inventory import simulated  # noqa: PLC0415 - the usual source is the driver

    return simulated.names()


def _unfolded(sources: Sequence[str]) -> tuple[str, ...]:
    """Put the files of a folder in its place."""
    if all(source == _NVML or source.startswith((_SIMULATED, _SSH)) for source in sources):
        return tuple(sources)
    from gpualloc.inventory import files  # noqa: PLC0415 - the usual source is the driver

    return tuple(name for source in sources for name in files.inside(source))


def _remote(sources: Sequence[str], *, skip_unreachable: bool) -> dict[str, Reading | Diagnostic]:
    """Ask the hosts that ``ssh://`` names. Raises GpuallocError (``inventory-duplicate``) for one named twice."""
    named = [source for source in sources if source.startswith(_SSH)]
    if not named:
        return {}
    twice = next((source for n, source in enumerate(named) if source in named[:n]), None)
    if twice is not None:
        raise fail("inventory-duplicate", "this host is given twice", Place(twice), _ONCE)
    from gpualloc.inventory import remote  # noqa: PLC0415 - the usual source is the driver

    alone = len(named) == len(sources)
    return remote.read_all(named, skip_unreachable=skip_unreachable, alone=alone)


def _texts(sources: Sequence[str]) -> dict[str, str]:
    """Read the sources that are files."""
    names = [source for source in sources if source != _NVML and not source.startswith((_SIMULATED, _SSH))]
    if not names:
        return {}
    from gpualloc.inventory import files  # noqa: PLC0415 - the usual source is the driver

    return {name: files.read_text(Path(name)) for name in names}


def _is_xml(source: str, text: str) -> bool:
    from gpualloc.inventory import files  # noqa: PLC0415 - the usual source is the driver

    return files.kind_of(text, Path(source)) == "smi"


def _check_topo(topo: Path, texts: Mapping[str, str]) -> None:
    xml = [source for source, text in texts.items() if _is_xml(source, text)]
    if len(xml) != 1:
        summary = f"a topology goes with one output of `nvidia-smi -q -x`, not with {' and '.join(xml) or 'none'}"
        hint = "give `nvidia-smi -q -x` as the inventory; nvml and snapshots hold the links already"
        raise fail("inventory-topo", summary, Place(str(topo)), hint)


def _read(source: str, texts: Mapping[str, str], topo: Path | None) -> Reading:
    # each reader is imported when its kind of source is asked for: a snapshot must not pay for the driver, and so on
    if source == _NVML:
        from gpualloc.inventory import nvml  # noqa: PLC0415 - each source when it is asked for

        return nvml.read()
    if source.startswith(_SIMULATED):
        from gpualloc.inventory import simulated  # noqa: PLC0415 - each source when it is asked for

        return Reading(simulated.read(source.removeprefix(_SIMULATED)))
    if _is_xml(source, texts[source]):
        from gpualloc.inventory import files, smi  # noqa: PLC0415 - each source when it is asked for

        topology = None if topo is None else (files.read_text(topo), str(topo))
        return smi.read(texts[source], source, topology)
    from gpualloc.inventory import snapshot  # noqa: PLC0415 - each source when it is asked for

    return Reading(snapshot.parse(texts[source], source))


def _no_two(readings: Sequence[tuple[str, Reading]]) -> None:
    """Check the sources against each other; each by itself names nothing twice."""
    seen: dict[str, str] = {}
    for source, reading in readings:
        for name in _names(reading.inventory):
            if name in seen:
                raise fail("inventory-duplicate", f"{name} is already in {seen[name]}", Place(source), _ONCE)
            seen[name] = source


def _names(inventory: Inventory) -> Iterator[str]:
    for host in inventory.hosts:
        yield f"host {host.name}"
        for gpu in host.gpus:
            yield gpu.uuid
            yield from (instance.uuid for instance in gpu.mig or ())
