"""Up to 16 devices and 40 workers the plan equals what CP-SAT proves best, and CP-SAT finds nothing better."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from tests.long_runs import share
from tests.oracle.instances import MIDDLE, seeded
from tests.oracle.judge import beside_cpsat


@pytest.mark.parametrize("seed", range(1, 7))
def test_few(seed: int) -> None:
    _, verdict, message = beside_cpsat(seeded(seed, MIDDLE), seconds=30)
    assert verdict in ("equal", "no worse"), message


@pytest.mark.long
def test_many(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts: Counter[str] = Counter()
    complete = equal = 0
    wrong = []
    for seed in range(1000, 1000 + share(300)):
        answer, verdict, message = beside_cpsat(seeded(seed, MIDDLE), seconds=60)
        verdicts[verdict] += 1
        complete += answer.complete
        equal += answer.complete and verdict == "equal"
        if verdict in ("worse", "better"):
            wrong.append(f"seed {seed}: {message}")
    with capsys.disabled():
        sys.stdout.write(
            f"\nequal tuple {equal} of {complete} proven, of {sum(verdicts.values())} in all; "
            f"CP-SAT better: {verdicts['worse']}; verdicts {dict(verdicts)}\n"
        )
    assert not wrong, "\n\n".join(wrong)
