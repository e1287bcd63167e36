from __future__ import annotations

import random
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpualloc.errors import GpuallocError, Place
from gpualloc.model import Ask, Exclude, GpuCount, Sharing, Write
from gpualloc.policy.load import load
from gpualloc.policy.review import check
from gpualloc.policy.schema import place_of
from gpualloc.policy.show import show
from tests.long_runs import share
from tests.policy.helpers import (
    BAD_POLICY,
    BAD_SECTIONS,
    good_asks,
    load_data,
    load_text,
    policies,
    problems,
    relaxed,
    unnamed,
)

if TYPE_CHECKING:
    from pathlib import Path

GROWTH = (("TF_FORCE_GPU_ALLOW_GROWTH", "true"),)


def shipped(name: str | None, tmp_path: Path) -> Any:
    return load(name, cwd=tmp_path, compose_dir=None)


def test_base_is_what_holds_without_a_policy(tmp_path: Path) -> None:
    base = shipped(None, tmp_path)
    assert base == shipped("base", tmp_path)
    assert (base.strategy, base.stability, base.topology) == ("pack", "keep", "prefer")
    assert base.sharing == Sharing("memory", "exclusive", 8, Fraction(0))
    assert base.exclude == Exclude(unhealthy=False, busy=False, busy_above_mib=1024, display=False, gpus=())
    assert base.write == Write("uuid", "ordinal", (), ())
    assert (base.reserve, base.limit, base.ignore, base.roles) == (0, None, (), ())


@pytest.mark.parametrize(
    ("name", "strategy", "default", "excluded", "shared"),
    [
        ("dev", "pack", "share", (False, False, False), GROWTH),
        ("staging", "pack", "share", (True, True, False), GROWTH),
        ("prod", "spread", "exclusive", (True, True, True), ()),
    ],
)
def test_shipped(tmp_path: Path, name: str, strategy: str, default: str, excluded: Any, shared: Any) -> None:
    policy = shipped(name, tmp_path)
    assert policy.name == name
    assert policy.description
    assert (policy.strategy, policy.stability, policy.sharing.default_memory) == (strategy, "keep", default)
    assert policy.sharing.mode == "memory"
    assert (policy.exclude.unhealthy, policy.exclude.busy, policy.exclude.display) == excluded
    assert (policy.write.env, policy.write.env_shared) == ((), shared)


FULL = """\
version: 1
extends: base.yaml
description: Production inference
strategy: spread
stability: prefer
topology: require
sharing:
  mode: count
  default_memory: 4GiB
  max_workers_per_gpu: 4
  headroom: 5%
exclude:
  unhealthy: true
  busy: true
  busy_above: 512MiB
  display: true
  gpus: ["GPU-1f2e", "index:0", "name:*T400*"]
reserve: 1
limit: 6
write:
  device_ids: index
  cuda_visible_devices: uuid
  env: {WORKER: "$worker"}
  env_shared: {TF_FORCE_GPU_ALLOW_GROWTH: "true", XLA_PYTHON_CLIENT_MEM_FRACTION: "$memory_fraction"}
ignore: ["legacy-*"]
roles:
  "trainer*": {gpus: 2, priority: 100}
"""


def test_every_key(tmp_path: Path) -> None:
    policy = load_text(tmp_path, FULL)
    assert policy.name == "mine.yaml"
    assert policy.description == "Production inference"
    assert (policy.strategy, policy.stability, policy.topology) == ("spread", "prefer", "require")
    assert policy.sharing == Sharing("count", 4096, 4, Fraction(1, 20))
    assert policy.exclude == Exclude(
        unhealthy=True, busy=True, busy_above_mib=512, display=True, gpus=("GPU-1f2e", "index:0", "name:*T400*")
    )
    assert (policy.reserve, policy.limit) == (1, 6)
    assert policy.write == Write(
        "index",
        "uuid",
        (("WORKER", "$worker"),),
        (("TF_FORCE_GPU_ALLOW_GROWTH", "true"), ("XLA_PYTHON_CLIENT_MEM_FRACTION", "$memory_fraction")),
    )
    assert policy.ignore == ("legacy-*",)
    assert policy.roles == (("trainer*", Ask(gpus=GpuCount(2, 2), priority=100)),)
    assert place_of(policy, "exclude.gpus[1]") == Place("mine.yaml", 17, 22, "exclude.gpus[1]")
    assert place_of(policy, 'roles["trainer*"]') == Place("mine.yaml", 27, 3, 'roles["trainer*"]')
    assert place_of(policy, "limit") == Place("mine.yaml", 19, 8, "limit")
    assert place_of(policy, "nothing") == Place("mine.yaml", path="nothing")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("5%", Fraction(1, 20)),
        ("0.05", Fraction(1, 20)),
        ("'12.5%'", Fraction(1, 8)),
        ("0", Fraction(0)),
        ("0.1", Fraction(1, 10)),
        ("99%", Fraction(99, 100)),
    ],
)
def test_headroom_is_exact(tmp_path: Path, text: str, part: Fraction) -> None:
    assert load_text(tmp_path, f"sharing: {{headroom: {text}}}").sharing.headroom == part


