from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from gpualloc.inventory import load, shipped
from gpualloc.model import Container, Host, Inventory, Process
from gpualloc.render.inventory import inventory_text
from gpualloc.render.screen import Screen
from tests.render.samples import check_snapshot, inventory, machine, two_hosts, workstation

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
    assert inventory_text(bare, PIPE) == "bare: 0 GPUs\ndriver 580.1, CUDA ?\n"
    assert inventory_text(Inventory("snapshot", ()), PIPE) == "No hosts.\n"


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("screen", [Screen(80), Screen(200), Screen(80, colour=True)])
def test_every_shipped_machine_says_the_same_on_a_terminal_and_in_a_pipe(name: str, screen: Screen) -> None:
    on = load((f"sim:{name}",)).inventory
    text = re.sub(r"\x1b\[[\d;]*m", "", inventory_text(on, screen))
    assert max(map(len, text.splitlines())) <= (screen.width or 0)
    assert Counter(text.split()) == Counter(inventory_text(on, PIPE).split())


@pytest.mark.parametrize("name", shipped())
def test_every_device_has_a_bar_and_its_uuid(name: str) -> None:
    on = load((f"sim:{name}",)).inventory
    text = inventory_text(on, PIPE)
    devices = [device for gpu in on.hosts[0].gpus for device in (gpu.mig or [gpu])]
    assert len(re.findall(r"\[[^\]]*\]", text)) == len(devices)
    assert all(device.uuid in text for device in devices)


def held(*processes: Process, used: int | None) -> str:
    host = machine(1)
    text = inventory_text(
        Inventory("nvml", (replace(host, gpus=(replace(host.gpus[0], memory_used_mib=used, processes=processes),)),)),
        PIPE,
    )
    return text.partition("\n\n")[0]


def test_holders_are_in_the_map_with_their_part() -> None:
    server = Container("0123456789abcdef", "llm", "server")
    text = held(Process(1, 10240, server), Process(2, 10240, server), Process(3, 10240, None), used=30720)
    assert re.search(r"\[llm/server ━+\|pid 3 ━\|·+\]  30 of 40 GiB$", text, re.MULTILINE)
    assert "unknown" not in text


def test_memory_that_nobody_known_holds_is_drawn_as_such() -> None:
    assert re.search(r"\[▒+\|·+\]  20 of 40 GiB  ▒ unknown$", held(used=20480), re.MULTILINE)
    text = held(Process(1, None, None), used=20480)
    assert re.search(r"\[pid 1 ━+\|·+\]  20 of 40 GiB$", text, re.MULTILINE)
    assert "▒" not in text


def test_what_is_unknown_is_not_zero() -> None:
    assert "? of 40 GiB" in held(used=None)
    assert "? of 40 GiB" in held(Process(1, None, None), used=None)


def test_many_processes_are_counted() -> None:
    text = held(*(Process(pid, 100, None) for pid in range(5)), used=500)
    assert text.endswith("500 MiB of 40 GiB  5 processes")


def test_an_island_of_some_is_not_one_of_all() -> None:
    host = machine(3)
    some = replace(host, links=tuple(link for link in host.links if host.gpus[2].uuid not in {link.a, link.b}))
    assert "all joined" not in inventory_text(Inventory("sim", (some,)), PIPE)
    assert "all joined" in inventory_text(Inventory("sim", (host,)), PIPE)
