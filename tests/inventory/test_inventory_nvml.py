"""A host read through the real pynvml, from a library that answers in place of NVIDIA's."""

from __future__ import annotations

import builtins
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpualloc.errors import Diagnostic, GpuallocError
from gpualloc.inventory import load, nvml, shipped
from gpualloc.inventory.health import nvlinks
from gpualloc.inventory.mig import profile_name
from gpualloc.inventory.snapshot import dump
from gpualloc.model import Gpu, Host, Inventory, Link, MigInstance, Process, Reading
from tests.inventory.strategies import hosts
from tests.nvml.fake import Code, FakeNvml, Machine

H100S: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "nvml/machines/2xh100.json").read_text(encoding="utf-8")
)
Read = Callable[[Machine | dict[str, Any]], Reading]


@pytest.fixture
def host_files(tmp_path: Path) -> Path:
    """Where a host's /proc and /sys would be: with nothing in them."""
    directory = tmp_path / "host"
    directory.mkdir()
    return directory


@pytest.fixture
def read(fake_nvml: FakeNvml, host_files: Path) -> Read:
    def reading(machine: Machine | dict[str, Any]) -> Reading:
        fake_nvml.describe(machine)
        with fake_nvml.loaded():
            return nvml.read(proc=host_files, sys=host_files)

    return reading


def machine(name: str) -> Machine:
    return Machine.from_inventory(json.loads(dump(load([f"sim:{name}"]).inventory)))


def plain(host: Host) -> Host:
    """What NVML says of a host: not its name or platform, and links in one order."""
    links = sorted(host.links, key=lambda link: (link.a, link.b))
    return replace(host, name="", platform="linux", links=tuple(links))


def only(reading: Reading) -> Host:
    (host,) = reading.inventory.hosts
    return host


def summaries(reading: Reading) -> list[str]:
    assert all(warning.severity == "warning" for warning in reading.warnings)
    return [warning.summary for warning in reading.warnings]


def test_two_h100s_as_they_answered(read: Read) -> None:
    reading = read(H100S)
    assert reading.warnings == ()
    assert reading.inventory.source == "nvml"
    assert plain(only(reading)) == plain(only(load(["sim:2xh100"])))


@pytest.mark.parametrize("name", shipped())
def test_a_machine_reads_as_it_was_described(read: Read, name: str) -> None:
    assert plain(only(read(machine(name)))) == plain(only(load([f"sim:{name}"])))


def nvml_host(host: Host) -> Host:
    """A host as NVML can tell it: GPUs by index, no containers, memory known in whole or not at all."""

    def gpu(one: Gpu) -> Gpu:
        total, used = one.memory_total_mib, one.memory_used_mib or 0
        reserved = None if total is None else one.memory_reserved_mib
        held = {(p.pid, p.gi % 14 if p.gi is not None else None): p for p in one.processes}
        return replace(
            one,
            name=one.name.replace("\0", "0"),  # in C a text ends there
            memory_reserved_mib=reserved,
            memory_used_mib=None if total is None else min(used, total - (reserved or 0)),
            mig=None if one.mig is None else tuple(replace(i, profile="1g.10gb") for i in one.mig),
            health=(),
            processes=tuple(
                replace(held[key], gi=key[1], container=None)
                for key in sorted(held, key=lambda key: (key[0], -1 if key[1] is None else key[1]))
            ),
        )

    gpus = sorted((gpu(one) for one in host.gpus), key=lambda one: one.index)
    ends = {frozenset((link.a, link.b)): link for link in host.links}
    links = []
    for position, b in enumerate(gpus):
        for a in gpus[:position]:
            link = ends.get(frozenset((a.uuid, b.uuid)))
            # direct links: as many as their ends have room for
            count = min(link.nvlink or 0, 4) if link is not None else 0
            links.append(Link(a.uuid, b.uuid, count, None if link is None else link.pcie))
    for position, one in enumerate(gpus):
        # a random name may be a model's that usually has more links than these
        mine = sum(link.nvlink or 0 for link in links if one.uuid in {link.a, link.b})
        gpus[position] = replace(one, health=nvlinks(one.name, mine))
    return replace(host, name="", driver="570.1", cuda="12.8", gpus=tuple(gpus), links=tuple(links), platform="linux")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.data())
