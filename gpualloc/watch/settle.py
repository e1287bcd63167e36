"""When a change has held long enough to be believed: each fact by itself, so that one that flaps hides no other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that is so. Two are the same if their ``key`` is; ``payload`` is what goes with it."""

    key: Hashable
    payload: Any = field(default=None, compare=False)


@dataclass(slots=True)
class _Candidate:
    fact: Fact | None
    since: float


class Settler:
    """Facts by name, as they have settled, and those that may replace them; None is a fact that is no more.

    Times are seconds of one clock that only goes forward.
    """

    def __init__(self, settle_s: float) -> None:
        self.settle_s = settle_s
        self.settled: dict[Hashable, Fact] = {}
        self._candidates: dict[Hashable, _Candidate] = {}

    def start(self, facts: Mapping[Hashable, Fact]) -> None:
        """Take facts as they are."""
        self.settled = dict(facts)
        self._candidates.clear()

    def observe(self, now: float, facts: Mapping[Hashable, Fact]) -> None:
        """Compare what is seen with what has settled."""
        for name in self.settled.keys() | self._candidates.keys() | facts.keys():
            fact, known = facts.get(name), self.settled.get(name)
            if fact == known:
                self._candidates.pop(name, None)
                if fact is not None:
                    self.settled[name] = fact
                continue
            candidate = self._candidates.get(name)
            if candidate is None or candidate.fact != fact:
                self._candidates[name] = _Candidate(fact, now)
            else:
                candidate.fact = fact

    def forget(self) -> None:
        """Give up every candidate: nothing was seen for a while, so none of them is known to have held."""
        self._candidates.clear()

    def accept(self, now: float) -> tuple[Hashable, ...]:
        """Let those settle that have held long enough, and return their names.

        While others are on their way, they are waited for as long again: what happens together is one change.
        """
        ripe = {name: c for name, c in self._candidates.items() if now - c.since >= self.settle_s}
        if not ripe:
            return ()
        waiting = len(ripe) < len(self._candidates)
        if waiting and now - min(c.since for c in ripe.values()) < 2 * self.settle_s:
            return ()
        for name, candidate in ripe.items():
            del self._candidates[name]
            if candidate.fact is None:
                self.settled.pop(name, None)
            else:
                self.settled[name] = candidate.fact
        return tuple(ripe)

    def due(self) -> float | None:
        """Return when the first candidate may settle, None where there is none."""
        return min((c.since + self.settle_s for c in self._candidates.values()), default=None)
