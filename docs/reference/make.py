"""Writes the reference from the code: ``python docs/reference/make.py``; ``--check`` only tells whether it is current.

Commands come from the command line's own declarations, documents from the shipped JSON Schemas, policies from the
shipped policies, and codes from their pages.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from gpualloc.cli import cli
from gpualloc.policy.environment import VARIABLES
from gpualloc.schemas import schema_text
from gpualloc.words import KINDS, pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
MADE = "<!-- Made by docs/reference/make.py: change the code that it is about, and run that. -->\n\n"

Schema = dict[str, Any]

_JSON = """\
All carry `format_version` and are read strictly: an unknown or missing key is an error that names its path. What is
unknown is `null`, never 0. `gpualloc schema NAME` prints the JSON Schema.
"""

_ASK = """\
It stands in a service. What it says outranks `roles` in a policy, which outranks Compose's own keys. The number of
workers is `deploy.replicas` or `scale`.

```yaml
services:
  trainer:
    image: my/trainer
    x-gpualloc:
      gpus: 2
      min_link: NVLINK
      model: "*A100*"
  embedder:
    image: my/embedder
    x-gpualloc: {memory: 12GiB}
  monitor:
    image: my/monitor
    x-gpualloc: {observe: true}
  legacy:
    image: my/legacy
    gpus: all
    x-gpualloc: false      # leave this service alone
```
"""

_POLICY = """\
A policy is a YAML file, named by `--policy NAME` or `--policy PATH`. Names are looked up in `./policies/`, then beside
the compose file, then among those that come with gpualloc. Without `extends`, `base` lies underneath; mappings merge,
lists replace. The last columns show what the shipped policies say; where one says nothing, `base` holds.
"""

_VALUES = f"""\
Values in `write.env` and `write.env_shared` are templates over {", ".join(f"`${name}`" for name in VARIABLES)}; one
that a worker does not have leaves the variable out. The keys under `roles` are those of [x-gpualloc](x-gpualloc.md).
"""

_CODES = f"""\
Every message has a code. The kinds are {", ".join(KINDS)}. It stands in brackets behind the message, and as `"code"` in
JSON. `gpualloc explain CODE` prints what follows here.
"""


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def code(text: str) -> str:
    """Return text as a code span; nothing stays nothing."""
    return f"`{text}`" if text else ""


# --------------------------------------------------------------------------------------------------------------------
# Commands


def commands() -> str:
    """Return the page on commands and their options."""
    parts = ["# Commands\n", _prose(cli.help or "")]
    for name, command in _all(cli, "gpualloc"):
        context = click.Context(command, info_name=name)
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        parts.append(f"## {name}\n\n```text\n{usage}\n```\n\n{_prose(command.help or '')}")
        options = [o for o in command.get_params(context) if isinstance(o, click.Option) and "--help" not in o.opts]
        if options:
            rows = [(", ".join(code(form) for form in _forms(option)), _help(option)) for option in options]
            parts.append(table(("option", ""), rows))
    parts.append(
        "## Exit codes\n\n"
        + table(
            ("code", "meaning"),
            [
                ("0", "done; for `plan` with or without changes"),
                ("1", "`check` or `verify` found something wrong"),
                ("2", "could not run: usage, a file, the driver; nothing was written"),
                ("3", "the demand does not fit; the plan is printed all the same"),
            ],
        )
    )
    return "\n".join(parts)


def _all(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    for own, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _all(command, f"{name} {own}")
        elif not command.hidden:
            yield f"{name} {own}", command


def _forms(option: click.Option) -> list[str]:
    if option.is_flag:
        both = [f"{yes}/{no}" for yes, no in zip(option.opts, option.secondary_opts, strict=False)]
        return both or list(option.opts)
    metavar = option.metavar or _kind_of(option.type)
    return [*option.opts[:-1], f"{option.opts[-1]} {metavar}"]


def _kind_of(kind: Any) -> str:
    return "|".join(map(str, kind.choices)) if isinstance(kind, click.Choice) else kind.name.upper()


def _help(option: click.Option) -> str:
    text = option.help or ""
    if option.show_default and option.default is not None and not option.is_flag:
        text += f" Default: `{option.default}`."
    if isinstance(option.envvar, str):
        text += f" Also from `{option.envvar}`."
    return _spans(text)


def _spans(text: str) -> str:
    return text.replace("<", "&lt;")


def _prose(text: str) -> str:
    """Return a help text as paragraphs; what click is told not to fill becomes a block."""
    parts = []
    for paragraph in text.strip().split("\n\n"):
        lines = [line.strip() for line in paragraph.splitlines()]
        if lines[0] == "\b":
            parts.append("```text\n" + "\n".join(lines[1:]) + "\n```\n")
        else:
            parts.append(" ".join(lines) + "\n")
    return "\n".join(parts)


# --------------------------------------------------------------------------------------------------------------------
# Documents


def _resolve(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        ref = schema["$ref"]
        file, _, path = ref.partition("#/$defs/")
        home = root["$defs"][file.removesuffix(".schema.json")] if file else schema.get("home", root)
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**home["$defs"][path], "home": home, **rest}
    return schema


_NAMED = {
    "count": "whole number",
    "integer": "whole number",
    "boolean": "true or false",
    "memory": "amount of memory, as `12GiB`",
    "glob": "glob",
    "names": "list of roles",
}
"""What the parts of the schema of x-gpualloc are called: each also allows the text that a variable is replaced by."""

_TYPES = {"integer": "whole number", "string": "text", "boolean": "true or false", "array": "list", "object": "mapping"}


def allowed(schema: Schema, root: Schema) -> str:
    """Say what a value may be, in a few words."""
    named = _NAMED.get(schema.get("$ref", "").rpartition("#/$defs/")[2])
    if named is not None:
        return named
    schema = _resolve(schema, root)
    if "const" in schema:
        return code(_value(schema["const"]))
    if "enum" in schema:
        return ", ".join(code(_value(value)) for value in schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            home = {"home": schema["home"]} if "home" in schema else {}
            return " or ".join(dict.fromkeys(allowed({**home, **one}, root) for one in schema[several]))
    kinds = schema.get("type", "any")
    several_kinds: list[str] = kinds if isinstance(kinds, list) else [kinds]
    return " or ".join(_TYPES.get(kind, kind) for kind in several_kinds)


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def rows_of(schema: Schema, root: Schema, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield a row for every key of a document: its path, what it may be, what it means."""
    schema = _resolve(schema, root)
    home = {"home": schema["home"]} if "home" in schema else {}
    required = schema.get("required")
    for key, value in schema.get("properties", {}).items():
        found = _resolve({**home, **value}, root)
        name = f"{path}.{key}" if path else key
        said = found.get("description", "")
        if required is not None and key not in required:
            said = f"{said} May be left out.".strip()
        yield code(name), allowed({**home, **value}, root), said
        items = found.get("items")
        if isinstance(items, dict):
            inner = {"home": found["home"]} if "home" in found else home
            yield from rows_of({**inner, **items}, root, f"{name}[]")
        else:
            for one in (found, *found.get("anyOf", ()), *found.get("oneOf", ())):
                yield from rows_of({**home, **one}, root, name)


