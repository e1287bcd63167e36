from __future__ import annotations

import re

import pytest

from gpualloc.model import Host, Inventory
from gpualloc.render.inventory import inventory_text
from gpualloc.render.screen import Screen
from tests.render.samples import check_snapshot, inventory, two_hosts, workstation

PIPE = Screen()


@pytest.mark.parametrize("width", [None, 80])
def test_one_of_everything(width: int | None) -> None:
    check_snapshot(f"inventory-{width or 'pipe'}", inventory_text(workstation(), Screen(width)))


def test_colour() -> None:
    check_snapshot("inventory-colour", inventory_text(workstation(), Screen(120, colour=True)))


def test_hosts_follow_each_other() -> None:
    check_snapshot("inventory-hosts", inventory_text(two_hosts(), PIPE))


def test_sixteen_gpus_fit_eighty_columns() -> None:
    text = inventory_text(inventory(16), Screen(80))
    assert max(map(len, text.splitlines())) <= 80
    check_snapshot("inventory-sixteen", text)


@pytest.mark.parametrize("count", [2, 3, 8, 16])
@pytest.mark.parametrize("width", [None, 40, 80, 132])
def test_every_pair_is_in_the_matrix_once_each_way(count: int, width: int | None) -> None:
    text = inventory_text(inventory(count), Screen(width))
    matrix = text[text.index("\nlink") :]
    assert len(re.findall(r"\bNV12\b", matrix)) == count * (count - 1)
    assert len(re.findall(r"\bX\b", matrix)) == count
    heads = re.findall(r"^link +([\d ]+)$", matrix, re.MULTILINE)
    assert [int(index) for head in heads for index in head.split()] == list(range(count))


def test_a_lone_gpu_has_no_links() -> None:
    assert "link" not in inventory_text(inventory(1), PIPE)


def test_hosts_without_gpus_and_no_hosts() -> None:
    bare = Inventory("nvml", (Host("bare", "580.1", None, (), ()),))
    assert inventory_text(bare, PIPE) == "bare: 0 GPUs, driver 580.1, CUDA ?\n"
    assert inventory_text(Inventory("snapshot", ()), PIPE) == "No hosts.\n"
