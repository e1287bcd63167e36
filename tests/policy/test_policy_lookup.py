from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpualloc.errors import GpuallocError, Place
from gpualloc.policy.load import load
from gpualloc.policy.lookup import find_policies, shipped_dir

ROOT = Path(__file__).parents[2]


def reserve_of(name: str, cwd: Path, compose_dir: Path | None = None) -> int:
    return load(name, cwd=cwd, compose_dir=compose_dir).reserve


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def refusal(name: str, cwd: Path, compose_dir: Path | None = None) -> tuple[str, Place | None, str]:
    with pytest.raises(GpuallocError) as caught:
        load(name, cwd=cwd, compose_dir=compose_dir)
    (problem,) = caught.value.diagnostics
    return problem.code, problem.where, str(problem)


def test_names_are_looked_up_in_order(tmp_path: Path) -> None:
    cwd, project = tmp_path / "here", tmp_path / "project"
    cwd.mkdir()
    project.mkdir()
    assert reserve_of("prod", cwd, project) == 0
    for number, path in enumerate(
        [project / "policies/prod.yml", project / "prod.yaml", cwd / "policies/prod.yaml"], 1
    ):
        put(path, f"extends: base\nreserve: {number}\n")
        assert reserve_of("prod", cwd, project) == number
    assert reserve_of("prod", cwd) == 3
    assert reserve_of("prod", tmp_path) == 0


def test_a_path_is_read_as_such(tmp_path: Path) -> None:
    put(tmp_path / "policies/a.yaml", "reserve: 1\n")
    put(tmp_path / "a.yaml", "reserve: 2\n")
    put(tmp_path / "sub/plain", "reserve: 3\n")
    assert reserve_of("a", tmp_path) == 1
    assert reserve_of("a.yaml", tmp_path) == 2
    assert reserve_of("sub/plain", tmp_path) == 3
    assert reserve_of(str(tmp_path / "sub" / "plain"), tmp_path / "sub") == 3
    assert load("a.yaml", cwd=tmp_path, compose_dir=None).name == "a.yaml"


@pytest.mark.parametrize(
    "text",
    ["services:\n  a: {image: x}\n", "services: {a: {gpus: !reset null}}\n", '{"services": {}}\n', "volumes:\n  v:\n"],
)
def test_a_compose_file_is_not_taken_for_a_policy(tmp_path: Path, text: str) -> None:
    put(tmp_path / "prod.yaml", text)
    assert load("prod", cwd=tmp_path, compose_dir=tmp_path).strategy == "spread"
    assert [found.origin for found in find_policies(tmp_path, tmp_path)] == ["shipped"] * 4
    assert refusal("prod.yaml", tmp_path)[0] in {"policy-key", "policy-yaml"}


def test_find_policies_lists_what_names_would_load(tmp_path: Path) -> None:
    put(tmp_path / "policies/prod.yaml", "description: Ours\n")
    put(tmp_path / "policies/broken.yaml", "a: [\n")
    put(tmp_path / "policies/notes.txt", "not one\n")
    put(tmp_path / "app/gpu.yaml", "roles: {a: {gpus: 1}}\ndescription: [1]\n")
    put(tmp_path / "app/compose.yaml", "services: {a: {image: x}}\n")
    put(tmp_path / "app/mkdocs.yml", "site_name: x\n")
    put(tmp_path / "app/policies/night.yml", "description: At night\n")
    found = find_policies(tmp_path, tmp_path / "app")
    assert [(policy.name, policy.origin, policy.description) for policy in found if policy.origin != "shipped"] == [
        ("broken", "project", ""),
        ("prod", "project", "Ours"),
        ("gpu", "compose", ""),
        ("night", "compose", "At night"),
    ]
    assert [policy.name for policy in found if policy.origin == "shipped"] == ["base", "dev", "staging"]
    assert all(policy.description for policy in found if policy.origin == "shipped")
    (broken,) = [policy for policy in found if policy.problem]
    assert broken.problem is not None
    assert (broken.name, broken.problem.code) == ("broken", "policy-yaml")
    for policy in found:
        if not policy.problem and policy.name != "gpu":
            assert load(policy.name, cwd=tmp_path, compose_dir=tmp_path / "app").description == policy.description


def test_in_a_checkout_the_shipped_ones_are_shipped() -> None:
    assert shipped_dir() == ROOT / "policies"
    assert {found.origin for found in find_policies(ROOT, None)} == {"shipped"}
    assert [found.name for found in find_policies(ROOT, ROOT)] == ["base", "dev", "prod", "staging"]


def test_an_installed_package_finds_its_policies(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "gpualloc", tmp_path / "gpualloc", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "policies", tmp_path / "gpualloc" / "policies")
    code = (
        "import json; from pathlib import Path; from gpualloc.policy.load import load\n"
        "from gpualloc.policy.lookup import shipped_dir\n"
        "print(json.dumps([str(shipped_dir()), load('prod', cwd=Path.cwd(), compose_dir=None).strategy]))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout) == [str(tmp_path / "gpualloc" / "policies"), "spread"]
    shutil.rmtree(tmp_path / "gpualloc" / "policies")
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "policies shipped with gpualloc are missing" in result.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("prd", "did you mean prod?"),
        ("Prod", "did you mean prod?"),
        ("zzz", "there are base, dev, prod and staging"),
        ("", "no policy is named"),
        ("a\0/b.yaml", "no policy is named"),
        ("x" * 5000, "no policy is named"),
        ("..", "no policy is named"),
        ("nowhere/x.yaml", "there is no such policy file"),
        ("prod.yaml", "the policy prod is"),
    ],
)
def test_a_policy_that_is_not_there(tmp_path: Path, name: str, said: str) -> None:
    code, _, text = refusal(name, tmp_path)
    assert code == "policy-not-found"
    assert said in text


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert refusal("folder.yaml", tmp_path)[:2] == ("policy-unreadable", Place("folder.yaml"))
    assert refusal("./" + "x" * 5000, tmp_path)[0] == "policy-unreadable"
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    assert refusal("loop.yaml", tmp_path)[0] == "policy-unreadable"
    (tmp_path / "latin.yaml").write_bytes("description: a\n# é\n".encode("latin-1"))
    assert refusal("latin.yaml", tmp_path)[:2] == ("policy-unreadable", Place("latin.yaml", 2, 3))
    (tmp_path / "large.yaml").write_text("# x\n" * 300_000)
    assert refusal("large.yaml", tmp_path)[:2] == ("policy-too-large", Place("large.yaml"))
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert refusal("empty.yaml", tmp_path)[:2] == ("policy-empty", Place("empty.yaml"))


def test_a_symlink_is_followed(tmp_path: Path) -> None:
    put(tmp_path / "real/p.yaml", "extends: q\n")
    put(tmp_path / "q.yaml", "reserve: 4\n")
    (tmp_path / "p.yaml").symlink_to("real/p.yaml")
    assert reserve_of("p.yaml", tmp_path) == 4
