"""Bounds from sums and counts alone: never above the best there is, and the best itself where everything is counted."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from gpualloc.solve.free import most_free_score
from gpualloc.solve.lattice import rounded
from tests.solve.worlds import World, problem_of, relaxed, worlds

if TYPE_CHECKING:
    from gpualloc.solve.problem import Problem

amounts = st.lists(st.integers(1, 40), min_size=1, max_size=4)


def sums(sizes: list[int], top: int) -> set[int]:
    """Every sum of the sizes up to ``top``."""
    reached = {0}
    for number in range(1, top + 1):
        if any(number - size in reached for size in sizes):
            reached.add(number)
    return reached


@given(amounts, st.integers(-5, 300))
def test_a_bound_is_rounded_up_to_the_next_sum(sizes: list[int], bound: int) -> None:
    assert rounded(bound, sizes) == (bound if bound <= 0 else min(n for n in sums(sizes, 400) if n >= bound))


@given(amounts, st.integers(0, 300))
def test_a_bound_on_a_score_is_rounded_down_to_the_next_sum(sizes: list[int], score: int) -> None:
    assert rounded(-score, [-size for size in sizes]) == -max(n for n in sums(sizes, 400) if n <= score)


def test_what_has_too_many_sums_is_left_as_it_is() -> None:
    assert rounded(-10_000_001, [-10, -30]) == -10_000_001
    assert rounded(7, [10, -10]) == 7
    assert rounded(101, range(50, 80)) == 101


@settings(relaxed, max_examples=60)
@given(worlds(7, 3))
def test_what_stays_free_is_linked_as_well_as_can_be(world: World) -> None:
    problem = problem_of(world)
    eligible = [d for d, counts in enumerate(problem.eligible) if counts]
    best: dict[tuple[int, int, int], int] = {}
    for count in range(len(eligible) + 1):
        for used in combinations(eligible, count):
            key = (len({problem.host_of[d] for d in used}), count, sum(problem.size[d] for d in used))
            if all(sum(problem.host_of[d] == host for d in used) <= room for host, room in enumerate(problem.room)):
                best[key] = max(best.get(key, 0), free_score(problem, used))
    for key, score in best.items():
        bound = most_free_score(problem, *key)
        assert bound is not None
        assert bound >= score
        if all(size == problem.size[eligible[0]] for size in (problem.size[d] for d in eligible)):
            assert bound == score


def free_score(problem: Problem, used: tuple[int, ...]) -> int:
    """The link score of the devices that are not used."""
    free = set(range(len(problem.devices))) - set(used)
    return sum(
        score
        for host in range(len(problem.hosts))
        for (a, b), (score, _) in problem.pairs(host).items()
        if a in free and b in free
    )
