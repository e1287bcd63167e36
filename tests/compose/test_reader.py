from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gpualloc.errors import GpuallocError
from gpualloc.model import Ask, GpuCount
from tests.compose.projects import base_policy, demand, only_role

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO, ALL = GpuCount(1, 1), GpuCount(2, 2), GpuCount(1, None)


def device(entry: str) -> str:
    """A service with one device request, in flow style."""
    return f"services:\n  w:\n    image: i\n    deploy: {{resources: {{reservations: {{devices: [{{{entry}}}]}}}}}}\n"


def service(body: str) -> str:
    """A service with these keys, each line of which is indented already by none."""
    return "services:\n  w:\n    image: i\n" + "".join(f"    {line}\n" for line in body.splitlines())


@pytest.mark.parametrize(
    ("text", "count", "pinned", "kinds"),
    [
        (device("capabilities: [gpu], count: 1"), ONE, None, ["devices"]),
        (device("capabilities: [gpu], count: 2"), TWO, None, ["devices"]),
        (device("capabilities: [gpu], count: '2'"), TWO, None, ["devices"]),
        (device("capabilities: [gpu], count: all"), ALL, None, ["devices"]),
        (device("capabilities: [gpu], count: ALL"), ALL, None, ["devices"]),
        (device("capabilities: [gpu], count: -1"), ALL, None, ["devices"]),
        (device("capabilities: [gpu]"), ALL, None, ["devices"]),
        (device("capabilities: [], driver: nvidia, count: 1"), ONE, None, ["devices"]),
        (device("capabilities: [gpu], device_ids: ['3']"), ONE, ("3",), ["devices"]),
        (device("capabilities: [gpu], device_ids: ['0,1']"), TWO, ("0", "1"), ["devices"]),
        (device("capabilities: [gpu], device_ids: [all]"), ALL, None, ["devices"]),
        (device("capabilities: [gpu], driver: cdi, device_ids: ['nvidia.com/gpu=3']"), ONE, ("3",), ["devices"]),
        (device("capabilities: [gpu], count: '${N:-2}'"), TWO, None, ["devices"]),
        (service("gpus: all"), ALL, None, ["gpus"]),
        (service("gpus: [{count: 2}]"), TWO, None, ["gpus"]),
        (service("gpus: [{driver: nvidia, device_ids: ['0', '1']}]"), TWO, ("0", "1"), ["gpus"]),
        (service("runtime: nvidia"), ALL, None, ["runtime"]),
        (service("runtime: nvidia\nenvironment: {NVIDIA_VISIBLE_DEVICES: all}"), ALL, None, ["runtime"]),
        (service("runtime: nvidia\nenvironment: [NVIDIA_VISIBLE_DEVICES=GPU-a]"), ONE, ("GPU-a",), ["runtime"]),
        (service("runtime: nvidia\nenvironment: {NVIDIA_VISIBLE_DEVICES: 'all,0'}"), ALL, None, ["runtime"]),
        (service("runtime: nvidia\nenvironment: {NVIDIA_VISIBLE_DEVICES: '2,2'}"), ONE, ("2",), ["runtime"]),
        (service("devices: [nvidia.com/gpu=all]"), ALL, None, ["cdi"]),
        (service("devices: [/dev/fuse, nvidia.com/gpu=0, nvidia.com/gpu=1]"), TWO, ("0", "1"), ["cdi", "cdi"]),
        (service("devices: [{source: nvidia.com/gpu=GPU-a, target: x}]"), ONE, ("GPU-a",), ["cdi"]),
        (service("x-gpualloc: {gpus: 2}"), TWO, None, []),
        (service("x-gpualloc: {}"), ONE, None, []),
        (service("x-gpualloc: {gpus: {min: 1, max: 2}}\ngpus: all"), GpuCount(1, 2), None, ["gpus"]),
        (service("runtime: nvidia\ngpus: [{count: 1}]"), ONE, None, ["gpus", "runtime"]),
    ],
)
def test_every_way_of_asking(
    tmp_path: Path, text: str, count: GpuCount, pinned: tuple[str, ...] | None, kinds: list[str]
) -> None:
    role = only_role(demand(tmp_path, text))
    assert role.request.gpus == count
    assert role.request.workers[0].pinned == pinned
    assert [form.kind for form in role.forms] == kinds
    assert role.request.hand_pinned == (pinned is not None)


@pytest.mark.parametrize(
    "text",
    [
        service("environment: {A: b}"),
        device("capabilities: [tpu], count: 1"),
        device("capabilities: [gpu], driver: amd, count: 1"),
        device("capabilities: [gpu], device_ids: []"),
        device("capabilities: [gpu], count: 0"),
        service("runtime: nvidia\nenvironment: {NVIDIA_VISIBLE_DEVICES: none}"),
        service("runtime: nvidia\nenvironment: {NVIDIA_VISIBLE_DEVICES: ''}"),
        service("runtime: runc"),
        service("environment: {NVIDIA_VISIBLE_DEVICES: all}"),
        service("devices: [/dev/nvidia0]"),
        service("gpus: all\nx-gpualloc: false"),
        service("gpus: all\nprofiles: [later]"),
        service("gpus: all\ndeploy: {replicas: 0}"),
    ],
)
def test_no_request_of_ours(tmp_path: Path, text: str) -> None:
    assert not demand(tmp_path, text).roles