def test_whatever_a_host_has_is_read(fake_nvml: FakeNvml, host_files: Path, data: st.DataObject) -> None:
    host = nvml_host(data.draw(hosts(0).filter(lambda one: one.gpus)))
    document = json.loads(dump(Inventory("nvml", (host,))))
    fake_nvml.describe(Machine.from_inventory(document, nvswitch=False))
    with fake_nvml.loaded():
        reading = nvml.read(proc=host_files, sys=host_files)
    found = plain(only(reading))
    for one, other in zip(found.gpus, host.gpus, strict=True):
        assert one == other
    assert found.links == plain(host).links
    unknown = {
        fact.name
        for one in host.gpus
        for fact in fields(Gpu)
        if getattr(one, fact.name) is None and fact.name not in {"mig"} | MEMORY
    }
    for fact in unknown:
        assert any(fact in summary for summary in summaries(reading)), fact


MEMORY = {"memory_total_mib", "memory_reserved_mib", "memory_used_mib"}

# Each query, and the facts that are unknown where it fails, as the warning calls them.
QUERIES = {
    "nvmlDeviceGetName": "name",
    "nvmlDeviceGetMemoryInfo": "memory",
    "nvmlDeviceGetCudaComputeCapability": "compute_capability",
    "nvmlDeviceGetDisplayActive": "display_active",
    "nvmlDeviceGetCpuAffinity": "cpu_affinity",
    "nvmlDeviceGetMemoryAffinity": "numa_node",
    "nvmlDeviceGetComputeMode": "compute_mode",
    "nvmlDeviceGetMigMode": "MIG mode",
    "nvmlDeviceGetComputeRunningProcesses": "processes",
    "nvmlDeviceGetGraphicsRunningProcesses": "processes",
    "nvmlDeviceGetMPSComputeRunningProcesses": "processes",
    "nvmlDeviceGetRemappedRows": "health",
    "nvmlDeviceGetRetiredPagesPendingStatus": "health",
    "nvmlDeviceGetTotalEccErrors": "health",
    "nvmlDeviceGetNvLinkState": "NVLinks",
    "nvmlDeviceGetNvLinkRemotePciInfo": "NVLinks",
    "nvmlDeviceGetTopologyCommonAncestor": "PCIe paths",
}
GONE: dict[str, dict[str, Any]] = {
    "name": {"name": "unknown model"},
    "memory": dict.fromkeys(MEMORY),
    "compute_capability": {"compute_capability": None},
    "display_active": {"display_active": None},
    "cpu_affinity": {"cpu_affinity": None},
    "numa_node": {"numa_node": None},
    "compute_mode": {"compute_mode": None},
}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_that_fails_takes_one_fact_with_it(read: Read, query: str) -> None:
    described = Machine(H100S).fail(query, Code.UNKNOWN)
    if query == "nvmlDeviceGetNvLinkRemotePciInfo":  # asked only where the kind of the other end is not told
        described.fail("nvmlDeviceGetNvLinkRemoteDeviceType", Code.NOT_SUPPORTED)
    reading = read(described)
    fact = QUERIES[query]
    (summary,) = summaries(reading)  # one for both GPUs
    assert summary.startswith(f"{fact} unknown on GPUs 0-1: {query}")
    assert summary.endswith("says Unknown Error")
    sound = only(load(["sim:2xh100"]))
    found = only(reading)
    assert found.gpus == tuple(replace(gpu, **GONE.get(fact, {})) for gpu in sound.gpus)
    (link,) = found.links
    assert link.nvlink == (None if fact == "NVLinks" else 18)
    assert link.pcie == (None if fact == "PCIe paths" else "PHB")


