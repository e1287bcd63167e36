"""Where an inventory comes from: files of every kind, shipped machines, and several at once."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gpualloc.errors import Diagnostic, GpuallocError
from gpualloc.inventory import files, load, shipped
from gpualloc.inventory.snapshot import dump

DATA = Path(__file__).parent / "data"
XML = str(DATA / "2xh100.xml")
TOPO = DATA / "2xh100-topo.txt"


def told(sources: list[str], topo: Path | None = None) -> Diagnostic:
    with pytest.raises(GpuallocError) as error:
        load(sources, topo)
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.severity == "error"
    return diagnostic


def snapshot(path: Path, machine: str = "1xrtx3090", **host: Any) -> str:
    data = json.loads(dump(load([f"sim:{machine}"]).inventory))
    data["hosts"][0].update(host)
    path.write_text(json.dumps(data), encoding="utf-8")
    return str(path)


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    reading = load(["sim:dgx-a100"])
    assert reading.warnings == ()
    file = tmp_path / "dgx.json"
    file.write_text(dump(reading.inventory), encoding="utf-8")
    assert load([str(file)]) == reading


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_snapshots_and_reports_are_told_apart_by_what_they_hold(tmp_path: Path, encoding: str) -> None:
    json_file, xml_file = tmp_path / "a.xml", tmp_path / "b.json"  # not by their names
    json_file.write_text(dump(load(["sim:desktop"]).inventory), encoding=encoding)
    xml_file.write_text("\n" + Path(XML).read_text(encoding="utf-8"), encoding=encoding)
    assert load([str(json_file)]).inventory == load(["sim:desktop"]).inventory
    assert load([str(xml_file)]).inventory.source == "smi"


def test_several_sources_are_one_inventory(tmp_path: Path) -> None:
    file = snapshot(tmp_path / "a.json")
    reading = load([file, "sim:dgx-1v", XML], TOPO)
    assert [host.name for host in reading.inventory.hosts] == ["1xrtx3090", "dgx-1v", "2xh100"]
    assert reading.inventory.source == "sim+smi"
    assert load(["sim:dgx-1v", "sim:desktop"]).inventory.source == "sim"


def test_a_host_given_twice_is_an_error(tmp_path: Path) -> None:
    assert str(told(["sim:4xl40s", "sim:4xl40s"])).startswith("sim:4xl40s: host 4xl40s is already in sim:4xl40s")
    renamed = snapshot(tmp_path / "a.json", name="other")
    diagnostic = told(["sim:1xrtx3090", renamed])
    uuid = load([renamed]).inventory.hosts[0].gpus[0].uuid
    assert diagnostic.code == "inventory-duplicate"
    assert diagnostic.summary == f"{uuid} is already in sim:1xrtx3090"


def test_a_mig_instance_given_twice_is_an_error(tmp_path: Path) -> None:
    data = json.loads(dump(load(["sim:a100-mig"]).inventory))
    data["hosts"][0] |= {"name": "other", "links": []}
    for gpu in data["hosts"][0]["gpus"]:
        gpu["uuid"] += "-other"
    file = tmp_path / "a.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    assert told(["sim:a100-mig", str(file)]).summary.startswith("MIG-")


def test_a_topology_goes_with_one_report() -> None:
    again = str(DATA / ".." / "data" / "2xh100.xml")
    for sources, which in ((["sim:4xl40s"], "none"), ([XML, again], f"{XML} and {again}")):
        diagnostic = told(sources, TOPO)
        assert diagnostic.code == "inventory-topo"
        assert diagnostic.summary == f"a topology goes with one output of `nvidia-smi -q -x`, not with {which}"


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    assert told([str(tmp_path / "none.json")]).summary == "cannot read it: No such file or directory"
    assert told([str(tmp_path)]).summary == "no snapshot is in this folder"
    assert told(["a\0b"]).summary == "cannot read it: embedded null byte"
    assert told([str(tmp_path / "none.json")]).code == "inventory-file"
    missing = told([XML], tmp_path / "none.txt")
    assert str(missing).startswith(f"{tmp_path / 'none.txt'}: cannot read it")
    if os.geteuid() != 0:
        file = tmp_path / "secret.json"
        file.touch(mode=0o000)
        assert told([str(file)]).summary == "cannot read it: Permission denied"


def test_a_machine_without_its_prefix_is_recognised() -> None:
    assert told(["dgx-a100"]).hint == "did you mean sim:dgx-a100?"


def test_a_file_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 20)
    assert told(["/dev/zero"]).summary == "larger than 1 MiB: not an inventory"


@pytest.mark.parametrize(
    ("content", "code", "summary"),
    [
        (b"", "json", "the file is empty"),
        (b"\x89PNG\r\n", "encoding", "not UTF-8 text: byte 0 cannot be read"),
        (b"\xff\xfea", "encoding", "not UTF-16-LE text: byte 2 cannot be read"),
        (b"hosts: []\n", "json", "not valid JSON: expecting value"),
        (b"GPU 0: NVIDIA A100 (UUID: GPU-5c89)\n", "format",
         "this is `nvidia-smi -L`: it does not hold what gpualloc needs"),
        (b"\n==============NVSMI LOG==============\n", "format",
         "this is `nvidia-smi -q` without -x: it does not hold what gpualloc needs"),
        (b"+-----+\n| NVIDIA-SMI 550.54  Driver\n", "format",
         "this is the table of `nvidia-smi`: it does not hold what gpualloc needs"),
        (TOPO.read_bytes(), "format",
         "this is `nvidia-smi topo -m`, which goes with --topo: it does not hold what gpualloc needs"),
        (b"<html></html>", "xml", "XML, but not nvidia-smi's: its root is html"),
    ],
)  # fmt: skip
def test_what_is_no_inventory_is_named(tmp_path: Path, content: bytes, code: str, summary: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    diagnostic = told([str(file)])
    assert (diagnostic.code, diagnostic.summary) == (f"inventory-{code}", summary)


def test_a_machine_that_does_not_come_with_gpualloc_is_said() -> None:
    diagnostic = told(["sim:dgx-a10"])
    assert diagnostic.code == "inventory-unknown-machine"
    assert diagnostic.hint == "did you mean sim:dgx-a100?"
    hint = told(["sim:"]).hint
    assert hint is not None
    assert "mixed-5090-4090" in hint
    assert told(["sim:../snapshot"]).code == "inventory-unknown-machine"


# What the machines are known to be: GPUs, memory in MiB, pairs by how they are joined (NVLinks, PCIe).
MACHINES: dict[str, tuple[int, set[int], dict[tuple[int, str | None], int]]] = {
    "1xrtx3090": (1, {24576}, {}),
    "2xh100": (2, {81559}, {(18, "PHB"): 1}),
    "4xa100-pcie-bridged": (4, {81920}, {(12, None): 2, (0, "SYS"): 4}),
    "4xl40s": (4, {46068}, {(0, "NODE"): 2, (0, "SYS"): 4}),
    "8xrtx4090": (8, {24564}, {(0, "SYS"): 28}),
    "a100-mig": (2, {81920}, {(0, "SYS"): 1}),
    "desktop": (1, {16376}, {}),
    "dgx-1v": (
        8,
        {32768},
        {(0, "SYS"): 12, (1, "PHB"): 4, (2, "PHB"): 4, (1, "PIX"): 2, (2, "SYS"): 2, (2, "PIX"): 2, (1, "SYS"): 2},
    ),
    "dgx-a100": (8, {40960}, {(12, None): 28}),
    "dgx-h100": (8, {81559}, {(18, "NODE"): 12, (18, "SYS"): 16}),
    "mixed-5090-4090": (5, {32607, 24564}, {(0, "SYS"): 4, (0, "NODE"): 4, (0, "PHB"): 2}),
    "workstation": (2, {4096, 24564}, {(0, "NODE"): 1}),
    "wsl2": (2, {24564, 16380}, {(0, None): 1}),
}


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_machine_is_what_it_says(name: str) -> None:
    reading = load([f"sim:{name}"])
    assert reading.inventory.source == "sim"
    assert reading.warnings == ()
    (host,) = reading.inventory.hosts
    assert host.name == name
    count, memory, pairs = MACHINES[name]
    assert [gpu.index for gpu in host.gpus] == list(range(count))
    assert {gpu.memory_total_mib for gpu in host.gpus} == memory
    addresses = [gpu.pci_bus_id for gpu in host.gpus]
    assert addresses == sorted(addresses)
    assert len(host.links) == count * (count - 1) // 2
    assert Counter((link.nvlink, link.pcie) for link in host.links) == pairs


def test_every_machine_of_the_table_is_shipped() -> None:
    assert shipped() == tuple(sorted(MACHINES))


def test_a_mig_machine_is_partly_in_one_way_and_wholly_in_another() -> None:
    first, second = load(["sim:a100-mig"]).inventory.hosts[0].gpus
    assert [instance.profile for instance in first.mig or ()] == ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]
    assert {(i.profile, i.memory_total_mib) for i in second.mig or ()} == {("1g.10gb", 9728)}
    assert len(second.mig or ()) == 7


def test_desktops_show_something_on_their_display() -> None:
    for name, shows in (("desktop", [True]), ("workstation", [True, False]), ("wsl2", [True, False])):
        (host,) = load([f"sim:{name}"]).inventory.hosts
        assert [gpu.display_active for gpu in host.gpus] == shows
        assert host.platform == ("wsl2" if name == "wsl2" else "linux")