def test_a_policy_may_say_no_more_than_it_changes(tmp_path: Path) -> None:
    policy = load_text(tmp_path, "roles: {airflow-worker: {gpus: 1}}\n")
    base = shipped("base", tmp_path)
    assert policy.roles == (("airflow-worker", Ask(gpus=GpuCount(1, 1))),)
    assert policy.description == ""
    assert (policy.sharing, policy.exclude, policy.write) == (base.sharing, base.exclude, base.write)


@pytest.mark.parametrize("text", ["\ufeffstrategy: spread\r\nreserve: 1\r\n", "{strategy: spread, reserve: 1}"])
def test_any_style_of_file(tmp_path: Path, text: str) -> None:
    policy = load_text(tmp_path, text)
    assert (policy.strategy, policy.reserve) == ("spread", 1)


def flat(values: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(key, value) for key, options in values.items() for value in options]


SECTION_CASES = [(name, key, value) for name, values in BAD_SECTIONS.items() for key, value in flat(values)]


@pytest.mark.parametrize(("key", "value"), flat(BAD_POLICY))
def test_each_bad_value_is_one_error(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(GpuallocError) as caught:
        load_data(tmp_path, {key: value})
    (problem,) = caught.value.diagnostics
    assert problem.code in {"policy-value", "policy-type", "policy-key", "policy-version", "ask-type"}
    assert problem.where is not None
    assert problem.where.file == "mine.yaml"
    assert problem.where.line == 1
    assert key in problem.summary


@pytest.mark.parametrize(("section", "key", "value"), SECTION_CASES)
def test_each_bad_value_of_a_section_is_one_error(tmp_path: Path, section: str, key: str, value: Any) -> None:
    with pytest.raises(GpuallocError) as caught:
        load_data(tmp_path, {section: {key: value}})
    (problem,) = caught.value.diagnostics
    assert problem.code in {"policy-value", "policy-type", "policy-key", "policy-memory", "policy-template"}
    assert problem.where is not None
    assert problem.where.line == 1
    assert problem.summary.startswith(f"{section}.{key}")


@pytest.mark.parametrize(
    ("text", "code", "line", "column", "said"),
    [
        ("strategy: packk\n", "policy-value", 1, 11, "did you mean pack?"),
        ("strateegy: pack\n", "policy-key", 1, 1, "did you mean strategy?"),
        ("a: 1\n", "policy-key", 1, 1, "the keys here are version"),
        ("sharing:\n  haedroom: 5%\n", "policy-key", 2, 3, "did you mean headroom?"),
        ("version: 1\nheadroom: 5%\n", "policy-key", 2, 1, "belongs under sharing:"),
        ("version: 2\nnew: 1\n", "policy-version", 1, 10, "later gpualloc"),
        ("sharing:\n  # nothing\nreserve: 1\n", "policy-type", 1, 9, "must be a mapping, not nothing"),
        ("sharing: {headroom: 5}\n", "policy-value", 1, 21, "write 5% or 0.05"),
        ("exclude:\n  busy: yes\n", "policy-type", 2, 9, "write true"),
        ("exclude: {busy: 'False'}\n", "policy-type", 1, 17, "write false without quotes"),
        ("exclude: {busy_above: 1}\n", "policy-memory", 1, 23, "1GiB"),
        ("exclude: {gpus: [0]}\n", "policy-value", 1, 18, 'write "index:0"'),
        ("exclude: {gpus: ['*T400*']}\n", "policy-value", 1, 18, 'write "name:*T400*"'),
        ("exclude: {gpus: ['name:[']}\n", "policy-value", 1, 18, "never closed"),
        ("exclude: {gpus: ['GPU-']}\n", "policy-value", 1, 18, "full UUID"),
        ("limit: 0\n", "policy-value", 1, 8, "leave limit out"),
        ("write: {env: {A: $wroker}}\n", "policy-template", 1, 18, "did you mean worker?"),
        ("write: {env: {A: $zzz}}\n", "policy-template", 1, 18, "the variables are worker"),
        ("write: {env: {A: 5$}}\n", "policy-template", 1, 18, "write $$"),
        ("write: {env: {A: 1}}\n", "policy-type", 1, 18, 'put it in quotes: "1"'),
        ("write: {env: {A: true}}\n", "policy-type", 1, 18, 'put it in quotes: "true"'),
        ("write:\n  env: {CUDA_VISIBLE_DEVICES: '0'}\n", "policy-value", 2, 9, "cuda_visible_devices"),
        ("write:\n  env: {a-b: '0'}\n", "policy-value", 2, 9, "letters"),
        ("ignore: legacy-*\n", "policy-type", 1, 9, '["legacy-*"]'),
        ("roles:\n  a:\n", "ask-type", 2, 5, "must be a mapping"),
        ("roles:\n  a:\n    memry: 1GiB\n", "ask-key", 3, 5, "roles.a.memry: unknown key"),
        ("roles:\n  a*:\n    gpus: 0\n", "ask-value", 3, 11, 'roles["a*"].gpus: must be at least 1'),
        ("roles:\n  '[a':\n    gpus: 1\n", "policy-value", 2, 3, "never closed"),
        ("5\n", "policy-type", 1, 1, "must be a mapping, not 5"),
        ("services: {a: {}}\n", "policy-key", 1, 1, "services"),
    ],
)
def test_what_is_wrong_where_and_what_to_do(
    tmp_path: Path, text: str, code: str, line: int, column: int, said: str
) -> None:
    (problem,) = problems(tmp_path, text)
    assert (problem.code, problem.severity) == (code, "error")
    assert problem.where is not None
    assert (problem.where.file, problem.where.line, problem.where.column) == ("mine.yaml", line, column)
    assert said in str(problem)


def test_all_problems_are_told_in_the_order_of_the_text(tmp_path: Path) -> None:
    found = problems(tmp_path, "roles: {a: {gpus: 0}}\nlimit: 0\nstrategy: x\nexclude: {busy: no, gpus: [0, 1]}\n")
    assert [problem.where.line for problem in found if problem.where] == [1, 2, 3, 4, 4, 4]


# what a file extends


def write(folder: Path, **texts: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)


def test_a_chain_merges_deep_and_lists_replace(tmp_path: Path) -> None:
    write(
        tmp_path / "policies",
        a="extends: b\nexclude: {gpus: ['index:1']}\nroles: {w: {priority: 7}, x: {gpus: 1}}\n",
        b="extends: c.yaml\nsharing: {headroom: 5%}\nexclude: {busy: true, gpus: ['index:0', 'index:2']}\n"
        "roles: {w: {gpus: 2, priority: 1}}\nwrite: {env: {A: '1', B: '2'}}\ndescription: of b\n",
        c="strategy: spread\nexclude: {unhealthy: true}\nwrite: {env: {C: '3'}}\n",
    )
    policy = load("a", cwd=tmp_path, compose_dir=None)
    assert policy.strategy == "spread"
    assert policy.sharing.headroom == Fraction(1, 20)
    assert (policy.exclude.unhealthy, policy.exclude.busy, policy.exclude.gpus) == (True, True, ("index:1",))
    assert dict(policy.write.env) == {"A": "1", "B": "2", "C": "3"}
    assert policy.roles == (("w", Ask(gpus=GpuCount(2, 2), priority=7)), ("x", Ask(gpus=GpuCount(1, 1))))
    assert policy.description == ""
    assert place_of(policy, "sharing.headroom").file == "policies/b.yaml"


def test_null_takes_a_variable_and_a_limit_away(tmp_path: Path) -> None:
    write(tmp_path, a="limit: 3\nwrite: {env: {A: '1', B: '2'}}\n")
    policy = load_text(tmp_path, "extends: a\nlimit: null\nwrite: {env: {A: null}}\n")
    assert policy.limit is None
    assert policy.write.env == (("B", "2"),)


def test_extends_finds_a_file_beside_it_before_any_other(tmp_path: Path) -> None:
    write(tmp_path / "policies", prod="reserve: 1\n")
    write(tmp_path / "other", mine="extends: prod\n", prod="reserve: 2\n")
    assert load("other/mine.yaml", cwd=tmp_path, compose_dir=None).reserve == 2
    write(tmp_path, mine="extends: prod\n", theirs="extends: policies/prod.yaml\n", fourth="extends: ./policies/prod\n")
    assert load("./mine.yaml", cwd=tmp_path, compose_dir=None).reserve == 1
    assert load("theirs.yaml", cwd=tmp_path, compose_dir=None).reserve == 1
    assert load("fourth.yaml", cwd=tmp_path, compose_dir=None).reserve == 1


def test_a_policy_that_extends_its_own_name_means_the_next_one(tmp_path: Path) -> None:
    write(tmp_path / "policies", prod="extends: prod\nreserve: 1\n", base="extends: base.yaml\nlimit: 2\n")
    prod = load("prod", cwd=tmp_path, compose_dir=None)
    assert (prod.reserve, prod.strategy, prod.exclude.display) == (1, "spread", True)
    assert load(None, cwd=tmp_path, compose_dir=None).limit == 2
    assert prod.limit is None  # the shipped prod extends the shipped base, beside it


@pytest.mark.parametrize(
    ("texts", "circle"),
    [
        ({"a": "extends: a\n"}, "policies/a.yaml → policies/a.yaml"),
        ({"a": "extends: a.yaml\n"}, "policies/a.yaml → policies/a.yaml"),
        ({"a": "extends: b\n", "b": "extends: a\n"}, "policies/a.yaml → policies/b.yaml → policies/a.yaml"),
        ({"a": "extends: b\n", "b": "extends: c\n", "c": "extends: b\n"}, "policies/b.yaml → policies/c.yaml"),
    ],
)
def test_a_circle_is_an_error(tmp_path: Path, texts: dict[str, str], circle: str) -> None:
    write(tmp_path / "policies", **texts)
    with pytest.raises(GpuallocError) as caught:
        load("a", cwd=tmp_path, compose_dir=None)
    (problem,) = caught.value.diagnostics
    assert problem.code == "policy-cycle"
    assert circle in problem.summary
    assert problem.where is not None
    assert (problem.where.line, problem.where.column) == (1, 10)


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        ("prodd", "policy-not-found", "did you mean prod?"),
        ("zzz", "policy-not-found", "there are base, dev, prod and staging"),
        ("./zzz.yaml", "policy-not-found", "./zzz.yaml"),
        ("[a, b]", "policy-type", "nearest"),
        ("''", "policy-type", "must be the name"),
        ("'a\\0b'", "policy-not-found", "no policy"),
        ("x" * 5000, "policy-not-found", "no policy"),
        ("null", "policy-type", "nothing"),
    ],
)
def test_extends_must_name_a_policy(tmp_path: Path, value: str, code: str, said: str) -> None:
    (problem,) = problems(tmp_path, f"extends: {value}\n")
    assert problem.code == code
    assert said in str(problem)
    assert problem.where is not None
    assert problem.where.path == "extends"