@pytest.mark.parametrize(
    ("query", "fact"), [("nvmlSystemGetDriverVersion", "driver"), ("nvmlSystemGetCudaDriverVersion", "cuda")]
)
def test_a_version_that_cannot_be_had_is_unknown(read: Read, query: str, fact: str) -> None:
    reading = read(Machine(H100S).fail(query, Code.UNKNOWN))
    assert getattr(only(reading), fact) is None
    assert summaries(reading) == [f"{fact} unknown: {query} says Unknown Error"]


def test_a_failure_on_one_gpu_is_told_of_that_one(read: Read) -> None:
    reading = read(machine("8xrtx4090").fail("nvmlDeviceGetDisplayActive", Code.NO_PERMISSION, gpu=5))
    assert [gpu.display_active for gpu in only(reading).gpus] == [False] * 5 + [None] + [False] * 2
    assert "display_active unknown on GPU 5: nvmlDeviceGetDisplayActive says Insufficient Permissions" in summaries(
        reading
    )


def test_what_a_model_does_not_have_is_no_failure(read: Read) -> None:
    """No MIG, no ECC, no remapped rows, no NVLink on a GeForce: nothing to warn of."""
    reading = read(machine("workstation"))
    assert reading.warnings == ()
    assert {(gpu.mig, gpu.health) for gpu in only(reading).gpus} == {(None, ())}


# Memory


def test_the_first_version_of_the_memory_query_counts_the_reserve_as_used(read: Read) -> None:
    reading = read(Machine(H100S).fail("nvmlDeviceGetMemoryInfo_v2", Code.FUNCTION_NOT_FOUND))
    gpu = only(reading).gpus[0]
    assert (gpu.memory_total_mib, gpu.memory_reserved_mib, gpu.memory_used_mib) == (81559, None, 480)
    (summary,) = summaries(reading)
    assert summary == "memory_reserved_mib unknown on GPUs 0-1: nvmlDeviceGetMemoryInfo_v2 says Function Not Found"


# Where it is near


def sysfs(root: Path, node: str, *, vendor: str = "0x10de", online: str = "0-1") -> None:
    for address in ("0000:00:06.0", "0000:00:07.0"):
        device = root / "bus/pci/devices" / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(vendor + "\n")
        (device / "numa_node").write_text(node + "\n")
    (root / "devices/system/node").mkdir(parents=True)
    (root / "devices/system/node/online").write_text(online + "\n")


@pytest.mark.parametrize(
    ("affinity", "own", "node", "vendor", "online", "expected"),
    [
        ([2], None, "0", "0x10de", "0-1", 1),  # NVML first
        ([0, 1], None, "0", "0x10de", "0-127", 64),
        ([1], 5, "0", "0x10de", "0-1", 0),  # not the node that the GPU's own memory is
        (None, 1, "0", "0x10de", "0-1", 1),
        (None, None, "1", "0x10de", "0-1", 1),  # then the kernel
        ([3], None, "1", "0x10de", "0-1", 1),  # several nodes are as near: the kernel may know better
        (None, None, "-1", "0x10de", "0", 0),  # one node only: that one
        (None, None, "-1", "0x10de", "0-1", None),
        (None, None, "1", "0x8086", "0-1", None),  # another device at that address: NVML speaks of another bus
    ],
)
def test_the_numa_node(
    read: Read,
    host_files: Path,
    affinity: list[int] | None,
    own: int | None,
    node: str,
    vendor: str,
    online: str,
    expected: int | None,
) -> None:
    described = Machine(H100S)
    for index in (0, 1):
        described.gpu(index).update(MemoryAffinity=affinity, NumaNodeId=own)
    sysfs(host_files, node, vendor=vendor, online=online)
    reading = read(described)
    assert [gpu.numa_node for gpu in only(reading).gpus] == [expected] * 2
    assert bool(reading.warnings) == (expected is None)


def test_wsl2_is_told_by_its_kernel(read: Read, host_files: Path) -> None:
    assert only(read(H100S)).platform == "linux"
    (host_files / "sys/kernel").mkdir(parents=True)
    release = host_files / "sys/kernel/osrelease"
    for text, expected in (("5.15.167.4-microsoft-standard-WSL2", "wsl2"), ("6.8.0-49-generic", "linux")):
        release.write_text(text + "\n")
        assert only(read(H100S)).platform == expected


