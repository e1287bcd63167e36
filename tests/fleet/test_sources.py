"""Inventories of several hosts: folders of snapshots, and hosts asked through ssh."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gpualloc.errors import Diagnostic, GpuallocError
from gpualloc.inventory import load, remote
from tests.fleet.machines import host_text, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.running import Result
    from tests.fleet.fake_ssh import FakeSsh


def told(*sources: str, skip: bool = False) -> tuple[Diagnostic, ...]:
    with pytest.raises(GpuallocError) as error:
        load(sources, skip_unreachable=skip)
    return error.value.diagnostics


def test_a_folder_stands_for_every_snapshot_in_it(tmp_path: Path) -> None:
    folder = save(tmp_path / "fleet", "gpu-b", "gpu-a")
    (folder / "notes.txt").write_text("not a snapshot")
    (folder / ".gpu-c.json").write_text("being written")
    reading = load([str(folder), "sim:desktop"])
    assert [host.name for host in reading.inventory.hosts] == ["gpu-a", "gpu-b", "desktop"]


def test_a_folder_without_snapshots_is_an_error(tmp_path: Path) -> None:
    (problem,) = told(str(tmp_path))
    assert problem.code == "inventory-folder"


def test_a_host_twice_is_an_error_whatever_the_sources(tmp_path: Path, fake_ssh: FakeSsh) -> None:
    folder = save(tmp_path / "fleet", "gpu-a")
    fake_ssh.answers("gpu-a", host_text("gpu-a"))
    (problem,) = told(str(folder), "ssh://gpu-a")
    assert problem.code == "inventory-duplicate"
    assert str(problem.where) == "ssh://gpu-a"
    assert problem.summary == f"host gpu-a is already in {folder}/gpu-a.json"
    (problem,) = told("ssh://gpu-a", "ssh://gpu-a")
    assert problem.summary == "this host is given twice"
    data = json.loads(host_text("gpu-a"))
    data["hosts"][0]["name"] = "gpu-b"
    fake_ssh.answers("gpu-b", json.dumps(data))
    (problem,) = told(str(folder), "ssh://gpu-b")
    assert problem.summary.startswith("GPU-")


def test_hosts_are_asked_through_ssh_with_words_not_a_shell_line(fake_ssh: FakeSsh) -> None:
    fake_ssh.answers(
        "gpu-a", host_text("gpu-a"), err="Welcome!\nwarning: GPU 1: memory not known [nvml-query]\n  hint: look\n"
    )
    reading = load(["ssh://me@gpu-a:2222/opt/x/gpualloc"])
    assert [host.name for host in reading.inventory.hosts] == ["gpu-a"]
    told = [(w.summary, w.hint) for w in reading.warnings]
    assert told == [("gpu-a says: GPU 1: memory not known [nvml-query]", "look")]
    (call,) = fake_ssh.calls()
    assert call[-3:] == ["--", "me@gpu-a", "/opt/x/gpualloc inventory --format json"]
    assert "BatchMode=yes" in call
    assert call[call.index("-p") + 1] == "2222"


def test_hosts_are_asked_at_the_same_time(fake_ssh: FakeSsh) -> None:
    names = ("gpu-a", "gpu-b", "gpu-c")
    for name in names:  # each answers only when all have been asked
        fake_ssh.answers(name, host_text(name), waits_for=names)
    reading = load([f"ssh://{name}" for name in names])
    assert [host.name for host in reading.inventory.hosts] == list(names)


@pytest.mark.parametrize(
    "source",
    [
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://a b",
        "ssh://a;reboot",
        "ssh://a:0",
        "ssh://a:99999",
        "ssh://a:x",
        "ssh://a/$(reboot)",
        "ssh://-l@a",
        "ssh://a@@b",
    ],
)
def test_what_ssh_or_a_shell_could_take_for_something_else_is_refused(source: str, fake_ssh: FakeSsh) -> None:
    (problem,) = told(source)
    assert problem.code == "inventory-ssh"
    assert fake_ssh.calls() == []


def test_every_unreachable_host_is_named_with_the_reason(fake_ssh: FakeSsh) -> None:
    fake_ssh.answers("gpu-a", host_text("gpu-a"))
    fake_ssh.answers("gpu-b", "", "ssh: connect to host gpu-b port 22: Connection refused\n", 255)
    fake_ssh.answers("gpu-c", "", "me@gpu-c: Permission denied (publickey).\n", 255)
    problems = told("ssh://gpu-a", "ssh://gpu-b", "ssh://gpu-c")
    assert [p.code for p in problems] == ["inventory-unreachable"] * 2
    assert problems[0].summary == "gpu-b cannot be reached: ssh: connect to host gpu-b port 22: Connection refused"
    assert problems[0].hint == "try ssh gpu-b; --skip-unreachable plans without the host"
    assert problems[1].summary == "gpu-c cannot be reached: me@gpu-c: Permission denied (publickey)."
    reading = load(["ssh://gpu-a", "ssh://gpu-b", "ssh://gpu-c"], skip_unreachable=True)
    assert [host.name for host in reading.inventory.hosts] == ["gpu-a"]
    assert [(w.code, w.severity) for w in reading.warnings] == [("inventory-unreachable", "warning")] * 2
    assert "count as lost" in str(reading.warnings[0].hint)


def test_a_host_that_does_not_answer_is_unreachable(fake_ssh: FakeSsh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE_S", 0.3)
    fake_ssh.answers("gpu-a", "", waits_for=("never",))
    (problem,) = told("ssh://gpu-a")
    assert problem.code == "inventory-unreachable"
    assert "no answer within" in problem.summary


def test_without_any_host_left_there_is_nothing_to_plan_for(fake_ssh: FakeSsh, tmp_path: Path) -> None:
    fake_ssh.answers("gpu-a", "", "ssh: no route\n", 255)
    (problem,) = told("ssh://gpu-a", skip=True)
    assert problem.code == "inventory-unreachable"
    folder = save(tmp_path / "fleet", "gpu-b")
    assert len(load([str(folder), "ssh://gpu-a"], skip_unreachable=True).inventory.hosts) == 1


@pytest.mark.parametrize(
    ("out", "err", "code", "summary"),
    [
        ("", "bash: gpualloc: command not found\n", 127, "there is no gpualloc on gpu-a"),
        ("", "error: the driver is gone [x]\n  hint: h\n", 2, "gpualloc on gpu-a exits with 2: the driver is gone [x]"),
        ("", "Traceback\nKeyError: 'x'\n", 1, "gpualloc on gpu-a exits with 1: KeyError: 'x'"),
    ],
)
def test_a_gpualloc_that_fails_there_is_never_skipped(
    fake_ssh: FakeSsh, out: str, err: str, code: int, summary: str
) -> None:
    fake_ssh.answers("gpu-a", out, err, code)
    fake_ssh.answers("gpu-b", host_text("gpu-b"))
    (problem,) = told("ssh://gpu-a", "ssh://gpu-b", skip=True)
    assert (problem.code, problem.summary) == ("inventory-remote", summary)


@pytest.mark.parametrize(
    ("out", "what"),
    [
        ("", "prints nothing"),
        ("Last login: today\n", "prints no inventory, but: Last login: today"),
        ("}\n", "prints no inventory, but: }"),
    ],
)
def test_what_is_no_snapshot_is_told_of_its_host(fake_ssh: FakeSsh, out: str, what: str) -> None:
    fake_ssh.answers("gpu-a", out)
    (problem,) = told("ssh://gpu-a")
    assert (problem.code, problem.summary) == ("inventory-remote", f"gpualloc on gpu-a {what}")
    assert str(problem.where).startswith("ssh://gpu-a")


@pytest.mark.parametrize("indent", [None, 2])
def test_what_a_login_shell_says_around_it_is_passed_over(fake_ssh: FakeSsh, indent: int | None) -> None:
    document = json.dumps(json.loads(host_text("gpu-a")), indent=indent)
    fake_ssh.answers("gpu-a", f"Welcome {{guest}}\n * Documentation:\n{document}\nlogout\n")
    reading = load(["ssh://gpu-a"])
    assert [host.name for host in reading.inventory.hosts] == ["gpu-a"]
    assert not reading.warnings


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('"format_version": "1.0"', '"format_version": "1.7"', "inventory-version"),
        ('"platform": "linux"', '"kernel": "linux"', "inventory-unknown-key"),
    ],
)
def test_a_gpualloc_of_another_version_is_told_so(fake_ssh: FakeSsh, old: str, new: str, code: str) -> None:
    text = host_text("gpu-a")
    assert old in text
    fake_ssh.answers("gpu-a", text.replace(old, new))
    (problem,) = told("ssh://gpu-a")
    assert (problem.code, problem.hint) == (code, "install the same gpualloc here and on gpu-a")


def test_an_account_without_a_shell_is_told_in_its_words(fake_ssh: FakeSsh) -> None:
    fake_ssh.answers("gpu-a", "This account is not available.\n", code=1)
    (problem,) = told("ssh://gpu-a")
    assert problem.summary == "gpualloc on gpu-a exits with 1: This account is not available."


def test_no_ssh_client_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (problem,) = told("ssh://gpu-a")
    assert (problem.code, problem.summary) == ("inventory-remote", "there is no ssh on PATH")


def test_a_worker_on_a_host_that_was_left_out_moves(
    run: Callable[..., Result], tmp_path: Path, fake_ssh: FakeSsh
) -> None:
    uuids = [json.loads(host_text(name))["hosts"][0]["gpus"][0]["uuid"] for name in ("gpu-a", "gpu-b")]
    (tmp_path / "compose.yaml").write_text(
        "services:\n"
        + "".join(f"  w{n}:\n    image: x\n    gpus: [{{device_ids: [{u}]}}]\n" for n, u in enumerate(uuids))
    )
    fake_ssh.answers("gpu-a", host_text("gpu-a"))
    fake_ssh.answers("gpu-b", "", "ssh: connect to host gpu-b port 22: No route to host\n", 255)
    sources = ("--inventory", "ssh://gpu-a", "--inventory", "ssh://gpu-b")
    refused = run("plan", *sources)
    assert refused.code == 2
    assert "gpu-b cannot be reached" in refused.err
    planned = run("plan", *sources, "--skip-unreachable", "--format", "json")
    assert planned.code == 0
    assert "left out: gpu-b cannot be reached" in planned.err
    actions = {p["worker"]: (p["action"], p["reason"]) for p in json.loads(planned.out)["placements"]}
    assert actions["w0"][0] == "keep"
    assert actions["w1"][0] == "move"
    assert f"{uuids[1]} is gone" in actions["w1"][1]
