"""The schema of a policy: from the merged data of its files to a :class:`~gpualloc.model.Policy`."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, get_args

from gpualloc.errors import GpuallocError, Place
from gpualloc.model import Exclude, Policy, Sharing, SharingMode, Stability, Strategy, Topology, Write
from gpualloc.policy.asks import parse_ask
from gpualloc.policy.checks import Checker, joined
from gpualloc.policy.environment import template_problem
from gpualloc.policy.values import GLOB_PATTERN, is_glob, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpualloc.model import Ask
    from gpualloc.policy.document import Document

VERSION = 1

POLICY_KEYS = (
    "version",
    "extends",
    "description",
    "strategy",
    "stability",
    "topology",
    "sharing",
    "exclude",
    "reserve",
    "limit",
    "write",
    "ignore",
    "roles",
)
SHARING_KEYS = ("mode", "default_memory", "max_workers_per_gpu", "headroom")
EXCLUDE_KEYS = ("unhealthy", "busy", "busy_above", "display", "gpus")
WRITE_KEYS = ("device_ids", "cuda_visible_devices", "env", "env_shared")
SECTIONS = {"sharing": SHARING_KEYS, "exclude": EXCLUDE_KEYS, "write": WRITE_KEYS}

DEVICE_IDS = ("uuid", "index")
CUDA_VISIBLE_DEVICES = ("ordinal", "uuid", "none")
OWN_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES")
"""Variables that follow from the placement; a policy that set them could contradict it."""

PERCENT_PATTERN = r"^[0-9]{1,2}(?:\.[0-9]{1,9})?%$"
ENV_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
GPU_PATTERN = (
    rf"^(?:(?:GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]*|index:(?:0|[1-9][0-9]{{0,5}})|name:(?:{GLOB_PATTERN[1:-1]}))$"
)
"""A UUID of a GPU or MIG instance, an NVML index, or a glob on the name."""

_TOP_HINTS = {key: f"{key} belongs under {section}:" for section, keys in SECTIONS.items() for key in keys}


def build(document: Document, name: str) -> Policy:
    """Return the policy that a document spells; every key but ``version``, ``description`` and ``extends`` is there.

    Raises GpuallocError with one diagnostic for each problem: ``policy-version``, ``policy-type``, ``policy-key``
    (unknown), ``policy-value`` (impossible), ``policy-memory``, ``policy-template``, and what
    :func:`~gpualloc.policy.asks.parse_ask` says of ``roles``.
    """
    check = Checker("policy", document.place, document.place_of_key)
    if isinstance(document.data, dict):
        _version(check, document.data)
        check.finish()
    data = check.mapping(document.data, "", POLICY_KEYS, _TOP_HINTS)
    sections = {key: check.mapping(data.get(key), key, keys) for key, keys in SECTIONS.items() if data}
    if any(problem.code == "policy-type" for problem in check.problems):
        # what is inside would be reported as well, for no fault of its own
        check.finish()
    description = data.get("description", "")
    policy = Policy(
        name=name,
        description=check.text(description, "description") if description != "" else "",
        strategy=check.choice(data.get("strategy"), "strategy", get_args(Strategy)),
        stability=check.choice(data.get("stability"), "stability", get_args(Stability)),
        topology=check.choice(data.get("topology"), "topology", get_args(Topology)),
        sharing=_sharing(check, sections["sharing"]),
        exclude=_exclude(check, sections["exclude"]),
        reserve=check.integer(data.get("reserve"), "reserve", 0),
        limit=_limit(check, data.get("limit")),
        write=_write(check, sections["write"]),
        ignore=_globs(check, data.get("ignore"), "ignore"),
        roles=_roles(check, document, data.get("roles")),
        sha256="",
    )
    check.finish()
    return replace(policy, sha256=fingerprint(policy), places=_places(document))


def fingerprint(policy: Policy) -> str:
    """Return the SHA-256 of what a policy says: equal for two that lead to the same plans and files.

    Name, description, comments, units and the order of keys and lists do not count.
    """
    said = asdict(policy)
    for key in ("name", "description", "sha256", "places"):
        del said[key]
    said["ignore"] = sorted(policy.ignore)
    said["exclude"]["gpus"] = sorted(policy.exclude.gpus)
    for key in ("env", "env_shared"):
        said["write"][key] = sorted(said["write"][key])
    said["roles"] = {glob: _canonical(ask) for glob, ask in policy.roles}
    text = json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(ask: Ask) -> dict[str, Any]:
    return {k: sorted(v) if isinstance(v, tuple) else v for k, v in asdict(ask).items() if v is not None}


def _places(document: Document) -> tuple[tuple[str, Place], ...]:
    roles = [joined("roles", glob) for glob in document.data["roles"]]
    places = {path: document.place(path) for path in document.values}
    places |= {path: document.place_of_key(path) for path in roles}
    return tuple(places.items())


def place_of(policy: Policy, path: str) -> Place:
    """Return where a value of a policy stands, by its path: ``limit``, ``exclude.gpus[0]``, ``roles["trainer*"]``."""
    return next((place for known, place in policy.places if known == path), Place(policy.name, path=path))


def _version(check: Checker, data: dict[str, Any]) -> None:
    version = data.get("version", VERSION)
    if isinstance(version, int) and not isinstance(version, bool) and version == VERSION:
        return
    hint = "a later gpualloc may read it" if isinstance(version, int) and version > VERSION else None
    check.report("version", "version", f"must be {VERSION}, not {shown(version)}", hint or f"write version: {VERSION}")


def _sharing(check: Checker, data: dict[str, Any]) -> Sharing:
    return Sharing(
        mode=check.choice(data.get("mode"), "sharing.mode", get_args(SharingMode)),
        default_memory=_default_memory(check, data.get("default_memory")),
        max_workers_per_gpu=check.integer(data.get("max_workers_per_gpu"), "sharing.max_workers_per_gpu", 1),
        headroom=_headroom(check, data.get("headroom")),
    )


def _default_memory(check: Checker, value: object) -> Any:
    path = "sharing.default_memory"
    if value in ("exclusive", "share"):
        return value
    if isinstance(value, str) and not value[:1].isdigit():
        return check.choice(value, path, ("exclusive", "share"), "or a size, as 4GiB")
    return check.memory(value, path)


def _headroom(check: Checker, value: object) -> Fraction:
    path = "sharing.headroom"
    if isinstance(value, str) and re.fullmatch(PERCENT_PATTERN[1:-1], value):
        return Fraction(value[:-1]) / 100
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 1:
        # twelve decimals: what was written, without what binary floats add to it
        return Fraction(f"{value:.12f}")
    hint = "write it as 5% or 0.05"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 100:
        hint = f"write {value}% or {value / 100:g}"
    check.report("value", path, f"must be a part of the device below 100%, not {shown(value)}", hint)
    return Fraction(0)


def _exclude(check: Checker, data: dict[str, Any]) -> Exclude:
    return Exclude(
        unhealthy=check.boolean(data.get("unhealthy"), "exclude.unhealthy"),
        busy=check.boolean(data.get("busy"), "exclude.busy"),
        busy_above_mib=check.memory(data.get("busy_above"), "exclude.busy_above", zero=True),
        display=check.boolean(data.get("display"), "exclude.display"),
        gpus=_gpus(check, data.get("gpus")),
    )


def _gpus(check: Checker, value: object) -> tuple[str, ...]:
    path = "exclude.gpus"
    entries = check.items(value, path, '"index:0"')
    for number, entry in enumerate(entries):
        if isinstance(entry, str) and re.fullmatch(GPU_PATTERN[1:-1], entry, re.DOTALL):
            continue
        hint = 'write a full UUID ("GPU-…"), "index:0" or "name:*T400*"'
        text = str(entry)
        if re.fullmatch(r"[0-9]{1,6}", text):
            hint = f'write "index:{int(text)}"'
        elif isinstance(entry, str) and entry.startswith("name:") and not is_glob(entry[5:]):
            hint = "a [ is never closed, or the glob is empty"
        elif isinstance(entry, str) and is_glob(entry) and ":" not in entry and not entry.startswith(("GPU-", "MIG-")):
            hint = f'for GPUs so named, write "name:{entry}"'
        what = f"must be a UUID, index:N or name:GLOB, not {shown(entry)}"
        check.report("value", joined(path, number), what, hint)
    return tuple(entries)


def _limit(check: Checker, value: object) -> int | None:
    if value is None:
        return None
    if value == 0 and not isinstance(value, bool):
        check.report("value", "limit", "must be at least 1, not 0", "leave limit out for no limit")
        return None
    return check.integer(value, "limit", 1)


def _write(check: Checker, data: dict[str, Any]) -> Write:
    return Write(
        device_ids=check.choice(data.get("device_ids"), "write.device_ids", DEVICE_IDS),
        cuda_visible_devices=check.choice(
            data.get("cuda_visible_devices"), "write.cuda_visible_devices", CUDA_VISIBLE_DEVICES
        ),
        env=_templates(check, data.get("env"), "write.env"),
        env_shared=_templates(check, data.get("env_shared"), "write.env_shared"),
    )


def _templates(check: Checker, value: object, path: str) -> tuple[tuple[str, str], ...]:
    """Check a mapping of variables to templates. Null takes away what a policy underneath sets."""
    if not isinstance(value, dict):
        check.report("type", path, f"must be a mapping, not {shown(value)}", "for example {NAME: value}; for none, {}")
        return ()
    templates = []
    for name, template in value.items():
        below = joined(path, name)
        if not re.fullmatch(ENV_NAME_PATTERN[1:-1], name):
            hint = "letters, digits and underscores, not starting with a digit"
            check.report("value", below, f"not a name for an environment variable: {shown(name)}", hint, at_key=True)
        elif name in OWN_VARIABLES:
            hint = "see write.cuda_visible_devices and write.device_ids"
            check.report("value", below, f"{name} follows from the placement and cannot be set", hint, at_key=True)
        elif isinstance(template, str):
            _template(check, template, below)
            templates.append((name, template))
        elif template is not None:
            check.text(template, below)
    return tuple(templates)


def _template(check: Checker, template: str, path: str) -> None:
    if "\0" in template:
        check.report("value", path, "holds a NUL character, which no environment can", "leave it out")
    if problem := template_problem(template):
        check.report("template", path, *problem)


def _globs(check: Checker, value: object, path: str) -> tuple[str, ...]:
    globs = check.items(value, path, '"legacy-*"')
    return tuple(check.glob(glob, joined(path, number)) for number, glob in enumerate(globs))


def _roles(check: Checker, document: Document, value: object) -> tuple[tuple[str, Ask], ...]:
    if not isinstance(value, dict):
        hint = 'for example {"trainer*": {gpus: 2}}; for none, {}'
        check.report("type", "roles", f"must be a mapping, not {shown(value)}", hint)
        return ()
    roles = []
    for glob, data in value.items():
        path = joined("roles", glob)
        if not is_glob(glob):
            what = "a [ is never closed" if glob else "must not be empty"
            check.report("value", path, what, "*, ? and [abc] are the wildcards", at_key=True)
            continue
        try:
            roles.append((glob, parse_ask(data, _below(document.place, path), _below(document.place_of_key, path))))
        except GpuallocError as error:
            check.problems.extend(error.diagnostics)
    return tuple(roles)


def _below(place: Callable[[str], Place], base: str) -> Callable[[str], Place]:
    """Return ``place`` for paths below ``base``."""

    def below(path: str) -> Place:
        return place(base + path if not path or path.startswith("[") else f"{base}.{path}")

    return below
