"""What a policy says of each service: to leave it alone, or what it asks for."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from gpualloc.errors import Diagnostic
from gpualloc.policy.asks import combine
from gpualloc.policy.checks import joined
from gpualloc.policy.schema import place_of
from gpualloc.policy.values import closest, listed, shown, specificity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpualloc.model import Ask, Policy


def roles_for(policy: Policy, service: str) -> Ask | None:
    """Return what the policy's ``roles`` ask for a service, or None where no entry matches its name.

    Where several entries match, the more specific one wins, key by key: a name in full over a glob, then the glob
    with more literal characters. The order in the file does not count.
    """
    matching = [(specificity(glob), ask) for glob, ask in policy.roles if fnmatchcase(service, glob)]
    result: Ask | None = None
    for _, ask in sorted(matching, key=lambda pair: pair[0]):
        result = combine(ask, result)
    return result


def ignored(policy: Policy, service: str) -> bool:
    """Whether the policy leaves a service alone; that outranks its ``roles``."""
    return any(fnmatchcase(service, glob) for glob in policy.ignore)


def unmatched_roles(policy: Policy, services: Iterable[str]) -> tuple[Diagnostic, ...]:
    """Return a warning (``policy-role-unmatched``) for each entry of ``roles`` that fits no service of the project.

    ``services`` are all that the project's files define, whatever profiles are active.
    """
    names = sorted(services)
    return tuple(
        Diagnostic(
            "policy-role-unmatched",
            f"{joined('roles', glob)}: no service is so named",
            place_of(policy, joined("roles", glob)),
            _hint(glob, names),
            "warning",
        )
        for glob, _ in policy.roles
        if not any(fnmatchcase(name, glob) for name in names)
    )


def _hint(glob: str, names: list[str]) -> str | None:
    if meant := closest(glob, names):
        return f"did you mean {meant}?"
    if not names:
        return None
    return f"the services are {listed(names, 'and')}" if len(names) <= 12 else f"there are {len(names)} services"


def oddities(policy: Policy) -> tuple[Diagnostic, ...]:
    """Return warnings for what a valid policy says to no effect."""
    found = []
    for glob, ask in policy.roles:
        path = joined("roles", glob)
        if glob in policy.ignore or (specificity(glob)[0] and ignored(policy, glob)):
            what, hint = f"{path}: has no effect, since ignore names it too", "drop one of the two"
            found.append(Diagnostic("policy-no-effect", what, place_of(policy, path), hint, "warning"))
        elif ask == type(ask)():
            what, hint = f"{path}: asks for nothing", "name at least one key, such as gpus"
            found.append(Diagnostic("policy-no-effect", what, place_of(policy, path), hint, "warning"))
    path = "sharing.default_memory"
    if policy.sharing.mode == "none" and policy.sharing.default_memory != "exclusive":
        said = shown(policy.sharing.default_memory).strip('"')
        what = f"{path}: {said} has no effect, since sharing.mode is none"
        hint = "say exclusive, or let workers share with mode: memory or count"
        found.append(Diagnostic("policy-no-effect", what, place_of(policy, path), hint, "warning"))
    return tuple(found)
