"""What people do by hand to a file that gpualloc has written to, between two applies."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpualloc.compose.document import Document, Mapping, Sequence, parse
from gpualloc.compose.emit import dash_column
from gpualloc.compose.route import find_service
from gpualloc.errors import GpuallocError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.properties.compose_files import Choices

ADDED = "ADDED_BY_HAND"
NEW_SERVICE = "by-hand"


@dataclass
class Edited:
    """A file after edits by hand, and what must be found in it from then on."""

    text: str
    comments: list[str] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


def edit_by_hand(text: str, before: str, choices: Choices) -> Edited:
    """Return a rewritten file with one to three edits. ``before``: it as it was, to tell whose lines are whose."""
    edited = Edited(text)
    actions: list[Callable[[Edited, str, Choices], None]] = [
        add_variable,
        change_device,
        comment_beside,
        comment_between,
        add_service,
        delete_service,
        add_section,
    ]
    for action in choices.some(actions, 1, 3):
        trial = Edited(
            edited.text, *(list(x) for x in (edited.comments, edited.variables, edited.added, edited.deleted))
        )
        action(trial, before, choices)
        if is_valid(trial.text):
            edited = trial
    return edited


def is_valid(text: str) -> bool:
    """Return whether people would notice that they broke the file."""
    try:
        document = parse(text, "compose.yaml")
    except GpuallocError:
        return False
    return isinstance(document.roots[-1], Mapping) and "services" in document.roots[-1].index


def _services(document: Document) -> list[str]:
    root = document.roots[-1]
    services = root.index["services"].value if isinstance(root, Mapping) and "services" in root.index else None
    if not isinstance(services, Mapping) or "<<" in services.index:
        return []  # what is merged in comes back when it is deleted
    return [entry.key.value for entry in services.entries]


def _insert_line(text: str, document: Document, offset: int, line: str) -> str:
    at = document.line_end(offset)
    return text[:at] + document.newline + line + text[at:]


def add_variable(edited: Edited, _before: str, choices: Choices) -> None:
    """Add a variable to an environment that stands in a service itself."""
    document = parse(edited.text, "compose.yaml")
    names = _services(document)
    name = choices.pick(*names) if names else ""
    service = find_service(document, name)
    value = service.value if service is not None else None
    entry = value.entry("environment") if isinstance(value, Mapping) else None
    block = entry.value if entry is not None else None
    if not isinstance(block, (Mapping, Sequence)) or block.flow or block.anchor or name in edited.variables:
        return
    if isinstance(block, Mapping):
        column = document.column(block.entries[0].key.start)
        first, line = block.entries[0].key.start, f'{ADDED}: "1"'
    else:
        column = dash_column(document, block)
        first, line = block.items[0].start, f"- {ADDED}=1"
    if choices.chance(2):
        at = document.line_start(first)
        edited.text = edited.text[:at] + " " * column + line + document.newline + edited.text[at:]
    else:
        edited.text = _insert_line(edited.text, document, block.end, " " * column + line)
    edited.variables.append(name)


def change_device(edited: Edited, _before: str, choices: Choices) -> None:
    """Give a service another GPU."""
    found = re.findall(r"GPU-0000[0-9a-f]{4}-0000-0000-0000-000000000000", edited.text.partition("x-gpualloc: ")[0])
    if found:
        other = f"GPU-000000{choices.pick('3a', '3b', '3c')}-0000-0000-0000-000000000000"
        edited.text = edited.text.replace(choices.pick(*found), other, 1)


def _own_lines(edited: Edited, before: str) -> list[int]:
    """Return the numbers of lines that gpualloc wrote, except its record, and those inside quotes or block scalars."""
    old = set(before.splitlines())
    lines = edited.text.splitlines()
    return [
        number
        for number, line in enumerate(lines)
        if line not in old
        and re.search(r"CUDA_|GPU-0000", line)
        and "x-gpualloc" not in line
        and "original" not in line
    ]


def comment_beside(edited: Edited, before: str, choices: Choices) -> None:
    """Write a comment behind a line that gpualloc wrote."""
    numbers = _own_lines(edited, before)
    if numbers:
        comment = f"# beside {len(edited.comments)}"
        lines = edited.text.splitlines(keepends=True)
        number = choices.pick(*numbers)
        body = lines[number].rstrip("\r\n")
        if "#" not in body:
            lines[number] = f"{body}  {comment}{lines[number][len(body) :]}"
            edited.text = "".join(lines)
            edited.comments.append(comment)


def comment_between(edited: Edited, before: str, choices: Choices) -> None:
    """Write a comment above a line that gpualloc wrote."""
    numbers = _own_lines(edited, before)
    if numbers:
        comment = f"# between {len(edited.comments)}"
        lines = edited.text.splitlines(keepends=True)
        number = choices.pick(*numbers)
        indent = lines[number][: len(lines[number]) - len(lines[number].lstrip())]
        newline = "\r\n" if "\r\n" in edited.text else "\n"
        lines.insert(number, f"{indent}{comment}{newline}")
        edited.text = "".join(lines)
        edited.comments.append(comment)


def add_service(edited: Edited, _before: str, choices: Choices) -> None:
    """Add a service after the last one."""
    document = parse(edited.text, "compose.yaml")
    root = document.roots[-1]
    services = root.index["services"].value if isinstance(root, Mapping) and "services" in root.index else None
    if not isinstance(services, Mapping) or services.flow or NEW_SERVICE in services.index:
        return
    column = document.column(services.entries[0].key.start)
    gpus = choices.pick("", ", gpus: [{count: 1}]")
    edited.text = _insert_line(
        edited.text, document, services.end, " " * column + f"{NEW_SERVICE}: {{image: busybox{gpus}}}"
    )
    edited.added.append(NEW_SERVICE)


def delete_service(edited: Edited, _before: str, choices: Choices) -> None:
    """Delete a service with all its lines."""
    document = parse(edited.text, "compose.yaml")
    names = _services(document)
    name = choices.pick(*names) if len(names) > 1 else None
    entry = find_service(document, name) if name else None
    if entry is None or name is None or len(document.roots) > 1:
        return
    if re.search(r"[|>]\d?\+", edited.text):
        return  # the blank lines after the service would become part of a block scalar above it
    start, end = document.line_start(entry.key.start), document.next_line(entry.value.end)
    gone = edited.text[start:end]
    if "services" in gone or any(comment in gone for comment in edited.comments):
        return
    edited.text = edited.text[:start] + edited.text[end:]
    edited.deleted.append(name)
    edited.variables = [one for one in edited.variables if one != name]
    edited.added = [one for one in edited.added if one != name]


def add_section(edited: Edited, _before: str, choices: Choices) -> None:
    """Add a top-level section after everything."""
    document = parse(edited.text, "compose.yaml")
    root = document.roots[-1]
    if not isinstance(root, Mapping) or root.flow or "x-more" in root.index or document.end < len(edited.text):
        return
    if edited.text[-1:] == " ":
        return  # a line of blanks that ends the file would become part of a block scalar above it
    newline = document.newline
    ended = edited.text.endswith("\n")
    edited.text += ("" if ended else newline) + "x-more: {a: 1}" + choices.pick(newline, "")
