"""The master program of a fleet: how many devices hold each pattern, and how many hosts each host pattern.

Workers of several shared devices count here as so many parts, wherever they lie, and links that a worker insists on are
left aside: what the program says can only be better than any plan, so that its value is a bound. Who follows it
(:mod:`gpualloc.solve.fleet.plan`) obeys every rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.solve.columns import ColumnProgram
from gpualloc.solve.fleet.price import Pricer
from gpualloc.solve.highs import INFINITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from gpualloc.solve.columns import Relaxed
    from gpualloc.solve.fleet.price import Counts
    from gpualloc.solve.fleet.stock import HostClass, HostPattern, Pool, Stock
    from gpualloc.solve.highs import Limits
    from gpualloc.solve.problem import Problem

    Score = Callable[[HostClass, HostPattern, Sequence[int]], int]

ROUNDS = 80
CLOSE = 1e-4
"""Columns are generated until the bound is this near, as a part of the value, or says the same whole number."""

OFF = (1.03, 1.2)
"""Factors on prices for patterns that are nearly worth it."""

MOST_PAIRED = 15
"""With more kinds than this, prices are changed for one at a time."""

_NOISE = 1e-4


@dataclass(frozen=True, slots=True)
class Column:
    """What one column stands for and adds to each quantity that a tier counts.

    Exactly one of ``pool`` with ``counts``, ``known`` with ``pattern``, and ``kind`` (workers left out) is there.
    """

    pool: Pool | None = None
    counts: Counts = ()
    known: HostClass | None = None
    pattern: HostPattern | None = None
    kind: int = -1
    hosts: int = 0
    devices: int = 0
    score: int = 0
    given: int = 0
    memory: int = 0


class Master:
    """One program; the driver sets what to minimise, generates columns, and fixes what was found."""

    def __init__(
        self,
        problem: Problem,
        stock: Stock,
        supply: Mapping[int, int],
        limits: Limits,
        score: Score,
    ) -> None:
        self.problem = problem
        self.stock = stock
        self.limits = limits
        self.supply = supply
        self.part = {kind.number: 1 if kind.exclusive else kind.least for kind in problem.kinds}
        rows: list[tuple[float, float]] = []

        def row(lower: float, upper: float) -> int:
            rows.append((lower, upper))
            return len(rows) - 1

        self.kind_row = {k: row(count * self.part[k], INFINITY) for k, count in sorted(supply.items()) if count}
        self.pool_row = [row(-INFINITY, 0.0 if pool.empty else len(pool.devices)) for pool in stock.pools]
        self.host_row = [row(-INFINITY, len(known.hosts)) for known in stock.hosts]
        self.tier_row = {name: row(-INFINITY, INFINITY) for name in ("hosts", "devices", "score", "given", "memory")}
        if problem.limit is not None:
            used = sum(stock.floor.used_on)
            rows[self.tier_row["devices"]] = (-INFINITY, max(0, problem.limit - used))
        self.program = ColumnProgram(rows)
        self.columns: list[Column] = []
        self._known: dict[object, int] = {}
        self._cost: Callable[[Column], float] = lambda _: 0.0
        self.pricers = [Pricer(problem, pool, supply) for pool in stock.pools]
        self.left_out: dict[int, int] = {}
        for k in self.kind_row:
            self.left_out[k] = self._add(Column(kind=k), {self.kind_row[k]: float(self.part[k])}, supply[k])
        for known in stock.hosts:
            self._add_host_patterns(known, score)
        for pool in stock.pools:
            if pool.empty:
                self._add_exclusive(pool)

    # columns --------------------------------------------------------------------------------------------------------

    def _add(self, column: Column, entries: dict[int, float], upper: float = INFINITY) -> int:
        for name, at in self.tier_row.items():
            amount = getattr(column, name)
            if amount:
                entries[at] = float(amount)
        self.columns.append(column)
        number = self.program.column(upper, entries)
        cost = self._cost(column)
        if cost:
            self.program.cost(number, cost)
        return number

    def _add_host_patterns(self, known: HostClass, score: Score) -> None:
        from gpualloc.solve.fleet.stock import HostPattern  # noqa: PLC0415 - only for the class without patterns

        patterns = known.patterns or [HostPattern((), known.empties, 0)]
        for pattern in patterns:
            if any(k not in self.kind_row for k, _ in pattern.counts):
                continue
            entries = {self.host_row[known.number]: 1.0}
            for k, count in pattern.counts:
                entries[self.kind_row[k]] = float(count)
            for pool, left in pattern.left:
                if left:
                    entries[self.pool_row[pool]] = -float(min(left, known.open - pattern.taken))
            sizes = {pool: self.problem.size[self.stock.pools[pool].example] for pool, _ in known.empties}
            before = dict(known.empties)
            memory = sum((before[pool] - left) * sizes[pool] for pool, left in pattern.left)
            empty = [d for d in self.problem.host_devices[known.hosts[0]] if not self.stock.floor.on[d]]
            named = all(self.problem.kinds[k].names_memory for k, _ in pattern.counts)
            self._add(
                Column(
                    known=known,
                    pattern=pattern,
                    hosts=int(not known.used),
                    devices=pattern.taken,
                    score=-score(known, pattern, empty) if pattern.counts else 0,
                    given=0 if named else -memory,
                    memory=memory,
                ),
                entries,
                len(known.hosts),
            )

    def _add_exclusive(self, pool: Pool) -> None:
        relaxed = any(
            known.patterns is None and any(number == pool.number for number, _ in known.empties)
            for known in self.stock.hosts
        )
        for number in pool.kinds:
            kind = self.problem.kinds[number]
            if not kind.exclusive or number not in self.kind_row:
                continue
            if kind.least == 1:
                self.add_pattern(pool, ((number, 1),))
            elif relaxed and self.problem.devices[pool.example].mig is None:
                self.add_pattern(pool, ((number, 1),), 1.0 / kind.least)

    def add_pattern(self, pool: Pool, counts: Counts, share: float = 1.0) -> bool:
        """Add a pattern of a pool; return whether it is new."""
        if not counts or (pool.number, counts) in self._known:
            return False
        entries = {self.pool_row[pool.number]: 1.0}
        for k, count in counts:
            if k not in self.kind_row:
                return False
            entries[self.kind_row[k]] = count * share
        size = self.problem.size[pool.example]
        kinds = self.problem.kinds
        unnamed = sum(count for k, count in counts if not kinds[k].names_memory)
        column = Column(
            pool=pool,
            counts=counts,
            devices=int(pool.empty),
            given=-size * unnamed,
            memory=size if pool.empty else 0,
        )
        self._known[pool.number, counts] = self._add(column, entries)
        return True

    def add_contents(self, contents: Iterable[tuple[Pool, Counts]]) -> None:
        """Add the patterns that a plan uses."""
        for pool, counts in contents:
            kinds = [self.problem.kinds[k] for k, _ in counts]
            if counts and not any(kind.exclusive for kind in kinds):
                self.add_pattern(pool, counts)

    # solving --------------------------------------------------------------------------------------------------------

    def aim(self, cost: Callable[[Column], float]) -> None:
        """Set what is to be minimised."""
        self._cost = cost
        self.program.costs({n: cost(column) for n, column in enumerate(self.columns) if cost(column)})

    def hold(self, tier: str, upper: float) -> None:
        """Keep a quantity at or below a value."""
        self.program.bound_row(self.tier_row[tier], -INFINITY, upper)

    def generate(self) -> tuple[float, Relaxed] | None:
        """Generate columns for what is minimised; return a bound on it and the last relaxation, None if infeasible."""
        bound = -INFINITY
        relaxed = None
        for _ in range(ROUNDS):
            answer = self.program.relax(self.limits)
            if answer is None:
                return None if relaxed is None else (bound, relaxed)
            relaxed = answer
            missing, new = self._price(relaxed)
            bound = max(bound, relaxed.objective - missing)
            same = -(-(bound - _NOISE) // 1) == -(-(relaxed.objective - _NOISE) // 1)
            if not new or same or relaxed.objective - bound <= CLOSE * abs(relaxed.objective) / 10:
                break
        return None if relaxed is None else (bound - _NOISE / 2, relaxed)

    def _price(self, relaxed: Relaxed) -> tuple[float, bool]:
        """Add every pool's best pattern, if worth it; return how far below the bound is, and whether any is new."""
        duals = relaxed.duals
        worth = {k: duals[row] for k, row in self.kind_row.items()}
        memo: dict[object, tuple[float, Counts, float]] = {}
        missing = 0.0
        new = False
        for pool, pricer in zip(self.stock.pools, self.pricers, strict=True):
            if not pricer.kinds:
                continue
            size = self.problem.size[pool.example]
            blank = Column(pool=pool, devices=int(pool.empty), memory=size if pool.empty else 0)
            fixed = self._cost(blank) - duals[self.pool_row[pool.number]]
            fixed -= duals[self.tier_row["devices"]] * blank.devices + duals[self.tier_row["memory"]] * blank.memory
            given = duals[self.tier_row["given"]] * size
            values = worth
            each = given + self._cost(Column(given=-size))
            if each:
                unnamed = {k for k, _, _ in pricer.kinds if not self.problem.kinds[k].names_memory}
                values = {k: v - each if k in unnamed else v for k, v in worth.items()}
            key = (tuple(pricer.kinds), pool.room, pool.slots, pool.there, size if values is not worth else 0)
            if key not in memo:
                memo[key] = pricer.best(values)
            value, counts, most = memo[key]
            missing += len(pool.devices) * max(0.0, most - fixed - 1e-9)
            if value > fixed + 1e-7 and self.add_pattern(pool, counts):
                new = True
        return missing, new

    def enrich(self, relaxed: Relaxed) -> None:
        """Add patterns of empty devices that are nearly worth it, so that whole numbers have a choice.

        At prices a little off for one kind and for each pair of kinds the best patterns hold more or less of them.
        """
        worth = {k: relaxed.duals[row] for k, row in self.kind_row.items()}
        memo: dict[object, list[Counts]] = {}
        for pool, pricer in zip(self.stock.pools, self.pricers, strict=True):
            if not pool.empty:
                continue
            key = (tuple(pricer.kinds), pool.room, pool.slots)
            if key not in memo:
                memo[key] = [pricer.best(prices)[1] for prices in _around(worth, [k for k, _, _ in pricer.kinds])]
            for counts in memo[key]:
                self.add_pattern(pool, counts)

    def whole(self, nodes: int, gap: float) -> list[int] | None:
        """Solve in whole numbers over the columns there are."""
        values, _ = self.program.whole(self.limits, nodes, gap)
        return None if values is None else [round(value) for value in values]

    def total(self, tier: str, values: list[int]) -> int:
        """Return what a point has of a quantity."""
        return sum(getattr(column, tier) * value for column, value in zip(self.columns, values, strict=True) if value)


def _around(worth: Mapping[int, float], kinds: list[int]) -> Iterator[dict[int, float]]:
    """Yield prices with one kind dearer and one cheaper; of many kinds each alone only."""
    for k in kinds:
        for other in kinds if len(kinds) <= MOST_PAIRED else [k]:
            for off in OFF:
                # the same one twice: only that one, dearer
                yield {**worth, other: worth[other] * (2 - off), k: worth[k] * off}
