"""Bounds rounded to what a sum of given amounts can be at all.

A link score adds up few different scores of pairs, and memory few different sizes, so that most numbers are no sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

MOST_AMOUNTS = 12
"""With more different amounts than this nearly every number is a sum."""

MOST_BITS = 200_000


def rounded(bound: int, amounts: Collection[int]) -> int:
    """Return the least number at or above a bound that is a sum of the amounts, each as often as you like.

    The amounts are all positive or all negative; else, and where it would take too long, the bound is as good as known.
    """
    sizes = sorted({abs(amount) for amount in amounts})
    signs = {amount > 0 for amount in amounts}
    if not sizes or len(sizes) > MOST_AMOUNTS or len(signs) > 1 or 0 in sizes:
        return bound
    if True in signs:
        return bound if bound <= 0 else _least(bound, sizes)
    return 0 if bound >= 0 else -_most(-bound, sizes)


def _most(value: int, sizes: list[int]) -> int:
    """Return the largest sum at or below a value."""
    if value > MOST_BITS:
        return value
    return (_sums(value, sizes) & ((1 << (value + 1)) - 1)).bit_length() - 1


def _least(value: int, sizes: list[int]) -> int:
    """Return the smallest sum at or above a value."""
    top = value + sizes[0]
    if top > MOST_BITS:
        return value
    above = _sums(top, sizes) >> value
    return value + (above & -above).bit_length() - 1


def _sums(top: int, sizes: list[int]) -> int:
    """Return a number with bit n set where n is a sum, for every n up to ``top``."""
    mask = (1 << (top + 1)) - 1
    reached = 1
    for size in sizes:
        step = size
        while step <= top:
            # with up to 1, 3, 7, 15 … of this size
            reached |= (reached << step) & mask
            step *= 2
    return reached
