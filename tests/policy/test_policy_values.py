from __future__ import annotations

import fnmatch
import itertools
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpualloc.errors import GpuallocError, Place
from gpualloc.policy.asks import capability_matches, parse_capability_spec, parse_memory
from gpualloc.policy.values import format_memory, is_glob, listed, shown, specificity
from tests.policy.helpers import relaxed

BYTES = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("12GiB", 12288),
        ("1.5GiB", 1536),
        ("40 GiB", 40960),
        ("1KiB", 1),
        ("0MiB", 0),
        ("24GB", 22889),
        ("1MB", 1),
        ("1048577kB", 1000 * 1048577 // 2**20 + 1),
        ("1TiB", 2**20),
        ("1PiB", 2**30),
    ],
)
def test_memory(text: str, mib: int) -> None:
    assert parse_memory(text) == mib


@relaxed
@given(st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1), st.sampled_from(sorted(BYTES)))
def test_memory_is_rounded_up_to_a_mebibyte(whole: int, decimals: int, unit: str) -> None:
    text = f"{whole}.{decimals:09d}{unit}"
    exact = (whole + Fraction(decimals, 10**9)) * BYTES[unit]
    mib = parse_memory(text)
    assert (mib - 1) * 2**20 < exact <= mib * 2**20


@relaxed
@given(st.integers(0, 10**9 - 1))
def test_format_memory_is_read_back(mib: int) -> None:
    assert parse_memory(format_memory(mib)) == mib


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (12, "12GiB"),
        ("12", "12GiB"),
        ("8000", "8000MiB"),
        ("12gb", "12GiB (1024s) or 12GB (1000s)"),
        ("12G", "12GiB"),
        ("512k", "512KiB (1024s) or 512kB (1000s)"),
        ("12 apples", "12GiB"),
        ("lots", "12GiB"),
        (None, "12GiB"),
        (True, "12GiB"),
        ("-1GiB", "12GiB"),
        ("1234567890123GiB", "12GiB"),
        ("\N{ARABIC-INDIC DIGIT ONE}GiB", "12GiB"),
    ],
)
def test_bad_memory_says_what_to_write(value: object, hint: str) -> None:
    where = Place("compose.yaml", 3, 5)
    with pytest.raises(GpuallocError) as caught:
        parse_memory(value, where)
    (problem,) = caught.value.diagnostics
    assert problem.code == "memory-size"
    assert problem.where == where
    assert problem.hint is not None
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("spec", "capability", "matches"),
    [
        (">=8.0", "8.0", True),
        (">=8.0", "7.5", False),
        (">=8.9", "12.0", True),
        ("<9", "8.9", True),
        ("<9", "9.0", False),
        ("8.6", "8.6", True),
        ("8.6", "8.9", False),
        ("==8.6", "8.6", True),
        (">8.6", "8.6", False),
        (">8.6", "8.10", True),
        ("<=8.9", "8.10", False),
        (" >= 7.5 , < 9.0 ", "8.6", True),
        (">=7.5,<9.0", "9.0", False),
        (">=0.0", None, False),
        (">=0.0", "unknown", False),
    ],
)
def test_capability(spec: str, capability: str | None, matches: bool) -> None:  # noqa: FBT001  # a column of the table
    assert capability_matches(spec, capability) is matches


CLAUSE = st.tuples(st.sampled_from([">=", ">", "==", "<=", "<"]), st.integers(0, 2), st.integers(0, 2))


@relaxed
@given(st.lists(CLAUSE, min_size=1, max_size=3))
def test_a_spec_is_refused_exactly_if_nothing_meets_it(clauses: list[tuple[str, int, int]]) -> None:
    spec = ",".join(f"{sign}{major}.{minor}" for sign, major, minor in clauses)
    tests = {">=": int.__ge__, ">": int.__gt__, "==": int.__eq__, "<=": int.__le__, "<": int.__lt__}
    # one more than any number in a clause, so that there is always something beyond
    everything = [(major, minor) for major, minor in itertools.product(range(4), range(4))]
    met = [
        (major, minor)
        for major, minor in everything
        if all(tests[sign](major * 100 + minor, m * 100 + n) for sign, m, n in clauses)
    ]
    if met:
        parse_capability_spec(spec)
        assert met == [(a, b) for a, b in everything if capability_matches(spec, f"{a}.{b}")]
    else:
        with pytest.raises(GpuallocError, match="contradict"):
            parse_capability_spec(spec)


@pytest.mark.parametrize(
    "spec", ["", "8.x", "~=8", "=8.0", "8.0,", ">=", "1.2.3", "8,0,x", "\N{ARABIC-INDIC DIGIT EIGHT}"]
)
def test_a_bad_spec_is_refused_with_examples(spec: str) -> None:
    with pytest.raises(GpuallocError) as caught:
        parse_capability_spec(spec, Place("p.yaml", 1, 2))
    (problem,) = caught.value.diagnostics
    assert problem.code == "capability-spec"
    assert problem.hint is not None
    assert ">=8.0" in problem.hint


def closes_all_brackets(glob: str) -> bool:
    """What fnmatch's own scan does: ``[``, then perhaps ``!``, then perhaps ``]``, then up to the next ``]``."""
    position = 0
    while position < len(glob):
        position += 1
        if glob[position - 1] != "[":
            continue
        end = position
        if glob[end : end + 1] == "!":
            end += 1
        if glob[end : end + 1] == "]":
            end += 1
        end = glob.find("]", end)
        if end < 0:
            return False
        position = end + 1
    return True


@relaxed
@given(st.text("[]!ab*?-", min_size=1))
def test_a_glob_is_good_exactly_if_fnmatch_finds_its_brackets_closed(glob: str) -> None:
    assert is_glob(glob) is closes_all_brackets(glob)


@relaxed
@given(st.text("[]!ab*?-", min_size=1))
def test_a_most_specific_glob_matches_just_itself(glob: str) -> None:
    if is_glob(glob) and specificity(glob)[0]:
        assert re.compile(fnmatch.translate(glob)).fullmatch(glob)
        assert not any(fnmatch.fnmatchcase(glob + more, glob) for more in "ab*?")


def test_specificity_orders_from_general_to_specific() -> None:
    globs = ["trainer", "trainer-[0-9]", "train*", "t*", "*", "*a*", "a?", "a*b"]
    assert sorted(globs, key=specificity) == ["*", "*a*", "a?", "t*", "a*b", "train*", "trainer-[0-9]", "trainer"]


def test_words_for_messages() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"], "and") == "a, b and c"
    values: list[object] = [None, True, 1, 1.5, "a\x07", [], {}, 10**80]
    assert [shown(value) for value in values] == [
        "nothing",
        "true",
        "1",
        "1.5",
        '"a\\x07"',
        "a list",
        "a mapping",
        "a number of more than 60 digits",
    ]
    assert len(shown("x" * 1000)) < 70
