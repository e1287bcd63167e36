"""What ``nvidia-smi -q -x`` printed, of old drivers and new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpualloc.errors import Diagnostic, GpuallocError
from gpualloc.inventory import load, smi
from gpualloc.inventory.capability import capability
from gpualloc.inventory.snapshot import dump, parse
from gpualloc.model import Gpu, MigInstance, Process, Reading
from tests.inventory.smi_text import NEW, OLD, report

DATA = Path(__file__).parent / "data"


def read(*gpus: dict[str, Any], topo: str | None = None, **head: str | None) -> Reading:
    return smi.read(report(*gpus, **head), "here/dgx7.xml", None if topo is None else (topo, "topo.txt"))


def only(*gpus: dict[str, Any], **head: str | None) -> Gpu:
    (gpu,) = read(*gpus, **head).inventory.hosts[0].gpus
    return gpu


def told(text: str, topo: str | None = None) -> Diagnostic:
    with pytest.raises(GpuallocError) as error:
        smi.read(text, "smi.xml", None if topo is None else (topo, "topo.txt"))
    (diagnostic,) = error.value.diagnostics
    return diagnostic


def test_two_h100s_as_their_driver_reported_them() -> None:
    reading = load([str(DATA / "2xh100.xml")], DATA / "2xh100-topo.txt")
    assert reading.warnings == ()
    (host,) = reading.inventory.hosts
    (same,) = load(["sim:2xh100"]).inventory.hosts  # what NVML said of the same machine
    assert host.gpus == same.gpus
    assert (host.name, host.driver, host.cuda) == (same.name, same.driver, same.cuda)
    # the matrix hides the PCIe path where there is NVLink
    assert [(link.nvlink, link.pcie) for link in host.links] == [(18, None)]
    assert [(link.nvlink, link.pcie) for link in same.links] == [(18, "PHB")]


def test_without_a_topology_the_links_are_unknown_and_that_is_said() -> None:
    reading = load([str(DATA / "2xh100.xml")])
    (host,) = reading.inventory.hosts
    assert host.links == ()
    assert {(gpu.numa_node, gpu.cpu_affinity) for gpu in host.gpus} == {(None, None)}
    (warning,) = reading.warnings
    assert (warning.code, warning.severity) == ("smi-no-links", "warning")
    assert warning.hint == "give what `nvidia-smi topo -m` prints with --topo FILE"


def test_a_report_of_a_new_driver() -> None:
    reading = read(NEW)
    assert reading.warnings == ()
    (host,) = reading.inventory.hosts
    assert (host.name, host.driver, host.cuda, host.platform) == ("dgx7", "570.133.20", "12.8", "linux")
    assert host.gpus == (
        Gpu(
            uuid="GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f",
            index=0,
            name="NVIDIA A100 80GB PCIe",
            pci_bus_id="00000000:1B:00.0",
            memory_total_mib=81920,
            memory_reserved_mib=571,
            memory_used_mib=0,
            compute_capability="8.0",
            numa_node=None,
            cpu_affinity=None,
            display_active=False,
            compute_mode="default",
            mig=None,
            health=(),
            processes=(),
        ),
    )


def test_a_report_of_an_old_driver() -> None:
    reading = read(OLD, driver_version="396.26", cuda_version=None)
    (warning,) = reading.warnings
    assert warning.summary == "the report does not tell: memory_reserved_mib"
    (host,) = reading.inventory.hosts
    assert (host.driver, host.cuda) == ("396.26", None)
    (gpu,) = host.gpus
    assert (gpu.memory_total_mib, gpu.memory_reserved_mib, gpu.memory_used_mib) == (16280, None, 10)
    assert (gpu.compute_capability, gpu.compute_mode, gpu.mig, gpu.health) == ("6.0", "exclusive_process", None, ())


@pytest.mark.parametrize(
    ("base", "changes", "codes"),
    [
        (NEW, {"remapped_rows": {"remapped_row_pending": "Yes", "remapped_row_failure": "No"}}, ["row_remap_pending"]),
        (NEW, {"remapped_rows": {"remapped_row_pending": "Yes", "remapped_row_failure": "Yes"}},
         ["row_remap_failed", "row_remap_pending"]),
        (NEW, {"remapped_rows": "N/A"}, []),
        (NEW, {"ecc_errors": {"volatile": {"sram_uncorrectable_parity": "1", "dram_uncorrectable": "2"}}},
         ["ecc_uncorrected"]),
        (NEW, {"ecc_errors": {"volatile": {"sram_uncorrectable": "N/A", "dram_uncorrectable": "N/A"}}}, []),
        (NEW, {"ecc_errors": "N/A"}, []),
        (NEW, {"gpu_recovery_action": "Drain and Reset"}, ["recovery_action"]),
        (NEW, {"gpu_reset_status": {"reset_required": "Yes"}}, ["reset_required"]),
        (NEW, {"fb_memory_usage": {"total": "GPU is lost", "used": "GPU is lost"}}, ["gpu_lost"]),
        (NEW, {"fb_memory_usage": {"total": "GPU requires reset"}}, ["reset_required"]),
        (OLD, {"ecc_errors": {"volatile": {"double_bit": {"device_memory": "2", "total": "2"}}}}, ["ecc_uncorrected"]),
        (OLD, {"retired_pages": {"pending_retirement": "Yes"}}, ["retired_pages_pending"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_gpu(base: dict[str, Any], changes: dict[str, Any], codes: list[str]) -> None:
    health = only({**base, **changes}).health
    assert [issue.code for issue in health] == codes
    assert all(issue.fatal for issue in health)


def test_a_wish_of_the_driver_that_leaves_work_alone_is_not_fatal() -> None:
    (issue,) = only({**NEW, "gpu_recovery_action": "Drain P2P"}).health
    assert (issue.code, issue.fatal, issue.detail) == ("recovery_action", False, "the driver asks for: Drain P2P")


def test_counts_of_errors_are_added_up() -> None:
    (issue,) = only({**NEW, "ecc_errors": {"volatile": {"sram_uncorrectable": "1", "dram_uncorrectable": "2"}}}).health
    assert issue.detail.startswith("3 uncorrected memory errors")


@pytest.mark.parametrize(
    ("changes", "fact", "value"),
    [
        ({"display_active": "Enabled"}, "display_active", True),
        ({"display_active": "Requested functionality has been deprecated"}, "display_active", None),
        ({"compute_mode": "Prohibited"}, "compute_mode", "prohibited"),
        ({"compute_mode": "Exclusive_Thread"}, "compute_mode", "exclusive_process"),
        ({"compute_mode": "[N/A]"}, "compute_mode", None),
        ({"fb_memory_usage": {"total": "81920 MB", "used": "ERR!"}}, "memory_total_mib", 81920),
        ({"fb_memory_usage": {"total": "81920 MB", "used": "ERR!"}}, "memory_used_mib", None),
        ({"fb_memory_usage": "N/A"}, "memory_total_mib", None),
        ({"product_name": "NVIDIA Graphics Device", "product_architecture": "Blackwell"}, "compute_capability", None),
        ({"product_name": "N/A"}, "name", "unknown model"),
    ],
)
def test_what_a_report_tells_or_does_not(changes: dict[str, Any], fact: str, value: Any) -> None:
    reading = read({**NEW, **changes})
    assert getattr(reading.inventory.hosts[0].gpus[0], fact) == value
    if value in (None, "unknown model"):
        (warning,) = reading.warnings
        assert fact in warning.summary


def test_facts_that_only_some_gpus_lack_are_told_apart() -> None:
    dim = {**NEW, "uuid": "GPU-2", "compute_mode": "N/A", "display_active": "N/A"}
    reading = read({**NEW, "display_active": "N/A"}, dim, topo=TWO)
    (warning,) = reading.warnings
    assert warning.summary == "the report does not tell: display_active, compute_mode of GPU 1"


def test_processes_are_read() -> None:
    infos = [
        {"gpu_instance_id": "N/A", "pid": "812", "type": "G", "used_memory": "4 MiB"},
        {"gpu_instance_id": "9", "pid": "7", "type": "C", "used_memory": "N/A"},
        {"pid": "7", "type": "C+G", "process_name": "python &amp; co", "used_memory": "4706 MiB"},
        {"pid": "N/A", "used_memory": "1 MiB"},
    ]
    assert only({**NEW, "processes": {"process_info": infos}}).processes == (
        Process(7, 4706, None),
        Process(7, None, None, gi=9),
        Process(812, 4, None),
    )


TWO = "\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\nGPU0\t X \tSYS\t0-31\t0\nGPU1\tSYS\t X \t32-63\t1\n"
LISTED = """GPU 0: NVIDIA A100 80GB PCIe (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)
  MIG 3g.40gb     Device  0: (UUID: MIG-8cbf5a9b)
  MIG 1c.3g.40gb  Device  1: (UUID: MIG-GPU-5c89/1/2)
