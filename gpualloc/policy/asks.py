"""What a worker can ask for: the keys of ``x-gpualloc``, on a service or in a policy's ``roles``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args

from gpualloc.errors import GpuallocError
from gpualloc.model import LINK_LEVELS, Ask, GpuCount, PortRule
from gpualloc.policy.checks import Checker, joined
from gpualloc.policy.values import capability_matches, parse_capability_spec, parse_memory, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.errors import Place

__all__ = ["ASK_KEYS", "capability_matches", "combine", "parse_ask", "parse_capability_spec", "parse_memory"]

ASK_KEYS = (
    "gpus",
    "memory",
    "exclusive",
    "model",
    "min_memory",
    "compute_capability",
    "mig_profile",
    "min_link",
    "priority",
    "host",
    "affinity",
    "anti_affinity",
    "ports",
    "observe",
)

_HINTS = {
    "count": "the number of devices is gpus",
    "device_ids": "which devices a worker gets is decided by the plan; ask for them by model, min_memory or host",
    "replicas": "the number of workers is deploy.replicas or scale",
    "scale": "the number of workers is deploy.replicas or scale",
}

MIG_PROFILE_PATTERN = r"^(?:[0-9]+c\.)?[0-9]+g\.[0-9]+gb(?:[+-][a-z]+(?:\.[a-z]+)*)*$"
"""A profile as ``nvidia-smi mig -lgip`` and ``-lcip`` name it: ``1g.10gb``, ``1g.10gb+me``, ``1c.3g.20gb``."""

SERVICE_NAME_PATTERN = r"^[a-zA-Z0-9._-]+$"
"""Names that Compose accepts for a service (compose-spec, ``services`` in its JSON Schema)."""


def parse_ask(data: object, place: Callable[[str], Place], place_of_key: Callable[[str], Place] | None = None) -> Ask:
    """Return the ask that a mapping with the keys of ``x-gpualloc`` spells.

    ``place`` says where a value stands, by its path within the mapping (``gpus.min``, ``affinity[1]``; empty: the
    mapping itself); ``place_of_key`` the same for a key that is unknown, if it is known apart. Messages name the
    value by the returned place's own ``path``, so that it should begin with the way to the mapping.

    Numbers, true and false are also taken as text, since that is what ``${N:-2}`` leaves in a compose file. ``gpus``
    may give only ``min`` (no upper end) or only ``max`` (at least one). ``memory`` together with ``exclusive: true``
    is what each device must be able to give to a worker that has it alone. ``exclusive: false`` only undoes an
    ``exclusive: true`` that a policy's role would add; empty lists undo lists in the same way.

    Raises GpuallocError with one diagnostic for each problem: ``ask-type``, ``ask-key`` (unknown), ``ask-value``
    (impossible), ``ask-memory``, ``ask-conflict`` (two keys that cannot both hold).
    """
    check = Checker("ask", place, place_of_key)
    mapping = check.mapping(data, "", ASK_KEYS, _HINTS)
    values: dict[str, Any] = {}
    for key in ASK_KEYS:
        if key in mapping:
            field = f"{key}_mib" if key in {"memory", "min_memory"} else key
            values[field] = _value(check, key, mapping[key])
    check.finish()
    ask = Ask(**values)
    _conflicts(check, ask)
    check.finish()
    return ask


def _value(check: Checker, key: str, value: object) -> object:
    """Check the value of one key."""
    if value is None:
        check.report("type", key, "has no value", "give it one, or leave the key out")
        return None
    if key in _PLAIN:
        return _PLAIN[key](check, value)
    if key in {"affinity", "anti_affinity"}:
        return _names(check, key, value)
    if key in {"memory", "min_memory"}:
        return check.memory(value, key)
    if key in {"model", "host"}:
        return check.glob(value, key)
    return check.boolean(value, key, text=True)


def _gpus(check: Checker, value: object) -> GpuCount:
    if value == "all":
        return GpuCount(1, None)
    if isinstance(value, Mapping):
        return _gpu_range(check, value)
    if isinstance(value, (list, float)) or (isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value)):
        what = f"must be a number, all, or {{min: …, max: …}}, not {shown(value)}"
        check.report("type", "gpus", what, "for example gpus: 2")
        return GpuCount(1, 1)
    if value == 0:
        check.report("value", "gpus", "must be at least 1, not 0", "x-gpualloc: false leaves a service alone")
        return GpuCount(1, 1)
    if value == -1:
        check.report("value", "gpus", "must be at least 1, not -1", "write all for every device")
        return GpuCount(1, 1)
    count = check.integer(value, "gpus", 1, text=True)
    return GpuCount(count, count)


def _gpu_range(check: Checker, value: Mapping[str, object]) -> GpuCount:
    before = len(check.problems)
    check.mapping(value, "gpus", ("min", "max"))
    if not value:
        check.report("value", "gpus", "names neither min nor max", "write {min: 1, max: 4}, a number, or all")
    low, high = 1, None
    if "min" in value:
        low = check.integer(value["min"], "gpus.min", 1, text=True)
    if "max" in value and value["max"] != "all":
        high = check.integer(value["max"], "gpus.max", 1, text=True)
    if len(check.problems) == before and high is not None and low > high:
        check.report("value", "gpus", f"min {low} is above max {high}", f"write {{min: {high}, max: {low}}}")
    return GpuCount(low, high)


def _names(check: Checker, key: str, value: object) -> tuple[str, ...]:
    names = check.items(value, key, "encoder, tokenizer")
    for number, name in enumerate(names):
        path = joined(key, number)
        if not re.fullmatch(SERVICE_NAME_PATTERN[1:-1], check.text(name, path)):
            check.report("value", path, f"not a service name: {shown(name)}", "roles are named in full, without globs")
    return tuple(names)


def _capability(check: Checker, value: object) -> str:
    key = "compute_capability"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # a number has lost what was written: 12.10 reads as 12.1
        hint = f'put it in quotes: "{shown(value)}" for exactly that one, ">={shown(value)}" for that one or better'
        check.report("type", key, f"must be text, not {shown(value)}", hint)
        return "0"
    spec = check.text(value, key, 'for example ">=8.0"')
    if spec is value:
        try:
            parse_capability_spec(spec)
        except GpuallocError as error:
            check.report("value", key, error.diagnostics[0].summary, error.diagnostics[0].hint)
    return spec


def _mig_profile(check: Checker, value: object) -> str:
    profile = check.text(value, "mig_profile")
    if profile is value and not re.fullmatch(MIG_PROFILE_PATTERN[1:-1], profile):
        hint = "write it as nvidia-smi mig -lgip does, without the word MIG: 1g.10gb"
        check.report("value", "mig_profile", f"not a MIG profile: {shown(profile)}", hint)
    return profile


def _min_link(check: Checker, value: object) -> str:
    hint = None
    if isinstance(value, str) and re.fullmatch(r"NV[0-9]+", value):
        hint = "write NVLINK, which any number of NVLinks meets"
    link: str = check.choice(value, "min_link", LINK_LEVELS, hint)
    return link


_PLAIN: dict[str, Callable[[Checker, object], object]] = {
    "gpus": _gpus,
    "compute_capability": _capability,
    "mig_profile": _mig_profile,
    "min_link": _min_link,
    "priority": lambda check, value: check.integer(value, "priority", -999_999, text=True),
    "ports": lambda check, value: check.choice(value, "ports", get_args(PortRule)),
}


def _conflicts(check: Checker, ask: Ask) -> None:
    """Report keys of one mapping that cannot hold together; where they come from two places, the solver explains."""
    if ask.observe:
        takes = {
            "gpus": ask.gpus is not None and ask.gpus != GpuCount(1, None),
            "memory": ask.memory_mib is not None,
            "exclusive": ask.exclusive is True,
        }
        for key, conflict in takes.items():
            if conflict:
                check.report("conflict", key, "an observer sees every device and takes none", f"drop {key}, or observe")
    if ask.mig_profile is not None and ask.gpus is not None and ask.gpus.min > 1:
        hint = "ask for one, or for whole GPUs without mig_profile"
        check.report("conflict", "gpus", "CUDA uses one MIG instance per process, so a worker can have only one", hint)
    for number, name in enumerate(ask.anti_affinity or ()):
        if name in (ask.affinity or ()):
            check.report("conflict", joined("anti_affinity", number), f"affinity names {shown(name)} too", "drop one")


def combine(own: Ask | None, roles: Ask | None) -> Ask | None:
    """Return one ask with ``own`` over ``roles``, key by key: what ``x-gpualloc`` says over what a policy says.

    ``gpus`` and each list count as one key. None where both are None.
    """
    if own is None or roles is None:
        return own if roles is None else roles
    values: dict[str, Any] = {field.name: getattr(own, field.name) for field in fields(Ask)}
    return Ask(**{name: getattr(roles, name) if value is None else value for name, value in values.items()})
