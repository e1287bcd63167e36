"""The tiers of a fleet in order: a plan by filling, a bound from the master program, a plan along its patterns.

Bounds are given for the tiers up to ``hosts_used`` and ``devices_used``, or ``peak_load``; what comes after is made
good, not proven. Where everybody can stay at home they all do, and what is left is planned around them.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpualloc.solve.expand import name_places
from gpualloc.solve.fleet.bounds import grant_bounds, peak_bound, placed_bound, priorities
from gpualloc.solve.fleet.fill import Filler
from gpualloc.solve.fleet.links import Links
from gpualloc.solve.fleet.master import Master
from gpualloc.solve.fleet.stock import Stock
from gpualloc.solve.forced import forced_moves
from gpualloc.solve.greedy import Floor, drop_lonely, grow
from gpualloc.solve.lexi import Optimum, Proof
from gpualloc.solve.rules import faults
from gpualloc.solve.tiers import rules_of, score_of

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from gpualloc.solve.fleet.fill import Chosen, Queues
    from gpualloc.solve.fleet.master import Column
    from gpualloc.solve.fleet.stock import HostClass, HostPattern, Pool
    from gpualloc.solve.highs import Limits
    from gpualloc.solve.problem import Assignment, Devices, Problem
    from gpualloc.solve.tiers import Amount, Score

NODES = 60
"""Nodes of each integer program; its relaxation is nearly whole, so that the first few decide."""

GAP = 2e-4

LEAVE = (0.0, 0.02, 0.08, 0.25)
"""Parts of the hosts whose workers may move, tried in turn, where not everybody can be placed otherwise."""


@dataclass(slots=True)
class Draft:
    """A plan in the making."""

    floor: Floor
    queues: Queues
    chosen: Chosen


class Fleet:
    """Plans one fleet."""

    def __init__(self, problem: Problem, limits: Limits) -> None:
        self.problem = problem
        self.limits = limits
        self.links = Links(problem)
        self.rules = rules_of(problem)
        self.names = [rule.name for rule in self.rules]
        self.best: Assignment = ()
        self.score: Score | None = None
        self._scores: dict[tuple[int, int], int] = {}

    def run(self) -> Optimum:
        """Plan, and prove what can be proven."""
        problem = self.problem
        draft = self._draft(stay=problem.stability != "ignore")
        self._fill(draft)
        self._offer(draft, grown=False)
        stays = problem.stability == "keep" and self._everybody_stays()
        placed = placed_bound(problem)
        if placed != self._value("placed"):
            placed = self._place_more(placed)
        whole = placed == self._value("placed")
        moves = forced_moves(problem) if self._all_placed() else 0
        settled = stays and self._everybody_stays() and whole
        settled = settled and moves == self._value("moves")
        hosts = devices = at_hosts = None
        if not problem.spread:
            if problem.stability == "keep" and not settled:
                at_home = self._draft_of_stayers()
                self._pack(at_home)
            base = self._draft(stay=settled)
            hosts, devices = self._pack(base)
            at_hosts = self._value("hosts_used")
        self._try_grown(draft)
        # from here on nothing changes: what is proven is told of this plan
        proofs = {"placed": self._proof("placed", placed)}
        if problem.stability == "keep":
            proofs["moves"] = self._proof("moves", moves, sure=settled)
            proofs["evictions"] = self._proof("evictions", 0)
        proofs |= self._granted(settled=settled)
        if problem.spread:
            peak = peak_bound(problem, everybody=self._all_placed())
            proofs["peak_load"] = self._proof("peak_load", peak, sure=whole)
        else:
            sure = whole and (settled or problem.stability != "keep")
            proofs["hosts_used"] = self._proof("hosts_used", hosts, sure=sure)
            # the bound on devices is for as many hosts
            same = at_hosts == self._value("hosts_used")
            proofs["devices_used"] = self._proof("devices_used", devices if same else None, sure=sure)
        return self._optimum(proofs)

    def _proof(self, name: str, bound: Amount | None, *, sure: bool = True) -> Proof:
        return Proof(bound, proven=sure and bound == self._value(name))

    # drafts ---------------------------------------------------------------------------------------------------------

    def _draft(self, *, stay: bool, leave: Container[int] = (), only: Sequence[bool] | None = None) -> Draft:
        """Return a floor with those at home who can stay, and everybody else waiting.

        With ``stay`` all stay but those on the hosts in ``leave``; of the workers only those in ``only``, if given.
        """
        problem = self.problem
        floor = Floor(problem)
        queues: Queues = {kind.number: [] for kind in problem.kinds}
        chosen: Chosen = {}
        for n, job in enumerate(problem.jobs):
            kind = problem.kinds[job.kind]
            stays = stay and (only is None or only[n])
            if (
                stays
                and job.home
                and problem.host_of[job.home[0]] not in leave
                and floor.has_room(job.home)
                and all(floor.takes(d, kind) for d in job.home)
            ):
                floor.put(job.home, kind)
                chosen[n] = job.home
            else:
                queues[job.kind].append(n)
        for number, waiting in queues.items():
            waiting.reverse()
            if problem.stability != "ignore":
                # who has nothing to move goes first: popped from the end
                waiting.sort(key=lambda n: problem.jobs[n].previous is None)
            queues[number] = waiting
        return Draft(floor, queues, chosen)

    def _draft_of_stayers(self) -> Draft:
        """Return a floor with those at home who are there in the best plan."""
        homes = [devices == job.home for job, devices in zip(self.problem.jobs, self.best, strict=True)]
        return self._draft(stay=True, only=homes)

    def _fill(self, draft: Draft) -> None:
        Filler(self.problem, draft.floor, self.links, draft.queues, draft.chosen).fill()

    def _finished(self, draft: Draft, *, grown: bool) -> Assignment:
        problem = self.problem
        chosen = {problem.jobs[n].name: devices for n, devices in draft.chosen.items()}
        if any(kind.affinity for kind in problem.kinds):
            drop_lonely(problem, draft.floor, chosen)
        if grown:
            grow(problem, draft.floor, chosen)
        found = tuple(chosen.get(job.name) for job in problem.jobs)
        if problem.stability != "ignore":
            places: dict[int, list[Devices]] = {}
            for job, devices in zip(problem.jobs, found, strict=True):
                if devices is not None:
                    places.setdefault(job.kind, []).append(devices)
            found = name_places(problem, places)
        draft.chosen = {n: devices for n, devices in enumerate(found) if devices is not None}
        return found

    def _offer(self, draft: Draft, *, grown: bool = True) -> bool:
        """Take a draft where it is better than the best plan so far; return whether it is."""
        found = self._finished(draft, grown=grown and any(kind.elastic for kind in self.problem.kinds))
        score = score_of(self.problem, found)
        if self.score is None or (score < self.score and not faults(self.problem, found)):
            self.best, self.score = found, score
            return True
        return False

    def _try_grown(self, draft: Draft) -> None:
        if any(kind.elastic for kind in self.problem.kinds):
            self._offer(draft)

    def _value(self, name: str) -> Amount:
        if self.score is None:
            raise ValueError("there is no plan yet")
        return self.score[self.names.index(name)]

    def _number(self, name: str) -> int:
        value = self._value(name)
        return value if isinstance(value, int) else value[0]

    def _tuple(self, name: str) -> tuple[int, ...]:
        value = self._value(name)
        return value if isinstance(value, tuple) else (value,)

    def _all_placed(self) -> bool:
        return None not in self.best

    def _everybody_stays(self) -> bool:
        return all(
            job.home is None or devices == job.home for job, devices in zip(self.problem.jobs, self.best, strict=True)
        )

    # placed ---------------------------------------------------------------------------------------------------------

    def _place_more(self, bound: Amount) -> Amount:
        """Place more than filling did, if the master program knows how; return its bound.

        Where some have to move for it, only those on some hosts, those with the most room gone to waste first.
        """
        # only with everybody free to move does the program speak of every plan
        free = self._draft(stay=False)
        master = self._master(free)
        bounds = self._left_out(master, bound)
        if bounds == self._value("placed"):
            return bounds
        if self.problem.stability == "keep":
            order = self._wasteful_hosts()
            for part in LEAVE:
                base = self._draft(stay=True, leave=set(order[: math.ceil(part * len(order))]))
                program = self._master(base)
                self._left_out(program, bound)
                values = program.whole(NODES, GAP)
                if values is not None:
                    self._offer(self._expand(program, base, values), grown=False)
                if bounds == self._value("placed"):
                    return bounds
        values = master.whole(NODES, GAP)
        if values is not None:
            self._offer(self._expand(master, free, values), grown=False)
        return bounds

    def _wasteful_hosts(self) -> list[int]:
        """Return the hosts that are somebody's home, those with the most room left on devices in use first."""
        problem = self.problem
        floor = self._draft(stay=True).floor
        waste = {}
        for host, used in enumerate(floor.used_on):
            if used:
                parts = [1 - floor.load[d] / problem.full[d] for d in problem.host_devices[host] if floor.on[d]]
                waste[host] = sum(parts) / len(parts)
        return sorted(waste, key=lambda host: (-waste[host], host))

    def _left_out(self, master: Master, known: Amount) -> tuple[int, ...]:
        """Leave out as few as can be, priority by priority; return bounds on those placed, turned, and hold them.

        ``known`` are bounds from elsewhere. The program is held to the tighter of both, not to what only it believes
        possible: a priority would else be bounded by plans that place too many of the one before.
        """
        kinds = self.problem.kinds
        found: list[int] = []
        sure = known if isinstance(known, tuple) else (known,)
        for priority, least in zip(priorities(self.problem), sure, strict=True):
            mine = {k for k in master.left_out if kinds[k].priority == priority}
            total = sum(kinds[job.kind].priority == priority for job in self.problem.jobs)
            master.aim(lambda column, mine=mine: 1.0 if column.kind in mine else 0.0)  # type: ignore[misc]  # bound now
            answer = master.generate()
            if answer is None:
                found.append(least)
                continue
            lost = max(0, math.ceil(answer[0]), total + least)
            found.append(lost - total)
            row = {master.left_out[k]: 1.0 for k in mine}
            if row:
                master.program.row(row, 0.0, max(answer[1].objective, lost) + 1e-6)
        return tuple(found)

    # pack -----------------------------------------------------------------------------------------------------------

    def _pack(self, base: Draft) -> tuple[int | None, int | None]:
        """Use few hosts and few devices; return bounds on both, the second for as many hosts as the plan has."""
        problem = self.problem
        used_hosts = sum(count > 0 for count in base.floor.used_on)
        used_devices = sum(base.floor.used_on)
        master = self._master(base)
        for priority, placed in zip(priorities(problem), self._tuple("placed"), strict=True):
            mine = {k: column for k, column in master.left_out.items() if problem.kinds[k].priority == priority}
            total = sum(problem.kinds[job.kind].priority == priority for job in problem.jobs)
            if mine:
                master.program.row(dict.fromkeys(mine.values(), 1.0), 0.0, total + placed)
        master.aim(lambda column: float(column.hosts))
        answer = master.generate()
        if answer is None:
            return None, None
        hosts = used_hosts + max(0, math.ceil(answer[0]))
        devices = self._few_devices(master, base, hosts - used_hosts)
        return hosts, None if devices is None else devices + used_devices

    def _few_devices(self, master: Master, base: Draft, hosts: int) -> int | None:
        """Use few devices on few hosts, then link well, then follow the later tiers; return a bound on the devices."""
        problem = self.problem
        used_hosts = sum(count > 0 for count in base.floor.used_on)
        for more in (0, 1, max(2, hosts // 500), max(4, hosts // 50), len(problem.hosts)):
            master.hold("hosts", hosts + more)
            master.aim(lambda column: float(column.devices))
            answer = master.generate()
            if answer is None:
                continue
            values = master.whole(NODES, GAP)
            if values is None and not more:
                master.enrich(answer[1])
                values = master.whole(NODES, GAP)
            if values is None:
                continue
            self._offer(self._expand(master, base, values))
            self._refine(master, base, values)
            break
        # the bound on devices is for the number of hosts that the plan has
        master.hold("hosts", self._number("hosts_used") - used_hosts)
        for tier in ("devices", "score", "given"):
            master.hold(tier, math.inf)
        if problem.limit is not None:
            master.hold("devices", max(0, problem.limit - sum(base.floor.used_on)))
        master.aim(lambda column: float(column.devices))
        answer = master.generate()
        return None if answer is None else max(0, math.ceil(answer[0]))

    def _refine(self, master: Master, base: Draft, values: list[int]) -> None:
        """Follow the tiers after the number of devices with the patterns there are."""
        master.hold("devices", master.total("devices", values))
        costs = {
            "link_score": ("score", lambda column: float(column.score)),
            "device_size": ("given", lambda column: float(column.given)),
            "used_memory_total": ("memory", lambda column: float(column.memory)),
        }
        for name, (tier, cost) in costs.items():
            if name not in self.names or not any(getattr(column, tier) for column in master.columns):
                continue
            master.aim(cost)
            found = master.whole(NODES, GAP)
            if found is None:
                return
            self._offer(self._expand(master, base, found))
            master.hold(tier, master.total(tier, found))

    # the master's answer --------------------------------------------------------------------------------------------

    def _master(self, base: Draft) -> Master:
        problem = self.problem
        stock = Stock(problem, base.floor, self.links)
        supply = {number: len(waiting) for number, waiting in base.queues.items() if waiting}
        master = Master(problem, stock, supply, self.limits, self._pattern_score)
        self._show(master)
        return master

    def _show(self, master: Master) -> None:
        """Give the master program the patterns of the best plan, so that it has something to start from."""
        problem = self.problem
        held: dict[int, Counter[int]] = {}
        for job, devices in zip(problem.jobs, self.best, strict=True):
            for d in devices or ():
                held.setdefault(d, Counter())[job.kind] += 1
        before = master.stock.floor.on
        contents: list[tuple[Pool, tuple[tuple[int, int], ...]]] = []
        for pool in master.stock.pools:
            for d in pool.devices:
                counts = held.get(d)
                if counts is None:
                    continue
                rest = counts - Counter(kind.number for kind in before[d])
                if rest:
                    contents.append((pool, tuple(sorted(rest.items()))))
        master.add_contents(contents)

    def _pattern_score(self, known: HostClass, pattern: HostPattern, empty: Sequence[int]) -> int:
        """Return the link score of a host pattern on the first host of its class."""
        if not self.problem.topology:
            return 0
        problem = self.problem
        floor = Floor(problem)
        host = known.hosts[0]
        queues = {k: list(range(count)) for k, count in pattern.counts}
        filler = Filler(problem, floor, self.links, queues, {})
        free = [d for d in problem.host_devices[host] if d in empty]
        score = 0
        for k, count in sorted(pattern.counts, key=lambda item: (-problem.kinds[item[0]].least, item[0])):
            kind = problem.kinds[k]
            for _ in range(count):
                devices = filler.choose(kind, host, [d for d in free if d in kind.weight])
                if devices is not None:
                    floor.put(devices, kind)
                    score += problem.set_score(devices)
        return score

    def _expand(self, master: Master, base: Draft, values: list[int]) -> Draft:
        """Return the draft that a point of the master program stands for, everybody else filled in."""
        problem = self.problem
        draft = self._copy(base)
        filler = Filler(problem, draft.floor, self.links, draft.queues, draft.chosen)
        on_hosts: dict[int, list[tuple[HostPattern, int]]] = {}
        in_pools: dict[int, list[tuple[Column, int]]] = {}
        for column, value in zip(master.columns, values, strict=True):
            if not value:
                continue
            if column.known is not None and column.pattern is not None:
                on_hosts.setdefault(column.known.number, []).append((column.pattern, value))
            elif column.pool is not None:
                in_pools.setdefault(column.pool.number, []).append((column, value))
        open_hosts = {host for host, used in enumerate(base.floor.used_on) if used}
        for number, patterns in on_hosts.items():
            hosts = iter(master.stock.hosts[number].hosts)
            patterns.sort(key=lambda item: (-item[0].taken, item[0].counts, item[0].left))
            for pattern, value in patterns:
                for _ in range(value):
                    host = next(hosts)
                    open_hosts.add(host)
                    self._lay(filler, host, pattern)
        for number, columns in in_pools.items():
            pool = master.stock.pools[number]
            devices = iter(
                d
                for d in pool.devices
                if not pool.empty or (problem.host_of[d] in open_hosts and not draft.floor.on[d])
            )
            columns.sort(key=lambda item: (-sum(count for _, count in item[0].counts), item[0].counts))
            for column, value in columns:
                self._hold(filler, devices, column, value)
        filler.fill()
        return draft

    def _lay(self, filler: Filler, host: int, pattern: HostPattern) -> None:
        problem = self.problem
        for k, count in sorted(pattern.counts, key=lambda item: (-problem.kinds[item[0]].least, item[0])):
            kind = problem.kinds[k]
            members = [d for d in problem.host_devices[host] if d in kind.weight]
            for _ in range(count):
                devices = filler.choose(kind, host, members) if filler.queues[k] else None
                if devices is not None:
                    filler.put(kind, devices)

    def _hold(self, filler: Filler, devices: object, column: Column, value: int) -> None:
        """Put a pattern on so many devices."""
        problem = self.problem
        counts = [(problem.kinds[k], count) for k, count in column.counts if problem.kinds[k].least == 1]
        for _ in range(value):
            if not any(filler.queues[kind.number] for kind, _ in counts):
                return
            d = next(devices, None)  # type: ignore[call-overload]  # an iterator of positions
            if d is None:
                return
            for kind, count in counts:
                for _ in range(min(count, len(filler.queues[kind.number]))):
                    if filler.floor.takes(d, kind) and filler.floor.has_room((d,)):
                        filler.put(kind, (d,))

    def _copy(self, base: Draft) -> Draft:
        floor = Floor(self.problem)
        floor.on = [list(there) for there in base.floor.on]
        floor.load = list(base.floor.load)
        floor.used_on = list(base.floor.used_on)
        floor.used = base.floor.used
        queues = {number: list(waiting) for number, waiting in base.queues.items()}
        return Draft(floor, queues, dict(base.chosen))

    def _granted(self, *, settled: bool) -> dict[str, Proof]:
        most, wishes = grant_bounds(self.problem, settled=settled, everybody=self._all_placed())
        full = self._value("grant_vector") == wishes
        return {
            "granted": Proof(most, self._value("granted") == most),
            "grant_vector": Proof(wishes if full else None, full),
        }

    def _optimum(self, proofs: dict[str, Proof]) -> Optimum:
        certain = True
        found = []
        if self.score is None:
            raise ValueError("there is no plan yet")
        for rule, value in zip(self.rules, self.score, strict=True):
            proof = proofs.get(rule.name) or Proof(None, proven=False)
            certain = certain and proof.proven
            bound = proof.bound
            if bound is not None and isinstance(bound, (int, tuple)) and isinstance(value, type(bound)):
                bound = min(bound, value)
            found.append(Proof(bound, certain))
        return Optimum(self.best, self.score, tuple(found))


def optimize_fleet(problem: Problem, limits: Limits) -> Optimum:
    """Return a good plan for many hosts, with bounds on the tiers that decide how much is used."""
    return Fleet(problem, limits).run()