def test_a_mistake_underneath_is_told_even_where_it_is_overridden(tmp_path: Path) -> None:
    write(tmp_path, a="strategy: sprawl\n")
    (problem,) = problems(tmp_path, "extends: a\nstrategy: pack\n")
    assert problem.where == Place("a.yaml", 1, 11, "strategy")


def test_a_mistake_that_only_merging_makes_is_told(tmp_path: Path) -> None:
    write(tmp_path, a="roles: {w: {gpus: {min: 2, max: 4}}}\n")
    (problem,) = problems(tmp_path, "extends: a\nroles: {w: {gpus: {min: 5}}}\n")
    assert problem.where == Place("mine.yaml", 1 + 1, 19, "roles.w.gpus")
    assert "min 5 is above max 4" in problem.summary


# fingerprints


@relaxed
@given(policies(good_asks))
def test_a_good_policy_loads_or_only_contradicts_itself(tmp_path: Path, data: dict[str, Any]) -> None:
    try:
        load_data(tmp_path, data)
    except GpuallocError as error:
        assert {problem.code for problem in error.diagnostics} == {"ask-conflict"}  # noqa: PT017  # only one kind may rise


@relaxed
@given(policies(good_asks))
def test_showing_and_loading_gives_the_same_policy(tmp_path: Path, data: dict[str, Any]) -> None:
    try:
        policy = load_data(tmp_path, data)
    except GpuallocError:
        return
    assert unnamed(load_text(tmp_path, show(policy))) == unnamed(policy)


