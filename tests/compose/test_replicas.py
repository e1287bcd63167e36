"""Roles with several workers: a service for each, as Compose sees it, and back."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpualloc.compose.project import ProjectOptions
from gpualloc.errors import GpuallocError
from gpualloc.planning import Options, make_plan, plan_reset, write_plan, write_reset
from tests.compose_oracle import config, differences, needs_compose

if TYPE_CHECKING:
    from gpualloc.planning import Planned

OWNED = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")

HERE = Path(__file__).parent / "replicas"
FULL = (HERE / "everything.yaml").read_text(encoding="utf-8")
PROJECTS = {path.stem: path.read_bytes().decode() for path in sorted(HERE.glob("*.yaml"))} | {
    "windows": FULL.replace("\n", "\r\n"),
    "no-final-newline": FULL.rstrip(),
}


def lay_out(folder: Path, text: str) -> Path:
    path = folder / "compose.yaml"
    path.write_bytes(text.encode())
    return path


def options(override: str | None = None, **scale: int) -> Options:
    return Options(ProjectOptions(), ("sim:dgx-a100",), scale=tuple(scale.items()), override=override)


def planned(folder: Path, override: str | None = None, **scale: int) -> Planned:
    return make_plan(options(override, **scale), {}, folder)


def apply(folder: Path, override: str | None = None, **scale: int) -> Planned:
    plan = planned(folder, override, **scale)
    assert plan.plan.complete
    write_plan(plan)
    assert not planned(folder, override).plan.changed
    return plan


def reset(folder: Path) -> bytes:
    write_reset(plan_reset(options(), {}, folder))
    return (folder / "compose.yaml").read_bytes()


def model(*files: Path) -> dict[str, Any]:
    found = config(list(files))
    assert found.ok, found.stderr
    return {key: value for key, value in found.data.items() if key != "name" and not key.startswith("x-")}


def divided(before: dict[str, Any], roles: dict[str, int]) -> dict[str, Any]:
    """Return what a project becomes, but for ports: a service for each worker, found under the role's name too."""
    after = copy.deepcopy(before)
    services: dict[str, Any] = after["services"]
    for role, count in roles.items():
        whole = services.pop(role)
        whole.pop("scale", None)
        whole.get("deploy", {}).pop("replicas", None)
        for name, network in list(whole.get("networks", {}).items()) if "network_mode" not in whole else ():
            entry = network or {}
            whole["networks"][name] = entry | {"aliases": [*entry.get("aliases", []), role]}
        for number in range(1, count + 1):
            one = services[f"{role}-{number}"] = copy.deepcopy(whole)
            if "container_name" in one:
                one["container_name"] += f"-{number}"
        for service in services.values():
            rename(service, role, [f"{role}-{n}" for n in range(1, count + 1)])
    return after


def rename(service: dict[str, Any], role: str, names: list[str]) -> None:
    needs = service.get("depends_on", {})
    if role in needs:
        condition = needs.pop(role)
        needs |= {name: copy.deepcopy(condition) for name in names}
    for key in ("links", "volumes_from"):
        for item in [i for i in service.get(key, []) if i.split(":")[0] == role]:
            at = service[key].index(item)
            service[key][at : at + 1] = [name + item.removeprefix(role) for name in names]


def without_ports(data: dict[str, Any]) -> dict[str, Any]:
    """Return a model without ports, and with what says nothing left out."""
    result = copy.deepcopy(data)
    for service in result["services"].values():
        service.pop("ports", None)
        if not service.get("deploy", True):
            service.pop("deploy")
        if service.get("scale") == 1:
            service.pop("scale")
        if service.get("deploy", {}).get("replicas") == 1:
            service["deploy"].pop("replicas")
            if not service["deploy"]:
                service.pop("deploy")
    return result


def published(data: dict[str, Any]) -> list[tuple[str, str, str]]:
    ports = [port for name, s in data["services"].items() if name != "template" for port in s.get("ports", [])]
    return [(p.get("host_ip", ""), p["protocol"], p["published"]) for p in ports if "published" in p]


