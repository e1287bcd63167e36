"""Every wrong file that people write, run on a real engine: verify says which worker is wrong, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from gpualloc.inventory import load

if TYPE_CHECKING:
    from tests.engine.site import Site

pytestmark = pytest.mark.long

HOST = load(["sim:dgx-a100"]).inventory.hosts[0]
UUID = [gpu.uuid for gpu in sorted(HOST.gpus, key=lambda gpu: gpu.index)]


@dataclass(frozen=True)
class Wrong:
    """A service, what CUDA shows in it (indices of GPUs), and what verify says of it: codes, and words of the first."""

    service: str
    sees: tuple[int, ...]
    codes: tuple[str, ...]
    words: str


def ids(*names: str, capabilities: str = "gpu") -> str:
    listed = ", ".join(f"'{name}'" for name in names)
    request = f"{{device_ids: [{listed}], capabilities: [{capabilities}]}}"
    return f"deploy: {{resources: {{reservations: {{devices: [{request}]}}}}}}"


def cuda(value: str) -> str:
    return f"\n    environment: {{CUDA_VISIBLE_DEVICES: '{value}'}}"


COUNT_1 = "deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}"

WRONG = {
    "host-index": Wrong(ids("1") + cuda("1"), (), ("cuda-host-index",), "1 is a number of the host"),
    "first-of-count": Wrong(COUNT_1 + cuda("2"), (), ("cuda-host-index", "not-pinned"), "2 is a number of the host"),
    "unpinned": Wrong(COUNT_1, (0,), ("not-pinned",), "it sees GPU 0, as "),
    "runtime-alone": Wrong("runtime: nvidia", tuple(range(8)), ("not-pinned",), "it sees GPU 0-7"),
    "some-beyond": Wrong(ids("2", "3") + cuda("0,7,1"), (2,), ("cuda-host-index",), "drops it and what follows"),
    "no-such-number": Wrong(ids("2", "3") + cuda("0,9"), (2,), ("cuda-hides",), "there is no 9"),
    "only-one": Wrong(ids("2", "3") + cuda("1"), (3,), ("cuda-hides",), "names only some"),
    "mixed-number": Wrong(ids("2", "3") + cuda(f"1,{UUID[2]}"), (3,), ("cuda-mixed",), "mixed"),
    "mixed-uuid": Wrong(ids("2", "3") + cuda(f"{UUID[2]},1"), (2,), ("cuda-mixed",), "mixed"),
    "twice": Wrong(ids("2", "3") + cuda("0,0"), (), ("cuda-twice",), "names a device twice"),
    "uuid-twice": Wrong(ids("2", "3") + cuda(f"{UUID[3]},{UUID[3]}"), (), ("cuda-twice",), "names a device twice"),
    "dead-first": Wrong(ids("2", "3") + cuda(f"GPU-dead,{UUID[2]}"), (), ("cuda-hides",), "GPU-dead is not in the"),
    "dead-last": Wrong(ids("2", "3") + cuda(f"{UUID[2]},GPU-dead"), (2,), ("cuda-hides",), "GPU-dead is not in the"),
    "empty": Wrong(ids("4") + cuda(""), (), ("cuda-hides",), "names no device"),
    "minus-one": Wrong(ids("4") + cuda("-1"), (), ("cuda-hides",), "names no device"),
    "word-all": Wrong(ids("4") + cuda("all"), (), ("cuda-hides",), "names no device"),
    "word-none": Wrong(ids("4") + cuda("none"), (), ("cuda-hides",), "names no device"),
    "privileged": Wrong(ids("4") + "\n    privileged: true", tuple(range(8)), ("privileged",), "every GPU of the host"),
    "privileged-first": Wrong(
        ids("4") + "\n    privileged: true" + cuda("0"), (0,), ("privileged",), "chooses among all of them"
    ),
    "no-compute": Wrong(ids("5", capabilities="gpu, utility"), (), ("no-compute",), "leaves out compute"),
    "env-file": Wrong(
        ids("5") + "\n    env_file: wrong.env", (), ("cuda-host-index",), "from the image or an env_file"
    ),
    "entry-point": Wrong(
        ids("5") + '\n    command: sh -c "export CUDA_VISIBLE_DEVICES=5; exec sleep inf"',
        (),
        ("cuda-host-index",),
        "set by its entry point",
    ),
    "crash": Wrong(ids("5") + "\n    environment: [STANDIN_CUDA_CRASHES=1]", (), ("cuda-error",), "signal 6"),
    "foreign-torch": Wrong(
        ids("5") + "\n    environment: [PYTHONPATH=/frameworks]\n    volumes: ['./frameworks:/frameworks:ro']",
        (5,),
        ("framework-without-cuda", "framework-differs"),
        "built without CUDA",
    ),
}

RIGHT = {
    "by-number": ids("6"),
    "by-uuid": ids(UUID[6]),
    "by-bus-id": ids(next(gpu.pci_bus_id for gpu in HOST.gpus if gpu.index == 6)),
    "reordered": ids("6", "7") + cuda("1,0"),
    "with-space": ids("6", "7") + cuda("0, 1"),
    "by-prefix": ids("6") + cuda(UUID[6][:8]),
    "split-at-comma": ids("6,7"),
    "without-smi": ids("6", capabilities="gpu, compute"),
    "of-the-host": ids("6") + "\n    pid: host",
    "other-variable": "runtime: nvidia\n    environment: [NVIDIA_VISIBLE_DEVICES=6]",
    "outranked": ids("6") + "\n    environment: [NVIDIA_VISIBLE_DEVICES=all]",
}
"""Unusual, and fine."""

TORCH = """
class cuda:
    device_count = staticmethod(lambda: 0)
