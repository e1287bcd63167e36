"""What is wrong, for people, for other programs, and for the pages of a pull request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gpualloc.model import FORMAT_VERSION
from gpualloc.render.layout import paint, printable
from gpualloc.render.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpualloc.errors import Diagnostic, Place, Severity
    from gpualloc.render.layout import Style
    from gpualloc.render.screen import Screen

STYLES: dict[Severity, Style] = {"error": "bad", "warning": "warn", "note": "change"}

ANNOTATIONS: dict[Severity, str] = {"error": "error", "warning": "warning", "note": "notice"}
"""GitHub's names: https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands."""


def diagnostics_text(diagnostics: Iterable[Diagnostic], screen: Screen) -> str:
    """Return messages for stderr, each ``error: compose.yaml:41:15: what is wrong [code]``, its hint on a line below.

    The code is what ``gpualloc explain`` takes.
    """
    return "".join(_message(diagnostic, screen) for diagnostic in diagnostics)


def _message(diagnostic: Diagnostic, screen: Screen) -> str:
    severity = paint(f"{diagnostic.severity}:", STYLES[diagnostic.severity], colour=screen.colour)
    place = f"{printable(str(diagnostic.where))}: " if diagnostic.where else ""
    code = paint(f"[{diagnostic.code}]", "dim", colour=screen.colour)
    return f"{severity} {place}{_lines(diagnostic.summary)} {code}\n{_hint(diagnostic, screen)}"


def findings_text(findings: Sequence[Diagnostic], screen: Screen) -> str:
    """Return what a check found, each ``compose.yaml:41:15: error: what is wrong [code]``, then how many of each kind.

    The place comes first, in the form that editors and terminals turn into a link.
    """
    lines = []
    for finding in findings:
        severity = paint(f"{finding.severity}:", STYLES[finding.severity], colour=screen.colour)
        place = f"{printable(str(finding.where))}: " if finding.where else ""
        code = paint(f"[{finding.code}]", "dim", colour=screen.colour)
        lines.append(f"{place}{severity} {_lines(finding.summary)} {code}\n{_hint(finding, screen)}")
    kinds = [finding.severity for finding in findings]
    counts = [counted(kinds.count(severity), severity) for severity in STYLES if severity in kinds]
    lines.append(f"{', '.join(counts)}\n" if counts else "no findings\n")
    return "".join(lines)


def findings_json(findings: Iterable[Diagnostic]) -> str:
    """Return what a check found as a JSON document; null stands where a finding has no such fact. ASCII only."""
    document = {"format_version": FORMAT_VERSION, "findings": [finding_data(finding) for finding in findings]}
    return json.dumps(document, indent=2) + "\n"


def finding_data(finding: Diagnostic) -> dict[str, Any]:
    """Return one finding as JSON has it."""
    where = finding.where
    return {
        "code": finding.code,
        "severity": finding.severity,
        "summary": finding.summary,
        "file": where.file if where else None,
        "line": where.line if where else None,
        "column": where.column if where else None,
        "path": (where.path or None) if where else None,
        "hint": finding.hint,
    }


def findings_github(findings: Iterable[Diagnostic]) -> str:
    """Return what a check found as workflow commands, which GitHub shows beside the lines of a pull request.

    Characters are escaped as GitHub's own toolkit does (``actions/toolkit``, ``packages/core/src/command.ts``).
    """
    return "".join(map(_annotation, findings))


def _annotation(finding: Diagnostic) -> str:
    properties = _properties(finding.where) if finding.where else ""
    # Without a line, the path inside the document is the only place there is.
    path = f"{finding.where.path}: " if finding.where and finding.where.line is None and finding.where.path else ""
    hint = f"\nhint: {finding.hint}" if finding.hint else ""
    message = _escaped(f"{path}{finding.summary} [{finding.code}]{hint}")
    return f"::{ANNOTATIONS[finding.severity]}{properties}::{message}\n"


def _properties(where: Place) -> str:
    fields = {"file": where.file, "line": where.line, "col": where.column}
    texts = [f"{name}={_escaped_property(str(value))}" for name, value in fields.items() if value is not None]
    return f" {','.join(texts)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped_property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _hint(diagnostic: Diagnostic, screen: Screen) -> str:
    if not diagnostic.hint:
        return ""
    return f"  {paint('hint:', 'change', colour=screen.colour)} {_lines(diagnostic.hint)}\n"


def _lines(text: str) -> str:
    """Return a text with its lines indented below the first, and control characters made visible."""
    return "\n        ".join(map(printable, text.rstrip().split("\n")))