# Links


def link_counts(reading: Reading) -> dict[tuple[int, int], int | None]:
    order = {gpu.uuid: gpu.index for gpu in only(reading).gpus}
    return {(order[link.a], order[link.b]): link.nvlink for link in only(reading).links}


def test_where_two_ends_count_differently_the_smaller_number_holds(read: Read) -> None:
    described = machine("4xa100-pcie-bridged")
    for link in described.gpu(1)["nvlinks"][:5]:
        link["active"] = False
    assert link_counts(read(described))[0, 1] == 7


def test_gpus_on_a_switch_are_joined_by_as_many_as_both_have(read: Read) -> None:
    described = Machine(H100S)
    for link in described.gpu(1)["nvlinks"][:2]:
        link["active"] = False
    assert link_counts(read(described)) == {(0, 1): 16}


def test_a_switch_is_known_by_its_address_too(read: Read) -> None:
    described = Machine(H100S).fail("nvmlDeviceGetNvLinkRemoteDeviceType", Code.FUNCTION_NOT_FOUND)
    reading = read(described)
    assert link_counts(reading) == {(0, 1): 18}
    assert reading.warnings == ()


def test_a_link_that_does_not_exist_is_no_end(read: Read) -> None:
    described = machine("4xa100-pcie-bridged")
    described.gpu(0)["nvlinks"][3]["fail"] = {"nvmlDeviceGetNvLinkState": int(Code.NOT_SUPPORTED)}
    assert link_counts(read(described))[0, 1] == 11


def test_a_pair_whose_count_fails_at_one_end_is_unknown(read: Read) -> None:
    described = machine("dgx-1v").fail("nvmlDeviceGetNvLinkState", Code.UNKNOWN, gpu=3)
    reading = read(described)
    for (a, b), count in link_counts(reading).items():
        assert (count is None) == (3 in (a, b))
    assert any(s.startswith("NVLinks unknown on GPU 3") for s in summaries(reading))


def test_addresses_are_compared_whatever_their_form(read: Read) -> None:
    described = machine("4xa100-pcie-bridged")
    for gpu in described.description["gpus"]:
        for link in gpu["nvlinks"]:
            if link["active"]:
                assert link["remote"]["busId"].startswith("00000000:")
                link["remote"]["busId"] = link["remote"]["busId"].lower().removeprefix("0000")
    assert link_counts(read(described))[0, 1] == 12


def test_a_lone_gpu_has_no_links(read: Read) -> None:
    described = Machine(H100S).remove(1).fail("nvmlDeviceGetNvLinkState", Code.UNKNOWN)
    reading = read(described)
    assert only(reading).links == ()
    assert reading.warnings == ()  # not even asked


# MIG


def test_profiles_come_from_the_attributes_where_the_name_has_none(read: Read) -> None:
    described = machine("a100-mig")
    for gpu in described.description["gpus"]:
        for part in gpu["mig"]:
            part["Name"] = "NVIDIA A100 80GB PCIe"
    assert plain(only(read(described))) == plain(only(load(["sim:a100-mig"])))


@pytest.mark.parametrize(
    ("compute", "slices", "memory", "total", "expected"),
    [
        (1, 1, 4864, 40960, "1g.5gb"),
        (2, 2, 9984, 40960, "2g.10gb"),
        (3, 3, 20096, 40960, "3g.20gb"),
        (7, 7, 40326, 40960, "7g.40gb"),
        (1, 1, 9728, 81920, "1g.10gb"),
        (1, 1, 19968, 81920, "1g.20gb"),
        (1, 3, 40448, 81920, "1c.3g.40gb"),
        (1, 1, 9984, 81559, "1g.10gb"),
        (3, 3, 40448, 81559, "3g.40gb"),
        (1, 1, 5952, 24576, "1g.6gb"),
        (1, 1, 9728, None, "1g.10gb"),
    ],
)
def test_profiles_are_named_as_nvidia_names_them(
    compute: int, slices: int, memory: int, total: int | None, expected: str
) -> None:
    assert profile_name(compute, slices, memory, total) == expected