@pytest.mark.parametrize(
    ("text", "code", "words", "line"),
    [
        (device("capabilities: [gpu], count: 1, device_ids: ['0']"), "request", "exclude each other", 4),
        (device("capabilities: [gpu], device_ids: [0]"), "request", "strings, not 0", 4),
        (device("capabilities: [gpu], device_ids: '0'"), "request", "must be a list", 4),
        (device("capabilities: [gpu], device_ids: ['0', '0']"), "request", "twice", 4),
        (device("capabilities: [gpu], device_ids: ['0,0']"), "request", "twice", 4),
        (service("gpus: [{device_ids: ['2']}, {device_ids: ['1', '2']}]"), "request-conflict", "GPU 2 twice", 4),
        (service("devices: [nvidia.com/gpu=0, nvidia.com/gpu=0]"), "request-conflict", "GPU 0 twice", 4),
        (device("capabilities: [gpu], device_ids: ['0,']"), "request", "empty", 4),
        (device("capabilities: gpu, count: 1"), "request", "needs capabilities", 4),
        (device("count: 1"), "request", "needs capabilities", 4),
        (device("capabilities: [gpu], count: 1.0"), "request", "count is 1.0", 4),
        (device("capabilities: [gpu], count: '${N}'"), "request", 'count is ""', 4),
        (device("capabilities: [gpu], amount: 1"), "request", 'no key "amount"', 4),
        (device("capabilities: [gpu], count: '${N:?tell how many}'"), "required-variable", "tell how many", 4),
        (service("gpus: 1"), "request", "gpus is 1", 4),
        (service("gpus: ALL"), "request", 'gpus is "ALL"', 4),
        (service("gpus: [{count: 1}]\ndevices: ['nvidia.com/gpu=all']"), "request-conflict", "two ways", 5),
        (service("gpus: all\nscale: 2\ndeploy: {replicas: 3}"), "replicas", "differ", 5),
        (service("gpus: all\nscale: many"), "replicas", "many", 5),
        (service("x-gpualloc: {gpu: 1}"), "ask-key", "gpu", 4),
        (service("x-gpualloc: true"), "ask-type", "true", 4),
        (service("gpus: all: more"), "yaml", "not YAML", 4),
    ],
)
def test_bad_requests_say_where(tmp_path: Path, text: str, code: str, words: str, line: int) -> None:
    with pytest.raises(GpuallocError) as caught:
        demand(tmp_path, text)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    assert words in diagnostic.summary
    assert diagnostic.where is not None
    assert (diagnostic.where.file, diagnostic.where.line) == ("compose.yaml", line)


def test_all_bad_services_are_told_at_once(tmp_path: Path) -> None:
    text = "services:\n  a: {image: i, gpus: 1}\n  b: {image: i, gpus: 2}\n"
    with pytest.raises(GpuallocError) as caught:
        demand(tmp_path, text)
    assert [d.where.line for d in caught.value.diagnostics if d.where] == [2, 3]


INHERITED = """\
x-gpu: &gpu
  deploy: &deploy
    resources:
      reservations:
        devices: &devices
          - capabilities: [gpu]
            count: 2
services:
  merged: {<<: *gpu, image: i}
  aliased: {image: i, deploy: *deploy}
  deep: {image: i, deploy: {resources: {reservations: {devices: *devices}}}}
  own: {<<: *gpu, image: i, deploy: {resources: {limits: {cpus: "1"}}}}
  extending: {extends: merged, image: j}
"""


def test_requests_through_anchors_aliases_merge_keys_and_extends(tmp_path: Path) -> None:
    roles = demand(tmp_path, INHERITED).roles
    assert {r.service.name: r.request.gpus for r in roles} == dict.fromkeys(
        ("merged", "aliased", "deep", "extending"), TWO
    )


def test_x_gpualloc_counts_only_in_the_services_own_node(tmp_path: Path) -> None:
    text = "x-a: &a\n  x-gpualloc: {gpus: 2}\nservices:\n  w: {<<: *a, image: i}\n  v: {<<: *a, gpus: all}\n"
    roles = demand(tmp_path, text).roles
    assert [(r.service.name, r.request.gpus) for r in roles] == [("v", ALL)]


