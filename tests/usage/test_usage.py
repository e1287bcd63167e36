"""What workers use against what they asked for, on a host read through the real pynvml."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.bench import Bench, machine

if TYPE_CHECKING:
    from tests.nvml.fake import Machine

SERVICES = """\
  alone:
    image: i
    gpus: [{count: 2}]
  small:
    image: i
    x-gpualloc: {memory: 20GiB, affinity: [tiny]}
  tiny:
    image: i
    x-gpualloc: {memory: 2GiB}
"""


@pytest.fixture
def at(bench: Bench) -> dict[str, list[str]]:
    """Where everybody is, once planned."""
    bench.fake.describe(machine("4xl40s"))
    bench.project(SERVICES)
    bench.apply()
    return {p["worker"]: [d["uuid"] for d in p["devices"]] for p in bench.plan()["placements"]}


def usage(bench: Bench, *args: str) -> dict[str, dict[str, Any]]:
    result = bench.run("usage", "--format", "json", *args)
    assert result.code == 0, result.err
    return {one["worker"]: one for one in json.loads(result.out)["workers"]}


def working(bench: Bench, at: dict[str, list[str]], **mib: int) -> Machine:
    host = machine("4xl40s")
    for pid, (worker, used) in enumerate(mib.items(), start=100):
        bench.contain(pid, "shop", worker)
        for n, uuid in enumerate(at[worker]):
            host.start(pid, uuid, used + 1000 * n)
    bench.fake.describe(host)
    return host


def test_each_worker_is_told_apart_even_on_one_device(bench: Bench, at: dict[str, list[str]]) -> None:
    assert at["small"] == at["tiny"]
    working(bench, at, alone=10_000, small=5_000, tiny=2_100)
    found = usage(bench)
    assert [d["used_mib"] for d in found["alone"]["devices"]] == [10_000, 11_000]
    assert [d["declared_mib"] for d in found["alone"]["devices"]] == [None, None]
    (small,), (tiny,) = found["small"]["devices"], found["tiny"]["devices"]
    assert (small["declared_mib"], small["used_mib"], small["peak_mib"]) == (20_480, 5_000, 5_000)
    assert (tiny["declared_mib"], tiny["used_mib"]) == (2_048, 2_100)
    assert {worker: one["state"] for worker, one in found.items()} == dict.fromkeys(at, "running")
    assert {worker: one["verdict"] for worker, one in found.items()} == {
        "alone": "unknown",
        "small": "generous",
        "tiny": "over",
    }
    # the peak and a fifth, up to the next 256 MiB
    assert found["alone"]["suggested_mib"] == 13_312
    assert (found["small"]["suggested_mib"], found["tiny"]["suggested"]) == (6_144, "2560MiB")
    assert usage(bench, "--margin", "100%")["small"]["suggested_mib"] == 10_240


def test_replicas_are_told_apart(bench: Bench) -> None:
    bench.fake.describe(machine("4xl40s"))
    bench.project("  serve:\n    image: i\n    x-gpualloc: {memory: 10GiB}\n    deploy: {replicas: 2}\n")
    bench.apply()
    at = {p["worker"]: [d["uuid"] for d in p["devices"]] for p in bench.plan()["placements"]}
    host = machine("4xl40s")
    for pid, worker, mib in ((100, "serve-1", 3_000), (101, "serve-2", 4_000)):
        bench.contain(pid, "shop", worker)
        host.start(pid, at[worker][0], mib)
    bench.fake.describe(host)
    found = usage(bench)
    assert {worker: one["state"] for worker, one in found.items()} == dict.fromkeys(at, "running")
    assert [found[worker]["devices"][0]["used_mib"] for worker in ("serve-1", "serve-2")] == [3_000, 4_000]


def test_a_peak_is_remembered(bench: Bench, at: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpualloc.usage.run._EVERY_S", 0.05)
    bench.contain(100, "shop", "small")

    def uses(mib: int) -> None:
        bench.fake.describe(machine("4xl40s").start(100, at["small"][0], mib))

    uses(3_000)
    ended = threading.Event()

    def rise() -> None:
        for mib in (9_000, 4_000):
            time.sleep(0.6)
            uses(mib)
        ended.set()

    thread = threading.Thread(target=rise)
    thread.start()
    result = bench.run("usage", "--format", "json", "--for", "2s")
    thread.join()
    document = json.loads(result.out)
    assert document["seconds"] == 2
    assert document["readings"] > 3
    (small,) = next(one for one in document["workers"] if one["worker"] == "small")["devices"]
    assert small["used_mib"] == 4_000
    assert small["peak_mib"] == 9_000


def test_who_is_not_running_is_told(bench: Bench, at: dict[str, list[str]]) -> None:
    working(bench, at, small=5_000)
    found = usage(bench)
    assert {worker: one["state"] for worker, one in found.items()} == {
        "alone": "not-seen",
        "small": "running",
        "tiny": "not-seen",
    }
    assert found["tiny"]["suggested_mib"] is None
    assert found["tiny"]["devices"][0]["used_mib"] is None
    result = bench.run("usage")
    assert "nothing is to be seen of alone, tiny" in result.err


def test_without_an_engine_what_is_on_a_workers_own_device_is_taken_to_be_its_own(
    bench: Bench, at: dict[str, list[str]]
) -> None:
    host = machine("4xl40s")
    host.start(7, at["alone"][0], 9_000).start(8, at["small"][0], 3_000)
    bench.fake.describe(host)
    found = usage(bench)
    assert found["alone"]["state"] == "taken-to-be"
    assert [d["used_mib"] for d in found["alone"]["devices"]] == [9_000, None]
    assert found["small"]["state"] == found["tiny"]["state"] == "not-seen"  # whose of the two it is cannot be told
    assert "alone*" in bench.run("usage").out


def test_memory_that_the_driver_hides_is_unknown(bench: Bench, at: dict[str, list[str]]) -> None:
    bench.contain(100, "shop", "small")
    bench.fake.describe(machine("4xl40s").start(100, at["small"][0], None))
    one = usage(bench)["small"]
    assert (one["state"], one["verdict"], one["suggested_mib"]) == ("running", "unknown", None)


def test_others_do_not_count(bench: Bench, at: dict[str, list[str]]) -> None:
    host = working(bench, at, small=5_000)
    bench.contain(200, "elsewhere", "small")
    bench.fake.describe(host.start(200, at["small"][0], 7_000))
    assert usage(bench)["small"]["devices"][0]["used_mib"] == 5_000


def test_the_table(bench: Bench, at: dict[str, list[str]]) -> None:
    working(bench, at, alone=10_240, small=5_120, tiny=2_560)
    lines = bench.run("usage").out.splitlines()
    assert lines[0].split() == ["worker", "device", "asked", "used", "peak", "suggested"]
    assert lines[-1] == "1 reading"
    (tiny,) = [line.split() for line in lines if line.startswith("tiny")]
    assert tiny == ["tiny", "GPU", tiny[2], "2", "GiB", "2.5", "GiB", "2.5", "GiB", "over", "memory:", "3GiB"]
    assert sum(line.startswith("alone") for line in lines) == 1
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("args", "words"),
    [(("--for", "60"), "write it as 30s"), (("--margin", "20"), "write it as 20%"), (("--margin", "x%"), "percentage")],
)
def test_what_cannot_be_understood(bench: Bench, at: dict[str, list[str]], args: tuple[str, str], words: str) -> None:
    assert at
    result = bench.run("usage", *args)
    assert result.code == 2
    assert words in result.err