def counts_of(data: dict[str, Any]) -> dict[str, int]:
    """Return the number of containers that Compose has for each service."""
    return {
        name: s["scale"] if "scale" in s else s.get("deploy", {}).get("replicas", 1)
        for name, s in data["services"].items()
    }


def roles_of(plan: Planned) -> dict[str, int]:
    count: dict[str, int] = {}
    for placement in plan.plan.solution.placements:
        if placement.worker != placement.service:
            count[placement.service] = max(count.get(placement.service, 0), placement.replica)
    return count


@needs_compose
@pytest.mark.parametrize("name", list(PROJECTS))
def test_each_worker_becomes_a_service(tmp_path: Path, name: str) -> None:
    text = PROJECTS[name]
    path = lay_out(tmp_path, text)
    before = model(path)
    plan = apply(tmp_path)
    after = model(path)
    assert roles_of(plan) == {role: count for role, count in counts_of(before).items() if count > 1}
    expected = divided(before, roles_of(plan))
    assert differences(without_ports(expected), without_ports(after), owned=OWNED) == []
    taken = [port for port in published(after) if "-" not in port[2] or name != "ranges"]
    assert len(set(taken)) == len(taken)
    pinned = {service: re.findall(r"GPU-[-0-9a-f]+", str(entry)) for service, entry in after["services"].items()}
    given = {p.worker: [d.uuid for d in p.devices] for p in plan.plan.solution.placements}
    assert {worker: list(dict.fromkeys(pinned[worker])) for worker in given} == given
    assert reset(tmp_path) == text.encode()


@needs_compose
@pytest.mark.parametrize("name", list(PROJECTS))
def test_the_override_form_gives_the_same(tmp_path: Path, name: str) -> None:
    text = PROJECTS[name]
    path = lay_out(tmp_path, text)
    apply(tmp_path, "gpu.yaml")
    assert path.read_bytes() == text.encode()
    over = model(path, tmp_path / "gpu.yaml")
    apply(tmp_path)
    inside = model(path)
    assert differences(without_ports(over), without_ports(inside), requests=True) == []
    assert sorted(published(over)) == sorted(published(inside))


@needs_compose
@pytest.mark.parametrize("name", list(PROJECTS))
def test_any_sequence_of_numbers_and_back(tmp_path: Path, name: str) -> None:
    text = PROJECTS[name]
    path = lay_out(tmp_path, text)
    count = counts_of(model(path))["worker"]
    apply(tmp_path)
    first = path.read_bytes()
    for number in (count + 2, 1, 3):
        before = {p.worker: p.devices for p in planned(tmp_path).plan.solution.placements}
        now = apply(tmp_path, worker=number)
        for placement in now.plan.solution.placements:
            assert "all" in text or before.get(placement.worker, placement.devices) == placement.devices
        found = model(path)["services"]
        assert {f"worker-{n}" for n in range(1, number + 1)} == {s for s in found if s.startswith("worker")}
    apply(tmp_path, worker=count)
    assert "all" in text or path.read_bytes() == first  # the others keep what they were granted meanwhile
    assert reset(tmp_path) == text.encode()


def test_edits_by_hand_survive(tmp_path: Path) -> None:
    text = FULL.replace("replicas: 4", "replicas: 1")
    path = lay_out(tmp_path, text)
    apply(tmp_path)
    assert "worker-1" not in path.read_text()
    apply(tmp_path, worker=4)
    third = path.read_text().index("  worker-3:")
    now = path.read_text()
    edited = now[:third] + "  # the third is special\n" + now[third:].replace("- A=1\n", "- A=1\n      - MINE=3\n", 1)
    edited = edited.replace("command: [a, b]   # what it does", "command: [c]   # what it does", 1)
    path.write_text(edited)
    apply(tmp_path, worker=3)
    assert "  # the third is special\n  worker-3:" in path.read_text()
    assert path.read_text().count("MINE=3") == 1
    assert path.read_text().count("command: [c]") == 1
    apply(tmp_path, worker=4)
    assert path.read_text().count("command: [c]") == 2
    apply(tmp_path, worker=2)
    assert "MINE" not in path.read_text()
    assert "special" not in path.read_text()
    apply(tmp_path, worker=4)
    apply(tmp_path, worker=1)
    assert reset(tmp_path).decode() == text.replace("command: [a, b]", "command: [c]")


