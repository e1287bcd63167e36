"""Sets of small numbers, as masks and as lists of ranges."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gpualloc.inventory.cpulist import bits, ranges
from gpualloc.inventory.snapshot import CPU_LIST


def test_the_affinity_of_a_dgx() -> None:
    words = [(1 << 56) - 1, ((1 << 16) - 1) << 48, (1 << 40) - 1, 0]
    assert ranges(bits(words)) == "0-55,112-167"


@given(st.sets(st.integers(0, 300)))
def test_a_list_of_ranges_says_the_same_as_the_mask(numbers: set[int]) -> None:
    words = [sum(1 << n % 64 for n in numbers if n // 64 == word) for word in range(5)]
    found = bits(words)
    assert found == sorted(numbers)
    written = ranges(found)
    assert bool(CPU_LIST.fullmatch(written)) == bool(numbers)
    read: list[int] = []
    for part in filter(None, written.split(",")):
        first, _, last = part.partition("-")
        read.extend(range(int(first), int(last or first) + 1))
    assert read == found
    gaps = sum(b - a > 1 for a, b in pairwise(found))
    assert len(written.split(",")) == gaps + 1  # no range that could be joined to the next
