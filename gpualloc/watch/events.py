"""What watch tells: one line for each thing that happens, for people or for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpualloc.render.layout import paint, printable

if TYPE_CHECKING:
    from datetime import datetime

    from gpualloc.render.layout import Style
    from gpualloc.render.screen import Screen

STYLES: dict[str, Style] = {
    "change": "change",
    "moved": "change",
    "pinned": "change",
    "written": "good",
    "command-done": "good",
    "look-back": "good",
    "unplaced": "warn",
    "look-failed": "bad",
    "plan-failed": "bad",
    "command-failed": "bad",
    "xid": "warn",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: its kind, a sentence, and the facts for programs."""

    kind: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)


def json_line(event: Event, when: datetime) -> str:
    """Return an event as one line of JSON, ASCII only; times are ISO 8601 with their offset."""
    head = {"time": when.isoformat(timespec="milliseconds"), "event": event.kind, "text": event.text}
    return json.dumps(head | event.data) + "\n"


def text_line(event: Event, when: datetime, screen: Screen) -> str:
    """Return an event as one line for people, in local time."""
    kind = paint(event.kind, STYLES.get(event.kind, "plain"), colour=screen.colour)
    text = " / ".join(printable(line) for line in event.text.splitlines())
    return f"{when.astimezone():%Y-%m-%d %H:%M:%S} {kind}: {text}\n"