def test_the_number_in_the_record_counts(tmp_path: Path) -> None:
    path = lay_out(tmp_path, FULL)
    apply(tmp_path)
    path.write_text(path.read_text().replace("worker: {replicas: 4,", "worker: {replicas: 6,"))
    assert roles_of(apply(tmp_path)) == {"worker": 6}
    path.write_text(path.read_text().replace("worker: {replicas: 6,", "worker: {replicas: 2,"))
    assert roles_of(apply(tmp_path)) == {"worker": 2}
    assert "worker-3" not in path.read_text()
    path.write_text(path.read_text().replace("worker: {replicas: 2,", "worker: {replicas: 0,"))
    with pytest.raises(GpuallocError, match="replicas of 'worker' is 0"):
        planned(tmp_path)


def test_a_copy_removed_by_hand_comes_back(tmp_path: Path) -> None:
    path = lay_out(tmp_path, FULL)
    apply(tmp_path)
    text = path.read_text()
    start, end = text.index("  worker-2:"), text.index("  worker-3:")
    path.write_text(text[:start] + text[end:])
    apply(tmp_path)
    assert path.read_text() == text
    assert reset(tmp_path).decode() == FULL


@needs_compose
def test_ports_go_on_from_the_first_and_stay(tmp_path: Path) -> None:
    path = lay_out(tmp_path, FULL)
    plan = apply(tmp_path)
    ports = {s: [p["published"] for p in e.get("ports", [])] for s, e in model(path)["services"].items()}
    assert ports == {
        "worker-1": ["8000", "9000"],
        "worker-2": ["8001", "9001"],
        "worker-3": ["8003", "9002"],
        "worker-4": ["8004", "9003"],
        "api": ["8002"],
        "db": [],
    }
    told = [warning.detail for warning in plan.plan.solution.warnings if warning.code == "ports"]
    assert told[1] == "worker-3 publishes host ports 8003, 9002"
    path.write_text(path.read_text().replace("8003:80", "9500:80"))
    apply(tmp_path, worker=5)
    ports = {s: [p["published"] for p in e.get("ports", [])] for s, e in model(path)["services"].items()}
    assert ports["worker-3"] == ["9500", "9002"]
    assert ports["worker-5"] == ["8003", "9004"]