def test_gaps_between_instances_are_passed_over(read: Read) -> None:
    described = machine("a100-mig")
    described.gpu(1)["mig"][2] = None
    reading = read(described)
    assert [i.gi for i in only(reading).gpus[1].mig or ()] == [7, 8, 10, 11, 12, 13]
    assert reading.warnings == ()


@pytest.mark.parametrize("query", ["nvmlDeviceGetUUID", "nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId"])
def test_an_instance_that_does_not_say_who_it_is_is_left_out(read: Read, query: str) -> None:
    described = machine("a100-mig")
    described.gpu(0)["mig"][1]["fail"] = {query: int(Code.UNKNOWN)}
    reading = read(described)
    assert [i.profile for i in only(reading).gpus[0].mig or ()] == ["3g.40gb", "1g.10gb", "1g.10gb"]
    assert summaries(reading) == [f"MIG instances unknown on GPU 0: {query} says Unknown Error"]


def test_an_instance_of_unknown_memory_is_kept(read: Read) -> None:
    described = machine("a100-mig")
    part = described.gpu(0)["mig"][0]
    part["MemoryInfo"] = None
    reading = read(described)
    assert (only(reading).gpus[0].mig or ())[0] == MigInstance(part["UUID"], 2, 0, "3g.40gb", None)
    assert summaries(reading) == [
        "memory of MIG instances unknown on GPU 0: nvmlDeviceGetMemoryInfo says Not Supported"
    ]


# Processes and health


def test_a_process_in_several_lists_is_one(read: Read) -> None:
    described = Machine(H100S).start(31, 0, 100).start(31, 0, 120, "Graphics").start(9, 0, None, "Graphics")
    described.start(40, 0, 7, "MPSCompute").start(31, 1, 5)
    found = only(read(described)).gpus
    assert found[0].processes == (Process(9, None, None), Process(31, 120, None), Process(40, 7, None))
    assert found[1].processes == (Process(31, 5, None),)


def test_a_process_names_the_instance_it_runs_on(read: Read) -> None:
    described = machine("a100-mig")
    uuid = described.gpu(1)["mig"][3]["UUID"]
    described.start(77, uuid, 300)
    assert only(read(described)).gpus[1].processes == (Process(77, 300, None, gi=10),)


@pytest.mark.parametrize("code", ["row_remap_pending", "row_remap_failed", "retired_pages_pending", "ecc_uncorrected"])
def test_an_unhealthy_gpu_says_what_is_wrong(read: Read, code: str) -> None:
    described = Machine(H100S)
    described.make_unhealthy(1, code)
    sound, sick = only(read(described)).gpus
    assert sound.health == ()
    (issue,) = sick.health
    assert (issue.code, issue.fatal) == (code, True)


@pytest.mark.parametrize(("action", "fatal"), [(1, True), (2, True), (3, False), (4, True)])
def test_what_the_driver_asks_for_is_told(read: Read, action: int, fatal: bool) -> None:  # noqa: FBT001 - a case's fact
    described = Machine(H100S)
    described.gpu(0)["FieldValues"] = {"230": action}
    described.gpu(1)["FieldValues"] = {"230": 0}
    asked, sound = only(read(described)).gpus
    assert [(issue.code, issue.fatal) for issue in asked.health] == [("recovery_action", fatal)]
    assert sound.health == ()


@pytest.mark.parametrize(("error", "code"), [(Code.GPU_IS_LOST, "gpu_lost"), (Code.RESET_REQUIRED, "reset_required")])
def test_a_gpu_that_is_lost_while_it_is_read_is_unhealthy(read: Read, error: Code, code: str) -> None:
    reading = read(Machine(H100S).fail("nvmlDeviceGetDisplayActive", error, gpu=0))
    dead, sound = only(reading).gpus
    assert (dead.health[0].code, dead.health[0].fatal) == (code, True)
    assert dead.memory_total_mib == 81559  # what it had told before
    assert dead.display_active is None
    assert sound.health == ()
    (link,) = only(reading).links
    assert (link.nvlink, link.pcie) == (None, None)
    (summary,) = summaries(reading)
    assert summary.startswith("GPU 0: the GPU ")


