"""A real Docker Swarm of three nodes: what is planned over three hosts is what every container gets."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import NAMESPACE_DNS, uuid5

import pytest

from gpualloc.inventory import load
from gpualloc.inventory.snapshot import dump
from gpualloc.model import Inventory
from tests.engine.running import PLAIN, CannotStartError, obstacle
from tests.engine.site import Site
from tests.engine.swarm import RESOURCE, Swarm, Task, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.long

FLEET = ("gpu01", "gpu02", "gpu03")
"""The nodes, the manager first. Each has three GPUs."""

ROLES = {"trainer": (1, 2), "encoder": (2, 1), "ranker": (2, 1)}
"""The roles: how many workers, and how many GPUs for each. They take six GPUs, and so fit on two nodes, and just."""

COMPOSE = """\
x-common: &common
  image: gpualloc/plain:test
  command: sleep inf
  stop_grace_period: 0s
services:
  trainer:
    <<: *common
    build: .
    container_name: the-trainer
    restart: unless-stopped
    environment: {EPOCHS: "3"}
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 2, capabilities: [gpu]}]}}}
  encoder:
    <<: *common
    gpus: [{count: 1}]
    depends_on: {web: {condition: service_started}}
    deploy: {replicas: 2, restart_policy: {delay: 1s}, placement: {constraints: ["node.labels.gpus == 3"]}}
  ranker:
    <<: *common
    runtime: nvidia
    environment: [NVIDIA_VISIBLE_DEVICES=all]
    x-gpualloc: {gpus: 1}
    deploy: {replicas: 2, restart_policy: {delay: 1s}}
  web:
    <<: *common
    deploy: {placement: {constraints: ["node.role == manager"]}}
"""
STACK = "stack.yaml"


class Place(NamedTuple):
    """Where a worker is planned."""

    node: str
    uuids: list[str]


@pytest.fixture(scope="module")
def fleet() -> Inventory:
    """Three hosts of the same make."""
    (host,) = load(["sim:4xl40s"]).inventory.hosts
    hosts = []
    for name in FLEET:
        uuids = {gpu.uuid: f"GPU-{uuid5(NAMESPACE_DNS, f'{name}.{gpu.index}')}" for gpu in host.gpus[:3]}
        gpus = tuple(replace(gpu, uuid=uuids[gpu.uuid]) for gpu in host.gpus[:3])
        links = tuple(
            replace(link, a=uuids[link.a], b=uuids[link.b]) for link in host.links if {link.a, link.b} <= set(uuids)
        )
        hosts.append(replace(host, name=name, gpus=gpus, links=links))
    return Inventory("nvml", tuple(hosts))


def start(fleet: Inventory, owner: int) -> Swarm:
    """Start a Swarm of these hosts; skip where none can run."""
    why = obstacle()
    if why is not None:
        pytest.skip(why)
    try:
        return Swarm.start(fleet, owner)
    except CannotStartError as error:
        pytest.skip(f"the Swarm does not start: {error}")


@pytest.fixture(scope="module")
def swarm(fleet: Inventory) -> Iterator[Swarm]:
    """A Swarm of the fleet."""
    started = start(fleet, os.getpid())
    yield started
    started.stop()


@pytest.fixture
def site(swarm: Swarm, fleet: Inventory, tmp_path: Path) -> Iterator[Site]:
    """The project, with a snapshot of each host, on the Swarm; its tasks go with the test."""
    for host in fleet.hosts:
        (tmp_path / f"{host.name}.json").write_text(
            dump(replace(fleet, hosts=(replace(host, name=known_as(host.name)),)))
        )
    here = Site(swarm.manager, tmp_path, sources=tuple(f"{host.name}.json" for host in fleet.hosts))
    here.write(COMPOSE)
    (tmp_path / "spread.yaml").write_text("version: 1\nstrategy: spread\n")
    yield here
    swarm.remove(here.project)


def known_as(node: str) -> str:
    """Return what the inventory calls a node's host."""
    return f"{node}.example.net"


def options(site: Site) -> list[str]:
    """Return the options of a plan for the Swarm."""
    nodes = (f"--node-map={known_as(node)}={node}" for node in FLEET if f"{node}.json" in site.sources)
    return ["--swarm", STACK, "--policy", "spread.yaml", *nodes]


def plan(site: Site, *words: str) -> dict[str, Place]:
    """Return the node and the UUIDs, in PCI order, that are planned for each worker."""
    document = json.loads(site.gpualloc("plan", *options(site), *words, "--format", "json").out)
    nodes = {known_as(node): node for node in FLEET}
    return {p["worker"]: Place(nodes[p["host"]], [d["uuid"] for d in p["devices"]]) for p in document["placements"]}


def apply(site: Site, *words: str) -> dict[str, Place]:
    """Write the stack file, and return what it was written from."""
    site.gpualloc("apply", "--yes", *options(site), *words)
    return plan(site, *words)


def up(swarm: Swarm, site: Site, workers: int) -> dict[str, Task]:
    """Give the stack file to Swarm, which has nothing to say against it; return the workers' tasks."""
    said = swarm.deploy(site.folder / STACK, site.project, "--prune")
    assert said == ""
    tasks = swarm.settled(site.project, workers + 1)
    web = tasks.pop("web")
    assert web.node == next(iter(FLEET))
    given = swarm.nodes[web.node].first_environment(web.container)
    assert "CUDA_VISIBLE_DEVICES" not in given
    until(lambda: all(leads_to_its_workers(role, swarm, web, tasks) for role in ROLES), "each role's name is known")
    return tasks


