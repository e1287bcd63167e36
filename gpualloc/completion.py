"""What a shell can complete: policies, machines, services, workers, profiles, GPUs, codes, schemas and files.

Each function is a ``shell_complete`` of click: it gets what is typed so far and returns what could follow. Pressing Tab
must never show an error, so that whatever cannot be read has no completions.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

from gpualloc.errors import GpuallocError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    from gpualloc.compose.project import Project
    from gpualloc.model import Gpu, Inventory

    Items = list[CompletionItem]
    Complete = Callable[[click.Context, click.Parameter, str], Items]


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """Let the shell complete the name of a file."""
    return [CompletionItem(incomplete, type="file")]


def folders(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
    """Let the shell complete the name of a folder."""
    return [CompletionItem(incomplete, type="dir")]


def _quietly(items: Callable[[dict[str, Any]], Iterable[CompletionItem]]) -> Complete:
    """Make a completer of a function from the parameters given so far to everything that could stand there."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> Items:
        try:
            return [item for item in items(ctx.params) if item.value.startswith(incomplete)]
        except (GpuallocError, OSError):
            return []

    return complete


def _policies(params: dict[str, Any]) -> Iterable[CompletionItem]:
    from gpualloc.policy.lookup import find_policies

    folder = params.get("project_directory")
    first = next(iter(params.get("files") or ()), None)
    beside = Path(folder) if folder else Path(first).parent if first else Path()
    return [CompletionItem(found.name, help=found.description or None) for found in find_policies(Path.cwd(), beside)]


def policies(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Complete the name of a policy, or the path of one."""
    if "/" in incomplete or incomplete.startswith("."):
        return files(ctx, param, incomplete)
    return _quietly(_policies)(ctx, param, incomplete)


def inventories(ctx: click.Context, param: click.Parameter, incomplete: str) -> Items:
    """Complete a source of an inventory: ``nvml``, a shipped machine, or a file."""
    from gpualloc.inventory import shipped

    named = [name for name in ("nvml", *(f"sim:{name}" for name in shipped())) if name.startswith(incomplete)]
    return [CompletionItem(name) for name in named] or files(ctx, param, incomplete)


def _inventory(params: dict[str, Any]) -> Inventory:
    from gpualloc.inventory import load

    topo = params.get("topo")
    return load(tuple(params.get("inventory") or ()), Path(topo) if topo else None).inventory


def _project(params: dict[str, Any]) -> Project:
    from gpualloc.compose.project import ProjectOptions, load_project

    options = ProjectOptions(
        files=tuple(params.get("files") or ()),
        profiles=tuple(params.get("profiles") or ()),
        env_files=tuple(params.get("env_files") or ()),
        project_directory=params.get("project_directory"),
        project_name=params.get("project_name"),
    )
    return load_project(options, os.environ, Path.cwd())


def _gpus(params: dict[str, Any]) -> Iterable[CompletionItem]:
    hosts = _inventory(params).hosts
    given = set(params.get("without") or ())
    gpus = [gpu for host in hosts for gpu in host.gpus]
    named = [CompletionItem(uuid, help=_called(gpu)) for gpu in gpus for uuid in _uuids(gpu)]
    indices = dict.fromkeys(f"index:{gpu.index}" for gpu in gpus)
    return [item for item in (*named, *map(CompletionItem, indices)) if item.value not in given]


def _uuids(gpu: Gpu) -> tuple[str, ...]:
    return (gpu.uuid, *(part.uuid for part in gpu.mig or ()))


def _called(gpu: Gpu) -> str:
    return f"GPU {gpu.index} {gpu.name}"


def _roles(params: dict[str, Any]) -> Iterable[CompletionItem]:
    from gpualloc.compose.reader import read_demand
    from gpualloc.policy.load import load

    project = _project(params)
    policy = load(params.get("policy"), cwd=Path.cwd(), compose_dir=project.directory)
    return [CompletionItem(role.request.role) for role in read_demand(project, policy).roles]


def _scales(params: dict[str, Any]) -> Iterable[CompletionItem]:
    return [CompletionItem(f"{item.value}=") for item in _roles(params)]


def _workers(params: dict[str, Any]) -> Iterable[CompletionItem]:
    from gpualloc.compose.reader import read_demand
    from gpualloc.policy.load import load

    project = _project(params)
    policy = load(params.get("policy"), cwd=Path.cwd(), compose_dir=project.directory)
    return [CompletionItem(w.name) for role in read_demand(project, policy).roles for w in role.request.workers]


def _profiles(params: dict[str, Any]) -> Iterable[CompletionItem]:
    given = set(params.get("profiles") or ())
    named = {str(p) for s in _project(params).services for p in s.data.get("profiles") or ()}
    return [CompletionItem(name) for name in sorted(named - given)]


def _codes(_params: dict[str, Any]) -> Iterable[CompletionItem]:
    from gpualloc.words import pages

    return [CompletionItem(code, help=page.summary) for page in pages() for code in page.codes]


def _schemas(_params: dict[str, Any]) -> Iterable[CompletionItem]:
    from gpualloc.schemas import names

    return map(CompletionItem, names())


gpus, roles, scales, workers, profiles = map(_quietly, (_gpus, _roles, _scales, _workers, _profiles))
codes, schemas = map(_quietly, (_codes, _schemas))


@add_completion_class
class _Bash(BashComplete):
    """Completes words with colons, at which bash breaks the line: it hands over ``sim``, ``:`` and ``dgx`` apart.

    As bash-completion's ``__ltrim_colon_completions``: what stands before the last colon is on the line already, and
    bash replaces only what follows it.
    """

    def get_completion_args(self) -> tuple[list[str], str]:
        words = split_arg_string(os.environ["COMP_WORDS"])
        position = int(os.environ["COMP_CWORD"])
        typed = words[1 : position + 1] + ([""] if position >= len(words) else [])
        joined: list[str] = []
        for word in typed:
            if joined and (word.startswith(":") or (joined[-1].endswith(":") and word)):
                joined[-1] += word
            else:
                joined.append(word)
        self._typed = joined[-1] if joined else ""
        return joined[:-1], self._typed

    def format_completion(self, item: CompletionItem) -> str:
        before = self._typed[: self._typed.rfind(":") + 1]
        value = item.value
        if before and item.type == "plain" and value.startswith(before):
            value = value[len(before) :]
        return f"{item.type},{value}"
