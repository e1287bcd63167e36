"""A plan as a stack file: who is where, what each task sees, and what comes along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gpualloc.errors import GpuallocError
from tests.swarm.stacks import (
    docker_reads,
    docker_stack,
    stack,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_each_worker_is_a_service_on_its_node_with_its_devices(tmp_path: Path) -> None:
    made = stack(
        tmp_path,
        """
services:
  db: {image: db}
  trainer:
    image: t
    deploy:
      replicas: 3
      placement: {constraints: ["node.role == worker"]}
      resources: {reservations: {devices: [{driver: nvidia, count: 4, capabilities: [gpu]}]}}
""",
    )
    assert list(made.services) == ["db", "trainer-1", "trainer-2", "trainer-3"]
    assert "deploy" not in made.services["db"]
    seen: list[str] = []
    for placement in made.planned.plan.solution.placements:
        service = made.services[placement.worker]
        assert service["deploy"]["placement"]["constraints"] == [
            "node.role == worker",
            f"node.hostname == {placement.host}",
        ]
        assert service["environment"]["NVIDIA_VISIBLE_DEVICES"] == ",".join(d.uuid for d in placement.devices)
        assert service["environment"]["CUDA_VISIBLE_DEVICES"] == "0,1,2,3"
        assert service["environment"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert service["networks"] == {"default": {"aliases": ["trainer"]}}
        seen += service["environment"]["NVIDIA_VISIBLE_DEVICES"].split(",")
    assert len(seen) == len(set(seen)) == 12
    assert {p.host for p in made.planned.plan.solution.placements} == {"gpu-a", "gpu-b"}


def test_nodes_have_their_own_names_where_they_are_mapped(tmp_path: Path) -> None:
    (tmp_path / "nodes.yaml").write_text("gpu-a: rack1-n1\ngpu-b: rack1-n2\n")
    text = "services: {w: {image: x, gpus: all, x-gpualloc: {host: gpu-b}}}"
    made = stack(tmp_path, text, nodes=("nodes.yaml",))
    assert made.services["w"]["deploy"]["placement"]["constraints"] == ["node.hostname == rack1-n2"]
    made = stack(tmp_path, text, nodes=("nodes.yaml", "gpu-b=other.example"))
    assert made.services["w"]["deploy"]["placement"]["constraints"] == ["node.hostname == other.example"]


@pytest.mark.parametrize(
    ("nodes", "code", "words"),
    [
        (("gpu-z=n1",), "unknown-host", "--node-map: no host is called gpu-z"),
        (("gpu-a=n1", "gpu-b=n1"), "node-map", "gpu-a and gpu-b would both be the node n1"),
        (("gpu-a=gpu-b",), "node-map", "gpu-a and gpu-b would both be the node gpu-b"),
        (("gpu-a=no such node",), "node-map", "'no such node' cannot be the name of a Swarm node"),
        (("none.yaml",), "node-map", "there is no such file"),
        (("list.yaml",), "node-map", "this is no map of nodes: no mapping at the top"),
        (("deep.yaml",), "node-map", "the node of gpu-a is no name"),
    ],
)
def test_maps_of_nodes_that_cannot_be(tmp_path: Path, nodes: tuple[str, ...], code: str, words: str) -> None:
    (tmp_path / "list.yaml").write_text("- gpu-a\n")
    (tmp_path / "deep.yaml").write_text("gpu-a: {name: x}\n")
    with pytest.raises(GpuallocError) as error:
        stack(tmp_path, "services: {w: {image: x, gpus: all}}", nodes=nodes)
    (problem,) = error.value.diagnostics
    assert (problem.code, problem.summary) == (code, words)


def test_generic_resources_count_what_uuids_would_name(tmp_path: Path) -> None:
    made = stack(tmp_path, "services: {w: {image: x, gpus: [{count: 2}]}}", mode="generic")
    service = made.services["w"]
    kind = {"discrete_resource_spec": {"kind": "NVIDIA-GPU", "value": 2}}
    assert service["deploy"]["resources"]["reservations"]["generic_resources"] == [kind]
    assert service["environment"] == {"CUDA_VISIBLE_DEVICES": "0,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    (placement,) = made.planned.plan.solution.placements
    assert "swarm-any-gpu" in {note.code for note in made.notes}
    setup = made.planned.setup
    assert f"on {placement.host}, /etc/docker/daemon.json has:" in setup
    assert all(f'"NVIDIA-GPU={device.uuid}"' in setup for device in placement.devices)
    assert setup.count("NVIDIA-GPU=GPU-") == 8
    assert 'swarm-resource = "DOCKER_RESOURCE_NVIDIA-GPU"' in setup


def test_generic_resources_cannot_be_shared(tmp_path: Path) -> None:
    text = "services: {a: {image: x, x-gpualloc: {memory: 1GiB}}, b: {image: x, x-gpualloc: {memory: 1GiB}}}"
    with pytest.raises(GpuallocError) as error:
        stack(tmp_path, text, mode="generic")
    assert error.value.diagnostics[0].code == "swarm-generic"
    shared = stack(tmp_path, text)
    assert len({s["environment"]["NVIDIA_VISIBLE_DEVICES"] for s in shared.services.values()}) == 1


def test_a_service_that_swarm_cannot_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(GpuallocError) as error:
        stack(tmp_path, "services: {w: {image: x, gpus: all}, my.api: {image: y}}")
    assert error.value.diagnostics[0].code == "swarm-name"


def test_builds_are_left_to_people_and_named_as_compose_names_them(tmp_path: Path) -> None:
    text = "services: {w: {build: ., gpus: all, deploy: {replicas: 2}}, api: {build: ., image: a}}"
    made = stack(tmp_path, f"name: shop\n{text}")
    assert made.services["w-1"]["image"] == made.services["w-2"]["image"] == "shop-w"
    assert made.services["api"]["image"] == "a"
    assert sum("push" in note.summary for note in made.notes) == 2


def test_the_projects_own_sections_come_along(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("services: {extra: {image: e}}\nvolumes: {data: {}}\n")
    made = stack(
        tmp_path,
        """
