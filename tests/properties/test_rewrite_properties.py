"""Properties of the rewriter over compose files in random styles."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, event, given, note, reject, settings
from hypothesis import strategies as st
from yaml.composer import Composer

from gpualloc.compose.document import parse
from gpualloc.compose.restore import restore
from gpualloc.errors import GpuallocError
from tests.compose_oracle import config, differences, needs_compose
from tests.long_runs import share
from tests.properties.compose_files import Choices, Written, compose_files, hand_choices
from tests.properties.hand_edits import ADDED, edit_by_hand
from tests.properties.rewriting import OWNED, applied, policy, project_of

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=share(20_000), deadline=None, suppress_health_check=list(HealthCheck))
FOLDER = Path(tempfile.mkdtemp(prefix="rewrite-"))
REFUSALS = {"request", "request-conflict", "extends", "merge", "yaml-merge", "replicas", "cannot-edit", "no-place"}
"""What a random file may be refused for; anything else would be a defect."""


def put(text: str, name: str = "compose.yaml") -> Path:
    path = FOLDER / name
    path.write_bytes(text.encode())
    return path


def rewritten(text: str, **options: Any) -> str:
    """Return the text after an apply; a file that is refused for good reason is no example."""
    start = options.pop("start", 0)
    at_most = options.pop("at_most", 8)
    try:
        (new,) = applied(project_of(put(text)), policy(**options), start=start, at_most=at_most).values()
    except GpuallocError as error:
        codes = {d.code for d in error.diagnostics}
        if not codes <= REFUSALS:
            raise
        event(f"refused: {sorted(codes)}")
        reject()
    return new


def original(text: str) -> str:
    return restore(parse(text, "compose.yaml"))[0].text


_MERGE = "tag:yaml.org,2002:merge"


class _Loader(Composer, yaml.CSafeLoader):
    """Reads scalars as text, and Compose's own tags as what they stand on: a second opinion on what a file says."""

    def __init__(self, stream: str) -> None:
        yaml.CSafeLoader.__init__(self, stream)
        self.anchors = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if not isinstance(event, yaml.AliasEvent):
            self.anchors.pop(getattr(event, "anchor", None), None)  # Compose lets an anchor be given twice
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: Any) -> None:
        """Apply merge keys as go-yaml does: a mapping's own keys win, then the first of those merged."""
        pairs = {key.value: (key, value) for key, value in node.value if key.tag != _MERGE}
        for key, value in node.value:
            sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for source in sources if key.tag == _MERGE else ():
                self.flatten_mapping(source)
                for inner, held in source.value:
                    pairs.setdefault(inner.value, (inner, held))
        node.value = list(pairs.values())