def json_documents() -> str:
    """Return the page on the JSON documents."""
    parts = [
        "# JSON documents\n",
        _JSON,
    ]
    sources = {
        "inventory": "`gpualloc inventory --format json`; read by `--inventory FILE`",
        "plan": "`gpualloc plan --format json` and `-o FILE`; read by `gpualloc apply FILE`",
    }
    for name, source in sources.items():
        root = json.loads(schema_text(name))
        parts.append(f"## {name}\n\nFrom {source}.\n\n{root['description']}\n")
        parts.append(table(("key", "is", "meaning"), list(rows_of(root, root))))
    return "\n".join(parts)


def x_gpualloc() -> str:
    """Return the page on what a service asks for."""
    root = json.loads(schema_text("x-gpualloc"))
    return "\n".join(
        [
            "# x-gpualloc\n",
            f"{root['description']}\n",
            _ASK,
            table(("key", "is", "meaning"), list(rows_of(root["$defs"]["ask"], root))),
        ]
    )


def policies() -> str:
    """Return the page on policies, with what those that are shipped say."""
    root = json.loads(schema_text("policy"))
    shipped = {path.stem: _flat(yaml.safe_load(path.read_text("utf-8"))) for path in (ROOT / "policies").glob("*.yaml")}
    others = [name for name in sorted(shipped) if name != "base"]
    rows = []
    for key, kind, meaning in rows_of(root, root):
        plain = key.strip("`")
        values = [shipped[name].get(plain, "") for name in ("base", *others)]
        rows.append((key, kind, meaning, *(code(value) for value in values)))
    return "\n".join(
        [
            "# Policies\n",
            _POLICY,
            table(("key", "is", "meaning", "base", *others), rows),
            _VALUES,
        ]
    )


def _flat(data: dict[str, Any], path: str = "") -> dict[str, str]:
    found = {}
    for key, value in data.items():
        name = f"{path}.{key}" if path else key
        found[name] = json.dumps(value) if not isinstance(value, str) else value
        if isinstance(value, dict) and value:
            del found[name]
            found |= _flat(value, name)
    return found


# --------------------------------------------------------------------------------------------------------------------
# Codes


def codes() -> str:
    """Return the page on codes: a list, then every page."""
    parts = [
        "# Codes\n",
        _CODES,
    ]
    for page in pages():
        body = page.text.split("\n\n", 2)[2].replace("\n## ", "\n#### ")
        anchors = "".join(f'<a id="{other.replace("_", "-")}"></a>' for other in page.codes[1:])
        parts.append(f"### {page.codes[0]} {{ #{page.codes[0].replace('_', '-')} }}\n")
        if anchors:
            parts.append(f"{anchors}also {', '.join(code(other) for other in page.codes[1:])}\n")
        parts.append(f"*{', '.join(page.kinds)}*\n\n{body}")
    return "\n".join(parts)


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands,
    "policies.md": policies,
    "x-gpualloc.md": x_gpualloc,
    "json.md": json_documents,
    "codes.md": codes,
}


def stale() -> list[str]:
    """Return the pages that are not as the code has it now."""
    files = {name: FOLDER / name for name in PAGES}
    return [
        name
        for name, path in files.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != MADE + PAGES[name]()
    ]


def main() -> None:
    """Write the pages, or with ``--check`` exit with 1 if any is not current."""
    if "--check" in sys.argv[1:]:
        sys.exit(f"not current: {', '.join(stale())}; run docs/reference/make.py" if stale() else 0)
    for name, make in PAGES.items():
        (FOLDER / name).write_text(MADE + make(), encoding="utf-8")


if __name__ == "__main__":
    main()
