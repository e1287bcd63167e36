"""Every example is a compose file that the real Compose loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import compose_oracle

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*/compose.yaml"))
POLICIES = sorted((ROOT / "examples").glob("*/policies/*.yaml"))


def config(file: Path) -> dict[str, Any]:
    """Return what Compose makes of a file, which it has to load without a word."""
    loaded = compose_oracle.config([file], no_consistency=False)
    assert loaded.ok, loaded.stderr
    assert not loaded.stderr, "a variable without a default, or an attribute that Compose ignores"
    return loaded.data


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_compose_loads_it_without_a_warning(file: Path) -> None:
    assert config(file)["services"]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_it_publishes_ports_to_this_machine_only_and_each_once(file: Path) -> None:
    ports = [port for service in config(file)["services"].values() for port in service.get("ports", [])]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    published = [port["published"] for port in ports]
    assert len(set(published)) == len(published)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_the_policy_that_its_header_names_is_beside_it(file: Path) -> None:
    header = file.read_text(encoding="utf-8").partition("\nservices:")[0]
    named = set(re.findall(r"--policy (\w+)", header)) - {"base", "dev", "staging", "prod"}
    beside = {policy.stem for policy in (file.parent / "policies").glob("*.yaml")}
    assert named == beside


@pytest.mark.parametrize("file", POLICIES, ids=lambda file: file.stem)
def test_a_policy_speaks_of_the_services_beside_it(file: Path) -> None:
    policy = yaml.safe_load(file.read_text(encoding="utf-8"))
    services = config(file.parents[1] / "compose.yaml")["services"]
    assert policy["version"] == 1
    assert set(policy.get("roles", {})) <= set(services)
