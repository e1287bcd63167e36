"""What is told of every key that Docker Swarm does not take as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from gpualloc.errors import Diagnostic

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.errors import Place

Fate = Literal["translated", "left out"]


@dataclass(frozen=True, slots=True)
class Note:
    """One key of one service (or of the project: ``service`` is empty), and what became of it.

    ``harmless``: nothing that runs differs for it.
    """

    service: str
    key: str
    fate: Fate
    text: str
    harmless: bool = False


@dataclass(slots=True)
class Notes:
    """The notes on a project, in the order in which they were made."""

    found: list[Note] = field(default_factory=list)

    def translated(self, service: str, key: str, text: str) -> None:
        """Note a key that Swarm has another word for: ``text`` says which."""
        self._add(Note(service, key, "translated", text, harmless=True))

    def left_out(self, service: str, key: str, text: str, *, harmless: bool = False) -> None:
        """Note a key that is gone, and why."""
        self._add(Note(service, key, "left out", text, harmless))

    def _add(self, note: Note) -> None:
        if note not in self.found:
            self.found.append(note)

    def diagnostics(self, place: Callable[[str, str], Place | None]) -> tuple[Diagnostic, ...]:
        """Return a message for each key and fate, naming all the services that it holds for.

        ``place`` tells where a service's key stands.
        """
        groups: dict[tuple[str, Fate, str, bool], list[str]] = {}
        for note in self.found:
            groups.setdefault((note.key, note.fate, note.text, note.harmless), []).append(note.service)
        result = []
        for (key, fate, text, harmless), services in groups.items():
            where = place(services[0], key)
            names = ", ".join(dict.fromkeys(name for name in services if name))
            what = f"{names}: {key}" if names else key
            if fate == "translated":
                result.append(Diagnostic("swarm-translated", f"{what} {text}", where, severity="note"))
            else:
                severity: Literal["note", "warning"] = "note" if harmless else "warning"
                result.append(Diagnostic("swarm-left-out", f"{what} is left out: {text}", where, severity=severity))
        return tuple(result)