def shuffled(data: Any, chance: random.Random) -> Any:
    if isinstance(data, dict):
        keys = sorted(data)
        chance.shuffle(keys)
        return {key: shuffled(data[key], chance) for key in keys}
    return [shuffled(item, chance) for item in data] if isinstance(data, list) else data


@relaxed
@given(policies(good_asks))
def test_the_order_of_keys_does_not_count(tmp_path: Path, data: dict[str, Any]) -> None:
    try:
        policy = load_data(tmp_path, data)
    except GpuallocError:
        return
    assert load_data(tmp_path, shuffled(data, random.Random(1))).sha256 == policy.sha256  # noqa: S311  # a shuffle


def test_how_a_policy_is_written_does_not_count(tmp_path: Path) -> None:
    once = load_text(tmp_path, FULL).sha256
    again = FULL.replace("5%", "0.05").replace("512MiB", "0.5GiB").replace("Production inference", "x  # said anew")
    again = again.replace('"index:0", "name:*T400*"', '"name:*T400*", index:0').replace("{gpus: 2, ", "{'gpus': '2', ")
    assert again != FULL
    assert load_text(tmp_path, again, "other.yaml").sha256 == once


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("strategy: spread", "strategy: pack"),
        ("stability: prefer", "stability: keep"),
        ("topology: require", "topology: ignore"),
        ("mode: count", "mode: memory"),
        ("4GiB", "5GiB"),
        ("4GiB", "share"),
        ("max_workers_per_gpu: 4", "max_workers_per_gpu: 5"),
        ("5%", "6%"),
        ("unhealthy: true", "unhealthy: false"),
        ("busy: true", "busy: false"),
        ("512MiB", "513MiB"),
        ("display: true", "display: false"),
        ('"index:0", ', ""),
        ("reserve: 1", "reserve: 2"),
        ("limit: 6", "limit: null"),
        ("device_ids: index", "device_ids: uuid"),
        ("cuda_visible_devices: uuid", "cuda_visible_devices: none"),
        ('WORKER: "$worker"', 'WORKER: "$role"'),
        ("env_shared: {TF", "env_shared: {X: '', TF"),
        ("legacy-*", "legacy*"),
        ("trainer*", "trainer"),
        ("priority: 100", "priority: 99"),
        ("priority: 100", "observe: false"),
    ],
)
def test_every_change_that_has_an_effect_counts(tmp_path: Path, old: str, new: str) -> None:
    assert FULL.count(old) == 1
    assert load_text(tmp_path, FULL.replace(old, new)).sha256 != load_text(tmp_path, FULL).sha256