def leads_to_its_workers(role: str, swarm: Swarm, web: Task, tasks: Mapping[str, Task]) -> bool:
    """Whether a role's name, looked up in a container of another service, leads to all of its workers."""
    workers = [task for worker, task in tasks.items() if re.fullmatch(rf"{role}(-[0-9]+)?", worker)]
    addresses = {address for task in workers for address in swarm.addresses(task.service)}
    return swarm.nodes[web.node].found_by_name(web.container, role) == addresses


def check(swarm: Swarm, tasks: dict[str, Task], planned: dict[str, Place]) -> None:
    """Every worker runs where it is planned, is told its devices and gets them, and no two get the same."""
    assert {worker: task.node for worker, task in tasks.items()} == {
        worker: place.node for worker, place in planned.items()
    }
    shown: list[str] = []
    for worker, task in tasks.items():
        uuids = planned[worker].uuids
        engine = swarm.nodes[task.node]
        given = engine.first_environment(task.container)
        assert given["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, range(len(uuids))))
        assert given["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert sorted(given["NVIDIA_VISIBLE_DEVICES"].split(",")) == sorted(uuids)
        assert engine.devices(task.container) == uuids
        shown += given["NVIDIA_VISIBLE_DEVICES"].split(",")
    check_all_given(shown)


def check_all_given(uuids: list[str]) -> None:
    """Nothing is there twice, and it is as many as the roles ask for."""
    assert len(uuids) == len(set(uuids)) == sum(count * gpus for count, gpus in ROLES.values())


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    """Return the workers that something has changed for."""
    return {worker for worker in before.keys() | after.keys() if before.get(worker) != after.get(worker)}


def busiest(planned: Mapping[str, Place]) -> tuple[str, set[str]]:
    """Return the node, other than the manager, with the most workers, and those."""
    on = {node: {worker for worker, place in planned.items() if place.node == node} for node in FLEET[1:]}
    return max(on.items(), key=lambda item: len(item[1]))


def test_every_task_runs_where_it_is_planned_and_a_lost_node_moves_only_its_own(swarm: Swarm, site: Site) -> None:
    planned = apply(site)
    assert {place.node for place in planned.values()} == set(FLEET)
    tasks = up(swarm, site, len(planned))
    check(swarm, tasks, planned)
    assert up(swarm, site, len(planned)) == tasks  # the same file once more restarts nothing

    lost, displaced = busiest(planned)
    assert len(displaced) > 1
    swarm.power_off(lost)
    try:
        site.sources = tuple(source for source in site.sources if source != f"{lost}.json")
        again = apply(site)
        assert changed(planned, again) == displaced
        later = up(swarm, site, len(again))
        check(swarm, later, again)
        assert changed(tasks, later) == displaced  # the others have the same tasks and containers
    finally:
        swarm.power_on(lost)
    assert up(swarm, site, len(again)) == later
    assert swarm.nodes[lost].docker("ps", "--quiet") == ""  # what ran there has not come back with the node
    site.sources = (*site.sources, f"{lost}.json")
    assert apply(site) == again
    assert up(swarm, site, len(again)) == later


def test_generic_resources_keep_tasks_apart_and_workers_leave_a_drained_node(swarm: Swarm, site: Site) -> None:
    """The node and the number are the plan's; which of the node's GPUs they are, Swarm chooses."""
    mode = ("--swarm-mode", "generic")
    planned = apply(site, *mode)
    tasks = up(swarm, site, len(planned))
    shown: list[str] = []
    for worker, place in planned.items():
        assert tasks[worker].node == place.node
        engine = swarm.nodes[place.node]
        given = engine.first_environment(tasks[worker].container)
        units = given[RESOURCE].split(",")
        assert len(units) == len(place.uuids)
        assert given["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, range(len(units))))
        assert sorted(engine.devices(tasks[worker].container)) == sorted(units)
        shown += units
    check_all_given(shown)

    fewer = apply(site, *mode, "--scale", "encoder=1")
    assert changed(planned, fewer) == {"encoder-2"}
    remaining = up(swarm, site, len(fewer))
    assert changed(tasks, remaining) == {"encoder-2"}

    emptied, leaving = busiest(fewer)
    elsewhere = apply(site, *mode, "--drain", known_as(emptied))
    assert changed(fewer, elsewhere) == leaving
    moved = up(swarm, site, len(elsewhere))
    assert changed(remaining, moved) == leaving
    assert {worker: task.node for worker, task in moved.items()} == {w: place.node for w, place in elsewhere.items()}
    swarm.manager.docker("node", "update", "--availability", "drain", emptied)
    try:
        assert up(swarm, site, len(elsewhere)) == moved
    finally:
        swarm.manager.docker("node", "update", "--availability", "active", emptied)


def test_nothing_is_left_of_a_swarm_whose_owner_is_killed(fleet: Inventory) -> None:
    owner = subprocess.Popen(["sleep", "inf"])
    try:
        swarm = start(replace(fleet, hosts=fleet.hosts[:1]), owner.pid)
        swarm.manager.docker("service", "create", "--detach", "--no-resolve-image", PLAIN, "sleep", "inf")
        until(lambda: swarm.manager.docker("ps", "--quiet") != "", "a container runs")
        assert traces(swarm.directory)
    finally:
        owner.kill()
        owner.wait()
    until(lambda: not swarm.directory.exists(), "the Swarm's folder is gone")
    assert traces(swarm.directory) == []


def traces(directory: Path) -> list[str]:
    """Return the processes that speak of a folder, the mounts in it, and the control groups named after it."""
    found = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{directory.name}")]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(directory) in line]
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [command] if str(directory) in command else []
    return found
