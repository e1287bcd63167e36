"""From counts back to names: which worker gets which devices, in a fixed order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpualloc.solve.formulation import Formulation
    from gpualloc.solve.problem import Assignment, Devices, Problem


def expand(formulation: Formulation, values: list[float]) -> Assignment:
    """Return the assignment that a point of the program stands for.

    The devices of a group take their contents in order, fullest first; workers take their places in natural order of
    name, those who can stay at home first.
    """
    problem = formulation.problem
    places: dict[int, list[Devices]] = {kind.number: [] for kind in problem.kinds}
    whole: dict[tuple[int, int], list[int]] = {}
    for block in formulation.blocks:
        for d, content in zip(block.group.devices, block.decode(values), strict=True):
            for number, count in content:
                kind = problem.kinds[number]
                if kind.single:
                    places[number] += [(d,)] * count
                elif number not in formulation.slots:
                    whole.setdefault((number, block.group.number), []).extend([d] * count)
    for draw in formulation.draws:
        for _ in range(round(values[draw.column])):
            devices: list[int] = []
            for number, count in draw.shape:
                left = whole[draw.kind, number]
                devices += left[:count]
                del left[:count]
            places[draw.kind].append(tuple(sorted(devices)))
    for number, slots in formulation.slots.items():
        places[number] += slots.decode(values)
    return name_places(problem, places)


def name_places(problem: Problem, places: dict[int, list[Devices]]) -> Assignment:
    """Give the places of each kind to its workers.

    Who has a place at home keeps it (unless stability is ``ignore``); where there are fewer places than workers, those
    who were nowhere before go first, since placing them is no move, and then those who might have stayed at home.
    """
    chosen: dict[int, Devices] = {}
    members: dict[int, list[int]] = {kind.number: [] for kind in problem.kinds}
    for n, job in enumerate(problem.jobs):
        members[job.kind].append(n)
    for kind in problem.kinds:
        left = Counter(places.get(kind.number, []))
        waiting: list[int] = []
        for n in members[kind.number]:
            home = problem.jobs[n].home
            if home is not None and problem.stability != "ignore" and left[home]:
                left[home] -= 1
                chosen[n] = home
            else:
                waiting.append(n)
        rest = sorted(left.elements())
        if len(rest) < len(waiting) and problem.stability != "ignore":
            waiting.sort(key=lambda n: (problem.jobs[n].previous is not None, problem.jobs[n].home is None))
            waiting = sorted(waiting[: len(rest)])
        chosen.update(zip(waiting, rest, strict=False))
    return tuple(chosen.get(n) for n in range(len(problem.jobs)))
