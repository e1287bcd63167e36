"""Tier after tier with HiGHS: optimise one, hold it, go on to the next.

Whatever the program answers is expanded into an assignment and judged by :mod:`gpualloc.solve.tiers`; the program only
proposes, and proves bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from math import comb
from typing import TYPE_CHECKING

from gpualloc.policy.scoring import PEAK_STEPS
from gpualloc.solve.expand import expand
from gpualloc.solve.forced import forced_moves
from gpualloc.solve.formulation import Formulation, add
from gpualloc.solve.free import most_free_score
from gpualloc.solve.narrow import narrow
from gpualloc.solve.parts import minimum
from gpualloc.solve.ranks import place_by_priority
from gpualloc.solve.rules import faults
from gpualloc.solve.tiers import rules_of, score_of, turned

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.solve.highs import Answer, Limits, Terms
    from gpualloc.solve.problem import Assignment, Kind, Problem
    from gpualloc.solve.tiers import Amount, Score, TierRule

SQUARES = 1e4
"""Tiers that are not whole numbers are solved in these fractions, far above HiGHS's tolerance of 1e-6 on a gap."""

MOST_SQUARES = 2_500_000
"""Rows times columns: above, sums of squares are bounded by their relaxation only; the search would take minutes."""

_SLACK = 1e-7
_ROUNDS = 40


Bound = tuple["Amount | Fraction | None", bool]
"""What a tier's step returns: the proven bound (None: none), and whether the value meets it."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of one tier: no plan with the same earlier tiers is below ``bound`` (turned: less is better)."""

    bound: Amount | Fraction | None
    proven: bool


@dataclass(frozen=True, slots=True)
class Optimum:
    """The best assignment found, its score, and what is proven of each tier."""

    assignment: Assignment
    score: Score
    proofs: tuple[Proof, ...]


