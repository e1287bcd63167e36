"""A plan as one page to look at: hosts drawn with their workers in place, what changes, and how good the plan is.

The page fetches nothing: its style and its script stand in it, and its Content-Security-Policy allows those two alone.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from gpualloc.render.places import hosts_concerned, is_replan, places_after, places_before
from gpualloc.render.report.drawing import Drawing, Pane, draw, link_words
from gpualloc.render.report.markup import element, escaped
from gpualloc.render.report.page import SCRIPT, STYLE
from gpualloc.render.report.tables import objective_table, summary, unplaced_part, warnings_part, workers_table
from gpualloc.render.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gpualloc.model import Host, Inventory, Plan
    from gpualloc.render.places import Evicted, Held, HostPlaces


def report_html(
    plan: Plan, inventory: Inventory, held: Mapping[str, Held], project: str, evicted: Sequence[Evicted] = ()
) -> str:
    """Return ``plan`` as an HTML document.

    ``held`` is what others hold of the devices, by UUID of the device; ``evicted`` are the workers that have devices
    now and none by the plan.
    """
    hosts = hosts_concerned(plan, inventory, evicted) or list(inventory.hosts[:1])
    services = {placement.service for placement in plan.solution.placements} | {one.service for one in evicted}
    colours = {service: number % 8 for number, service in enumerate(sorted(services))}
    body = [
        element("h1", f"{project}: which worker gets which GPUs"),
        element("p", summary(plan, inventory), cls="summary"),
        element("p", _inputs(plan), cls="inputs"),
        *_hosts(plan, inventory, hosts, held, colours, evicted),
        unplaced_part(plan, inventory),
        warnings_part(plan),
        workers_table(plan, inventory),
        objective_table(plan),
    ]
    return _document(f"{project}: GPU plan", "\n".join(part for part in body if part))


def _inputs(plan: Plan) -> str:
    files = ", ".join(compose.file for compose in plan.inputs.compose)
    return f"{files} · policy {plan.inputs.policy} · inventory {', '.join(plan.inputs.inventory)}"


def _hosts(
    plan: Plan,
    inventory: Inventory,
    hosts: list[Host],
    held: Mapping[str, Held],
    colours: Mapping[str, int],
    evicted: Sequence[Evicted],
) -> list[str]:
    """Return a section for each host; after a re-plan with where its workers were beside where they will be."""
    after = places_after(plan, hosts, held)
    replanned = bool(evicted) or is_replan(plan)
    before = places_before(plan, inventory, hosts, held, evicted) if replanned else [None] * len(hosts)
    parts = []
    for number, (was, will) in enumerate(zip(before, after, strict=True)):
        drawings = [draw(will, Pane("after", f"h{number}-after"), colours)]
        if was is not None:
            first = draw(was, Pane("before", f"h{number}-before"), colours, drawings[0].lines)
            drawings = [first, draw(will, Pane("after", f"h{number}-after"), colours, first.lines)]
        parts.append(_host(will, drawings, replanned=was is not None))
    rest = len(inventory.hosts) - len(hosts)
    if rest:
        parts.append(element("p", f"{counted(rest, 'host')} without workers: not drawn", cls="inputs"))
    return parts


def _host(host: HostPlaces, drawings: list[Drawing], *, replanned: bool) -> str:
    captions = ["Now", "As planned"] if replanned else ["As planned"]
    figures = "".join(
        f"<figure>{element('figcaption', caption)}{drawing.svg}</figure>"
        for caption, drawing in zip(captions, drawings, strict=True)
    )
    facts = [counted(len(host.host.gpus), "GPU"), *(["all joined by NVLink"] if host.one_island else [])]
    facts += [f"driver {host.host.driver}"] if host.host.driver else []
    title = f"<h2>{escaped(host.host.name)} <small>{escaped(', '.join(facts))}</small></h2>"
    links = link_words(host.host)
    legend = f'<p class="legend">{escaped(links)}</p>' if links else ""
    return f'<section class="host">{title}<div class="panes">{figures}</div>{legend}</section>'


PATTERN = (
    '<svg class="defs" width="0" height="0" aria-hidden="true"><defs><pattern id="held" width="6" height="6" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path class="hatch" d="M0 0V6"/></pattern></defs>'
    "</svg>"
)
"""What the memory that others hold is filled with, in every drawing."""


def _document(title: str, body: str) -> str:
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_hash(STYLE)}'",
            f"script-src '{_hash(SCRIPT)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{PATTERN}
<main>
{body}
</main>
<div id="tip" role="tooltip" hidden></div>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _hash(text: str) -> str:
    """Return how a Content-Security-Policy names a text that stands in the page (w3.org/TR/CSP3, 2.3.1)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
