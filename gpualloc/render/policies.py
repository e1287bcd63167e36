"""The policies that a name can mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpualloc.render.layout import Column, Table, cell, render

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gpualloc.policy.lookup import FoundPolicy
    from gpualloc.render.screen import Screen


def policies_text(found: Iterable[FoundPolicy], screen: Screen) -> str:
    """Return the policies as a table: name, description, and where it comes from."""
    rows = tuple((cell(p.name), cell(p.description), cell(_origin(p), "dim")) for p in found)
    columns = (Column("policy"), Column("description"), Column("from"))
    return render([Table(columns, rows)], screen)


def _origin(policy: FoundPolicy) -> str:
    return "gpualloc itself" if policy.origin == "shipped" else str(policy.path.parent)