class Driver:
    """Runs through the tiers of one problem."""

    def __init__(self, problem: Problem, start: Assignment, limits: Limits) -> None:
        self.problem = problem
        self.limits = limits
        self.formulation = Formulation(problem)
        self.program = self.formulation.program
        self.best = start
        self.score = score_of(problem, start)
        self.rules = rules_of(problem)
        self.names = [rule.name for rule in self.rules]
        self.priorities = sorted({problem.kinds[job.kind].priority for job in problem.jobs}, reverse=True)
        self.proofs: list[Proof] = []
        self.certain = True
        self.curves: list[tuple[int, Terms, float, float]] = []
        self._tangents: set[tuple[int, float]] = set()

    def run(self) -> Optimum:
        """Optimise every tier in order."""
        for number, rule in enumerate(self.rules):
            bound, met = _STEPS[rule.name](self, number, rule)
            self.certain = self.certain and met
            self.proofs.append(Proof(bound, self.certain))
        return Optimum(self.best, self.score, tuple(self.proofs))

    def start(self) -> list[float] | None:
        """Return the best assignment as a point of the program."""
        values = self.formulation.encode(self.best)
        if values is not None:
            for curve, load, constant, weight in self.curves:
                total = constant + sum(values[column] * part for column, part in load.items())
                values[curve] = weight * total * total
        return values

    def look(self, answer: Answer) -> list[float] | None:
        """Take an answer's assignment, if it is one and better; return its values."""
        if answer.values is None or not answer.whole:
            return answer.values
        found = expand(self.formulation, answer.values)
        score = score_of(self.problem, found)
        if score < self.score and not faults(self.problem, found):
            self.best, self.score = found, score
        return answer.values

    def minimize(self, terms: Terms) -> Answer:
        """Minimise an expression, and look at what was found."""
        answer = self.program.minimize(terms, self.limits)
        self.look(answer)
        return answer

    def value(self, number: int) -> int:
        """Return the turned value of a tier that is one number."""
        amount = self.score[number]
        return amount if isinstance(amount, int) else amount[0]

    def whole(self, terms: Terms, value: Callable[[], int], least: int | None = None) -> tuple[int | None, bool]:
        """Minimise whole numbers and hold the value found; return the bound (None: none) and whether it is met.

        ``least`` is a bound known beforehand: where the best assignment meets it, nothing is solved.
        """
        scale = math.gcd(*(abs(round(part)) for part in terms.values())) or 1
        scaled = {column: part / scale for column, part in terms.items()}
        bound = least
        if terms and (least is None or value() > least):
            bound = minimum(self, scaled, value, scale, least)
        elif not terms:
            bound = value()
        met = bound is not None and bound >= value()
        if terms:
            self.program.row(scaled, value() / scale - 0.01 if met else -math.inf, value() / scale + 0.01)
        if bound is None:
            return None, False
        return min(bound, value()), met

    def hold(self, terms: Terms, value: int) -> None:
        """Hold a proven value from both sides: no plan that counts is below it, and the later bounds gain."""
        if terms:
            self.program.row(terms, value - 0.01, value + 0.01)

    # ----------------------------------------------------------------------------------------------------------------

    def placed(self, number: int, rule: TierRule) -> Bound:
        """Place the most workers, priority by priority from the highest."""
        total = len(self.problem.jobs)
        if len(self.priorities) > 1 and sum(-part for part in self._tuple(number)) < total:
            everybody: Terms = {}
            for terms in self.formulation.placed.values():
                add(everybody, terms, -1.0)
            # where it is possible at all, a plan with everybody placed is best whatever the priorities
            if self.program.relax(everybody, self.limits).bound <= 1e-6 - total:
                self.minimize(everybody)
        bounds, met = place_by_priority(self)
        return (None if bounds is None else tuple(bounds) or turned((0,), rule.sense)), met

    def placed_terms(self, priority: int) -> Terms:
        """Return the number of workers of a priority that are placed, turned."""
        terms: Terms = {}
        for kind in self.problem.kinds:
            if kind.priority == priority:
                add(terms, self.formulation.placed[kind.number], -1.0)
        return terms

    def placed_part(self, level: int) -> int:
        """Return the turned number of workers placed of the priority at a level."""
        return self._tuple(self.names.index("placed"))[level]

    def _tuple(self, number: int) -> tuple[int, ...]:
        amount = self.score[number]
        return amount if isinstance(amount, tuple) else (amount,)

    def moves(self, number: int, rule: TierRule) -> Bound:  # noqa: ARG002 - one signature for every tier
        """Move the fewest workers."""
        least = 0
        if self.problem.stability == "keep" and None not in self.best:
            least = forced_moves(self.problem)
        return self.whole(self.formulation.moves, lambda: self.value(number), least)

    def evictions(self, number: int, rule: TierRule) -> Bound:  # noqa: ARG002 - as above
        """Take the devices of the fewest workers who might stay where they are."""
        if self.certain and None not in self.best:
            return 0, True
        return self.whole(self.formulation.add_evictions(), lambda: self.value(number), 0)

    def granted(self, number: int, rule: TierRule) -> Bound:  # noqa: ARG002 - as above
        """Grant the most devices to elastic workers."""
        elastic = {kind.number for kind in self.problem.kinds if kind.elastic}
        terms = {column: -part for column, part in self.formulation.granted_terms(elastic).items()}
        most = sum(self.formulation.supply[kind] * self.problem.kinds[kind].most for kind in elastic)
        return self.whole(terms, lambda: self.value(number), -most)

    def grant_vector(self, number: int, rule: TierRule) -> Bound:  # noqa: ARG002 - as above
        """Make the smallest grants as large as possible: the most workers above 0, then above 1, and so on."""
        elastic = {kind.number for kind in self.problem.kinds if kind.elastic}
        met = True
        for size in range(max((self.problem.kinds[kind].most for kind in elastic), default=0)):
            terms = {column: -part for column, part in self.formulation.above_terms(elastic, size).items()}
            most = sum(self.formulation.supply[kind] for kind in elastic if self.problem.kinds[kind].most > size)

            def above(size: int = size) -> int:
                return -sum(-grant > size for grant in self._tuple(number))

            met = self.whole(terms, above, -most)[1] and met
        if met and self.certain:
            narrow(self, [-grant for grant in self._tuple(number)])
        return (self.score[number] if met else None), met

    def hosts_used(self, number: int, rule: TierRule) -> Bound:  # noqa: ARG002 - as above
        """Use the fewest hosts."""
        terms = dict.fromkeys(self.formulation.host_used.values(), 1.0)
        return self.whole(terms, lambda: self.value(number), min(1, self.value(number)))

    def devices_used(self, number: int, rule: TierRule) -> Bound:  # noqa: ARG002 - as above
        """Use the fewest devices."""
        return self.whole(self.formulation.used, lambda: self.value(number), min(1, self.value(number)))

    def peak_load(self, number: int, rule: TierRule) -> Bound:  # noqa: ARG002 - as above
        """Lower the cap on every device's load, step by step of 5 %, until nothing fits any more."""
        floor = max((block.idle_steps for block in self.formulation.blocks), default=0)
        if self.value(number) <= floor:
            self._cap(self.value(number))
            return self.value(number), True
        everybody: Terms = {}
        for block in self.formulation.blocks:
            add(everybody, block.load)
        # the mean load bounds the peak, and so does the largest share that has to go somewhere
        answer = self.program.relax(everybody, self.limits)
        self.look(answer)
        size = sum(len(block.group.devices) for block in self.formulation.blocks)
        constant = sum(block.load_constant for block in self.formulation.blocks)
        if math.isfinite(answer.bound):
            floor = max(floor, math.ceil((answer.bound + constant) / size * PEAK_STEPS - 1e-6))
        met = True
        while self.value(number) > floor:
            before = self.value(number)
            trial = (floor + before) // 2
            self._cap(trial)
            answer = self.program.relax({}, self.limits)
            self.look(answer)
            if not answer.infeasible and self.value(number) == before:
                answer = self.program.minimize({}, self.limits)
                self.look(answer)
            if answer.infeasible:
                floor = trial + 1
            elif self.value(number) == before:
                met = False
                break
        self._cap(self.value(number))
        return floor, met and floor >= self.value(number)

    def _cap(self, steps: int) -> None:
        for block in self.formulation.blocks:
            block.cap(steps)

    def link_score(self, number: int, rule: TierRule) -> Bound:  # noqa: ARG002 - as above
        """Join the devices of multi-device workers as well as can be."""
        problem = self.problem
        terms = {column: -part for column, part in self.formulation.link_terms().items()}
        best = max((pair[0] for host in self.formulation.on_host for pair in problem.pairs(host).values()), default=0)
        most = sum(comb(kind.most, 2) * self.formulation.supply[kind.number] for kind in problem.kinds) * best
        return self.whole(terms, lambda: self.value(number), -most)

    def device_size(self, position: int, rule: TierRule) -> Bound:  # noqa: ARG002 - as above
        """Give the largest devices to workers that name no memory."""
        unnamed = [kind for kind in self.problem.kinds if not kind.names_memory]
        # where it is settled how many devices they have, only what is above the smallest counts
        number = self._devices_of(unnamed)
        sizes = {block.group.devices[0]: self.problem.size[block.group.devices[0]] for block in self.formulation.blocks}
        least = 0 if number is None else min(sizes.values(), default=0)
        terms: Terms = {}
        for kind in unnamed:
            for block in self.formulation.blocks:
                add(terms, block.parts.get(kind.number, {}), float(least - sizes[block.group.devices[0]]))
        constant = least * (number or 0)
        bound, met = self.whole(_nonzero(terms), lambda: self.value(position) + constant)
        return (None if bound is None else bound - constant), met

    def _devices_of(self, kinds: list[Kind]) -> int | None:
        """Return how many devices workers of some kinds have together in every plan that counts, None if unknown."""
        if not self.certain or None in self.best:
            return None
        numbers = {kind.number for kind in kinds}
        return (
            sum(
                len(devices or ())
                for job, devices in zip(self.problem.jobs, self.best, strict=True)
                if job.kind in numbers
            )
            if not any(kind.elastic for kind in kinds)
            else None
        )

    def used_memory_total(self, number: int, rule: TierRule) -> Bound:  # noqa: ARG002 - as above
        """Use the smallest devices."""
        size = self.problem.size
        # the number of devices is settled where all the tiers before are: only what is above the smallest counts
        sizes = [size[block.group.devices[0]] for block in self.formulation.blocks]
        used = self.value(self.names.index("devices_used"))
        least = min(sizes, default=0) if self.certain else 0
        terms: Terms = {}
        for block in self.formulation.blocks:
            add(terms, block.used, float(size[block.group.devices[0]] - least))
        bound, met = self.whole(_nonzero(terms), lambda: self.value(number) - least * used)
        return (None if bound is None else bound + least * used), met

    def free_link_score(self, number: int, rule: TierRule) -> Bound:  # noqa: ARG002 - as above
        """Leave the best-linked devices free."""
        least = self._least_free(number)
        if least is not None and least >= self.value(number):
            return self.value(number), True
        # devices that nobody here may have are free whatever the plan
        terms, fixed = self.formulation.add_free_pairs()
        bound, met = self.whole(
            {column: -part for column, part in terms.items()},
            lambda: self.value(number) + fixed,
            None if least is None else least + fixed,
        )
        return (None if bound is None else bound - fixed), met

    def _least_free(self, number: int) -> int | None:
        """Return a bound on the turned link score of what stays free, None where not all is settled that it takes."""
        if not self.certain:
            return None
        settled = (self.value(self.names.index(name)) for name in ("hosts_used", "devices_used", "used_memory_total"))
        most = most_free_score(self.problem, *settled)
        return None if most is None else min(-most, self.value(number))

    # ----------------------------------------------------------------------------------------------------------------

    def sum_sq_load(self, number: int, rule: TierRule) -> Bound:
        """Level the load of the devices."""
        terms: Terms = {}
        constant = Fraction(0)
        for block in self.formulation.blocks:
            add(terms, block.square, SQUARES)
            constant += Fraction(block.square_constant)
            self.curves += [(curve, load, fixed, 1.0) for curve, load, fixed in block.curves]
        return self._squares(number, rule, terms, constant)

    def numa_sum_sq(self, number: int, rule: TierRule) -> Bound:
        """Level the mean load of the NUMA nodes."""
        return self._domains(number, rule, self.problem.numa_of)

    def host_sum_sq(self, number: int, rule: TierRule) -> Bound:
        """Level the mean load of the hosts."""
        if len({*zip(self.problem.host_of, self.problem.numa_of, strict=True)}) == len(set(self.problem.host_of)):
            return self.value(number), True  # one node per host: the tier before has just settled it
        return self._domains(number, rule, self.problem.host_of)

    def _domains(self, number: int, rule: TierRule, domain_of: list[int]) -> Bound:
        loads: dict[int, Terms] = {}
        constants: dict[int, float] = {}
        sizes: dict[int, int] = {}
        for block in self.formulation.blocks:
            domain = domain_of[block.group.devices[0]]
            add(loads.setdefault(domain, {}), block.load)
            constants[domain] = constants.get(domain, 0.0) + block.load_constant
            sizes[domain] = sizes.get(domain, 0) + len(block.group.devices)
        terms: Terms = {}
        for domain, load in sorted(loads.items()):
            curve = self.program.column(whole=False)
            mean = {column: part / sizes[domain] for column, part in load.items()}
            self.curves.append((curve, mean, constants[domain] / sizes[domain], 1.0))
            terms[curve] = SQUARES
        return self._squares(number, rule, terms, Fraction(0))

    def _squares(self, number: int, rule: TierRule, terms: Terms, constant: Fraction) -> Bound:
        below = rule.denominator(self.problem)
        mine = [curve for curve in self.curves if curve[0] in terms]
        point = self.start()
        bound, met = -math.inf, False
        for step in (self.program.relax, self.program.minimize):
            size = len(self.program.rows) * len(self.program.lower)
            if step == self.program.minimize and size > MOST_SQUARES:
                break
            for _ in range(_ROUNDS):
                if point is not None:
                    self._tangent(mine, point)
                answer = step(terms, self.limits)
                point = self.look(answer)
                bound = max(bound, answer.bound / SQUARES + float(constant))
                met = self.value(number) / below <= bound + _SLACK
                if met or point is None or not self._tangent(mine, point):
                    break
            if met:
                break
        worth = self.value(number) / below - float(constant)
        self.program.row({column: part / SQUARES for column, part in terms.items()}, upper=worth + _SLACK)
        exact = Fraction(self.value(number))
        if met:
            return exact, True
        return (Fraction(bound) * below if math.isfinite(bound) else None), False

    def _tangent(self, curves: list[tuple[int, Terms, float, float]], point: list[float]) -> bool:
        """Add the tangents at a point to the curves; False where all were there."""
        new = False
        for curve, load, constant, _ in curves:
            at = constant + sum(point[column] * part for column, part in load.items())
            if (curve, round(at, 9)) in self._tangents:
                continue
            self._tangents.add((curve, round(at, 9)))
            new = True
            # x^2 >= 2 a x - a^2, where x is the load
            row: Terms = {curve: 1.0}
            add(row, load, -2.0 * at)
            self.program.row(row, lower=2.0 * at * constant - at * at)
        return new


def _nonzero(terms: Terms) -> Terms:
    return {column: part for column, part in terms.items() if part}


_STEPS: dict[str, Callable[[Driver, int, TierRule], Bound]] = {
    "placed": Driver.placed,
    "moves": Driver.moves,
    "evictions": Driver.evictions,
    "granted": Driver.granted,
    "grant_vector": Driver.grant_vector,
    "hosts_used": Driver.hosts_used,
    "devices_used": Driver.devices_used,
    "peak_load": Driver.peak_load,
    "link_score": Driver.link_score,
    "device_size": Driver.device_size,
    "used_memory_total": Driver.used_memory_total,
    "free_link_score": Driver.free_link_score,
    "sum_sq_load": Driver.sum_sq_load,
    "numa_sum_sq": Driver.numa_sum_sq,
    "host_sum_sq": Driver.host_sum_sq,
}
"""How each tier is optimised; a new tier is one method and one line here."""