class version:
    cuda = None
__version__ = "2.9.0+cpu"
"""
TENSORFLOW = """
class config:
    list_physical_devices = staticmethod(lambda kind: [])
class test:
    is_built_with_cuda = staticmethod(lambda: True)
__version__ = "2.19.0"
"""


def compose(services: dict[str, str]) -> str:
    common = "image: gpualloc/python:test\n    command: sleep inf"
    texts = []
    for name, body in services.items():
        head = common.partition("\n")[0] if "command:" in body else common
        texts.append(f"  {name}:\n    {head}\n    {body}\n")
    return "services:\n" + "".join(texts)


def by_worker(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {worker["worker"]: worker for worker in answer["workers"]}


def codes(worker: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in worker["findings"]]


def test_every_wrong_worker_is_named_with_the_likely_cause(site: Site) -> None:
    site.machine("dgx-a100")
    (site.folder / "wrong.env").write_text("CUDA_VISIBLE_DEVICES=5\n")
    (site.folder / "frameworks").mkdir()
    (site.folder / "frameworks" / "torch.py").write_text(TORCH)
    (site.folder / "frameworks" / "tensorflow.py").write_text(TENSORFLOW)
    site.write(compose({name: wrong.service for name, wrong in WRONG.items()} | RIGHT))
    site.up()
    answer = by_worker(site.verify(code=1))
    assert set(answer) == set(WRONG) | set(RIGHT)
    for name, wrong in WRONG.items():
        worker = answer[name]
        assert {UUID.index(uuid) for uuid in worker["seen"]["devices"]} == set(wrong.sees), name
        assert worker["verdict"] == "wrong", name
        assert codes(worker) in (list(wrong.codes), list(reversed(wrong.codes))), name
        assert any(wrong.words in finding["summary"] for finding in worker["findings"]), worker["findings"]
        assert all(name in finding["summary"] for finding in worker["findings"])
    for name in RIGHT:
        worker = answer[name]
        assert worker["verdict"] == "ok", worker
        assert codes(worker) == (["no-utility"] if name == "without-smi" else [])


def test_a_container_that_is_older_than_the_file(site: Site) -> None:
    site.machine("dgx-a100")
    site.write(compose({"old": ids(UUID[1]), "same": ids(UUID[2]), "env": ids(UUID[3]) + cuda("0")}))
    site.up()
    site.write(compose({"old": ids(UUID[4]), "same": ids(UUID[2]), "env": ids(UUID[3]) + cuda(UUID[3])}))
    answer = by_worker(site.verify(code=1))
    assert codes(answer["old"]) == ["older-than-file"]
    summary = answer["old"]["findings"][0]["summary"]
    assert summary.startswith("old sees GPU 1, not GPU 4: its container is older than the file")
    assert codes(answer["same"]) == []
    assert codes(answer["env"]) == ["older-than-file"]
    assert "its CUDA_VISIBLE_DEVICES is 0" in answer["env"]["findings"][0]["summary"]
    site.up()
    assert site.verify(code=0)["good"]


def test_an_override_file_is_part_of_what_the_containers_should_be(site: Site) -> None:
    site.machine("dgx-a100")
    site.write(compose({"trainer": COUNT_1, "encoder": COUNT_1}))
    site.gpualloc("apply", "--yes", "--override", "compose.gpu.yaml")
    both = ("-f", "compose.yaml", "-f", "compose.gpu.yaml")
    site.compose(*both, "up", "--detach")
    assert site.verify("--override", "compose.gpu.yaml", code=0)["good"]
    site.gpualloc("apply", "--yes", "--replan", "--without", UUID[0], "--override", "compose.gpu.yaml")
    answer = by_worker(site.verify("--override", "compose.gpu.yaml", code=1))
    assert [codes(answer[name]) for name in ("encoder", "trainer")] == [["older-than-file"]] * 2
    site.compose(*both, "up", "--detach", "--timeout", "0")
    assert site.verify("--override", "compose.gpu.yaml", code=0)["good"]


def test_stopped_missing_and_left_over_containers_are_findings(site: Site) -> None:
    site.machine("dgx-a100")
    names = ("kept", "killed", "removed", "paused", "renamed")
    site.write(compose({name: ids(UUID[n]) for n, name in enumerate(names)}))
    site.up()
    containers = site.containers()
    site.engine.docker("kill", containers["killed"])
    site.engine.docker("rm", "--force", containers["removed"])
    site.engine.docker("pause", containers["paused"])
    site.write(compose({name: ids(UUID[n]) for n, name in enumerate(names[:4])}))
    answer = site.verify(code=1)
    workers = by_worker(answer)
    assert {name: codes(worker) for name, worker in workers.items()} == {
        "kept": [],
        "killed": ["stopped-container"],
        "removed": ["missing-container"],
        "paused": ["stopped-container"],
    }
    assert "exit code 137" in workers["killed"]["findings"][0]["summary"]
    assert workers["removed"]["container"] is None
    assert [finding["code"] for finding in answer["findings"]] == ["orphan"]
    assert "holds GPU 4" in answer["findings"][0]["summary"]


def test_nothing_runs_at_all(site: Site) -> None:
    site.machine("dgx-a100")
    site.write(compose({"trainer": ids(UUID[0])}))
    assert codes(by_worker(site.verify(code=1))["trainer"]) == ["missing-container"]


def test_replicas_share_one_list(site: Site) -> None:
    site.machine("dgx-a100")
    body = ids("1").replace("deploy: {", "deploy: {replicas: 2, ")
    site.write(compose({"trainer": body}))
    site.up()
    answer = by_worker(site.verify(code=1))
    assert {name: codes(worker) for name, worker in answer.items()} == {
        "trainer-1": ["replicas"],
        "trainer-2": ["replicas"],
    }
    assert answer["trainer-2"]["container"] == "site-trainer-2"
    assert "it sees GPU 1, as trainer-1 does" in answer["trainer-2"]["findings"][0]["summary"]


def renumbered(*, cdi: bool, site: Site) -> None:
    """Let the GPUs with the indices 2 and 3 change places, as they may over a reboot."""
    swap = {2: 3, 3: 2}
    bus = {gpu.index: gpu.pci_bus_id for gpu in HOST.gpus}
    gpus = tuple(
        replace(gpu, index=swap.get(gpu.index, gpu.index), pci_bus_id=bus[swap.get(gpu.index, gpu.index)])
        for gpu in HOST.gpus
    )
    inventory = load(["sim:dgx-a100"]).inventory
    site.be(replace(inventory, hosts=(replace(HOST, gpus=gpus),)), cdi=cdi)


def test_a_stale_cdi_spec_leads_to_another_gpu(site: Site) -> None:
    site.machine("dgx-a100")
    renumbered(cdi=False, site=site)
    site.write(compose({"trainer": f"devices: ['nvidia.com/gpu={UUID[2]}']"}))
    site.up()
    answer = by_worker(site.verify(code=1))["trainer"]
    assert codes(answer) == ["stale-cdi"]
    assert answer["seen"]["devices"] == [UUID[3]]
    assert "nvidia-ctk cdi generate" in answer["findings"][0]["hint"]


def test_an_index_means_another_gpu_after_a_reboot(site: Site) -> None:
    site.machine("dgx-a100")
    site.write(compose({"trainer": ids("2"), "pinned": ids(UUID[4])}))
    site.up()
    renumbered(cdi=True, site=site)
    answer = by_worker(site.verify(code=1))
    assert codes(answer["trainer"]) == ["index-id"]
    assert "asks for GPU 2 and has GPU 3" in answer["trainer"]["findings"][0]["summary"]
    assert codes(answer["pinned"]) == []


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (ids("GPU-dead"), "not-started", "unknown device"),
        ("devices: ['nvidia.com/gpu=GPU-dead']", "stale-cdi", "nvidia.com/gpu=GPU-dead"),
    ],
)
def test_a_container_that_cannot_start_says_why(site: Site, body: str, code: str, words: str) -> None:
    site.machine("dgx-a100")
    site.write(compose({"trainer": body}))
    with pytest.raises(AssertionError):
        site.up()
    worker = by_worker(site.verify(code=1))["trainer"]
    assert code in codes(worker)
    assert words in next(f["summary"] for f in worker["findings"] if f["code"] == code)


def test_wsl2_gives_every_gpu(site: Site) -> None:
    inventory = load(["sim:dgx-a100"]).inventory
    site.be(replace(inventory, hosts=(replace(HOST, platform="wsl2"),)))
    (site.engine.host / "wsl2").touch()
    try:
        site.write(compose({"subset": ids(UUID[2]), "all": "gpus: all"}))
        site.up()
    finally:
        (site.engine.host / "wsl2").unlink()
    answer = by_worker(site.verify(code=1))
    assert codes(answer["subset"]) == ["wsl2"]
    assert codes(answer["all"]) == []


def test_without_python_the_environment_is_compared(site: Site) -> None:
    site.machine("dgx-a100")
    plain = {name: body for name, body in WRONG.items() if name in {"host-index", "privileged", "dead-last"}}
    services = {name: wrong.service for name, wrong in plain.items()} | {"fine": ids("6")}
    site.write(compose(services).replace("gpualloc/python:test", "gpualloc/plain:test"))
    site.up()
    answer = by_worker(site.verify(code=1))
    for name, wrong in plain.items():
        worker = answer[name]
        assert worker["verdict"] == "wrong"
        assert worker["seen"]["how"] == "nvidia-smi"
        assert codes(worker) == [*wrong.codes, "not-seen"]
    assert answer["fine"]["verdict"] == "unseen"
    assert codes(answer["fine"]) == ["not-seen"]
    assert "there is no python in it" in answer["fine"]["findings"][0]["summary"]


def test_cuda_that_hangs_does_not_hang_verify(site: Site) -> None:
    site.machine("dgx-a100")
    site.write(compose({"stuck": ids("1") + "\n    environment: [STANDIN_CUDA_HANGS=1]", "fine": ids("2")}))
    site.up()
    answer = by_worker(site.verify("--timeout", "3", code=1))
    assert codes(answer["stuck"]) == ["cuda-error"]
    assert "no answer in time" in answer["stuck"]["findings"][0]["summary"]
    assert codes(answer["fine"]) == []


def test_two_requests_that_add_up_are_refused(site: Site) -> None:
    """Lists of devices append over files: Compose would ask for both."""
    site.machine("dgx-a100")
    site.write(compose({"trainer": COUNT_1.replace("count: 1", "count: all")}))
    (site.folder / "compose.override.yaml").write_text(f"services:\n  trainer:\n    {ids(UUID[1])}\n")
    assert "trainer asks for all GPUs and for more" in site.gpualloc("verify", code=2).err


def test_forty_workers_are_looked_into_together(site: Site) -> None:
    site.machine("dgx-a100")
    site.write(compose({f"w{n}": ids(UUID[n % 8]) for n in range(40)}))
    site.up()
    answer = site.verify(code=0)
    assert [worker["verdict"] for worker in answer["workers"]] == ["ok"] * 40
