"""What ``check --since`` tells of several hosts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gpualloc.checks.changes import changes
from gpualloc.inventory import load
from gpualloc.inventory.snapshot import dump

if TYPE_CHECKING:
    from pathlib import Path

    from gpualloc.model import Inventory


def fleet(tmp_path: Path, machine: str, *names: str) -> Inventory:
    """Hosts of one kind, as a snapshot each, with uuids of their own and the same bus ids on all."""
    document = json.loads(dump(load([f"sim:{machine}"]).inventory))
    text = json.dumps(document)
    paths = []
    for name in names:
        own = json.loads(text.replace("GPU-", f"GPU-{name}-"))
        own["hosts"][0]["name"] = name
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(own))
    return load([str(path) for path in paths]).inventory


def test_a_host_that_goes_is_not_replaced_by_one_that_comes(tmp_path: Path) -> None:
    before = fleet(tmp_path, "1xrtx3090", "a", "b")
    after = fleet(tmp_path, "1xrtx3090", "b", "c")
    found = [(change.code, change.detail.partition(" (")[0]) for change in changes(before, after)]
    assert found == [("gone", "GPU 0 of a"), ("new", "GPU 0 of c")]


def test_each_change_names_its_host_where_there_are_several(tmp_path: Path) -> None:
    before = fleet(tmp_path, "4xl40s", "a", "b")
    document = json.loads((tmp_path / "b.json").read_text())
    gpus = document["hosts"][0]["gpus"]
    gpus[0]["index"], gpus[1]["index"] = gpus[1]["index"], gpus[0]["index"]
    gpus[2]["memory_total_mib"] -= 1024
    (tmp_path / "b.json").write_text(json.dumps(document))
    after = load([str(tmp_path / "a.json"), str(tmp_path / "b.json")]).inventory
    found = {change.code: change.detail for change in changes(before, after)}
    assert set(found) == {"renumbered", "memory"}
    assert found["renumbered"] == "GPU 0 of b was GPU 1 before, GPU 1 of b was GPU 0 before"
    assert found["memory"].startswith("GPU 2 of b has")


def test_one_host_needs_no_name_whatever_it_is_called(tmp_path: Path) -> None:
    before = fleet(tmp_path, "1xrtx3090", "a")
    after = fleet(tmp_path, "1xrtx3090", "b")
    (change,) = changes(before, after)
    assert change.code == "replaced"
    assert change.detail.startswith(f"GPU 0 was replaced: {before.hosts[0].gpus[0].uuid} ")