def test_policy_roles_make_a_role_only_with_gpus(tmp_path: Path) -> None:
    text = "services:\n  w: {image: i}\n  v: {image: i}\n  u: {image: i, gpus: all}\n"
    policy = base_policy(w=Ask(gpus=ONE), v=Ask(priority=5), u=Ask(priority=7))
    roles = demand(tmp_path, text, policy).roles
    assert [(r.service.name, r.request.gpus, r.request.priority) for r in roles] == [("w", ONE, 0), ("u", ALL, 7)]


def test_x_gpualloc_outranks_roles_which_outrank_compose(tmp_path: Path) -> None:
    text = service("gpus: all\nx-gpualloc: {memory: 8GiB}")
    policy = base_policy(w=Ask(gpus=TWO, memory_mib=1024, exclusive=False))
    request = only_role(demand(tmp_path, text, policy)).request
    assert (request.gpus, request.memory_mib) == (TWO, 8192)


def test_variables_from_the_environment_outrank_the_env_file(tmp_path: Path) -> None:
    text = device("capabilities: [gpu], count: $N")
    assert only_role(demand(tmp_path, text, dotenv="N=2\n")).request.gpus == TWO
    assert only_role(demand(tmp_path, text, dotenv="N=2\n", env={"N": "1"})).request.gpus == ONE


def test_a_variable_without_a_value_has_the_hosts(tmp_path: Path) -> None:
    text = service("runtime: nvidia\nenvironment: [NVIDIA_VISIBLE_DEVICES]")
    assert only_role(demand(tmp_path, text)).request.gpus == ALL
    found = only_role(demand(tmp_path, text, env={"NVIDIA_VISIBLE_DEVICES": "2,3"}))
    assert found.request.gpus == TWO
    assert found.request.workers[0].pinned == ("2", "3")
    mapped = text.replace("[NVIDIA_VISIBLE_DEVICES]", "{NVIDIA_VISIBLE_DEVICES: }")
    assert only_role(demand(tmp_path, mapped, dotenv="NVIDIA_VISIBLE_DEVICES=1\n")).request.workers[0].pinned == ("1",)


def test_an_active_profile_counts_and_another_is_noted(tmp_path: Path) -> None:
    text = service("gpus: [{device_ids: ['0']}]\nprofiles: [later]")
    assert only_role(demand(tmp_path, text, profiles=("later",))).service.name == "w"
    found = demand(tmp_path, text)
    assert [(n.code, n.severity, n.hint) for n in found.notes] == [("no-role", "note", "to plan it: --profile later")]
    both = text + "  v: {image: v, gpus: all}\n"
    assert [(n.code, n.severity, n.hint) for n in demand(tmp_path, both).notes] == [
        ("left-alone", "note", "to plan it: --profile later")
    ]


def test_services_that_are_left_alone_for_one_reason_have_one_note(tmp_path: Path) -> None:
    one = "{image: w, gpus: [{device_ids: ['0']}], profiles: [later]}"
    text = "services:\n  v: {image: v, gpus: all}\n" + "".join(f"  w{n}: {one}\n" for n in range(6))
    (note,) = demand(tmp_path, text).notes
    assert note.summary == "w0, w1, w2 and 3 more keep their pins: their profiles are not active"
    assert note.hint == "to plan them: --profile later"


def test_a_project_that_asks_for_nothing_is_told_how_to_ask(tmp_path: Path) -> None:
    (note,) = demand(tmp_path, "services:\n  web: {image: nginx}\n").notes
    assert (note.code, note.summary) == ("no-role", "no service asks for a GPU")
    assert "x-gpualloc: {gpus: 1}" in (note.hint or "")


@pytest.mark.parametrize(
    ("active", "env", "roles"),
    [
        ((), None, ["w"]),
        (("other",), None, []),
        ((), {"COMPOSE_PROFILES": "other"}, []),
        ((), {"COMPOSE_PROFILES": "other,"}, ["w"]),
        ((), {"COMPOSE_PROFILES": "other, later"}, ["w"]),
    ],
)
def test_the_profile_without_a_name_is_active_where_none_is_named(
    tmp_path: Path, active: tuple[str, ...], env: dict[str, str] | None, roles: list[str]
) -> None:
    text = service("gpus: all\nprofiles: ['', later]")
    assert [r.service.name for r in demand(tmp_path, text, profiles=active, env=env).roles] == roles


def test_monitors_observe_unless_told_otherwise(tmp_path: Path) -> None:
    text = "services:\n  m: {image: nvcr.io/nvidia/k8s/dcgm-exporter:4, gpus: all}\n"
    found = demand(tmp_path, text)
    assert not found.roles
    assert [o.service.name for o in found.observers] == ["m"]
    told = demand(tmp_path, text.replace("gpus: all", "gpus: all, x-gpualloc: {observe: false}"))
    assert [r.service.name for r in told.roles] == ["m"]


def test_replicas_are_workers(tmp_path: Path) -> None:
    role = only_role(demand(tmp_path, service("gpus: [{count: 1}]\nscale: 3")))
    assert [w.name for w in role.request.workers] == ["w-1", "w-2", "w-3"]