name: shop
include: [more.yaml]
x-common: &common {image: x}
services:
  w: {<<: *common, gpus: all, networks: [back], secrets: [s, t], configs: [c]}
networks:
  back:
    driver: bridge
    driver_opts: {a: 1}
    enable_ipv6: true
    ipam: {config: [{subnet: 10.0.0.0/8, gateway: 10.0.0.1}]}
  old: {external: {name: outside}}
secrets: {s: {file: ./s.txt}, t: {environment: TOKEN}}
configs: {c: {content: hello}}
volumes: {v: {driver: local, driver_opts: {type: nfs, o: "addr=$ADDR"}, labels: {a: true}}}
""",
        environ={"ADDR": "10.1.1.1"},
    )
    assert set(made.services) == {"w", "extra"}
    assert made.data["networks"] == {
        "back": {"ipam": {"config": [{"subnet": "10.0.0.0/8"}]}},
        "old": {"name": "outside", "external": True},
    }
    assert made.data["secrets"] == {"s": {"file": str(tmp_path / "s.txt")}, "t": {"external": True, "name": "t"}}
    assert made.data["configs"] == {"c": {"external": True, "name": "c"}}
    assert made.data["volumes"]["v"]["driver_opts"] == {"type": "nfs", "o": "addr=10.1.1.1"}
    named = made.named()[""]
    assert {
        "x-common",
        "name",
        "networks.back.driver",
        "networks.back.driver_opts",
        "networks.back.enable_ipv6",
    } <= named
    assert {"networks.back.ipam.config.gateway", "secrets.t.environment", "configs.c.content"} <= named


def test_variables_are_resolved_and_dollars_stay_dollars(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TAG=1.2\n")
    made = stack(
        tmp_path,
        'services: {w: {image: "x:${TAG}", gpus: all, command: "echo $$HOME ${NAME:-nobody}", environment: [A]}}',
        environ={"A": "from $the shell"},
    )
    service = made.services["w"]
    assert service["image"] == "x:1.2"
    assert service["command"] == "echo $$HOME nobody"  # docker stack replaces variables too
    assert service["environment"]["A"] == "from $$the shell"
    if docker_stack():
        read = docker_reads(made.path)["services"]["w"]
        assert read["environment"]["A"] == "from $the shell"


def test_monitors_run_on_every_node_and_see_all(tmp_path: Path) -> None:
    made = stack(tmp_path, "services: {w: {image: x, gpus: all}, m: {image: y, x-gpualloc: {observe: true}}}")
    assert made.services["m"]["deploy"] == {"mode": "global"}
    assert made.services["m"]["environment"] == {"NVIDIA_VISIBLE_DEVICES": "all"}
    assert "deploy.mode" in made.named()["m"]


def test_who_asks_for_no_gpu_sees_none_whatever_its_image_says(tmp_path: Path) -> None:
    own = "environment: {NVIDIA_VISIBLE_DEVICES: none}"
    made = stack(tmp_path, f"services: {{w: {{image: x, gpus: all}}, ui: {{image: x}}, own: {{image: x, {own}}}}}")
    assert made.services["ui"]["environment"] == {"NVIDIA_VISIBLE_DEVICES": "void"}
    assert made.services["own"]["environment"] == {"NVIDIA_VISIBLE_DEVICES": "none"}


def test_a_new_task_waits_for_the_gpus_of_the_old_one(tmp_path: Path) -> None:
    update = "deploy: {update_config: {order: start-first, delay: 1s}}"
    made = stack(tmp_path, f"services: {{w: {{image: x, gpus: all, {update}}}, ui: {{image: x, {update}}}}}")
    assert made.services["w"]["deploy"]["update_config"] == {"delay": "1s", "order": "stop-first"}
    assert made.services["ui"]["deploy"]["update_config"] == {"delay": "1s", "order": "start-first"}
    assert made.named()["w"] == {"gpus", "deploy.update_config.order"}


def test_services_of_inactive_profiles_stay_out_and_are_named(tmp_path: Path) -> None:
    text = "services: {w: {image: x, gpus: all}, t: {image: y, profiles: [tools]}}"
    made = stack(tmp_path, text)
    assert "t" not in made.services
    assert "profiles" in made.named()["t"]
    assert "t" in stack(tmp_path, text, profiles=("tools",)).services


def test_names_of_divided_roles_are_those_of_their_workers(tmp_path: Path) -> None:
    text = """
