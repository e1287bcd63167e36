"""Properties of the rewriter over compose files in random styles."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, event, given, note, reject, settings
from hypothesis import strategies as st
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.cyaml import CParser  # type: ignore[attr-defined] # PyYAML has it, its stubs do not
from yaml.resolver import Resolver

from gpualloc.compose.document import parse
from gpualloc.compose.restore import restore
from gpualloc.errors import GpuallocError
from tests.long_runs import share
from tests.properties.compose_files import Written, compose_files
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
        event(f"refused: {sorted(codes)}")
        if codes <= REFUSALS:
            reject()
        raise
    return new


def original(text: str) -> str:
    return restore(parse(text, "compose.yaml"))[0].text


class _Loader(Composer, CParser, SafeConstructor, Resolver):
    """Reads scalars as text, and Compose's own tags as what they stand on: a second opinion on what a file says."""

    def __init__(self, stream: str) -> None:
        CParser.__init__(self, stream)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)

    def compose_node(self, parent: Any, index: Any) -> Any:
        anchor = getattr(self.peek_event(), "anchor", None)
        if not self.check_event(yaml.AliasEvent):
            self.anchors.pop(anchor, None)  # Compose lets an anchor be given twice
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: Any) -> None:
        """Let the first of several merged mappings win, as go-yaml does; PyYAML lets the last."""
        node.value = [
            (key, yaml.SequenceNode(value.tag, value.value[::-1]))
            if key.tag == "tag:yaml.org,2002:merge" and isinstance(value, yaml.SequenceNode)
            else (key, value)
            for key, value in node.value
        ]
        super().flatten_mapping(node)


def _tagged(loader: Any, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("!", _tagged)
for _name in ("int", "float", "bool", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", SafeConstructor.construct_yaml_str)  # type: ignore[type-var]


def meaning(text: str) -> list[dict[str, Any]]:
    """Return what a file says, without gpualloc's record, and without what gpualloc may write into services."""
    loader: Any = _Loader  # the stubs know PyYAML's own loaders only
    roots = [root for root in yaml.load_all(text, Loader=loader) if root is not None]
    for root in roots:
        root.pop("x-gpualloc", None)
        services = (root.get("services") or {}).items()
        root["services"] = {name: unowned(service, lists=len(roots) == 1) for name, service in services}
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


def teardown_module() -> None:
    for path in FOLDER.iterdir():
        path.unlink()
    os.rmdir(FOLDER)  # noqa: PTH106 - a folder