"""


def parted(*positions: int) -> dict[str, Any]:
    devices = [
        {
            "index": str(i),
            "gpu_instance_id": str(i + 1),
            "compute_instance_id": "0",
            "fb_memory_usage": {"total": "40448 MiB", "used": "37 MiB"},
        }
        for i in positions
    ]
    mode = {"current_mig": "Enabled", "pending_mig": "Enabled"}
    return {**NEW, "mig_mode": mode, "mig_devices": {"mig_device": devices}}


def test_mig_instances_take_their_names_from_the_list() -> None:
    reading = read(parted(0, 1), topo=LISTED)
    assert reading.warnings == ()
    assert reading.inventory.hosts[0].gpus[0].mig == (
        MigInstance("MIG-8cbf5a9b", 1, 0, "3g.40gb", 40448),
        MigInstance("MIG-GPU-5c89/1/2", 2, 0, "1c.3g.40gb", 40448),
    )


def test_mig_instances_without_a_name_are_left_out_and_that_is_said() -> None:
    for topo, left, out in ((None, 0, 3), (LISTED, 2, 1)):
        reading = read(parted(0, 1, 2), topo=topo)
        (warning,) = reading.warnings
        assert len(reading.inventory.hosts[0].gpus[0].mig or ()) == left
        assert warning.code == "smi-mig-left-out"
        assert warning.summary.startswith(f"{out} MIG instance{'' if out == 1 else 's'} of GPU 0")
        assert "nvidia-smi -L" in (warning.hint or "")


def test_mig_mode_without_instances_has_none_to_hand_out() -> None:
    reading = read({**parted(), "mig_devices": "None"})
    assert reading.inventory.hosts[0].gpus[0].mig == ()
    assert reading.warnings == ()


def test_a_topology_is_joined_by_index() -> None:
    (host,) = read(NEW, {**NEW, "uuid": "GPU-2"}, topo=TWO).inventory.hosts
    assert [(gpu.numa_node, gpu.cpu_affinity) for gpu in host.gpus] == [(0, "0-31"), (1, "32-63")]
    (link,) = host.links
    assert (link.a, link.b, link.nvlink, link.pcie) == (NEW["uuid"], "GPU-2", 0, "SYS")


def test_a_topology_of_another_machine_is_refused() -> None:
    diagnostic = told(report(NEW), TWO)
    assert (diagnostic.code, str(diagnostic.where)) == ("inventory-topo", "topo.txt")
    assert diagnostic.summary == "is of another machine: it has 2 GPUs, and smi.xml has 1"


def test_a_gpu_that_does_not_say_who_it_is_is_left_out() -> None:
    reading = read({**NEW, "uuid": "GPU is lost"}, {**NEW, "uuid": "GPU-2"}, topo=TWO)
    (gpu,) = reading.inventory.hosts[0].gpus
    assert (gpu.uuid, gpu.index, gpu.numa_node) == ("GPU-2", 1, 1)
    (warning,) = reading.warnings
    assert warning.summary == "GPU 0 is left out: its UUID and PCI address are not told (GPU is lost)"


def test_a_report_of_some_gpus_only_is_said_to_be_one() -> None:
    (warning,) = read(NEW, attached_gpus="8").warnings
    assert warning.summary.startswith("holds 1 of 8 GPUs")


BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><nvidia_smi_log>&b;</nvidia_smi_log>'


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (report(), "inventory-no-gpu", "smi.xml: the report holds no GPU that tells its UUID"),
        (report({**NEW, "uuid": "Unknown Error"}), "inventory-no-gpu",
         "smi.xml: the report holds no GPU that tells its UUID"),
        (report(NEW, NEW), "inventory-duplicate", f"smi.xml: {NEW['uuid']} is there twice"),
        ("\n\n" + report(NEW)[:-40], "inventory-xml", "smi.xml:50:14: not valid XML: no element found"),
        ("<a>\n  <b></a>", "inventory-xml", "smi.xml:2:8: not valid XML: mismatched tag"),
        (BOMB, "inventory-xml", "smi.xml: defines entities: not a report of nvidia-smi"),
        ("<gpus/>", "inventory-xml", "smi.xml: XML, but not nvidia-smi's: its root is gpus"),
        ("<a>&nbsp;</a>", "inventory-xml", "smi.xml:1:4: not valid XML: undefined entity"),
        ("<a>\0</a>", "inventory-xml", "smi.xml:1:4: not valid XML: not well-formed (invalid token)"),
    ],
)  # fmt: skip
def test_a_report_that_cannot_be_used_is_refused(text: str, code: str, message: str) -> None:
    diagnostic = told(text)
    assert diagnostic.code == code
    assert str(diagnostic).split("\n")[0] == message


texts = st.sampled_from(
    (
        "",
        "N/A",
        "Yes",
        "0",
        "0 MiB",
        "12 MiB",
        "99999 MiB",
        "-1",
        "9" * 5000,
        "9" * 5000 + " MiB",
        "GPU-x",
        "Enabled",
        "٣",
    )
)
tags = ("total", "reserved", "used", "current_mig", "mig_device", "gpu_instance_id", "compute_instance_id", "index",
        "process_info", "pid", "used_memory", "volatile", "dram_uncorrectable", "double_bit")  # fmt: skip
trees = st.recursive(texts, lambda inner: st.dictionaries(st.sampled_from(tags), inner, max_size=4), max_leaves=8)


@given(st.dictionaries(st.sampled_from([*NEW, *OLD, "pci"]), trees, max_size=4), st.booleans())
def test_whatever_a_report_says_it_is_read_or_refused(changes: dict[str, Any], with_mig: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    base = parted(0, 1) if with_mig else OLD
    try:
        reading = read({**base, **changes}, topo=LISTED)
    except GpuallocError:
        return
    assert parse(dump(reading.inventory), "snap.json") == reading.inventory  # it holds to the contract


def test_a_report_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smi, "_MAX_CHARS", 1000)
    assert told(report(NEW)).summary == "too long to be a report of nvidia-smi"


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("NVIDIA H100 80GB HBM3", "9.0"),
        ("NVIDIA GH200 480GB", "9.0"),
        ("NVIDIA H200 NVL", "9.0"),
        ("NVIDIA A100-SXM4-40GB", "8.0"),
        ("NVIDIA A10", "8.6"),
        ("NVIDIA A40", "8.6"),
        ("NVIDIA RTX A6000", "8.6"),
        ("NVIDIA GeForce RTX 3090 Ti", "8.6"),
        ("NVIDIA GeForce RTX 4090", "8.9"),
        ("NVIDIA L4", "8.9"),
        ("NVIDIA L40S", "8.9"),
        ("NVIDIA RTX 6000 Ada Generation", "8.9"),
        ("NVIDIA GeForce RTX 5090", "12.0"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "12.0"),
        ("NVIDIA B200", "10.0"),
        ("NVIDIA GB200", "10.0"),
        ("NVIDIA B300 SXM6 AC", "10.3"),
        ("NVIDIA GB10", "12.1"),
        ("Tesla T4", "7.5"),
        ("NVIDIA T400 4GB", "7.5"),
        ("Quadro RTX 6000", "7.5"),
        ("NVIDIA GeForce GTX 1660 Ti", "7.5"),
        ("Tesla V100-SXM2-32GB", "7.0"),
        ("Tesla P100-PCIE-16GB", "6.0"),
        ("Tesla P4", "6.1"),
        ("NVIDIA GeForce GTX 1080 Ti", "6.1"),
        ("GeForce GTX TITAN X", None),
        ("NVIDIA Graphics Device", None),
        ("Quadro K620", None),
    ],
)
def test_the_model_tells_the_compute_capability(name: str, version: str | None) -> None:
    assert capability(name) == version


def test_an_architecture_with_one_capability_tells_it() -> None:
    assert capability("NVIDIA PG506-232", "Hopper") == "9.0"
    assert capability("NVIDIA PG506-232", "Ampere") is None