REFUSED: dict[str, tuple[str, str]] = {
    "a name that is taken": ("  worker-2: {image: i}\n", "a service named worker-2"),
    "network_mode": ("  side: {image: i, network_mode: 'service:worker'}\n", "side has network_mode: service:worker"),
    "ipc": ("  side: {image: i, ipc: 'service:worker'}\n", "side has ipc"),
    "pid": ("  side: {image: i, pid: 'service:worker'}\n", "side has pid"),
    "extends": ("  side: {extends: {service: worker}, scale: 1}\n", "side extends it"),
    "extends in short": ("  side: {extends: worker}\n", "side extends it"),
    "its container": (
        "  side: {image: i, network_mode: 'container:named'}\n",
        "side has network_mode: container:named",
    ),
    "a container's name that is taken": (
        "  side: {image: i, container_name: named-2}\n",
        "the container named-2 is side's",
    ),
    "a build from it": (
        "  side: {build: {context: ., additional_contexts: {a: 'service:worker'}}}\n",
        "side has build",
    ),
    "an address": ("    networks: {default: {ipv4_address: 10.0.0.2}}\n", "a fixed address in default: ipv4_address"),
    "a MAC address": ("    mac_address: 02:42:ac:11:65:43\n", "MAC address is fixed"),
    "a port behind a variable": ("    ports: ['${PORT:-80}:80']\n", "behind a variable"),
    "a long port behind a variable": ("    ports: [{target: 80, published: '${PORT:-80}'}]\n", "behind a variable"),
    "ports: error": ("    ports: ['80:80']\n    x-gpualloc: {ports: error}\n", "ports: error"),
    "no port left": ("    ports: ['65535:80']\n", "no host port left for worker-2"),
    "a network behind a variable": ("    networks: ['${N:-a}']\n", "named by a variable"),
    "an alias for its name": (
        "    labels: [&w worker]\n  side: {image: i, depends_on: [*w]}\n",
        "not named as it is written",
    ),
    "a merged service": ("  side: {image: i}\n  <<: {other: {image: i}}\n", ""),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_divided_says_why(tmp_path: Path, name: str) -> None:
    more, why = REFUSED[name]
    text = (
        f"services:\n  worker:\n    image: i\n    container_name: named\n    scale: 3\n    gpus: [{{count: 1}}]\n{more}"
    )
    path = lay_out(tmp_path, text)
    if not why:
        apply(tmp_path)
        assert reset(tmp_path).decode() == text
        return
    with pytest.raises(GpuallocError) as caught:
        planned(tmp_path)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "replicas-split"
    assert why in diagnostic.summary
    assert diagnostic.hint
    assert path.read_text() == text


def test_a_role_in_several_files_divides_in_an_override_only(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n  worker:\n    image: i\n    environment: [A=1]\n    volumes: ['./d:/d']\n    depends_on: [db]\n"
        "  db: {image: k}\n"
    )
    (tmp_path / "compose.override.yaml").write_text(
        "services:\n  worker:\n    environment: {B: $$x}\n    networks: [front]\n    gpus: [{count: 1}]\n    scale: 2\n"
        "  api: {image: j, depends_on: [worker]}\nnetworks: {front: {}}\n"
    )
    with pytest.raises(GpuallocError, match="several places"):
        planned(tmp_path)
    plan = apply(tmp_path, "gpu.yaml")
    assert roles_of(plan) == {"worker": 2}
    files = [tmp_path / name for name in ("compose.yaml", "compose.override.yaml")]
    before, after = model(*files), model(*files, tmp_path / "gpu.yaml")
    assert differences(divided(before, {"worker": 2}), after, owned=OWNED) == []


def test_a_name_in_another_file_is_refused(tmp_path: Path) -> None:
    lay_out(tmp_path, "services:\n  worker: {image: i, gpus: all, scale: 2}\n")
    (tmp_path / "compose.override.yaml").write_text("services:\n  api: {image: j, depends_on: [worker]}\n")
    with pytest.raises(GpuallocError, match="api names it under depends_on, in another file"):
        planned(tmp_path)
    apply(tmp_path, "gpu.yaml")


def test_workers_of_a_role_ask_alike(tmp_path: Path) -> None:
    path = lay_out(tmp_path, "services:\n  worker:\n    image: i\n    gpus: [{count: 1}]\n    scale: 2\n")
    apply(tmp_path)
    second = path.read_text().index("  worker-2:")
    text = path.read_text()
    path.write_text(text[:second] + text[second:].replace("    image: i", "    image: i\n    scale: 2", 1))
    with pytest.raises(GpuallocError, match="worker-2 asks for something else than worker-1"):
        planned(tmp_path)


@pytest.mark.parametrize(("scale", "why"), [({"worker": 0}, "at least one"), ({"nobody": 2}, "no role is so named")])
def test_numbers_that_cannot_be(tmp_path: Path, scale: dict[str, int], why: str) -> None:
    lay_out(tmp_path, FULL)
    with pytest.raises(GpuallocError, match=why):
        planned(tmp_path, None, **scale)


def test_unplaced_workers_are_parked_one_by_one(tmp_path: Path) -> None:
    path = lay_out(tmp_path, FULL)
    small = replace(options(), inventory=("sim:1xrtx3090",))
    plan = make_plan(small, {}, tmp_path)
    assert not plan.plan.complete
    write_plan(plan)
    services = model(path)["services"]
    assert [services[f"worker-{n}"].get("deploy", {}).get("replicas") for n in range(1, 5)] == [None, 0, 0, 0]
    apply(tmp_path)
    services = model(path)["services"]
    assert all("replicas" not in services[f"worker-{n}"]["deploy"] for n in range(1, 5))
    assert reset(tmp_path).decode() == FULL
