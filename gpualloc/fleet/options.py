"""How a plan over several hosts is to be written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.errors import fail

if TYPE_CHECKING:
    from gpualloc.compose.swarm.stack import Mode


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """How a plan over several hosts is written: ``swarm`` names a stack file, ``per_host`` a folder.

    ``nodes``: ``NAME=NODE``, or a file of such. ``main``: the host that runs what needs no GPU.
    """

    swarm: str | None = None
    mode: Mode = "uuid"
    nodes: tuple[str, ...] = ()
    per_host: str | None = None
    main: str | None = None

    @property
    def asked(self) -> bool:
        """Whether a plan is to be written so at all."""
        return self.swarm is not None or self.per_host is not None


def check_one_form(fleet: FleetOptions, override: str | None) -> None:
    """Raise GpuallocError (``several-forms``) where a plan is to be written in two ways at once.

    And where an option of one way comes without it: ``idle-option``.
    """
    given = {"--override": override, "--swarm": fleet.swarm, "--per-host": fleet.per_host}
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1:
        raise fail("several-forms", f"{' and '.join(named)} are two ways to write a plan", None, "give one of them")
    needs: dict[str, tuple[bool, str | None, str]] = {
        "--node-map": (bool(fleet.nodes), fleet.swarm, "--swarm FILE"),
        "--swarm-mode": (fleet.mode != "uuid", fleet.swarm, "--swarm FILE"),
        "--main": (fleet.main is not None, fleet.per_host, "--per-host DIR"),
    }
    for option, (present, way, needed) in needs.items():
        if present and way is None:
            hint = "give both, or neither"
            raise fail("idle-option", f"{option} says nothing without {needed}", None, hint)
