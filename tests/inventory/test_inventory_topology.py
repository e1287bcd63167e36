"""What ``nvidia-smi topo -m`` printed: to a terminal, to a file, or pasted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpualloc.errors import GpuallocError
from gpualloc.inventory import topology
from gpualloc.inventory.topology import joined, parse

DATA = Path(__file__).parent / "data"

DGX_1 = """\
\x1b[4mGPU0\tGPU1\tGPU2\tGPU3\tmlx5_0\tmlx5_1\tCPU Affinity\x1b[0m
GPU0\t X \tNV1\tNV2\tSYS\tPIX\tSYS\t0-19,40-59
GPU1\tNV1\t X \tPXB\tNODE\tPIX\tSYS\t0-19,40-59
GPU2\tNV2\tPXB\t X \tPHB\tSYS\tPIX\t20-39,60-79
GPU3\tSYS\tNODE\tPHB\t X \tSYS\tPIX\t20-39,60-79
mlx5_0\tPIX\tPIX\tSYS\tSYS\t X \tSYS\t
mlx5_1\tSYS\tSYS\tPIX\tPIX\tSYS\t X \t

Legend:

  X    = Self
  NV#  = Connection traversing a bonded set of # NVLinks
"""
HGX = """
        GPU0    GPU1    NIC0    CPU Affinity    NUMA Affinity   GPU NUMA ID
GPU0     X      NV18    PIX     0-55,112-167    0               N/A
GPU1    NV18     X      SYS     56-111,168-223  1               N/A
NIC0    PIX     SYS      X

NIC Legend:

  NIC0: mlx5_0
"""


def test_a_matrix_of_a_terminal() -> None:
    found = parse(DGX_1, "topo.txt")
    assert list(found.rows) == [0, 1, 2, 3]
    assert [row.cpu_affinity for row in found.rows.values()] == ["0-19,40-59"] * 2 + ["20-39,60-79"] * 2
    assert {row.numa_node for row in found.rows.values()} == {None}
    pairs = {(a, b): joined(found, a, b) for a in range(4) for b in range(a)}
    assert pairs == {
        (1, 0): (1, None),
        (2, 0): (2, None),
        (3, 0): (0, "SYS"),
        (2, 1): (0, "PXB"),
        (3, 1): (0, "NODE"),
        (3, 2): (0, "PHB"),
    }


@pytest.mark.parametrize("text", [HGX, HGX.replace("    ", "\t"), HGX.expandtabs(2), HGX.replace("\n", "\r\n")])
def test_a_matrix_with_tabs_or_spaces(text: str) -> None:
    found = parse(text, "topo.txt")
    assert joined(found, 0, 1) == joined(found, 1, 0) == (18, None)
    assert (found.rows[1].cpu_affinity, found.rows[1].numa_node) == ("56-111,168-223", 1)


def test_the_matrix_of_two_h100s() -> None:
    text = (DATA / "2xh100-topo.txt").read_text(encoding="utf-8")
    for form in (text, text.replace("\x1b", "")):  # an editor may drop the escape character alone
        found = parse(form, "topo.txt")
        assert joined(found, 0, 1) == (18, None)
        assert [(row.cpu_affinity, row.numa_node) for row in found.rows.values()] == [("0-31", 0)] * 2


def test_a_matrix_of_one_gpu() -> None:
    found = parse("\tGPU0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \tN/A\tN/A\n", "topo.txt")
    assert found.rows == {0: topology.Row({}, None, None)}


def test_several_nodes_are_no_node() -> None:
    found = parse("\tGPU0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \t0-63\t0-1\n", "topo.txt")
    assert found.rows[0] == topology.Row({}, "0-63", None)


def two(ab: str, ba: str) -> tuple[int | None, str | None]:
    return joined(parse(f"\tGPU0\tGPU1\nGPU0\tX\t{ab}\nGPU1\t{ba}\tX\n", "topo.txt"), 0, 1)


@pytest.mark.parametrize(
    ("ab", "ba", "expected"),
    [
        ("NV4", "NV2", (2, None)),
        ("NV4", "SYS", (0, "SYS")),
        ("PIX", "NODE", (0, "NODE")),
        ("SOC", "SYS", (0, "SYS")),
        ("N/A", "N/A", (None, None)),
        ("N/A", "PIX", (None, None)),
    ],
)
def test_where_two_rows_differ_the_lesser_holds(ab: str, ba: str, expected: tuple[int | None, str | None]) -> None:
    assert two(ab, ba) == two(ba, ab) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t: neither a matrix of `nvidia-smi topo -m` nor a list of `nvidia-smi -L`"),
        ("GPU0\tX\tNV1\n", "t:1:1: not a row of the matrix: 'GPU0\\tX\\tNV1'"),
        ("\tGPU0\tGPU1\nGPU0\tX\tNV1\n", "t:2:1: there is a column for GPU1 but no row"),
        ("\tGPU0\tGPU1\nGPU0\tX\n", "t:2:1: the row of GPU0 has 1 of 2 columns"),
        ("\tGPU0\nGPU0\tX\nGPU1\tX\n", "t:3:1: there is a row for GPU1 but no column"),
        ("\tGPU0\nGPU0\tX\nGPU0\tX\n", "t:3:1: a second row for GPU0"),
        ("\tGPU0\tGPU1\nGPU0\tX\tOK\nGPU1\tOK\tX\n", "t:2:1: GPU0 and GPU1 joined by 'OK': no such connection"),
        ("\tGPU0\tGPU1\nGPU0\tNV1\tX\nGPU1\tX\tNV1\n", "t:2:1: GPU0 and GPU0 joined by 'NV1': no such connection"),
        ("\tGPU0\tGPU1\n\tGPU0\tGPU1\n", "t:2:1: not a row of the matrix: 'GPU0\\tGPU1'"),
    ],
)
def test_a_matrix_that_cannot_be_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(GpuallocError) as error:
        parse(text, "t")
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.code == "inventory-topo"
    assert str(diagnostic).split("\n")[0] == message


def test_a_list_may_stand_beside_the_matrix() -> None:
    listed = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5c89)
  MIG 3g.20gb     Device  0: (UUID: MIG-8cbf)
  MIG 1g.5gb+me   Device  1: (UUID: MIG-GPU-5c89/7/0)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-77aa)
"""
    found = parse(HGX + listed, "topo.txt")
    assert set(found.rows) == {0, 1}
    assert found.instances == {
        "GPU-5c89": (
            topology.Instance(0, "3g.20gb", "MIG-8cbf"),
            topology.Instance(1, "1g.5gb+me", "MIG-GPU-5c89/7/0"),
        ),
        "GPU-77aa": (),
    }
    assert parse(listed, "topo.txt").rows == {}


@given(st.text(st.sampled_from("GPU01X\t\n NVSY8-,")))
def test_whatever_the_text_it_is_read_or_refused(text: str) -> None:
    try:
        found = parse("\tGPU0\tGPU1\n" + text, "t")
    except GpuallocError:
        return
    for a in found.rows:
        for b in found.rows[a].cells:
            joined(found, a, b)