@pytest.mark.parametrize("handle", [True, False])
def test_a_gpu_that_is_lost_is_left_out(read: Read, handle: bool) -> None:  # noqa: FBT001 - a case's fact
    described = machine("4xl40s")
    described.lose(2, handle=handle)
    reading = read(described)
    assert [gpu.index for gpu in only(reading).gpus] == [0, 1, 3]
    assert len(only(reading).links) == 3
    assert "GPU 2 is left out: GPU is lost" in summaries(reading)


# Nothing to read


def told(action: Callable[[], object]) -> Diagnostic:
    with pytest.raises(GpuallocError) as error:
        action()
    (diagnostic,) = error.value.diagnostics
    assert "--inventory" in (diagnostic.hint or "")
    assert str(diagnostic.where) == "nvml"
    return diagnostic


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (Code.LIBRARY_NOT_FOUND, "nvml-no-library"),
        (Code.DRIVER_NOT_LOADED, "nvml-no-driver"),
        (Code.LIB_RM_VERSION_MISMATCH, "nvml-version-mismatch"),
        (Code.NO_PERMISSION, "nvml-no-permission"),
        (Code.GPU_IS_LOST, "nvml-gpu-lost"),
        (Code.UNKNOWN, "nvml-failed"),
    ],
)
@pytest.mark.parametrize("query", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_each_way_of_having_no_gpu_is_its_own_error(read: Read, query: str, code: Code, name: str) -> None:
    assert told(lambda: read(Machine(H100S).fail(query, code))).code == name


def test_no_gpu_is_an_error(read: Read) -> None:
    assert told(lambda: read({"DriverVersion": "570.1", "gpus": []})).code == "nvml-no-gpu"


def test_gpus_that_are_all_lost_are_an_error(read: Read) -> None:
    assert told(lambda: read(Machine(H100S).lose(0).lose(1))).code == "nvml-gpu-lost"


def test_an_unloaded_driver_is_an_error(fake_nvml: FakeNvml, host_files: Path) -> None:
    fake_nvml.unload_driver()
    with fake_nvml.loaded():
        assert told(lambda: nvml.read(host_files, host_files)).code == "nvml-no-driver"


def test_without_pynvml_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pynvml":
            raise ImportError("No module named 'pynvml'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    diagnostic = told(lambda: load([]))
    assert diagnostic.code == "nvml-no-pynvml"
    assert (diagnostic.hint or "").startswith("pip install nvidia-ml-py")


def test_nvml_is_shut_down_whatever_happens(fake_nvml: FakeNvml, host_files: Path) -> None:
    import pynvml  # noqa: PLC0415

    with fake_nvml.loaded():
        for described in (Machine(H100S), Machine(H100S).lose(0).lose(1)):
            fake_nvml.describe(described)
            with suppress(GpuallocError):
                nvml.read(host_files, host_files)
            with pytest.raises(pynvml.NVMLError_Uninitialized):
                pynvml.nvmlDeviceGetCount()


# As a whole process, where pynvml finds the library by its name

SCRIPT = (
    "from gpualloc.inventory import load; from gpualloc.inventory.snapshot import dump; print(dump(load([]).inventory))"
)


def test_another_process_reads_the_library_by_its_name(fake_nvml: FakeNvml) -> None:
    fake_nvml.describe(H100S)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=fake_nvml.env(), check=True, capture_output=True, text=True
    )
    document = json.loads(done.stdout)
    expected = json.loads(dump(load(["sim:2xh100"]).inventory))
    assert document["source"] == "nvml"
    assert document["hosts"][0]["gpus"] == expected["hosts"][0]["gpus"]
    assert document["hosts"][0]["links"] == expected["hosts"][0]["links"]


def test_the_same_machine_reads_the_same_twice(read: Read) -> None:
    described = copy.deepcopy(H100S)
    assert read(described) == read(described)