services:
  w: {image: x, gpus: [{count: 1}], deploy: {replicas: 2}, ports: ["8000:80"], container_name: null}
  api: {image: y, depends_on: {w: {condition: service_started}}}
"""
    made = stack(tmp_path, text)
    assert made.services["api"]["depends_on"] == ["w-1", "w-2"]
    assert [made.services[f"w-{n}"]["ports"] for n in (1, 2)] == [["8000:80"], ["8001:80"]]


def test_a_role_on_every_node_is_said_to_be_one_worker(tmp_path: Path) -> None:
    text = (
        "services: {w: {image: x, gpus: [{count: 1}], deploy: {mode: global}}, p: {image: p, deploy: {mode: global}}}"
    )
    made = stack(tmp_path, text)
    assert "mode" not in made.services["w"]["deploy"]
    assert made.services["p"]["deploy"]["mode"] == "global"
    (told,) = [note for note in made.notes if "deploy.mode" in note.summary]
    assert (told.severity, told.summary.startswith("w: deploy.mode is left out: global: it is one worker")) == (
        "warning",
        True,
    )


def test_of_a_range_to_find_a_port_in_each_worker_publishes_one(tmp_path: Path) -> None:
    ports = "['8000-8003:80', {target: 81, published: 9000-9001, mode: host}]"
    text = f"services: {{w: {{image: x, gpus: [{{count: 1}}], deploy: {{replicas: 2}}, ports: {ports}}}}}"
    made = stack(tmp_path, text)  # Swarm would publish all of it for each, and refuses the second who wants a port
    assert [made.services[f"w-{n + 1}"]["ports"] for n in (0, 1)] == [
        [f"{8000 + n}:80", {"target": 81, "published": 9000 + n, "mode": "host"}] for n in (0, 1)
    ]
    assert "ports" in made.named()["w-1"]


def test_who_is_waited_for_is_not_run_for_ever(tmp_path: Path) -> None:
    needs = "{init: {condition: service_completed_successfully}}"
    text = f"services: {{w: {{image: x, gpus: all, depends_on: {needs}}}, init: {{image: i}}}}"
    made = stack(tmp_path, text)
    assert made.services["init"]["deploy"]["restart_policy"] == {"condition": "on-failure"}


def test_workers_that_do_not_fit_have_no_replicas(tmp_path: Path) -> None:
    made = stack(tmp_path, "services: {w: {image: x, gpus: [{count: 8}], deploy: {replicas: 4, labels: {a: b}}}}")
    parked = [name for name, service in made.services.items() if service["deploy"].get("replicas") == 0]
    assert parked == ["w-4"]
    assert made.services["w-4"]["deploy"]["labels"] == {"a": "b"}
