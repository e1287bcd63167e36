"""The verdict over every combination of file, container and sight: it is about the devices, whatever the cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpualloc.cuda import visible
from gpualloc.errors import Place
from gpualloc.inventory import load
from gpualloc.policy.load import load as load_policy
from gpualloc.render.screen import Screen
from gpualloc.render.verification import verification_json, verification_text
from gpualloc.render.words import devices_of
from gpualloc.solve.devices import flatten
from gpualloc.verification import Framework, Verification
from gpualloc.verify.docker import Answer, Container, DeviceRequest
from gpualloc.verify.expect import Expectation
from gpualloc.verify.judge import Evidence, judge
from gpualloc.verify.look import MARK, Sight, listed, sight_of
from gpualloc.verify.machine import Machine
from tests.render.samples import check_snapshot

if TYPE_CHECKING:
    from gpualloc.verification import WorkerCheck

HERE = Path(__file__).parent
INVENTORY = load(["sim:4xl40s"]).inventory
DEVICES = tuple(flatten(INVENTORY, load_policy("base", cwd=HERE, compose_dir=HERE), None, frozenset()))
MACHINE = Machine(INVENTORY, DEVICES, devices_of(INVENTORY), wsl2=False)
UUID = MACHINE.everything
LOST = "GPU-00000000-0000-4000-8000-000000000000"


def expectation(*devices: str, **changes: Any) -> Expectation:
    facts: dict[str, Any] = {
        "worker": "trainer",
        "service": "trainer",
        "replica": 1,
        "copies": 1,
        "devices": devices,
        "given": devices,
        "environment": {},
        "cdi": False,
        "parked": False,
        "where": Place("compose.yaml", 5, 9),
        "cuda_where": Place("compose.yaml", 8, 9),
    }
    return Expectation(**(facts | changes))


def container(*ids: str, **changes: Any) -> Container:
    facts: dict[str, Any] = {
        "id": "c",
        "name": "site-trainer-1",
        "service": "trainer",
        "number": 1,
        "state": "running",
        "exit_code": 0,
        "error": "",
        "created": "2026-01-01T00:00:00Z",
        "config_hash": "h",
        "environment": {},
        "requests": (DeviceRequest("", 0, ids, frozenset(("gpu",))),),
        "runtime": "runc",
        "privileged": False,
        "own_pids": True,
        "files": (),
    }
    return Container(**(facts | changes))


def sight(*seen: str, **changes: Any) -> Sight:
    digits = tuple(uuid[4:].replace("-", "") for uuid in seen)
    facts: dict[str, Any] = {"cuda": digits, "loaded": True, "listed": seen, "environment": {}}
    return Sight(**(facts | changes))


def check(one: Expectation, has: Container | None, seen: Sight | None, *, outdated: bool | None = None) -> WorkerCheck:
    (found,) = judge([Evidence(one, has, seen, lambda: outdated)], MACHINE)
    return found


def codes(found: WorkerCheck) -> list[str]:
    return [finding.code for finding in found.findings]


SUBSETS = st.sets(st.sampled_from(UUID), max_size=4).map(MACHINE.ordered)
VALUES = st.one_of(
    st.none(),
    st.lists(st.sampled_from(["0", "1", "2", "3", "7", "-1", "", "all", LOST, "GPU-", *UUID]), max_size=4).map(
        ",".join
    ),
)


@given(
    pinned=st.one_of(st.none(), SUBSETS.filter(bool), st.just((LOST,))),
    asked=SUBSETS,
    present=SUBSETS,
    written=VALUES,
    value=VALUES,
    with_smi=st.booleans(),
    with_cuda=st.booleans(),
    privileged=st.booleans(),
    driver=st.sampled_from(["", "nvidia", "cdi"]),
    capabilities=st.sampled_from([None, "utility", "compute", "all"]),
    state=st.sampled_from(["running", "exited", "created", "paused"]),
    outdated=st.sampled_from([None, True, False]),
)
def test_a_worker_is_ok_exactly_if_it_sees_what_the_file_gives(  # noqa: PLR0917 - one for each thing that may differ
    pinned: tuple[str, ...] | None,
    asked: tuple[str, ...],
    present: tuple[str, ...],
    written: str | None,
    value: str | None,
    with_smi: bool,  # noqa: FBT001 - hypothesis fills it
    with_cuda: bool,  # noqa: FBT001 - drawn by name
    privileged: bool,  # noqa: FBT001 - drawn by name
    driver: str,
    capabilities: str | None,
    state: str,
    outdated: bool | None,  # noqa: FBT001 - drawn by name
) -> None:
    environment = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    inside = environment | ({} if capabilities is None else {"NVIDIA_DRIVER_CAPABILITIES": capabilities})
    ids = tuple(f"nvidia.com/gpu={uuid}" for uuid in asked) if driver == "cdi" else asked
    requests = (DeviceRequest(driver, 0, ids, frozenset(("gpu",))),) if asked else ()
    has = container(requests=requests, environment=inside, privileged=privileged, state=state)
    seen = present if value is None else visible(value, present)
    looked: Sight | None = sight(*seen, listed=present if with_smi else None, environment=inside)
    if not with_cuda:
        looked = Sight("there is no python in it", listed=present if with_smi else None)
    if state != "running":
        looked = None
    file = {} if written is None else {"CUDA_VISIBLE_DEVICES": written}
    one = expectation(devices=pinned, given=UUID[:1] if pinned is None else pinned, environment=file)
    found = check(one, has, looked, outdated=outdated)

    assert all(f.code and f.summary and f.hint and "trainer" in f.summary for f in found.findings)
    if looked is None:
        assert found.verdict == "wrong"
        assert found.seen is None
        return
    shown = found.seen.devices if found.seen else None
    if with_cuda or with_smi:
        assert shown == seen
    as_file = written in {None, value} and set(asked) == set(one.given)
    right = pinned is not None and set(shown or ()) == set(pinned) and as_file and LOST not in pinned
    assert found.verdict == ("wrong" if not right else "ok" if with_cuda else "unseen")
    if not as_file and pinned != (LOST,):
        assert codes(found)[0] == ("container-differs" if outdated is False else "older-than-file")


BY_CDI = (DeviceRequest("cdi", 0, (f"nvidia.com/gpu={UUID[0]}",), frozenset()),)
FIRST = (DeviceRequest("", 1, (), frozenset(("gpu",))),)
NOT_READY = "cuInit: CUDA_ERROR_SYSTEM_NOT_READY (802)"


@pytest.mark.parametrize(
    ("has", "seen", "code"),
    [
        (container(UUID[0]), sight(loaded=False, cuda_error="no such file"), "no-driver"),
        (container(UUID[0]), sight(UUID[1]), "other-devices"),
        (container("0"), sight(UUID[1]), "index-id"),
        (container(requests=BY_CDI), sight(UUID[1]), "stale-cdi"),
        (container(UUID[0]), sight(UUID[0], UUID[1], wsl=True), "wsl2"),
        (container(UUID[0]), sight(listed=UUID[:1], cuda_error=NOT_READY), "cuda-error"),
        (container(UUID[0]), sight(listed=UUID[:1]), "differs"),
    ],
)
def test_likely_causes(has: Container, seen: Sight, code: str) -> None:
    assert codes(check(expectation(UUID[0]), has, seen))[:1] == [code]


def test_cuda_may_count_another_first() -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "1"}
    one = expectation(UUID[1], environment=environment)
    has = container(UUID[1], environment=environment, privileged=True)
    assert codes(check(one, has, sight(UUID[2], listed=UUID, environment=environment))) == ["privileged"]
    one = expectation(*UUID[:2], environment=environment)
    has = container(*UUID[:2], environment=environment)
    seen = sight(UUID[0], listed=UUID[:2], environment=environment)
    assert codes(check(one, has, seen)) == ["cuda-order"]


def framework(**facts: Any) -> Framework:
    defaults: dict[str, Any] = {"version": "1", "count": 1, "uuids": None, "gpu_build": True, "error": None}
    return Framework(name="torch", **(defaults | facts))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, []),
        ({"uuids": (UUID[0].removeprefix("GPU-"),)}, []),
        ({"uuids": (UUID[1].removeprefix("GPU-"),)}, ["framework-differs"]),
        ({"count": 0}, ["framework-differs"]),
        ({"count": 0, "gpu_build": False}, ["framework-without-cuda"]),
        ({"count": None, "error": "ImportError"}, ["framework-silent"]),
    ],
)
def test_frameworks(facts: dict[str, Any], expected: list[str]) -> None:
    seen = sight(UUID[0], frameworks=(framework(**facts),))
    assert codes(check(expectation(UUID[0]), container(UUID[0]), seen)) == expected


ANSWER = {
    "cuda": {"loaded": True, "devices": ["00"], "error": None},
    "nvidia_smi": {"text": f"GPU 0: L40S (UUID: {UUID[0]})\n"},
    "environment": {"CUDA_VISIBLE_DEVICES": "0"},
    "wsl": False,
    "frameworks": {"torch": {"version": "2", "count": 1, "uuids": ["x"], "gpu_build": True}},
}
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["text", "devices", "count"]), inner),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(ANSWER)), JUNK), st.text(max_size=20))
def test_whatever_a_container_answers_is_read_or_refused(changes: dict[str, Any], noise: str) -> None:
    """What runs in a container is not ours: its answer may be anything."""
    sight_of(Answer(0, noise, ""))
    sight_of(Answer(0, f"{noise}\n{MARK}{json.dumps(ANSWER | changes)}\n", ""))
    whole = sight_of(Answer(0, f"{noise}\n{MARK}{json.dumps(ANSWER)}\n", ""))
    assert whole is not None
    assert whole.listed == UUID[:1]


def test_listings() -> None:
    text = (
        "GPU 0: NVIDIA A100 (UUID: GPU-a)\n"
        "  MIG 1g.5gb      Device  0: (UUID: MIG-1)\n"
        "  MIG 2g.10gb     Device  1: (UUID: MIG-2)\n"
        "GPU 1: NVIDIA A100 (UUID: GPU-b)\n"
    )
    assert listed(text) == ("MIG-1", "MIG-2", "GPU-b")
    assert listed("No devices found.\n") == ()


def verification() -> Verification:
    hidden = {"CUDA_VISIBLE_DEVICES": "1"}
    both = sight(*UUID[:2], frameworks=(framework(count=2),))
    none = sight(listed=UUID[1:2], environment=hidden, cuda_error="cuInit: CUDA_ERROR_NO_DEVICE (100)")
    encoder = container(UUID[1], name="site-encoder-1", environment=hidden)
    workers = (
        check(expectation(*UUID[:2], worker="trainer"), container(*UUID[:2]), both),
        check(expectation(UUID[1], worker="encoder", environment=hidden), encoder, none),
        check(expectation(UUID[2], worker="plain"), container(UUID[2]), Sight("there is no python in it")),
        check(expectation(UUID[3], worker="gone"), None, None),
        check(expectation(UUID[3], worker="parked", parked=True), None, None),
        check(expectation(worker="free", devices=None, given=UUID[:1]), container(requests=FIRST), sight(UUID[0])),
    )
    return Verification("site", INVENTORY, workers, (), ())


def test_rendered() -> None:
    check_snapshot("verification-pipe", verification_text(verification(), Screen()))
    check_snapshot("verification-80", verification_text(verification(), Screen(width=80)))
    check_snapshot("verification-colour", verification_text(verification(), Screen(colour=True)))
    check_snapshot("verification-json", verification_json(verification()))
