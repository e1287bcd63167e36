"""``gpualloc watch`` as a process of its own, on a host read through the real pynvml."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpualloc.inventory import load
from gpualloc.inventory.snapshot import dump
from tests.nvml.fake import Code, FakeNvml, Machine
from tests.watch.process import PATIENCE_S, ROOT, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GPUS = [gpu.uuid for gpu in load(["sim:4xl40s"]).inventory.hosts[0].gpus]
PROJECT = """\
name: shop
services:
  a:
    image: i
    gpus: [{count: 1}]
  b:
    image: i
    gpus: [{count: 1}]
"""


def machine() -> Machine:
    return Machine.from_inventory(json.loads(dump(load(["sim:4xl40s"]).inventory)))


@pytest.fixture
def watch(tmp_path: Path, fake_nvml: FakeNvml) -> Iterator[Callable[..., Watch]]:
    running: list[Watch] = []
    (tmp_path / "compose.yaml").write_text(PROJECT)
    fake_nvml.describe(machine())

    def start(*args: str) -> Watch:
        env = fake_nvml.env() | {"DOCKER_CONFIG": str(tmp_path), "PATH": "/usr/bin:/bin"}
        often = ("--interval", "200ms", "--settle", "500ms")
        running.append(Watch(tmp_path, env, "--policy", "prod", *often, *args))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.end(signal.SIGKILL)


def test_a_lost_gpu_moves_its_worker_and_runs_the_command(
    watch: Callable[..., Watch], fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    one = watch("--apply", "--exec", f"/bin/sh -c 'echo \"$0 $@\" >> {log}; echo out' 'a b' c")
    one.until("written")
    one.until("command-done")
    before = (tmp_path / "compose.yaml").read_text()
    assert GPUS[0] in before
    assert GPUS[2] in before
    fake_nvml.describe(machine().lose(0))
    change = one.until("change", code="gone")
    assert change["workers"] == ["a"]
    moved = one.until("moved")
    assert (moved["worker"], moved["from"], moved["to"]) == ("a", [GPUS[0]], [GPUS[3]])
    one.until("written")
    one.until("command-done")
    code, errors = one.end()
    assert code == 0
    assert one.kinds()[0] == "started"
    assert one.kinds()[-1] == "stopped"
    assert errors == "out\nout\n"  # stdout is for events alone
    assert log.read_text() == "a b c\na b c\n"  # arguments as they were given, once for each change
    assert (tmp_path / "compose.yaml").read_text() == before.replace(GPUS[0], GPUS[3])


def test_without_apply_nothing_is_written(watch: Callable[..., Watch], fake_nvml: FakeNvml, tmp_path: Path) -> None:
    one = watch()
    one.until("planned", changed=True)
    fake_nvml.describe(machine().remove(0))
    one.until("change", code="gone")
    one.end()
    assert (tmp_path / "compose.yaml").read_text() == PROJECT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_while_the_driver_hangs(
    watch: Callable[..., Watch], fake_nvml: FakeNvml, number: int
) -> None:
    one = watch("--exec", "/bin/sleep 600", "--apply")
    one.until("command")
    fake_nvml.describe(machine().hang("nvmlDeviceGetName", 600))
    time.sleep(0.5)
    assert one.end(number) == (0, "")
    assert one.kinds()[-1] == "stopped"


def test_a_driver_that_goes_and_comes_back_is_survived(
    watch: Callable[..., Watch], fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    one = watch("--apply")
    one.until("written")
    before = (tmp_path / "compose.yaml").read_text()
    for down in (
        fake_nvml.unload_driver,
        lambda: fake_nvml.describe(machine().fail("nvmlInit", Code.LIB_RM_VERSION_MISMATCH)),
        lambda: fake_nvml.describe(machine().fail("nvmlDeviceGetCount", Code.UNKNOWN)),
        lambda: fake_nvml.describe(machine().lose(0).lose(1).lose(2).lose(3)),
        lambda: fake_nvml.describe({"DriverVersion": "1", "gpus": []}),
    ):
        down()
        one.until("look-failed")
        fake_nvml.describe(machine())
        one.until("look-back")
    time.sleep(1.5)
    assert one.end() == (0, "")
    assert "change" not in one.kinds()
    assert (tmp_path / "compose.yaml").read_text() == before
    assert one.kinds().count("written") == 1


def test_it_waits_for_a_driver_that_is_not_there_yet(watch: Callable[..., Watch], fake_nvml: FakeNvml) -> None:
    fake_nvml.unload_driver()
    one = watch("--apply")
    assert one.until("look-failed")["codes"] == ["nvml-no-driver"]
    fake_nvml.describe(machine())
    one.until("written")
    assert one.end() == (0, "")


def test_a_fatal_xid_moves_the_worker_and_a_harmless_one_does_not(
    watch: Callable[..., Watch], fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    one = watch("--apply", "--interval", "1h")  # the driver tells: nothing is polled for
    one.until("written")
    host = machine()
    fake_nvml.describe(host.happen(GPUS[2], 31))
    assert one.until("xid")["fatal"] is False
    fake_nvml.describe(host.happen(GPUS[2], 79))
    assert one.until("xid")["fatal"] is True
    change = one.until("change")
    assert (change["code"], change["workers"]) == ("unhealthy", ["b"])
    assert "Xid 79: the GPU has fallen off the bus" in change["text"]
    assert one.until("moved")["worker"] == "b"
    one.until("written")
    assert one.end() == (0, "")
    assert GPUS[2] not in (tmp_path / "compose.yaml").read_text()


def test_a_command_that_fails_or_takes_too_long_is_told_and_tried_again(watch: Callable[..., Watch]) -> None:
    one = watch("--apply", "--exec", "/bin/sleep 600", "--exec-timeout", "300ms")
    failed = one.until("command-failed")
    assert "took longer than 0.3 s; again in 5 s" in failed["text"]
    assert one.end()[0] == 0
    two = watch("--exec", "/bin/false")
    two.until("planned", changed=False)
    time.sleep(1)
    assert "command-failed" not in two.kinds()  # the file is right already: nothing to do
    assert two.end()[0] == 0


def test_a_command_that_does_not_exist_is_told(watch: Callable[..., Watch]) -> None:
    one = watch("--apply", "--exec", "no-such-command up")
    failed = one.until("command-failed")
    assert "cannot be run: No such file or directory: no-such-command" in failed["text"]
    assert one.end()[0] == 0


def test_metrics_tell_what_is_so(watch: Callable[..., Watch], fake_nvml: FakeNvml) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    one = watch("--apply", "--metrics", address)
    one.until("written")
    fake_nvml.describe(machine().make_unhealthy(0, "row_remap_failed"))
    one.until("moved")
    one.until("written")
    fake_nvml.unload_driver()
    one.until("look-failed")
    time.sleep(1)
    with urllib.request.urlopen(f"http://{address}/metrics") as answer:
        text = answer.read().decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    states = {state: float(values[f'gpualloc_devices{{state="{state}"}}']) for state in ("used", "free", "busy")}
    assert states == {"used": 2, "free": 1, "busy": 0}
    assert float(values['gpualloc_devices{state="unhealthy"}']) == 1
    assert float(values['gpualloc_workers{state="placed"}']) == 2
    assert float(values['gpualloc_workers{state="displaced"}']) == 0
    assert float(values["gpualloc_plans_total"]) == 2
    assert float(values["gpualloc_moves_total"]) == 1
    assert float(values['gpualloc_failures_total{what="look"}']) >= 1
    assert float(values["gpualloc_last_good_look_age_seconds"]) >= 1
    two = watch("--metrics", address)
    assert two.process.wait(PATIENCE_S) == 2
    assert "cannot listen" in two.end(0)[1]
    assert one.end() == (0, "")


def test_what_does_not_fit_is_told_and_mended_when_a_gpu_comes_back(
    watch: Callable[..., Watch], fake_nvml: FakeNvml, tmp_path: Path
) -> None:
    one = watch("--apply")
    one.until("written")
    before = (tmp_path / "compose.yaml").read_text()
    fake_nvml.describe(machine().remove(3).remove(1).remove(0))
    one.until("unplaced")
    one.until("planned")
    assert (tmp_path / "compose.yaml").read_text() == before
    fake_nvml.describe(machine())
    one.until("change", code="new")
    assert one.until("planned")["text"] == "everybody stays where they are"
    assert one.end() == (0, "")
    assert (tmp_path / "compose.yaml").read_text() == before


def test_lines_for_people(tmp_path: Path, fake_nvml: FakeNvml, watch: Callable[..., Watch]) -> None:
    del watch  # it writes the project
    env = fake_nvml.env() | {"PYTHONPATH": str(ROOT), "DOCKER_CONFIG": str(tmp_path)}
    command = [sys.executable, "-m", "gpualloc", "watch", "--apply"]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.terminate()
        lines += process.stdout.readlines()
    assert process.returncode == 0
    said = [line.split(" ", 2)[2] for line in lines]
    assert "written: wrote compose.yaml\n" in said
    assert said[0] == "started: watching\n"
    assert said[-1] == "stopped: told to end\n"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--interval", "3"), 2, "write it as 30s, 5m or 1h"),
        (("--settle", "0s"), 2, "a number above 0"),
        (("--exec", "'docker"), 2, "close the quote"),
        (("--exec", " "), 2, "there is no command"),
        (("--partial",), 2, "give --apply too"),
        (("--metrics", "here"), 2, "127.0.0.1:9835"),
        (("--policy", "nowhere"), 2, "nowhere"),
    ],
)
def test_what_cannot_be_watched_is_an_error(
    run: Callable[..., Any], tmp_path: Path, args: Any, code: int, words: str
) -> None:
    (tmp_path / "compose.yaml").write_text(PROJECT)
    result = run("watch", "--inventory", "sim:4xl40s", *args)
    assert result.code == code
    assert words in result.err


def test_it_costs_little(watch: Callable[..., Watch], capsys: pytest.CaptureFixture[str]) -> None:
    """Under one hundredth of a core at the default interval: reading through NVML, and all that is made of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    one = watch("--metrics", address)
    one.until("planned")

    def looks() -> float:
        with urllib.request.urlopen(f"http://{address}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line for line in lines if line.startswith("gpualloc_looks_total")).split()[1])

    def spent() -> float:
        facts = Path(f"/proc/{one.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")

    before, cpu = looks(), spent()
    while looks() < before + 20:
        time.sleep(0.5)
    each = (spent() - cpu) / (looks() - before)
    one.end()
    with capsys.disabled():
        print(  # noqa: T201 - what was measured
            f"\n{each * 1000:.1f} ms of CPU a look: {each / 30 * 100:.3f} % of a core at the default interval of 30 s"
        )
    assert each / 30 < 0.01


def test_who_is_pinned_is_told_too(watch: Callable[..., Watch], fake_nvml: FakeNvml) -> None:
    one = watch("--apply")
    pinned = {one.until("pinned")["worker"], one.until("pinned")["worker"]}
    one.until("written")
    assert pinned == {"a", "b"}
    # all that the file names is gone: it is another machine, by which every pin is new
    fake_nvml.describe(machine().remove(GPUS[0]).remove(GPUS[2]))
    again = one.until("pinned")
    assert (again["worker"], again["to"]) == ("a", [GPUS[1]])
    one.until("written")
    assert one.end()[0] == 0


def test_a_file_that_cannot_be_read_is_told_once(watch: Callable[..., Watch], tmp_path: Path) -> None:
    one = watch("--apply")
    one.until("written")
    text = (tmp_path / "compose.yaml").read_text()
    (tmp_path / "compose.yaml").write_text("services: [\n")
    one.until("warning", code="yaml")
    time.sleep(1)  # several looks
    (tmp_path / "compose.yaml").write_text(text)
    time.sleep(0.5)
    assert one.end()[0] == 0
    assert [event["code"] for event in one.told if event["event"] == "warning"].count("yaml") == 1
