"""A stack file's text: YAML that people can read, and that YAML 1.1, which Docker's command line reads, takes alike."""

from __future__ import annotations

import re
from typing import Any

_PLAIN = re.compile(
    r"(?!.*(?:: |:\Z| #))[A-Za-z_/][A-Za-z0-9_./:@=+*(),~^<>$#|\\-]*(?: [A-Za-z0-9_./:@=+*(),~^<>$|\\-]+)*\Z"
)
_SPECIAL = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))
_BLOCK = re.compile(r"(?![ \t\n])[^\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029\ufeff]*\Z")
WIDTH = 120


def dump(value: dict[str, Any]) -> str:
    """Return plain data as YAML: keys in the order given, texts of several lines as blocks, doubtful words in quotes.

    Source for what is doubtful: go-yaml v2 ``resolve.go``, which takes ``y``, ``on`` and ``0o7`` for other than text.
    """
    import yaml  # noqa: PLC0415 - only the made files are dumped

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002 - theirs
            del indentless
            super().increase_indent(flow, False)  # noqa: FBT003 - theirs

        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
        tag = "tag:yaml.org,2002:str"
        if "\n" in data and _BLOCK.match(data) and not re.search(r"[ \t]\n|[ \t]\Z", data):
            return dumper.represent_scalar(tag, data, style="|")
        bare = _PLAIN.match(data) and data.lower() not in _SPECIAL
        return dumper.represent_scalar(tag, data, style=None if bare else '"')

    def nothing(dumper: yaml.SafeDumper, _data: None) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:null", "null")

    Dumper.add_representer(str, text)
    Dumper.add_representer(type(None), nothing)
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, width=WIDTH, allow_unicode=True, default_flow_style=False)
