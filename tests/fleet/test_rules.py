"""One plan over several hosts: every rule that speaks of hosts, from the command line to the plan."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.fleet.machines import save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result

HOSTS = ("gpu-a", "gpu-b", "gpu-c")


class Fleet:
    def __init__(self, folder: Path, run: Callable[..., Result]) -> None:
        self.folder, self._run = folder, run
        save(folder / "fleet", *HOSTS)

    def compose(self, services: dict[str, dict[str, Any]]) -> None:
        text = json.dumps({"services": {name: {"image": "x"} | keys for name, keys in services.items()}})
        (self.folder / "compose.yaml").write_text(text)

    def policy(self, text: str) -> None:
        (self.folder / "policies").mkdir(exist_ok=True)
        (self.folder / "policies" / "own.yaml").write_text(f"version: 1\n{text}")

    def plan(self, *args: str, code: int = 0) -> dict[str, Any]:
        result = self._run("plan", "--inventory", "fleet", "--format", "json", *args)
        assert result.code == code, result.err
        document: dict[str, Any] = json.loads(result.out)
        return document

    def hosts(self, *args: str) -> dict[str, str]:
        return {p["worker"]: p["host"] for p in self.plan(*args)["placements"]}

    def used(self, *args: str, code: int = 0) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for placement in self.plan(*args, code=code)["placements"]:
            found.setdefault(placement["host"], set()).update(d["uuid"] for d in placement["devices"])
        return found


@pytest.fixture
def fleet(tmp_path: Path, run: Callable[..., Result]) -> Fleet:
    return Fleet(tmp_path, run)


def asks(**keys: Any) -> dict[str, Any]:
    return {"x-gpualloc": keys}


def test_pack_uses_the_fewest_hosts_and_says_so(fleet: Fleet) -> None:
    fleet.compose({f"w{n}": asks(gpus=1) for n in range(5)})
    plan = fleet.plan()
    tiers = {tier["name"]: tier for tier in plan["objective"]}
    assert (tiers["hosts_used"]["value"], tiers["hosts_used"]["proven"]) == (2, True)
    assert len({p["host"] for p in plan["placements"]}) == 2


def test_spread_levels_the_load_over_the_hosts(fleet: Fleet) -> None:
    fleet.compose({f"w{n}": asks(gpus=1) for n in range(6)})
    fleet.policy("strategy: spread\n")
    assert sorted(len(uuids) for uuids in fleet.used("--policy", "own").values()) == [2, 2, 2]


def test_a_worker_with_several_devices_is_never_on_two_hosts(fleet: Fleet) -> None:
    fleet.compose({f"w{n}": asks(gpus=3) for n in range(3)})
    plan = fleet.plan()
    homes = {d["uuid"][-4:] for p in plan["placements"] for d in p["devices"]}
    assert len(homes) == 3
    assert all(len({d["uuid"][-4:] for d in p["devices"]}) == 1 for p in plan["placements"])
    fleet.compose({"w": asks(gpus=5)})  # twelve are free, and four on each host
    (unplaced,) = fleet.plan(code=3)["unplaced"]
    assert unplaced["worker"] == "w"


def test_all_of_the_gpus_are_those_of_one_host(fleet: Fleet) -> None:
    fleet.compose({"w": {"gpus": "all"}})
    (placement,) = fleet.plan()["placements"]
    assert len(placement["devices"]) == 4


def test_host_globs_name_hosts(fleet: Fleet) -> None:
    fleet.compose({"a": asks(gpus=1, host="gpu-c"), "b": asks(gpus=1, host="*-[ab]"), "c": asks(gpus=1, host="gpu-b")})
    assert fleet.hosts() == {"a": "gpu-c", "b": "gpu-b", "c": "gpu-b"}
    fleet.compose({"a": asks(gpus=1, host="gpu-z")})
    (unplaced,) = fleet.plan(code=3)["unplaced"]
    assert {reason["code"] for reason in unplaced["reasons"]} == {"host"}


def test_affinity_joins_and_anti_affinity_parts_across_hosts(fleet: Fleet) -> None:
    fleet.compose(
        {
            "a": asks(memory="8GiB", host="gpu-b"),
            "b": asks(memory="8GiB", affinity=["a"]),
            "c": asks(memory="8GiB", anti_affinity=["a"], host="gpu-b"),
        }
    )
    devices = {p["worker"]: [d["uuid"] for d in p["devices"]] for p in fleet.plan()["placements"]}
    assert devices["a"] == devices["b"] != devices["c"]


def test_reserve_is_for_each_host_and_limit_for_the_project(fleet: Fleet) -> None:
    fleet.compose({f"w{n:02}": asks(gpus=1) for n in range(12)})
    fleet.policy("reserve: 1\n")
    assert {host: len(uuids) for host, uuids in fleet.used("--policy", "own", code=3).items()} == dict.fromkeys(
        HOSTS, 3
    )
    fleet.policy("limit: 7\n")
    assert sum(len(uuids) for uuids in fleet.used("--policy", "own", code=3).values()) == 7


def test_excluded_by_index_means_on_every_host(fleet: Fleet) -> None:
    fleet.compose({f"w{n:02}": asks(gpus=1) for n in range(9)})
    fleet.policy('exclude: {gpus: ["index:0"]}\n')
    plan = fleet.plan("--policy", "own")
    assert {d["index"] for p in plan["placements"] for d in p["devices"]} == {1, 2, 3}
