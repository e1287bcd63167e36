"""Every fault that GPUs have: what check says, who moves, that nobody else does, and that what is written passes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.bench import Bench, machine, uuids
from tests.nvml.fake import Code, Machine

if TYPE_CHECKING:
    from collections.abc import Callable

GPUS = uuids("4xl40s")
NEW = "GPU-0badcafe-1111-2222-3333-444455556666"

# Four GPUs: `alone` and `other` have one each, two small ones share a third, the fourth is spare.
SERVICES = """\
  alone:
    image: i
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}
  other:
    image: i
    gpus: [{count: 1}]
  small:
    image: i
    x-gpualloc: {memory: 30GiB, affinity: [tiny]}
  tiny:
    image: i
    x-gpualloc: {memory: 6GiB}
"""


@dataclass(frozen=True)
class Fault:
    """``happen`` changes the machine, given the UUIDs by worker; then check says ``codes``, and ``movers`` move."""

    happen: Callable[[Bench, Machine, dict[str, str]], object]
    codes: tuple[str, ...]
    movers: tuple[str, ...]
    says: str = ""


def swap(first: int, second: int) -> Callable[[Bench, Machine, dict[str, str]], object]:
    def happen(_bench: Bench, host: Machine, _at: dict[str, str]) -> None:
        gpus = host.description["gpus"]
        gpus[first], gpus[second] = gpus[second], gpus[first]

    return happen


def replaced(_bench: Bench, host: Machine, at: dict[str, str]) -> None:
    old = at["other"]
    host.gpu(old)["UUID"] = NEW
    for gpu in host.description["gpus"]:
        ancestors = gpu.get("TopologyCommonAncestor", {})
        if old in ancestors:
            ancestors[NEW] = ancestors.pop(old)


def added(_bench: Bench, host: Machine, _at: dict[str, str]) -> None:
    gpu = machine("4xl40s").gpu(0)
    gpu.update(UUID=NEW, PciInfo={"busId": "00000000:00:01.0"}, TopologyCommonAncestor={})
    host.description["gpus"].insert(0, gpu)  # before the others: each index goes up


def split(_bench: Bench, host: Machine, at: dict[str, str]) -> None:
    part = machine("a100-mig").gpu(0)["mig"][1]
    host.gpu(at["other"]).update(MigMode=[1, 1], MaxMigDeviceCount=7, mig=[part])


def foreign(bench: Bench, host: Machine, at: dict[str, str]) -> None:
    bench.contain(77, "elsewhere", "train")
    host.start(77, at["other"], 41_400)


def idle(bench: Bench, _host: Machine, at: dict[str, str]) -> None:
    request = {"Driver": "nvidia", "DeviceIDs": [at["other"]], "Capabilities": [["gpu"]]}
    bench.contain(78, "elsewhere", "notebook", DeviceRequests=[request])


def shared(bench: Bench, host: Machine, at: dict[str, str]) -> None:
    bench.contain(79, "elsewhere", "train")
    host.start(79, at["small"], 41_400)


def at_work(bench: Bench, host: Machine, at: dict[str, str]) -> None:
    for pid, worker in enumerate(at, start=80):
        bench.contain(pid, "shop", worker)
        host.start(pid, at[worker], 20_000)


def slow(seconds: float) -> Callable[[Bench, Machine, dict[str, str]], object]:
    return lambda _, host, at: host.hang("nvmlDeviceGetRemappedRows", seconds, gpu=at["other"])


FAULTS = {
    "nothing": Fault(lambda *_: None, (), ()),
    "lost": Fault(lambda _, host, at: host.lose(at["other"]), ("lost-device",), ("other",), "does not have"),
    "lost to its queries": Fault(
        lambda _, host, at: host.lose(at["other"], handle=False), ("lost-device",), ("other",), "does not have"
    ),
    "lost while it is read": Fault(
        lambda _, host, at: host.fail("nvmlDeviceGetDisplayActive", Code.GPU_IS_LOST, gpu=at["other"]),
        ("unhealthy-device",),
        ("other",),
        "fallen off the bus",
    ),
    "gone": Fault(lambda _, host, at: host.remove(at["other"]), ("lost-device",), ("other",), "does not have"),
    "two sharers lose theirs": Fault(
        lambda _, host, at: host.remove(at["small"]), ("lost-device", "lost-device"), ("small", "tiny"), "does not have"
    ),
    "two renumbered": Fault(swap(0, 2), (), ()),
    "all renumbered": Fault(lambda _, host, __: host.description["gpus"].reverse(), (), ()),
    "replaced": Fault(replaced, ("lost-device",), ("other",), "does not have"),
    "added": Fault(added, (), ()),
    "MIG on": Fault(split, ("mig-on",), ("other",), "which MIG has split since: it has 1 instance now"),
    "remap pending": Fault(
        lambda _, host, at: host.make_unhealthy(at["other"], "row_remap_pending"),
        ("unhealthy-device",),
        ("other",),
        "memory rows wait to be remapped, which takes a reset of the GPU (row_remap_pending)",
    ),
    "remap failed": Fault(
        lambda _, host, at: host.make_unhealthy(at["other"], "row_remap_failed"),
        ("unhealthy-device",),
        ("other",),
        "(row_remap_failed)",
    ),
    "uncorrected errors": Fault(
        lambda _, host, at: host.gpu(at["other"]).update(
            TotalEccErrors={"uncorrected": {"volatile": 2, "aggregate": 2}}
        ),
        ("unhealthy-device",),
        ("other",),
        "2 uncorrected memory errors since the driver was loaded (ecc_uncorrected)",
    ),
    "the spare is unhealthy": Fault(
        lambda _, host, at: host.make_unhealthy(at["spare"], "row_remap_failed"), ("unhealthy-spare",), ()
    ),
    "too hot": Fault(
        lambda _, host, at: host.gpu(at["other"]).update(CurrentClocksEventReasons=0x40),
        ("thermal-slowdown",),
        (),
        "too hot",
    ),
    "foreign memory, 90 %": Fault(foreign, ("unfit-busy",), ("other",), "held by elsewhere/train, 40.4 GiB used"),
    "foreign memory on a shared one": Fault(
        shared, ("unfit-busy", "unfit-busy", "over-capacity"), ("small", "tiny"), "held by elsewhere/train"
    ),
    "an idle container": Fault(idle, ("unfit-busy",), ("other",), "held by elsewhere/notebook"),
    "everybody at work": Fault(at_work, (), ()),
    "a query that hangs": Fault(slow(0.2), (), ()),
    "a query that hangs for 5 s": Fault(slow(5), (), ()),
}
CASES = [pytest.param(name, marks=pytest.mark.long if name.endswith("5 s") else ()) for name in FAULTS]


def where(plan: dict[str, Any]) -> dict[str, list[str]]:
    return {p["worker"]: [d["uuid"] for d in p["devices"]] for p in plan["placements"]}


def settled(bench: Bench) -> dict[str, str]:
    """Let the project be planned and written on the machine as it should be; return who is where."""
    bench.fake.describe(machine("4xl40s"))
    bench.project(SERVICES)
    bench.apply()
    assert bench.check(code=0) == []
    at = {worker: ids[0] for worker, ids in where(bench.plan()).items()}
    assert at["small"] == at["tiny"]
    assert len(set(at.values())) == 3
    (spare,) = set(GPUS) - set(at.values())
    return at | {"spare": spare}


@pytest.mark.parametrize("name", CASES)
def test_a_fault_moves_those_that_it_touches(bench: Bench, name: str) -> None:
    fault, at = FAULTS[name], settled(bench)
    before, written = where(bench.plan()), bench.file.read_bytes()
    workers = {worker: uuid for worker, uuid in at.items() if worker != "spare"}
    host = machine("4xl40s")
    fault.happen(bench, host, workers if fault.happen is at_work else at)
    bench.fake.describe(host)

    findings = [f for f in bench.check(code=1 if fault.movers or name == "too hot" else 0) if f["code"] != "outlook"]
    assert sorted(f["code"] for f in findings) == sorted(fault.codes)
    for finding in findings:
        assert finding["hint"]
        if finding["severity"] == "error":
            assert finding["file"] == "compose.yaml"
            assert finding["line"]
    assert not fault.says or any(fault.says in f["summary"] for f in findings), findings

    plan = bench.plan()
    after, actions = where(plan), {p["worker"]: p["action"] for p in plan["placements"]}
    assert plan["complete"]
    assert {worker for worker in before if after[worker] != before[worker]} == set(fault.movers)
    assert {worker for worker, action in actions.items() if action != "keep"} == set(fault.movers)
    assert all(p["reason"].startswith("moved: ") for p in plan["placements"] if p["worker"] in fault.movers)
    if name == "MIG on":
        assert any("is split by MIG now; " in p["reason"] for p in plan["placements"])
    (moves,) = [tier for tier in plan["objective"] if tier["name"] == "moves"]
    assert (moves["value"], moves["proven"]) == (len(fault.movers), True)

    bench.apply()
    assert (bench.file.read_bytes() == written) == (not fault.movers)
    assert not [f for f in bench.check() if f["severity"] == "error"]
    if name != "too hot":
        bench.check(code=0)
    assert where(bench.plan()) == after
    again = bench.file.read_bytes()
    bench.apply()
    assert bench.file.read_bytes() == again


def test_a_query_that_hangs_for_5_s_is_told_of_and_moves_nobody(bench: Bench) -> None:
    at = settled(bench)
    host = machine("4xl40s")
    slow(5)(bench, host, at)
    bench.fake.describe(host)
    result = bench.run("check")
    assert (result.code, result.out) == (0, "no findings\n")
    assert "nvmlDeviceGetRemappedRows took 5." in result.err
    assert "a GPU may be in trouble" in result.err


def test_each_finding_says_where_its_worker_would_go(bench: Bench) -> None:
    at = settled(bench)
    bench.fake.describe(machine("4xl40s").make_unhealthy(at["other"], "row_remap_pending"))
    (finding, outlook) = bench.check(code=1)
    assert finding["hint"] == (
        f"gpualloc apply moves it to GPU {GPUS.index(at['spare'])}; "
        "then stop what uses it, then reset it: nvidia-smi --gpu-reset -i GPU"
    )
    assert outlook["severity"] == "note"
    assert outlook["summary"] == "gpualloc apply moves 1 of 4 workers (other), leaves the others where they are"


def test_a_better_gpu_that_is_free_now_is_a_remark(bench: Bench) -> None:
    both = machine("mixed-5090-4090")
    small = next(gpu for gpu in both.description["gpus"] if "4090" in gpu["Name"])
    big = [gpu["UUID"] for gpu in both.description["gpus"] if "5090" in gpu["Name"]]
    host = machine("mixed-5090-4090")
    for uuid in big:
        host.make_unhealthy(uuid, "row_remap_pending")
    bench.fake.describe(host)
    bench.project("  only:\n    image: i\n    gpus: [{count: 1}]\n")
    bench.apply()
    assert where(bench.plan())["only"] == [small["UUID"]]
    bench.fake.describe(both)
    (remark,) = bench.check(code=0)
    assert (remark["code"], remark["severity"]) == ("better-plan", "note")
    assert remark["summary"].startswith("planned from scratch, device_size would be ")
    assert remark["hint"] == "gpualloc apply --replan moves only for it"
    bench.apply()
    assert where(bench.plan())["only"] == [small["UUID"]]
    with bench.fake.loaded():
        assert bench.call("apply", "--yes", "--replan", "--policy", "prod").code == 0
    assert where(bench.plan())["only"][0] in big
    assert bench.check(code=0) == []


def test_since_an_earlier_inventory_every_change_is_told(bench: Bench) -> None:
    at = settled(bench)
    with bench.fake.loaded():
        assert bench.call("inventory", "--format", "json", "-o", "then.json").code == 0
    host = machine("4xl40s")
    swap(0, 1)(bench, host, at)
    foreign(bench, host, at)
    host.make_unhealthy(at["small"], "retired_pages_pending")
    host.gpu(at["alone"])["MemoryInfo"]["total"] -= 8 << 30
    added(bench, host, at)
    host.remove(at["spare"])
    bench.fake.describe(host)
    result = bench.run("check", "--format", "json", "--since", "then.json")
    assert result.code == 1
    told = [f for f in json.loads(result.out)["findings"] if f["code"].startswith("changed-")]
    assert {f["severity"] for f in told} == {"note"}
    by_code: dict[str, list[str]] = {}
    for f in told:
        by_code.setdefault(f["code"], []).append(f"{f['summary']} / {f['hint']}")
    assert sorted(by_code) == [
        "changed-busy",
        "changed-gone",
        "changed-memory",
        "changed-new",
        "changed-renumbered",
        "changed-unhealthy",
    ]
    assert "it touches other / " in by_code["changed-busy"][0]
    assert "it touches no worker / nothing needs to be done for it" in by_code["changed-gone"][0]
    assert "it touches alone / gpualloc apply moves none of them for it" in by_code["changed-memory"][0]
    assert NEW in by_code["changed-new"][0]
    (renumbered,) = by_code["changed-renumbered"]
    assert "GPU 2 was GPU 0 before, GPU 3 was GPU 2 before; it touches no worker / " in renumbered
    assert "it touches small, tiny / " in by_code["changed-unhealthy"][0]
    quiet = bench.run("check", "--format", "json", "--since", "nvml")
    assert not [f for f in json.loads(quiet.out)["findings"] if f["code"].startswith("changed-")]


def test_where_nothing_is_left_it_says_so(bench: Bench) -> None:
    at = settled(bench)
    bench.fake.describe(machine("4xl40s").remove(at["other"]).remove(at["spare"]))
    (finding, _) = bench.check(code=1)
    assert finding["code"] == "lost-device"
    assert finding["hint"].startswith("gpualloc apply finds no device for it: ")
    assert bench.run("apply", "--yes").code == 3
    assert where(bench.plan(code=3)) == {worker: [at[worker]] for worker in ("alone", "small", "tiny")}


def test_a_foreign_process_that_leaves_again_moves_nobody(bench: Bench) -> None:
    at = settled(bench)
    before = bench.file.read_bytes()
    host = machine("4xl40s")
    foreign(bench, host, at)
    bench.fake.describe(host)
    assert [f["code"] for f in bench.check(code=1)] == ["unfit-busy", "outlook"]
    bench.fake.describe(machine("4xl40s"))
    bench.containers.clear()
    bench.engine()
    assert bench.check(code=0) == []
    bench.apply()
    assert bench.file.read_bytes() == before
    assert {p["action"] for p in bench.plan()["placements"]} == {"keep"}


def test_a_foreign_process_that_leaves_after_an_apply_moves_nobody_back(bench: Bench) -> None:
    at = settled(bench)
    host = machine("4xl40s")
    foreign(bench, host, at)
    bench.fake.describe(host)
    bench.apply()
    after = bench.file.read_bytes()
    assert where(bench.plan())["other"] == [at["spare"]]
    bench.fake.describe(machine("4xl40s"))
    bench.containers.clear()
    bench.engine()
    assert bench.check(code=0) == []
    bench.apply()
    assert bench.file.read_bytes() == after


def test_a_gpu_that_comes_and_goes_every_second_moves_its_worker_once(bench: Bench) -> None:
    at = settled(bench)
    there, away = machine("4xl40s"), machine("4xl40s").lose(at["other"])
    before = bench.file.read_bytes()
    for _ in range(3):  # seen when it is away, and again when it is back: nothing was written, nothing is wrong
        bench.fake.describe(away)
        assert [f["code"] for f in bench.check(code=1)] == ["lost-device", "outlook"]
        bench.fake.describe(there)
        assert bench.check(code=0) == []
    assert bench.file.read_bytes() == before
    bench.fake.describe(away)
    bench.apply()
    moved = bench.file.read_bytes()
    for host in (there, away, there, away):  # once moved, the worker stays moved
        bench.fake.describe(host)
        assert bench.check(code=0) == []
        bench.apply()
        assert bench.file.read_bytes() == moved


DOWN: dict[str, tuple[Callable[[Bench], object], str, str]] = {
    "no driver": (lambda bench: bench.fake.unload_driver(), "the NVIDIA driver is not loaded", "modprobe"),
    "mismatch": (
        lambda bench: bench.fake.describe(machine("4xl40s").fail("nvmlInit", Code.LIB_RM_VERSION_MISMATCH)),
        "have different versions",
        "restart the host",
    ),
    "every GPU lost": (
        lambda bench: bench.fake.describe(machine("4xl40s").lose(0).lose(1).lose(2).lose(3)),
        "fallen off the bus",
        "restart the host",
    ),
}


@pytest.mark.parametrize("name", DOWN)
@pytest.mark.parametrize("command", [["check"], ["plan"], ["apply", "--yes"]], ids=lambda command: command[0])
def test_without_a_driver_nothing_is_planned_or_written(bench: Bench, name: str, command: list[str]) -> None:
    settled(bench)
    before = bench.file.read_bytes()
    happen, says, hint = DOWN[name]
    happen(bench)
    result = bench.run(*command)
    assert result.code == 2
    assert result.out == ""
    assert says in result.err
    assert hint in result.err
    assert bench.file.read_bytes() == before
    bench.fake.describe(machine("4xl40s"))
    assert bench.check(code=0) == []


# MIG instances are devices of their own

MIG_SERVICES = """\
  big:
    image: i
    x-gpualloc: {mig_profile: 3g.40gb}
  one:
    image: i
    x-gpualloc: {mig_profile: 1g.10gb}
  two:
    image: i
    x-gpualloc: {mig_profile: 1g.10gb}
