"""Whatever a service says is in the stack or named; whatever is written is read back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpualloc.compose.swarm.dump import dump
from gpualloc.errors import GpuallocError
from tests.swarm.stacks import (
    DOCKER,
    docker_reads,
    docker_stack,
    needs_docker_stack,
    stacked,
    unaccounted,
    warned_of,
)

if TYPE_CHECKING:
    from pathlib import Path


DOUBTFUL = "yes no on y n null ~ 12:30 1e3 0x1f 017 1_000 = << # 2001-01-01 .inf @x ` - & * ! | > % { [ , ?"
PHRASES = ("- a", "a: b", "a #b", "a\nb\n", "a\nb", "\ta", "a \nb", " a", "a ", "a:", "? a", "\n", "a\r\nb", "a\n\n")
SCALARS = st.one_of(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=12),
    st.sampled_from((*DOUBTFUL.split(), *PHRASES)),
)
VALUES = st.one_of(SCALARS, st.integers(), st.booleans(), st.none(), st.lists(SCALARS, max_size=3))


@settings(max_examples=150)
@given(st.dictionaries(SCALARS.filter(bool), VALUES, max_size=4))
def test_what_is_dumped_is_read_back(value: dict[str, Any]) -> None:
    text = dump(value)
    assert yaml.safe_load(text) == value
    assert yaml.load(text, Loader=yaml.CSafeLoader) == value


@needs_docker_stack
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(SCALARS.filter(lambda t: "\x00" not in t), min_size=20, max_size=40))
def test_docker_reads_back_what_is_dumped(tmp_path: Path, texts: list[str]) -> None:
    values = {
        f"V{n}": text.replace("$", "$$")
        for n, text in enumerate(texts)
        if text.isprintable() and text not in {"", "=", "<<"}
    }
    path = tmp_path / "stack.yaml"
    path.write_text(
        dump({"version": "3.9", "services": {"a": {"image": "x", "environment": values}}}), encoding="utf-8"
    )
    read = docker_reads(path)["services"]["a"].get("environment", {})
    assert read == {name: text.replace("$$", "$") for name, text in values.items()}


BIND = {"type": "bind", "source": "./a", "target": "/b", "bind": {"selinux": "z"}}
RESERVED = {"memory": "1g", "devices": [{"capabilities": ["gpu"], "count": 1}, {"driver": "x", "capabilities": ["y"]}]}

KEYS: dict[str, st.SearchStrategy[Any]] = {
    "restart": st.sampled_from(["no", "always", "on-failure:2"]),
    "privileged": st.booleans(),
    "container_name": st.just("c"),
    "init": st.booleans(),
    "hostname": st.just("h"),
    "shm_size": st.sampled_from(["1g", 5]),
    "ipc": st.just("host"),
    "expose": st.just(["80"]),
    "links": st.sampled_from([["db"], ["db:x"]]),
    "network_mode": st.sampled_from(["host", "none"]),
    "cpus": st.just(0.5),
    "mem_limit": st.just("1g"),
    "runtime": st.sampled_from(["nvidia", "runsc"]),
    "depends_on": st.sampled_from([["db"], {"db": {"condition": "service_healthy", "restart": True}}]),
    "tmpfs": st.sampled_from(["/run", ["/a:size=1m,mode=700"]]),
    "volumes": st.sampled_from([["./a:/b"], [BIND]]),
    "ports": st.sampled_from([["80:80"], [{"target": 80, "host_ip": "::1", "name": "web", "published": "80"}]]),
    "healthcheck": st.just({"test": ["CMD", "true"], "start_interval": "1s", "interval": "1s"}),
    "logging": st.just({"driver": "json-file", "options": {"max-size": "1m"}}),
    "ulimits": st.just({"nofile": 5}),
    "x-own": st.just({"a": 1}),
    "unheard_of": st.just(1),
    "group_add": st.just(["video"]),
    "annotations": st.just({"a": "b"}),
    "sysctls": st.just({"a.b": 1}),
    "oom_score_adj": st.just(5),
    "gpus": st.sampled_from(["all", [{"count": 1}]]),
    "x-gpualloc": st.sampled_from([False, {"gpus": 1}, {"memory": "1GiB"}, {"observe": True}]),
    "scale": st.integers(1, 2),
    "deploy": st.fixed_dictionaries(
        {},
        optional={
            "labels": st.just({"a": "b"}),
            "mode": st.just("replicated"),
            "endpoint_mode": st.just("dnsrr"),
            "unheard_of": st.just(1),
            "restart_policy": st.just({"condition": "any", "own": 1}),
            "update_config": st.just({"order": "stop-first", "own": 1}),
            "placement": st.just({"constraints": ["node.hostname == old"], "own": 1}),
            "resources": st.fixed_dictionaries(
                {},
                optional={
                    "limits": st.just({"cpus": 1, "devices": []}),
                    "reservations": st.just(RESERVED),
                },
            ),
        },
    ),
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.fixed_dictionaries({}, optional=KEYS), st.sampled_from(["uuid", "generic"]))
def test_every_key_is_in_the_stack_or_named_in_a_note(tmp_path: Path, keys: dict[str, Any], mode: str) -> None:
    for file in tmp_path.glob("*.yaml"):
        file.unlink()
    compose = tmp_path / "compose.yaml"
    compose.write_text(json.dumps({"services": {"own": {"image": "x"} | keys, "db": {"image": "db"}}}))
    try:
        made = stacked(compose, mode=mode)
    except GpuallocError:
        return  # what asks for GPUs in two ways, say
    owners = [name for name in made.services if name != "db"]
    assert owners
    for name in owners:
        assert not list(unaccounted(keys, made.services[name], made.named().get(name, set())))
    assert not warned_of(made.services)
    if DOCKER is not None and docker_stack():
        docker_reads(made.path)