SCRAPS = [
    "*a",
    "&a ",
    "<<: ",
    "!x ",
    "\t",
    "\n  ",
    ": ",
    "- ",
    "[",
    "}",
    "'",
    '"',
    "|",
    ">",
    "#",
    "%",
    "---\n",
    "\0",
    "\x85",
    "é",
]
SCRAPS += ["yes", "null", "1e999", "9" * 50, "-1", "\r", "$", "?", "\ufeff", ", ", "", "\\x00"]
DAMAGE = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), st.sampled_from(SCRAPS)), min_size=1, max_size=4)


def damaged(text: str, damage: list[tuple[float, int, str]]) -> str:
    for part, length, scrap in damage:
        position = int(part * len(text))
        text = text[:position] + scrap + text[position + length :]
    return text


def load_or_explain(tmp_path: Path, text: str) -> None:
    try:
        policy = load_text(tmp_path, text)
    except GpuallocError as error:
        for problem in error.diagnostics:
            assert problem.where is not None  # either is right: a policy, or errors with their places
            assert problem.where.line or problem.code == "policy-empty"
    else:
        assert load_text(tmp_path, show(policy), "shown.yaml").sha256 == policy.sha256


@relaxed
@given(DAMAGE)
def test_a_damaged_policy_loads_or_is_explained(tmp_path: Path, damage: list[tuple[float, int, str]]) -> None:
    load_or_explain(tmp_path, damaged(FULL, damage))


@pytest.mark.long
@settings(relaxed, max_examples=share(20_000))
@given(DAMAGE)
def test_damaged_policies_at_length(tmp_path: Path, damage: list[tuple[float, int, str]]) -> None:
    load_or_explain(tmp_path, damaged(FULL, damage))


# policy check


def test_check_gives_errors_or_the_policy_with_warnings(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("strategy: x\n")
    policy, found = check("bad.yaml", cwd=tmp_path, compose_dir=None)
    assert policy is None
    assert [problem.code for problem in found] == ["policy-value"]
    (tmp_path / "odd.yaml").write_text(
        "sharing: {mode: none, default_memory: share}\n"
        "ignore: ['b*']\n"
        "roles: {a: {}, bee: {gpus: 1}, 'b*': {gpus: 1}}\n"
    )
    policy, found = check("odd.yaml", cwd=tmp_path, compose_dir=None)
    assert policy is not None
    assert {(problem.code, problem.severity) for problem in found} == {("policy-no-effect", "warning")}
    assert sorted(problem.where.path for problem in found if problem.where) == [
        "roles.a",
        "roles.bee",
        'roles["b*"]',
        "sharing.default_memory",
    ]
    for name in ("base", "dev", "staging", "prod"):
        assert check(name, cwd=tmp_path, compose_dir=None)[1] == ()
