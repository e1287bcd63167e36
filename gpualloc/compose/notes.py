"""What is told of services that are left alone, and of a project in which none asks for a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.compose.merge import strip
from gpualloc.errors import Diagnostic
from gpualloc.policy.values import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpualloc.compose.project import Service

NAMED = 4
"""So many services are named in one note; of more, only how many there are."""

INACTIVE = "its profile is not active"
"""Why a service that no active profile enables is left alone."""

_SEVERAL = {INACTIVE: "their profiles are not active"}


@dataclass(frozen=True, slots=True)
class Left:
    """A service that is left alone, and why; ``pinned``: whether it names GPUs."""

    service: Service
    name: str
    why: str
    pinned: bool


def notes_on(left: Sequence[Left], *, asked: bool) -> tuple[Diagnostic, ...]:
    """Return a note for each reason to leave pins as they are, and where nothing ``asked`` for a GPU one on that."""
    inactive = [] if asked else [one for one in left if one.why == INACTIVE]
    by_why: dict[str, list[Left]] = {}
    for one in left:
        if one.pinned and one not in inactive:
            by_why.setdefault(one.why, []).append(one)
    notes = [_kept(why, group) for why, group in by_why.items()]
    return (*notes, *([] if asked else [_nobody(inactive)]))


def _kept(why: str, group: Sequence[Left]) -> Diagnostic:
    names = _named(group)
    keeps, reason = ("keeps its", why) if len(group) == 1 else ("keep their", _SEVERAL.get(why, why))
    hint = _profiles(group) if why == INACTIVE else "nothing to do, if that is meant; else drop what says so"
    return Diagnostic("left-alone", f"{names} {keeps} pins: {reason}", group[0].service.place(), hint, "note")


def _nobody(inactive: Sequence[Left]) -> Diagnostic:
    if inactive:
        many = len(inactive) > 1
        summary = f"{_named(inactive)} {'ask for GPUs' if many else 'asks for a GPU'}, and "
        summary += _SEVERAL[INACTIVE] if many else INACTIVE
        return Diagnostic("no-role", summary, inactive[0].service.place(), _profiles(inactive), "note")
    summary = "no service asks for a GPU"
    hint = "write x-gpualloc: {gpus: 1} into each that is to have one"
    return Diagnostic("no-role", summary, hint=hint, severity="note")


def _named(group: Sequence[Left]) -> str:
    names = [one.name for one in group]
    if len(names) <= NAMED:
        return listed(names, "and")
    return f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1} more"


def _profiles(group: Sequence[Left]) -> str:
    names = sorted({str(name) for one in group for name in strip(one.service.data.get("profiles")) or () if name})
    return f"to plan {'it' if len(group) == 1 else 'them'}: {' '.join(f'--profile {name}' for name in names)}"
