from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpualloc.model import DeviceRef, Gpu, Host, MigInstance, Placement, Policy, Write
from gpualloc.policy.environment import VARIABLES, environment, template_problem, variables, written_ids
from gpualloc.policy.load import load
from tests.policy.helpers import relaxed

BASE = load("base", cwd=Path("/nonexistent"), compose_dir=None)
ALL = {name.upper(): f"<${name}>" for name in VARIABLES}


def gpu(index: int, **facts: Any) -> Gpu:
    known: dict[str, Any] = {
        "uuid": f"GPU-{index}",
        "index": index,
        "name": "NVIDIA L40S",
        "pci_bus_id": f"00000000:{index:02X}:00.0",
        "memory_total_mib": 46068,
        "memory_reserved_mib": 0,
        "memory_used_mib": 0,
        "compute_capability": "8.9",
        "numa_node": 0,
        "cpu_affinity": "0-31",
        "display_active": False,
        "compute_mode": "default",
        "mig": None,
        "health": (),
        "processes": (),
    }
    return Gpu(**{**known, **facts})


def host(*gpus: Gpu) -> Host:
    return Host("here", None, None, gpus, ())


def placement(*devices: tuple[str, int], memory: int | None = None) -> Placement:
    refs = tuple(DeviceRef(uuid, index) for uuid, index in devices)
    return Placement("trainer-2", "trainer", 2, "here", refs, memory, memory is None, "pin", None, "")


def policy(env: dict[str, str], shared: dict[str, str] | None = None, ids: Any = "uuid") -> Policy:
    write = Write(ids, "ordinal", tuple(env.items()), tuple((shared or {}).items()))
    return replace(BASE, write=write)


FOUR = host(gpu(0), gpu(1, numa_node=1, cpu_affinity="32-63"), gpu(2, memory_total_mib=24564), gpu(3, numa_node=None))


def test_every_variable_of_a_sharing_worker() -> None:
    found = dict(environment(policy(ALL), placement(("GPU-0", 0), ("GPU-2", 2), memory=10240), FOUR))
    assert found == {
        "WORKER": "<trainer-2>",
        "ROLE": "<trainer>",
        "REPLICA": "<2>",
        "GPUS": "<2>",
        "DEVICE_IDS": "<GPU-0,GPU-2>",
        "MEMORY_MIB": "<10240>",
        "MEMORY_FRACTION": "<0.4168>",
        "NUMA_NODE": "<0>",
        "CPU_AFFINITY": "<0-31>",
    }


def test_what_a_worker_does_not_have_is_left_out() -> None:
    alone = dict(environment(policy(ALL), placement(("GPU-0", 0), ("GPU-1", 1)), FOUR))
    assert set(ALL) - set(alone) == {"MEMORY_MIB", "MEMORY_FRACTION", "NUMA_NODE", "CPU_AFFINITY"}
    unknown = dict(environment(policy(ALL), placement(("GPU-3", 3), memory=1), FOUR))
    assert set(ALL) - set(unknown) == {"NUMA_NODE"}
    both = policy({"A": "$worker on $numa_node", "B": "$worker"})
    assert environment(both, placement(("GPU-3", 3)), FOUR) == (("B", "trainer-2"),)


def test_env_shared_is_for_sharing_workers_and_over_env() -> None:
    chosen = policy({"B": "all", "A": "all"}, {"A": "shared", "C": "$memory_mib"})
    assert environment(chosen, placement(("GPU-0", 0)), FOUR) == (("A", "all"), ("B", "all"))
    shared = (("A", "shared"), ("B", "all"), ("C", "512"))
    assert environment(chosen, placement(("GPU-0", 0), memory=512), FOUR) == shared


def test_a_template_of_env_shared_that_is_null_leaves_the_name_out() -> None:
    chosen = policy({"A": "all"}, {"A": "$numa_node"})
    assert environment(chosen, placement(("GPU-3", 3), memory=512), FOUR) == ()


def test_dollars_and_braces() -> None:
    chosen = policy({"A": "$$x ${worker}s $$$gpus"})
    assert environment(chosen, placement(("GPU-0", 0)), FOUR) == (("A", "$x trainer-2s $1"),)


def test_device_ids_are_as_they_are_written() -> None:
    mig = (MigInstance("MIG-a", 7, 0, "1g.10gb", 9984),)
    machine = host(gpu(0), gpu(1, mig=mig))
    by_index = policy({"IDS": "$device_ids"}, ids="index")
    assert written_ids(by_index, placement(("GPU-0", 0), ("GPU-1", 1))) == ("0", "1")
    assert environment(by_index, placement(("MIG-a", 1)), machine) == (("IDS", "MIG-a"),)
    assert written_ids(policy({}), placement(("GPU-1", 1))) == ("GPU-1",)


def test_a_mig_instance_counts_by_its_own_memory_and_its_gpus_place() -> None:
    machine = host(gpu(0, numa_node=3, mig=(MigInstance("MIG-a", 7, 0, "1g.10gb", 9984),)))
    values = variables(BASE, placement(("MIG-a", 0), memory=4992), machine)
    assert (values["memory_fraction"], values["numa_node"]) == ("0.5000", "3")


def test_unknown_memory_gives_no_fraction() -> None:
    machine = host(gpu(0), gpu(1, memory_total_mib=None))
    assert variables(BASE, placement(("GPU-0", 0), ("GPU-1", 1), memory=5), machine)["memory_fraction"] is None


@relaxed
@given(st.integers(1, 10**6), st.lists(st.integers(1, 10**6), min_size=1, max_size=4))
def test_the_fraction_never_promises_more_than_there_is(memory: int, totals: list[int]) -> None:
    machine = host(*(gpu(n, memory_total_mib=total) for n, total in enumerate(totals)))
    text = variables(BASE, placement(*((f"GPU-{n}", n) for n in range(len(totals))), memory=memory), machine)[
        "memory_fraction"
    ]
    assert text is not None
    fraction = Fraction(text)
    exact = min(Fraction(memory, min(totals)), Fraction(1))
    assert fraction <= exact < fraction + Fraction(1, 10_000)
    assert len(text) == 6


@pytest.mark.parametrize("text", ["", "x", "$$", "$worker", "${worker}x", "$gpus$role", "a$$b"])
def test_good_templates(text: str) -> None:
    assert template_problem(text) is None


@pytest.mark.parametrize("text", ["$", "$ x", "${", "${worker", "$Worker", "$worker_", "${gpu}", "$1"])
def test_bad_templates(text: str) -> None:
    problem = template_problem(text)
    assert problem is not None
    assert problem[1]
