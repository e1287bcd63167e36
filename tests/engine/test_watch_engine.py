"""A running project whose GPU goes: watch writes, the command brings the displaced back, the others do not notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gpualloc.inventory import containers, idle
from tests.engine.test_forms import FORMS, service
from tests.watch.process import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.site import Site

pytestmark = pytest.mark.long


@pytest.fixture
def watching(site: Site) -> Iterator[Watch]:
    """A watch of the site's project, which runs; it writes, and brings the project up."""
    site.machine("dgx-a100")
    site.write("services:\n" + "".join(service(f"w{n}", FORMS["deploy-count"]) for n in range(1, 4)))
    site.gpualloc("apply", "--yes")
    site.up()
    command = ("--apply", "--exec", "docker compose up --detach --timeout 0")
    often = ("--interval", "500ms", "--settle", "1s")
    started = Watch(site.folder, site.engine.environ, "--inventory", "gpus.json", *command, *often)
    yield started
    if started.process.poll() is None:
        started.end()


def test_the_displaced_come_back_elsewhere_and_the_others_stay(site: Site, watching: Watch) -> None:
    watching.until("planned")
    planned, before = site.placements(), site.containers()
    host = site.machine("dgx-a100").hosts[0]
    site.machine("dgx-a100", without=tuple(gpu.index for gpu in host.gpus if gpu.uuid == planned["w2"][0]))
    assert watching.until("written")["files"] == ["compose.yaml"]
    watching.until("command-done")
    after, again = site.containers(), site.placements()
    assert {name for name in after if after[name] != before[name]} == {"w2"}
    assert {name for name in planned if planned[name] != again[name]} == {"w2"}
    for name, container in after.items():
        assert site.engine.devices(container) == again[name]
        assert site.engine.inspect(container)["State"]["Running"]
    assert site.verify(code=0)["good"]
    assert watching.end()[0] == 0
    assert "command-failed" not in watching.kinds()


@pytest.mark.parametrize("form", FORMS)
def test_idle_containers_hold_what_the_engine_gave_them(site: Site, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Whatever the form of asking: none of these containers has a process on a GPU."""
    inventory = site.machine("4xl40s")
    site.write("services:\n" + service("w1", FORMS[form]) + service("w2", FORMS[form]))
    site.gpualloc("apply", "--yes")
    planned = site.placements()
    site.up()
    for name in ("PATH", "DOCKER_HOST", "DOCKER_CONFIG"):
        if name in site.engine.environ:
            monkeypatch.setenv(name, site.engine.environ[name])
    known = containers.look()
    assert known.problem is None
    held: dict[str, list[str]] = {}
    for gpu in idle.with_holders(inventory.hosts[0].gpus, known.running):
        for process in gpu.processes:
            if process.container is not None and process.container.project == site.project:
                assert process.used_mib == 0
                assert process.pid == site.engine.inspect(process.container.id)["State"]["Pid"]
                held.setdefault(process.container.service or "", []).append(gpu.uuid)
    assert held == planned
