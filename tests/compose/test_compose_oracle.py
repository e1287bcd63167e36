"""The comparison that other tests rest on must see what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from tests.compose_oracle import config, differences, needs_compose, services

if TYPE_CHECKING:
    from pathlib import Path

PINNED = {"resources": {"reservations": {"devices": [{"device_ids": ["GPU-1"], "capabilities": ["gpu"]}]}}}


def model(folder: Path, service: dict[str, Any], **top: Any) -> dict[str, Any]:
    file = folder / "compose.yaml"
    file.write_text(yaml.safe_dump({"name": "p", "services": {"s": {"image": "x", **service}}, **top}))
    result = config([file], fmt="yaml")
    assert result.ok, result.stderr
    return result.data


@needs_compose
def test_requests_and_owned_variables_may_differ(tmp_path: Path) -> None:
    before = model(tmp_path, {"environment": {"A": "$$x"}, "x-gpualloc": {"gpus": 1}})
    after = model(tmp_path, {"environment": {"A": "$$x", "B": None}, "deploy": PINNED, "devices": ["nvidia.com/gpu=0"]})
    assert services(after)["s"].environment == {"A": "$x", "B": None}
    assert set(services(after)["s"].requests) == {"deploy", "cdi"}
    assert differences(before, after, owned={"B"}) == []
    assert differences(before, after) == ["services.s.environment.B: '(absent)' became None"]
    found = differences(before, after, owned={"B"}, requests=True)
    assert [line.partition(":")[0] for line in found] == ["services.s.requests.cdi", "services.s.requests.deploy"]


@needs_compose
def test_anything_else_may_not(tmp_path: Path) -> None:
    before = model(tmp_path, {"deploy": PINNED, "devices": ["/dev/a"]})
    for change in (
        {"deploy": {**PINNED, "replicas": 2}, "devices": ["/dev/a"]},
        {"deploy": PINNED, "devices": ["/dev/b"]},
        {"deploy": PINNED, "devices": ["/dev/a"], "image": "y"},
        {"deploy": PINNED, "devices": ["/dev/a"], "x-other": 1},
    ):
        assert len(differences(before, model(tmp_path, change))) == 1
    same = {"deploy": PINNED, "devices": ["/dev/a"]}
    assert differences(before, model(tmp_path, same)) == []
    assert differences(before, model(tmp_path, same, **{"x-top": 1})) == ["x-top: '(absent)' became 1"]
    assert len(differences(before, {**before, "services": {**before["services"], "t": {}}})) == 1
