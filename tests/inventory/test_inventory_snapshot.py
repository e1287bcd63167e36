"""The inventory contract as JSON: what is read, what is refused, and that the schema says the same."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpualloc.errors import GpuallocError
from gpualloc.inventory.snapshot import dump, parse
from tests.inventory.strategies import inventories

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpualloc.model import Inventory

SCHEMA = json.loads(resources.files("gpualloc").joinpath("schemas/inventory.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
Route = tuple[str | int, ...]

FULL: dict[str, Any] = {
    "format_version": "1.0",
    "source": "nvml",
    "hosts": [
        {
            "name": "dgx01",
            "driver": "580.159.04",
            "cuda": "13.0",
            "platform": "linux",
            "gpus": [
                {
                    "uuid": f"GPU-{index}",
                    "index": index,
                    "name": "NVIDIA H100 80GB HBM3",
                    "pci_bus_id": f"00000000:{index + 1}B:00.0",
                    "memory_total_mib": 81559,
                    "memory_reserved_mib": 480,
                    "memory_used_mib": 0,
                    "compute_capability": "9.0",
                    "numa_node": 0,
                    "cpu_affinity": "0-55,112-167",
                    "display_active": False,
                    "compute_mode": "default",
                    "mig": [
                        {
                            "uuid": f"MIG-{index}",
                            "gi": 9,
                            "ci": 0,
                            "profile": "1g.10gb",
                            "memory_total_mib": 9984,
                        }
                    ],
                    "health": [{"code": "row_remap_pending", "fatal": True, "detail": "reset it"}],
                    "processes": [
                        {
                            "pid": 1258,
                            "used_mib": 4706,
                            "gi": None,
                            "container": {"id": "4f2a", "project": "shop", "service": "web"},
                        }
                    ],
                }
                for index in range(2)
            ],
            "links": [{"a": "GPU-0", "b": "GPU-1", "nvlink": 18, "pcie": "NODE"}],
        }
    ],
}
GPU: Route = ("hosts", 0, "gpus", 0)
OPTIONAL = {("hosts", 0, "platform"), *((*GPU[:3], i, "processes", 0, "gi") for i in (0, 1))}
# where null says that a fact is unknown, or that there is none
NULLABLE = {
    "driver", "cuda", "memory_total_mib", "memory_reserved_mib", "memory_used_mib", "compute_capability", "numa_node",
    "cpu_affinity", "display_active", "compute_mode", "mig", "used_mib", "gi", "container", "project", "service",
    "nvlink", "pcie",
}  # fmt: skip


def changed(*route: str | int, to: Any) -> str:
    data = copy.deepcopy(FULL)
    at: Any = data
    for step in route[:-1]:
        at = at[step]
    at[route[-1]] = to
    return json.dumps(data)


def routes(data: Any, prefix: Route = ()) -> Iterator[Route]:
    steps = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, inner in steps:
        yield (*prefix, step)
        yield from routes(inner, (*prefix, step))


def refused(text: str) -> tuple[str, str]:
    with pytest.raises(GpuallocError) as error:
        parse(text, "snap.json")
    (diagnostic,) = error.value.diagnostics
    assert diagnostic.where is not None
    assert diagnostic.where.line is not None
    assert str(diagnostic.where).startswith("snap.json:")
    return diagnostic.code, diagnostic.summary


def value_at(route: Route) -> Any:
    at: Any = FULL
    for step in route:
        at = at[step]
    return at


KEYS = [route for route in routes(FULL) if isinstance(route[-1], str)]


def test_a_full_document_is_read_whole() -> None:
    inventory = parse(json.dumps(FULL), "snap.json")
    assert json.loads(dump(inventory)) == FULL
    (host,) = inventory.hosts
    assert host.gpus[1].mig is not None
    assert host.gpus[1].mig[0].profile == "1g.10gb"
    assert host.gpus[0].processes[0].container is not None
    assert host.gpus[0].processes[0].container.service == "web"


@given(inventories())
def test_reading_what_was_written_gives_the_same(inventory: Inventory) -> None:
    text = dump(inventory)
    assert parse(text, "snap.json") == inventory
    VALIDATOR.validate(json.loads(text))


@pytest.mark.parametrize("route", KEYS, ids=str)
def test_a_key_that_is_missing_is_named(route: Route) -> None:
    data = copy.deepcopy(FULL)
    at: Any = data
    for step in route[:-1]:
        at = at[step]
    del at[route[-1]]
    if route in OPTIONAL:
        parse(json.dumps(data), "snap.json")
        return
    path = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in route).removeprefix(".")
    assert refused(json.dumps(data)) == ("inventory-missing-key", f"{path}: required")


def test_what_is_absent_reads_as_its_default() -> None:
    data = copy.deepcopy(FULL)
    del data["hosts"][0]["platform"]
    del data["hosts"][0]["gpus"][0]["processes"][0]["gi"]
    assert parse(json.dumps(data), "snap.json") == parse(json.dumps(FULL), "snap.json")


@pytest.mark.parametrize("route", [(), *(r for r in routes(FULL) if isinstance(value_at(r), dict))], ids=str)
def test_a_key_that_is_unknown_is_named(route: Route) -> None:
    code, summary = refused(changed(*route, "uuidd", to=1))
    assert code == "inventory-unknown-key"
    assert summary.endswith("uuidd: unknown key")


@pytest.mark.parametrize("route", KEYS, ids=str)
def test_null_is_taken_only_where_a_fact_may_be_unknown(route: Route) -> None:
    text = changed(*route, to=None)
    if route[-1] in NULLABLE and not (route[-1] == "gi" and "mig" in route):
        if route[-1] != "memory_total_mib" or "mig" in route:
            parse(text, "snap.json")
    else:
        assert refused(text)[0] == "inventory-type"


@pytest.mark.parametrize("route", KEYS, ids=str)
def test_a_value_of_the_wrong_type_is_refused(route: Route) -> None:
    wrong: Any = ["x"] if not isinstance(value_at(route), list) else {"x": 1}
    code, summary = refused(changed(*route, to=wrong))
    assert code == "inventory-type"
    assert str(route[-1]) in summary


@pytest.mark.parametrize(
    ("route", "to", "code", "summary"),
    [
        ((*GPU, "uuid"), "MIG-1", "value", "must be a GPU's UUID (GPU-…), not \"MIG-1\""),
        ((*GPU, "uuid"), "GPU-a,GPU-b", "value", "must be a GPU's UUID (GPU-…), not \"GPU-a,GPU-b\""),
        ((*GPU, "uuid"), "GPU-a\n", "value", "must be a GPU's UUID (GPU-…), not \"GPU-a\\n\""),
        ((*GPU, "index"), -1, "value", "must be at least 0, not -1"),
        ((*GPU, "index"), True, "type", "must be a whole number, not true"),
        ((*GPU, "index"), 0.0, "type", "must be a whole number, not the number 0.0"),
        ((*GPU, "memory_total_mib"), 0, "value", "must be at least 1, not 0"),
        ((*GPU, "memory_reserved_mib"), 81560, "value", "more is reserved (81560) than there is (81559)"),
        ((*GPU, "numa_node"), -1, "value", "must be at least 0, not -1"),
        ((*GPU, "compute_capability"), "9", "value", 'must be a version (9.0), not "9"'),
        ((*GPU, "compute_capability"), 9.0, "type", "must be a version (9.0), not the number 9.0"),
        ((*GPU, "cpu_affinity"), "0-", "value", 'must be a list of CPUs (0-55,112-167), not "0-"'),
        ((*GPU, "pci_bus_id"), "1B", "value", 'must be a PCI bus id (00000000:1B:00.0), not "1B"'),
        ((*GPU, "compute_mode"), "Default", "value",
         'must be one of default, exclusive_process, prohibited, not "Default"'),
        ((*GPU, "name"), "", "value", 'must be filled in, not ""'),
        (("hosts", 0, "platform"), "windows", "value", 'must be one of linux, wsl2, not "windows"'),
        (("hosts", 0, "links", 0, "pcie"), "NV18", "value", 'must be one of PIX, PXB, PHB, NODE, SYS, not "NV18"'),
        (("hosts", 0, "links", 0, "a"), "GPU-7", "link", "no GPU of this host is GPU-7"),
        (("hosts", 0, "links", 0), {"a": "GPU-0", "b": "GPU-0", "nvlink": 1, "pcie": None}, "link",
         "a link joins two GPUs, not GPU-0 with itself"),
        (("hosts", 0, "links"), [{"a": a, "b": b, "nvlink": 1, "pcie": None} for a, b in
                                 (("GPU-0", "GPU-1"), ("GPU-1", "GPU-0"))], "duplicate",
         "hosts[0].links[0] already joins these two GPUs"),
        ((*GPU[:3], 1, "uuid"), "GPU-0", "duplicate", "the UUID GPU-0 is already that of hosts[0].gpus[0]"),
        ((*GPU[:3], 1, "mig", 0, "uuid"), "MIG-0", "duplicate",
         "the UUID MIG-0 is already that of hosts[0].gpus[0].mig[0]"),
        ((*GPU[:3], 1, "index"), 0, "duplicate", "the index 0 is already that of hosts[0].gpus[0]"),
        (("format_version",), 1, "type", "must be a string, not the number 1"),
        (("format_version",), "2.0", "version", 'is "2.0", and this gpualloc reads "1.0"'),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused(route: Route, to: Any, code: str, summary: str) -> None:
    data = json.loads(changed(*route, to=to))
    if code == "duplicate" and route[-1] == "uuid" and "mig" not in route:
        data["hosts"][0]["links"] = []
    got_code, got_summary = refused(json.dumps(data))
    assert got_code == f"inventory-{code}"
    assert got_summary.endswith(f": {summary}")


def test_another_version_is_said_before_its_other_keys() -> None:
    assert refused('{"format_version": "0.9", "machines": []}')[0] == "inventory-version"


@pytest.mark.parametrize("text", ["[]", "null", '"1.0"', "1"])
def test_a_document_that_is_no_mapping_is_refused(text: str) -> None:
    assert refused(text)[0] == "inventory-type"


def test_two_hosts_of_one_name_are_refused() -> None:
    host: dict[str, Any] = {"name": "a", "driver": None, "cuda": None, "gpus": [], "links": []}
    code, summary = refused(json.dumps({"format_version": "1.0", "source": "x", "hosts": [host, host]}))
    assert (code, summary) == ("inventory-duplicate", "hosts[1].name: the host name a is already that of hosts[0]")


def test_a_uuid_on_two_hosts_is_refused() -> None:
    data = copy.deepcopy(FULL)
    data["hosts"].append({**copy.deepcopy(FULL["hosts"][0]), "name": "dgx02"})
    code, summary = refused(json.dumps(data))
    assert code == "inventory-duplicate"
    assert summary == "hosts[1].gpus[0].uuid: the UUID GPU-0 is already that of hosts[0].gpus[0]"


# What no schema can say; everything else the two must agree on.
BETWEEN_VALUES = {"inventory-duplicate", "inventory-link"}

atoms = (
    st.none() | st.booleans() | st.integers(-2, 9) | st.sampled_from(("", "x", "GPU-0", "MIG-0", "1.0", "NODE", "0-3"))
)
odd_values = (
    atoms | st.lists(atoms, max_size=2) | st.dictionaries(st.sampled_from(("id", "a", "uuid")), atoms, max_size=2)
)


@st.composite
def mutants(draw: Any) -> Any:
    """A full document with up to three keys taken out, put in, or given another value."""
    data = copy.deepcopy(FULL)
    for _ in range(draw(st.integers(1, 3))):
        *front, last = draw(st.sampled_from(list(routes(data)) or [("hosts",)]))
        at: Any = data
        for step in front:
            at = at[step]
        match draw(st.sampled_from(("drop", "add", "set"))):
            case "drop" if last in (at if isinstance(at, dict) else ()):
                del at[last]
            case "add" if isinstance(at, dict):
                at[draw(st.sampled_from(("extra", "platform", "gi", "uuid")))] = draw(odd_values)
            case _:
                at[last] = draw(odd_values)
    return data


@given(mutants())
def test_schema_and_parser_agree(data: Any) -> None:
    valid = VALIDATOR.is_valid(data)
    try:
        inventory = parse(json.dumps(data), "snap.json")
    except GpuallocError as error:
        (diagnostic,) = error.diagnostics
        between = diagnostic.code in BETWEEN_VALUES or "more is reserved" in diagnostic.summary
        assert not valid or between, diagnostic
    else:
        assert valid, next(VALIDATOR.iter_errors(data)).message
        assert parse(dump(inventory), "snap.json") == inventory


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(FULL)


def test_the_dump_ends_in_a_newline_and_keeps_other_scripts_readable() -> None:
    inventory = parse(json.dumps(FULL), "snap.json")
    host = replace(inventory.hosts[0], name="hôte-日本")
    text = dump(replace(inventory, hosts=(host,)))
    assert text.endswith("}\n")
    assert "hôte-日本" in text