def _tagged(loader: Any, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return _scalar(loader, node)


def _scalar(loader: Any, node: Any) -> Any:
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("!", _tagged)
for _name in ("int", "float", "bool", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _scalar)


def meaning(text: str) -> list[dict[str, Any]]:
    """Return what a file says, without gpualloc's record, and without what gpualloc may write into services."""
    roots = [root for root in yaml.load_all(text, Loader=_Loader) if root is not None]
    for root in roots:
        root.pop("x-gpualloc", None)
        root["services"] = {
            name: unowned(service, lists=len(roots) == 1) for name, service in (root.get("services") or {}).items()
        }
    return roots


def unowned(service: Any, *, lists: bool) -> Any:
    """Return a service without device requests and the variables that gpualloc writes.

    ``lists``: with the other devices; a list under !override repeats what another document or service says.
    """
    if not isinstance(service, dict):
        return service
    result = dict(service)
    environment = result.pop("environment", None) or {}
    items = environment.items() if isinstance(environment, dict) else [i.partition("=")[::2] for i in environment]
    names = {*OWNED, "GPU_SHARE", "GPU_ROLE"}
    result["environment"] = {name: value for name, value in items if name not in names}
    devices = [d for d in result.pop("devices", None) or () if "nvidia.com/gpu" not in str(d)]
    result.pop("gpus", None)
    deploy = result.pop("deploy", None) or {}
    resources = dict(deploy.get("resources") or {})
    reservations = dict(resources.pop("reservations", None) or {})
    others = [d for d in reservations.pop("devices", None) or () if "gpu" not in d["capabilities"]]
    if "extends" in service or not lists:
        others, devices = [], []
    rest = {k: v for k, v in deploy.items() if k != "resources"}
    return {**result, "deploy": [rest, resources, reservations, others], "devices": devices}


def check_promises(written: Written, options: dict[str, Any]) -> None:
    text = written.text
    note(text)
    new = rewritten(text, **options)
    note(new)
    assert meaning(new) == meaning(text)
    assert original(new) == text
    assert rewritten(new, **options) == new
    moved = rewritten(new, **{**options, "start": 7})
    assert original(moved) == text
    assert rewritten(moved, **options) == new
    untouched = [line for line in text.splitlines() if line.strip() and line not in new.splitlines()]
    event(f"lines changed: {min(len(untouched), 20)}")


OPTIONS = st.fixed_dictionaries({}, optional={"index": st.booleans(), "extra": st.booleans(), "at_most": st.just(1)})


@QUICK
@given(compose_files(), OPTIONS)
def test_an_apply_changes_what_it_must_and_can_be_undone(written: Written, options: dict[str, Any]) -> None:
    check_promises(written, options)


@pytest.mark.long
@LONG
@given(compose_files(), OPTIONS)
def test_an_apply_changes_what_it_must_and_can_be_undone_long(written: Written, options: dict[str, Any]) -> None:
    check_promises(written, options)


def check_compose(written: Written, options: dict[str, Any]) -> None:
    note(written.text)
    new = rewritten(written.text, **options)
    before, after = (config([put(text, "compose.yaml")], profiles=["*"]) for text in (written.text, new))
    event(f"Compose loads it: {before.ok}")
    assume(before.ok)
    note(new)
    assert after.ok, after.stderr
    assert differences(before.data, after.data, owned=(*OWNED, "GPU_SHARE", "GPU_ROLE")) == []


@needs_compose
@settings(QUICK, max_examples=20)
@given(compose_files(), OPTIONS)
def test_compose_sees_nothing_else_changed(written: Written, options: dict[str, Any]) -> None:
    check_compose(written, options)


@pytest.mark.long
@needs_compose
@settings(LONG, max_examples=share(1_000))
@given(compose_files(), OPTIONS)
def test_compose_sees_nothing_else_changed_long(written: Written, options: dict[str, Any]) -> None:
    check_compose(written, options)


def check_hand_edits(written: Written, options: dict[str, Any], choices: Choices) -> None:
    text = written.text
    new = rewritten(text, **options)
    edited = edit_by_hand(new, text, choices)
    note(edited.text)
    assume(edited.text != new)
    reset = original(edited.text)
    note(reset)
    again = rewritten(edited.text, **options)
    note(again)
    for result in (reset, again):
        for comment in edited.comments:
            # At the end of a line; in the record it may stand within quotes, and a copied block has it again.
            found = len(re.findall(rf"{re.escape(comment)}\r?$", result, re.MULTILINE))
            assert found == 1 or (found and result is again)
        services = [(name, service) for root in meaning(result) for name, service in root["services"].items()]
        names = {name for name, _ in services}
        for name in edited.variables:
            assert any(service["environment"].get(ADDED) == "1" for other, service in services if other == name)
        assert set(edited.added) <= names
        assert not set(edited.deleted) & names - set(edited.added)
        if "x-more" in edited.text:
            assert meaning(result)[-1]["x-more"] == {"a": "1"}
    # Whatever was not touched by hand is as it was.
    touched = {*edited.variables, *edited.added, *edited.deleted}
    alone = "*" not in text and "extends" not in text  # else what is written in one service shows in another
    for before, after in zip(meaning(text), meaning(reset), strict=False) if alone else ():
        for name, service in before["services"].items():
            assert name in touched or after["services"][name] == service
    assert original(again) == reset
    assert rewritten(again, **options) == again


@QUICK
@given(compose_files(), OPTIONS, hand_choices())
def test_edits_by_hand_are_kept(written: Written, options: dict[str, Any], choices: Choices) -> None:
    check_hand_edits(written, options, choices)


@pytest.mark.long
@LONG
@given(compose_files(), OPTIONS, hand_choices())
def test_edits_by_hand_are_kept_long(written: Written, options: dict[str, Any], choices: Choices) -> None:
    check_hand_edits(written, options, choices)


def teardown_module() -> None:
    for path in FOLDER.iterdir():
        path.unlink()
    os.rmdir(FOLDER)  # noqa: PTH106 - a folder
