from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpualloc.render.layout import ANSI, Line, Style, cell, paint, printable, width_of
from gpualloc.render.words import listed, memory, ranges, short_name, short_uuid
from gpualloc.render.wrap import wrapped


@pytest.mark.parametrize("style", list(ANSI))
def test_styles_look_the_same_wrapped_and_not(style: Style) -> None:
    assert wrapped(Line(cell("x", style)), 80, colour=True) == f"{paint('x', style, colour=True)}\n"


@pytest.mark.parametrize(
    ("mib", "text"),
    [
        (None, "?"),
        (0, "0 MiB"),
        (1023, "1023 MiB"),
        (1024, "1 GiB"),
        (1536, "1.5 GiB"),
        (81559, "79.6 GiB"),
        (40960, "40 GiB"),
    ],
)
def test_memory(mib: int | None, text: str) -> None:
    assert memory(mib) == text


@settings(deadline=None)
@given(st.sets(st.integers(0, 40), min_size=1))
def test_ranges_name_exactly_their_numbers(numbers: set[int]) -> None:
    named: list[int] = []
    for part in ranges(numbers).split(", "):
        first, _, last = part.partition("-")
        named += range(int(first), int(last or first) + 1)
    assert named == sorted(numbers)


def test_two_in_a_row_are_no_range() -> None:
    assert ranges([3, 1, 0, 6, 5, 4]) == "0, 1, 3-6"


def test_listed() -> None:
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c"], 2) == "a and 2 more"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop GPU"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("Tesla V100-SXM2-32GB", "V100-SXM2-32GB"),
        ("NVIDIA", "NVIDIA"),
    ],
)
def test_short_name(name: str, short: str) -> None:
    assert short_name(name) == short


@pytest.mark.parametrize(
    ("uuid", "short"),
    [
        ("GPU-1f2e3d4c-0000-4000-8000-000000000000", "GPU-1f2e3d4c"),
        ("MIG-1f2e3d4c-0000-4000-8000-000000000000", "MIG-1f2e3d4c"),
        ("0", "0"),
        ("nvidia.com/gpu=0", "nvidia.com/gpu=0"),
    ],
)
def test_short_uuid(uuid: str, short: str) -> None:
    assert short_uuid(uuid) == short


@settings(deadline=None)
@given(st.text(st.characters()))
def test_printable_text_is_one_encodable_line_without_controls(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert len(f"{shown}.".splitlines()) == 1
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown)


def test_width_counts_columns() -> None:
    assert [width_of(text) for text in ("abc", "日本", "e\u0301", "±·")] == [3, 4, 1, 2]