"""


def test_mig_set_up_anew_moves_those_on_the_instances_that_went(bench: Bench) -> None:
    bench.fake.describe(machine("a100-mig"))
    bench.project(MIG_SERVICES)
    bench.apply()
    assert bench.check(code=0) == []
    before = where(bench.plan())
    host = machine("a100-mig")
    host.gpu(before["one"][0])["UUID"] = "MIG-0badcafe-1111-2222-3333-444455556666"
    bench.fake.describe(host)
    finding, outlook = bench.check(code=1)
    assert finding["code"] == "mig-changed"
    assert "MIG has been set up anew" in finding["summary"]
    assert outlook["summary"].startswith("gpualloc apply moves 1 of 3 workers (one)")
    after = where(bench.plan())
    assert {worker for worker in before if before[worker] != after[worker]} == {"one"}
    bench.apply()
    assert bench.check(code=0) == []


def test_mig_off_moves_its_workers_to_other_instances(bench: Bench) -> None:
    bench.fake.describe(machine("a100-mig"))
    bench.project(MIG_SERVICES)
    bench.apply()
    before = where(bench.plan())
    host = machine("a100-mig")
    (number,) = {
        n for n, gpu in enumerate(host.description["gpus"]) if before["one"][0] in {p["UUID"] for p in gpu["mig"]}
    }
    hit = {w for w, ids in before.items() if ids[0] in {p["UUID"] for p in host.gpu(number)["mig"]}}
    host.gpu(number).update(MigMode=[0, 0], mig=[])
    bench.fake.describe(host)
    result = bench.run("plan", "--format", "json")
    assert {f["code"] for f in bench.check(code=1)} <= {"mig-changed", "lost-device", "outlook"}
    assert result.code in {0, 3}
    kept = {w: ids for w, ids in where(bench.plan(code=result.code)).items() if w not in hit}
    assert kept == {w: ids for w, ids in before.items() if w not in hit}
