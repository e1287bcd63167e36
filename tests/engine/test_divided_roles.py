"""A role of several workers on a real engine: each is there, found by the role's name, and has its own device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine.site import Site

pytestmark = pytest.mark.long

TEXT = """\
services:
  worker:
    image: gpualloc/python:test
    command: sleep inf
    init: true
    container_name: at-work
    ports: ["18000:80"]
    healthcheck: {test: ["CMD", "true"], interval: 1s, start_period: 1s}
    deploy:
      replicas: 3
      resources:
        reservations:
          devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]
  api:
    image: gpualloc/python:test
    command: sleep inf
    init: true
    depends_on:
      worker:
        condition: service_healthy
"""
LOOK_UP = "import socket; print(*sorted({a[4][0] for a in socket.getaddrinfo('worker', 80)}))"


def addresses(site: Site, container: str) -> str:
    networks = site.engine.inspect(container)["NetworkSettings"]["Networks"]
    (network,) = networks.values()
    return str(network["IPAddress"])


def check_running(site: Site, count: int, *files: str) -> None:
    """Every worker runs, the role's name leads to all of them, and each has the device that is planned for it."""
    containers = site.containers()
    assert set(containers) == {"api", *(f"worker-{n}" for n in range(1, count + 1))}
    workers = {name: container for name, container in containers.items() if name != "api"}
    assert {name: site.engine.inspect(c)["Name"] for name, c in workers.items()} == {
        name: f"/at-work-{name.removeprefix('worker-')}" for name in workers
    }
    found = site.engine.docker("exec", containers["api"], "python3", "-c", LOOK_UP).split()
    assert found == sorted(addresses(site, container) for container in workers.values())
    seen = {name: site.engine.devices(container) for name, container in workers.items()}
    assert seen == site.placements(*files)
    assert len({tuple(devices) for devices in seen.values()}) == count
    environment = {name: site.engine.first_environment(container) for name, container in workers.items()}
    assert {e["CUDA_VISIBLE_DEVICES"] for e in environment.values()} == {"0"}
    site.verify(*files, code=0)


def test_workers_come_and_go(site: Site) -> None:
    site.machine("8xrtx4090")
    site.write(TEXT)
    before = (site.folder / "compose.yaml").read_bytes()
    site.gpualloc("apply", "-y")
    site.up()
    check_running(site, 3)
    first = site.containers()
    told = site.gpualloc("apply", "-y", "--scale", "worker=4").err
    assert "no longer" not in told
    site.up()
    check_running(site, 4)
    assert first.items() <= site.containers().items()  # nobody was started anew
    told = site.gpualloc("apply", "-y", "--scale", "worker=2").err
    assert "worker-3, worker-4 are no longer services" in told
    site.up()
    assert "worker-3" in site.containers()
    site.up("--remove-orphans")
    check_running(site, 2)
    site.gpualloc("reset", "-y")
    assert (site.folder / "compose.yaml").read_bytes() == before


def test_the_role_that_ran_before_is_an_orphan(site: Site) -> None:
    site.machine("8xrtx4090")
    site.write(TEXT.replace("replicas: 3", "replicas: 1"))
    site.up()
    site.write(TEXT)
    assert "worker is no longer a service: docker compose up -d --remove-orphans" in site.gpualloc("apply", "-y").err
    site.compose("up", "--detach", "--timeout", "0", "--remove-orphans")
    check_running(site, 3)


def test_the_override_form_runs_the_same(site: Site) -> None:
    site.machine("8xrtx4090")
    site.write(TEXT)
    override = ("--override", "gpu.yaml")
    site.gpualloc("apply", "-y", *override)
    files = ("-f", "compose.yaml", "-f", "gpu.yaml")
    site.compose(*files, "up", "--detach", "--timeout", "0")
    check_running(site, 3, *override)
    site.gpualloc("apply", "-y", "--scale", "worker=2", *override)
    site.compose(*files, "up", "--detach", "--timeout", "0", "--remove-orphans")
    check_running(site, 2, *override)
