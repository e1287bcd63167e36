"""What the Airflow walk-through shows is what the commands print, and what it names is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "airflow"
PAGE = (ROOT / "docs" / "airflow.md").read_text(encoding="utf-8")


def run(command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    arguments = [sys.executable, "-m", *shlex.split(command)]
    return subprocess.run(arguments, cwd=EXAMPLE, env=environment, capture_output=True, text=True, check=False)


def test_the_plan_on_the_page_is_the_plan() -> None:
    block = next(block for block in re.findall(r"```console\n\$ (gpualloc plan .*?)```", PAGE, re.DOTALL))
    command, _, shown = block.partition("\n")
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert [line.rstrip() for line in done.stdout.splitlines()] == shown.rstrip().splitlines()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^\$ gpualloc (\w+)", PAGE, re.MULTILINE))))
def test_every_command_on_the_page_exists(command: str) -> None:
    assert run(f"gpualloc {command} --help").returncode == 0


def test_the_table_of_workers_is_the_compose_file() -> None:
    rows = re.findall(r"^\| `(worker-\w+)` \| `(\w+)` \|", PAGE, re.MULTILINE)
    services = yaml.safe_load((EXAMPLE / "compose.yaml").read_text(encoding="utf-8"))["services"]
    workers = {name: service for name, service in services.items() if name.startswith("worker-")}
    assert {name: f"celery worker --queues {queue} --concurrency 1" for name, queue in rows} == {
        name: service["command"] for name, service in workers.items()
    }


def test_the_likely_causes_on_the_page_are_the_ones_it_gives() -> None:
    source = " ".join((EXAMPLE / "dags" / "gpualloc_check" / "check.py").read_text(encoding="utf-8").split())
    spoken = source.replace('" f"', "").replace('" "', "")
    table = PAGE.partition("| it says | so |")[2].partition("\n\n")[0]
    causes = [row.replace("`", "") for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)]
    assert len(causes) == 6
    for cause in causes[1:]:
        assert cause in spoken, cause
