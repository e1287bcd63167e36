"""What the tests of policies share: loading text, and documents to choose from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from gpualloc.errors import GpuallocError, Place
from gpualloc.policy.load import load

if TYPE_CHECKING:
    from pathlib import Path

    from gpualloc.errors import Diagnostic
    from gpualloc.model import Policy


relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
"""For property tests: no time limits, and one folder for all examples, each of which writes its own file."""


def load_text(folder: Path, text: str | bytes, name: str = "mine.yaml") -> Policy:
    data = text.encode() if isinstance(text, str) else text
    (folder / name).write_bytes(data)
    return load(name, cwd=folder, compose_dir=None)


def load_data(folder: Path, data: Any) -> Policy:
    return load_text(folder, json.dumps(data))


def problems(folder: Path, text: str | bytes) -> list[Diagnostic]:
    try:
        load_text(folder, text)
    except GpuallocError as error:
        return list(error.diagnostics)
    return []


def at(path: str) -> Place:
    return Place("compose.yaml", 7, 3, f"services.web.x-gpualloc.{path}" if path else "services.web.x-gpualloc")


def unnamed(policy: Policy) -> Policy:
    return replace(policy, name="")


GOOD_ASK: dict[str, list[Any]] = {
    "gpus": [1, 2, 999_999, "3", "all", {"min": 1}, {"max": 4}, {"min": "2", "max": "all"}, {"min": 2, "max": 2}],
    "memory": ["12GiB", "1.5 GiB", "1MiB", "24GB", "1PiB", "500kB", "0.5MiB", "999999999TiB"],
    "exclusive": [True, False, "true", "false"],
    "model": ["*A100*", "NVIDIA H100 80GB HBM3", "*[!x]*", "a]b", "[]x]"],
    "min_memory": ["40GiB", "80GB"],
    "compute_capability": [">=8.0", "8.9", ">7,<=9.0", "==8", ">= 8.0, < 9"],
    "mig_profile": ["1g.10gb", "1g.10gb+me", "1c.3g.20gb", "1g.5gb+me.all", "2g.20gb-me"],
    "min_link": ["NVLINK", "PIX", "PXB", "PHB", "NODE", "SYS"],
    "priority": [0, 50, -3, "7", "-7", 999_999],
    "host": ["gpu0*", "dgx01"],
    "affinity": [[], ["tokenizer"], ["a", "b.c-d_e"]],
    "anti_affinity": [["encoder"], []],
    "ports": ["increment", "error"],
    "observe": [True, False, "true"],
}

BAD_ASK: dict[str, list[Any]] = {
    "gpus": [0, -1, True, None, 1.5, "", "two", "ALL", "0", "01", {}, {"min": 0}, {"mn": 1}, {"max": None}, [1], 10**6],
    "memory": [12, "12", "12gb", "12G", "0GiB", "0.0MiB", "", None, "-1GiB", "1e3GiB", "12GiB ", "1,5GiB", 10**50],
    "exclusive": ["yes", "True", 1, None, [], "on"],
    "model": ["", "[a", 4090, None, ["*"], "[]", "[!]", "a["],
    "min_memory": [0, "0B", "40", True],
    "compute_capability": [8.0, 8, "", ">=8.0.1", "~=8", "8,", ",", ">=", "=8.0", None, "8.x", "sm_80", "1000.0"],
    "mig_profile": ["", "MIG 1g.10gb", "1g", "10gb", "1G.10GB", 1, None],
    "min_link": ["nvlink", "NV4", "X", "", 1, None, ["PIX"]],
    "priority": ["", 1.5, True, None, "1.0", 10**6, -(10**6), "+1"],
    "host": ["", "[", 1, None],
    "affinity": ["a", ["a", "a"], ["a*"], [1], [""], None, {"a": 1}],
    "anti_affinity": ["encoder", [None]],
    "ports": ["inc", "", None, True],
    "observe": ["no", None, 0],
    "memry": ["1GiB"],
    "": [1],
    "count": [1],
}

GOOD_POLICY: dict[str, list[Any]] = {
    "version": [1],
    "extends": ["base", "base.yaml", "prod"],
    "description": ["", "Production: \N{SNOWMAN} \u0085 \u2028 'x' \"y\" \\ #", "y", "null"],
    "strategy": ["pack", "spread"],
    "stability": ["keep", "prefer", "ignore"],
    "topology": ["prefer", "require", "ignore"],
    "reserve": [0, 1, 8],
    "limit": [None, 1, 6],
    "ignore": [[], ["legacy-*"], ["a", "[ab]*", "null", "0x1f"]],
}

BAD_POLICY: dict[str, list[Any]] = {
    "version": [2, 0, "1", None, True],
    "strategy": ["Pack", "", None, 1, ["pack"]],
    "stability": ["never", False],
    "topology": ["requires", None],
    "reserve": [-1, 1.5, "1", None, True, 10**6],
    "limit": [0, -1, "6", True],
    "ignore": ["legacy-*", ["a", "a"], [1], ["["], [""], None],
    "sharing": [None, [], "memory"],
    "exclude": [None, True],
    "write": [None, "uuid"],
    "roles": [None, [], {"": {"gpus": 1}}, {"[a": {"gpus": 1}}, {"a": None}],
    "stratgy": ["pack"],
    "headroom": ["5%"],
    "description": [5, None],
}

GOOD_SECTIONS: dict[str, dict[str, list[Any]]] = {
    "sharing": {
        "mode": ["none", "memory", "count"],
        "default_memory": ["exclusive", "share", "4GiB"],
        "max_workers_per_gpu": [1, 8],
        "headroom": [0, 0.05, "5%", "12.5%", "0%", 0.999],
    },
    "exclude": {
        "unhealthy": [True, False],
        "busy": [True, False],
        "busy_above": ["1GiB", "0MiB"],
        "display": [True, False],
        "gpus": [[], ["GPU-1f2e", "MIG-0a/1/0", "index:0", "name:*T400*", "name:[ab]"]],
    },
    "write": {
        "device_ids": ["uuid", "index"],
        "cuda_visible_devices": ["ordinal", "uuid", "none"],
        "env": [{}, {"A": "$worker-${role}.$$x", "_b9": "", "N": None, "C": "\u2028\x7f\t\\ \"'"}],
        "env_shared": [{"XLA_PYTHON_CLIENT_MEM_FRACTION": "$memory_fraction", "A": "yes"}],
    },
}

BAD_SECTIONS: dict[str, dict[str, list[Any]]] = {
    "sharing": {
        "mode": ["nne", None, 0],
        "default_memory": ["shared", "0GiB", 4, None, "", "4"],
        "max_workers_per_gpu": [0, "8", None, 1.5],
        "headroom": [1, 5, -0.1, "5", "100%", "-5%", None, True, "5 %", "five"],
        "reserve": [1],
    },
    "exclude": {
        "unhealthy": ["yes", None, 1, "true"],
        "busy": ["on"],
        "busy_above": [0, "0", None, "1g"],
        "display": ["off"],
        "gpus": ["index:0", [0], ["0"], ["index:01"], ["index:-1"], ["name:"], ["name:["], ["GPU-"], ["T400"], None],
    },
    "write": {
        "device_ids": ["UUID", None],
        "cuda_visible_devices": ["uuids", None],
        "env": [None, [], ["A=1"], {"A": 1}, {"A": "$x"}, {"A": "$"}, {"A": "${worker"}, {"A B": "x"}, {"A": "\0"}],
        "env_shared": [{"CUDA_VISIBLE_DEVICES": "0"}, {"9A": "x"}, {"A": "$worker_x"}, {"A": True}, {"": "x"}],
        "envs": [{}],
    },
}


def chosen(values: dict[str, list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of the keys, each with one of its values."""
    return st.fixed_dictionaries({}, optional={key: st.sampled_from(options) for key, options in values.items()})


def mixed(*sources: dict[str, list[Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for source in sources for key in source)
    return {key: [value for source in sources for value in source.get(key, [])] for key in keys}


good_asks = chosen(GOOD_ASK)


def policies(ask: st.SearchStrategy[dict[str, Any]], *, bad: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Policy documents, all of whose parts are good unless ``bad``."""
    parts = {key: st.sampled_from(options) for key, options in GOOD_POLICY.items()}
    for name, good in GOOD_SECTIONS.items():
        parts[name] = chosen(mixed(good, BAD_SECTIONS[name]) if bad else good)
    parts["roles"] = st.dictionaries(
        st.sampled_from(["trainer*", "a", "*", "web-?", "[ab]c", "on", "1"]), ask, max_size=3
    )
    if bad:
        for key, options in BAD_POLICY.items():
            wrong = st.sampled_from(options)
            parts[key] = st.one_of(parts[key], wrong) if key in parts else wrong
    return st.fixed_dictionaries({}, optional=parts)
