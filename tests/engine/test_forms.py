"""Every way of asking, on a real engine: what gpualloc plans is what the container gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine.site import Site

pytestmark = pytest.mark.long

FORMS = {
    "deploy-count": "deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 2, capabilities: [gpu]}]}}}",
    "deploy-no-driver": "deploy: {resources: {reservations: {devices: [{count: 2, capabilities: [gpu]}]}}}",
    "deploy-ids": "deploy: {resources: {reservations: {devices: [{device_ids: ['0', '1'], capabilities: [gpu]}]}}}",
    "gpus-list": "gpus: [{count: 2}]",
    "runtime": "runtime: nvidia\n    environment: {NVIDIA_VISIBLE_DEVICES: '0,1'}",
    "cdi-devices": "devices: ['nvidia.com/gpu=0', 'nvidia.com/gpu=1']",
    "cdi-driver": (
        "deploy: {resources: {reservations: {devices: [{driver: cdi, capabilities: [gpu], "
        "device_ids: ['nvidia.com/gpu=0', 'nvidia.com/gpu=1']}]}}}"
    ),
    "x-gpualloc": "x-gpualloc: {gpus: 2}",
    "several": (
        "gpus: [{count: 2}]\n    runtime: nvidia\n    environment: [NVIDIA_VISIBLE_DEVICES=all, CUDA_VISIBLE_DEVICES=7]"
    ),
}
"""Every form of design's table that asks for two GPUs."""

ELASTIC = {
    "deploy-all": "deploy: {resources: {reservations: {devices: [{driver: nvidia, count: all, capabilities: [gpu]}]}}}",
    "deploy-neither": "deploy: {resources: {reservations: {devices: [{driver: nvidia, capabilities: [gpu]}]}}}",
    "gpus-all": "gpus: all",
    "runtime-all": "runtime: nvidia",
    "cdi-all": "devices: ['nvidia.com/gpu=all']",
}
"""Every form that asks for all of them."""

CDI = {"cdi-devices", "cdi-driver", "cdi-all"}


def service(name: str, form: str) -> str:
    return f"  {name}:\n    image: gpualloc/python:test\n    command: sleep inf\n    {form}\n"


def check_containers(site: Site, planned: dict[str, list[str]], *, cdi: bool) -> None:
    containers = site.containers()
    assert set(containers) == set(planned)
    for worker, uuids in planned.items():
        container = containers[worker]
        assert site.engine.devices(container) == uuids
        environment = site.engine.first_environment(container)
        assert environment["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, range(len(uuids))))
        assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        nodes = [n for n in site.engine.docker("exec", container, "ls", "/dev").split() if n.startswith("nvidia")]
        if cdi:
            assert environment["NVIDIA_VISIBLE_DEVICES"] == "void"
            assert len(nodes) == len(uuids)
        else:
            assert set(environment["NVIDIA_VISIBLE_DEVICES"].split(",")) == set(uuids)
            assert nodes == []


@pytest.mark.parametrize("form", FORMS)
def test_workers_get_the_two_gpus_that_are_planned(site: Site, form: str) -> None:
    site.machine("dgx-a100")
    site.write("services:\n" + service("trainer", FORMS[form]) + service("encoder", FORMS[form]))
    if form == "deploy-ids":
        # both are pinned to the same two by hand, and so share them: asked for anew, they get their own
        site.gpualloc("apply", "--yes", "--replan", "--policy", policy(site))
    else:
        site.gpualloc("apply", "--yes")
    planned = site.placements()
    assert [len(uuids) for uuids in planned.values()] == [2, 2]
    site.up()
    check_containers(site, planned, cdi=form in CDI)
    assert site.verify(code=0)["good"]


def policy(site: Site) -> str:
    (site.folder / "alone.yaml").write_text("version: 1\nroles: {'*': {gpus: 2, exclusive: true}}\n")
    return "./alone.yaml"


@pytest.mark.parametrize("form", ELASTIC)
def test_workers_that_ask_for_all_share_fairly(site: Site, form: str) -> None:
    site.machine("4xl40s")
    site.write("services:\n" + service("trainer", ELASTIC[form]) + service("encoder", ELASTIC[form]))
    site.gpualloc("apply", "--yes")
    planned = site.placements()
    assert [len(uuids) for uuids in planned.values()] == [2, 2]
    site.up()
    check_containers(site, planned, cdi=form in CDI)
    assert site.verify(code=0)["good"]


def test_mig_instances_are_devices(site: Site) -> None:
    inventory = site.machine("a100-mig")
    instances = {part.uuid for gpu in inventory.hosts[0].gpus for part in gpu.mig or ()}
    profile = min(part.profile for gpu in inventory.hosts[0].gpus for part in gpu.mig or ())
    site.write("services:\n" + service("small", f"x-gpualloc: {{gpus: 1, mig_profile: {profile}}}"))
    site.gpualloc("apply", "--yes")
    planned = site.placements()
    assert set(planned["small"]) <= instances
    site.up()
    container = site.containers()["small"]
    assert site.engine.devices(container) == planned["small"]
    assert site.engine.first_environment(container)["CUDA_VISIBLE_DEVICES"] == planned["small"][0]
    assert site.verify(code=0)["workers"][0]["seen"]["devices"] == planned["small"]


def test_only_displaced_workers_are_made_anew(site: Site) -> None:
    site.machine("dgx-a100")
    site.write("services:\n" + "".join(service(f"w{n}", FORMS["deploy-count"]) for n in range(1, 4)))
    site.gpualloc("apply", "--yes")
    planned = site.placements()
    site.up()
    before = site.containers()

    lost = planned["w2"][0]
    index = next(gpu.index for gpu in site.machine("dgx-a100").hosts[0].gpus if gpu.uuid == lost)
    site.machine("dgx-a100", without=(index,))
    assert site.verify(code=1)["workers"][1]["findings"][0]["code"] == "lost-device"

    site.gpualloc("apply", "--yes")
    again = site.placements()
    assert again["w1"] == planned["w1"]
    assert again["w3"] == planned["w3"]
    assert lost not in again["w2"]
    site.up()
    after = site.containers()
    assert {name for name in after if after[name] != before[name]} == {"w2"}
    check_containers(site, again, cdi=False)
    assert site.verify(code=0)["good"]


def test_a_driver_hook_that_does_nothing_still_shows_what_was_given(site: Site) -> None:
    """The engine itself, with no toolkit at all behind the driver's name."""
    site.machine("4xl40s")
    site.write("services:\n" + service("w1", "gpus: [{count: 1}]") + service("w2", "gpus: [{count: 1}]"))
    site.gpualloc("apply", "--yes")
    planned = site.placements()
    hook = site.engine.directory / "hook"
    real = hook.read_text()
    hook.write_text("#!/bin/sh\nexit 0\n")
    try:
        site.up()
    finally:
        hook.write_text(real)
    for worker, container in site.containers().items():
        assert site.engine.first_environment(container)["NVIDIA_VISIBLE_DEVICES"] == ",".join(planned[worker])
    codes = [worker["findings"][0]["code"] for worker in site.verify(code=1)["workers"]]
    assert codes == ["no-driver", "no-driver"]
