"""The effective policy as YAML: what ``gpualloc policy show`` prints, and a policy file itself."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import TYPE_CHECKING

from gpualloc.model import Ask
from gpualloc.policy.schema import VERSION
from gpualloc.policy.values import format_memory

if TYPE_CHECKING:
    from collections.abc import Iterable
    from fractions import Fraction

    from gpualloc.model import GpuCount, Policy

# words that no reader of YAML, of whatever version, takes for anything but text
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[-.][A-Za-z0-9_]+)*")
_TAKEN = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
# what JSON leaves as it is and YAML does not: control characters, its own line breaks, a byte-order mark
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def show(policy: Policy) -> str:
    """Return the effective policy as YAML with every key spelled out. Loading that text gives the same policy."""
    sharing, exclude, write = policy.sharing, policy.exclude, policy.write
    memory = sharing.default_memory
    lines = [
        f"version: {VERSION}",
        *([f"description: {_text(policy.description)}"] if policy.description else []),
        f"strategy: {policy.strategy}",
        f"stability: {policy.stability}",
        f"topology: {policy.topology}",
        "sharing:",
        f"  mode: {sharing.mode}",
        f"  default_memory: {memory if isinstance(memory, str) else format_memory(memory)}",
        f"  max_workers_per_gpu: {sharing.max_workers_per_gpu}",
        f"  headroom: {_percent(sharing.headroom)}",
        "exclude:",
        f"  unhealthy: {_bool(exclude.unhealthy)}",
        f"  busy: {_bool(exclude.busy)}",
        f"  busy_above: {format_memory(exclude.busy_above_mib)}",
        f"  display: {_bool(exclude.display)}",
        f"  gpus: {_list(exclude.gpus)}",
        f"reserve: {policy.reserve}",
        f"limit: {'null' if policy.limit is None else policy.limit}",
        "write:",
        f"  device_ids: {write.device_ids}",
        f"  cuda_visible_devices: {write.cuda_visible_devices}",
        *_block("env", [f"{name}: {_quoted(value)}" for name, value in write.env], "  "),
        *_block("env_shared", [f"{name}: {_quoted(value)}" for name, value in write.env_shared], "  "),
        f"ignore: {_list(policy.ignore)}",
        *_block("roles", [f"{_text(glob)}: {_ask(ask)}" for glob, ask in policy.roles], ""),
    ]
    return "\n".join(lines) + "\n"


def _block(key: str, entries: list[str], indent: str) -> list[str]:
    return [f"{indent}{key}:", *(f"{indent}  {entry}" for entry in entries)] if entries else [f"{indent}{key}: {{}}"]


def _ask(ask: Ask) -> str:
    """Return an ask as a flow mapping of the keys it has."""
    said = []
    for field in fields(Ask):
        value = getattr(ask, field.name)
        if value is None:
            continue
        if field.name == "gpus":
            text = _gpus(value)
        elif field.name.endswith("_mib"):
            text = format_memory(value)
        elif isinstance(value, bool):
            text = _bool(value)
        elif isinstance(value, tuple):
            text = _list(value)
        else:
            text = str(value) if isinstance(value, int) else _text(value)
        said.append(f"{field.name.removesuffix('_mib')}: {text}")
    return "{" + ", ".join(said) + "}"


def _gpus(count: GpuCount) -> str:
    if count.min == count.max:
        return str(count.min)
    if count == type(count)(1, None):
        return "all"
    return f"{{min: {count.min}, max: {'all' if count.max is None else count.max}}}"


def _percent(part: Fraction) -> str:
    whole, rest = divmod(part * 100, 1)
    decimals = f"{int(rest * 10**10):010d}".rstrip("0")
    return f"{whole}.{decimals}%" if decimals else f"{whole}%"


def _list(items: Iterable[str]) -> str:
    return "[" + ", ".join(_text(item) for item in items) + "]"


def _bool(value: bool) -> str:  # noqa: FBT001  # the value itself is what is written
    return "true" if value else "false"


def _text(text: str) -> str:
    return text if _WORD.fullmatch(text) and text.lower() not in _TAKEN else _quoted(text)


def _quoted(text: str) -> str:
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))
