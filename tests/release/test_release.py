"""What is released: it builds, can be described, and the wheel works with its declared dependencies alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long


def call(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command, without what this environment adds to Python's path. Fails with its output if it does."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GPUALLOC_", "COMPOSE_"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the wheel, built from the sdist, and the sdist."""
    for module in ("build", "twine"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the programs of an environment that holds the wheel and what it declares."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    call(programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", built[0])
    return programs


def test_the_descriptions_can_be_shown(built: tuple[Path, Path]) -> None:
    call(sys.executable, "-m", "twine", "check", "--strict", *built)


def test_the_wheel_holds_the_package_and_its_data_and_no_more(built: tuple[Path, Path]) -> None:
    names = zipfile.ZipFile(built[0]).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"gpualloc"}
    for needed in (
        "gpualloc/py.typed",
        "gpualloc/policies/base.yaml",
        "gpualloc/schemas/policy.schema.json",
        "gpualloc/inventory/simulated/dgx-a100.json",
        "gpualloc/words/pages/lost-device.md",
    ):
        assert needed in names
    assert not [name for name in names if "test" in name or name.endswith(".pyc")]


def test_an_example_is_planned_on_a_shipped_machine(installed: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(ROOT / "examples" / "airflow", project)
    machine = ("--inventory", "sim:4xl40s")
    plan = call(installed / "gpualloc", "plan", "--policy", "airflow", *machine, cwd=project)
    assert "5 workers on 4 of 4 GPUs · 5 pinned · optimal" in plan
    before = (project / "compose.yaml").read_bytes()
    call(installed / "gpualloc", "apply", "-y", "--policy", "airflow", *machine, cwd=project)
    assert (project / "compose.yaml").read_bytes() != before
    call(installed / "gpualloc", "reset", "-y", cwd=project)
    assert (project / "compose.yaml").read_bytes() == before


def test_what_needs_the_solver_works_too(installed: Path, tmp_path: Path) -> None:
    services = "\n".join(f"  w{n}: {{image: busybox, x-gpualloc: {{memory: {1 + n % 7}GiB}}}}" for n in range(60))
    (tmp_path / "compose.yaml").write_text(f"services:\n{services}\n")
    plan = call(installed / "gpualloc", "plan", "--inventory", "sim:dgx-a100", cwd=tmp_path)
    assert "60 workers" in plan
    call(installed / "gpualloc", "plan", "--policy", "prod", "--inventory", "sim:dgx-a100", cwd=tmp_path)


def test_every_page_schema_policy_and_machine_is_there(installed: Path) -> None:
    gpualloc = installed / "gpualloc"
    assert "lost-device" in call(gpualloc, "explain")
    assert call(gpualloc, "explain", "lost-device")
    for name in call(gpualloc, "schema").split():
        assert call(gpualloc, "schema", name)
    for name in ("base", "dev", "staging", "prod"):
        assert call(gpualloc, "policy", "show", name)
    for line in call(gpualloc, "inventory", "--list").splitlines():
        assert call(gpualloc, "inventory", "--inventory", line.split()[0])
    assert call(gpualloc, "--version").startswith("gpualloc")
