"""What counts as wrong with a GPU, as NVML and nvidia-smi tell it; and a driver that takes its time."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpualloc.errors import GpuallocError
from gpualloc.inventory import health, load, nvml, smi
from gpualloc.inventory.patience import HangsError, Patience
from gpualloc.inventory.snapshot import dump
from tests.nvml.fake import Code, FakeNvml, Machine

if TYPE_CHECKING:
    from gpualloc.model import Gpu, Reading

DATA = Path(__file__).parent / "data"
H100S = json.loads((Path(__file__).parents[1] / "nvml/machines/2xh100.json").read_text(encoding="utf-8"))


def read(fake: FakeNvml, machine: Machine, folder: Path) -> Reading:
    fake.describe(machine)
    with fake.loaded():
        return nvml.read(folder, folder)


def gpus(fake: FakeNvml, machine: Machine, folder: Path) -> tuple[Gpu, ...]:
    return read(fake, machine, folder).inventory.hosts[0].gpus


SLOW = {
    "thermal_slowdown": (0x40, 0x20, 0x48, 0x60),
    "power_slowdown": (0x80, 0x88),
    "hw_slowdown": (0x8,),
    None: (0x0, 0x1, 0x4, 0x2, 0x10, 0x100),  # idle, at the power cap, clocks set by hand: as it should be
}


@pytest.mark.parametrize("old", [False, True], ids=["event reasons", "throttle reasons"])
def test_clocks_lowered_for_heat_or_power_are_told(fake_nvml: FakeNvml, tmp_path: Path, *, old: bool) -> None:
    for code, reasons in SLOW.items():
        for bits in reasons:
            machine = Machine(H100S)
            machine.gpu(1)["CurrentClocksEventReasons"] = bits
            if old:
                machine.fail("nvmlDeviceGetCurrentClocksEventReasons", Code.FUNCTION_NOT_FOUND)
            sound, slow = gpus(fake_nvml, machine, tmp_path)
            assert sound.health == ()
            assert [(issue.code, issue.fatal) for issue in slow.health] == ([(code, False)] if code else []), hex(bits)


def test_heat_and_power_are_two_things(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    machine = Machine(H100S)
    machine.gpu(1)["CurrentClocksEventReasons"] = 0xE8
    assert [issue.code for issue in gpus(fake_nvml, machine, tmp_path)[1].health] == [
        "thermal_slowdown",
        "power_slowdown",
    ]


def test_ecc_that_is_off_is_told_of_those_that_have_it(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    machine = Machine(H100S)
    machine.gpu(0)["EccMode"] = [0, 1]  # on after the next reset: off now
    machine.gpu(1)["EccMode"] = None
    off, without = gpus(fake_nvml, machine, tmp_path)
    assert [(issue.code, issue.fatal) for issue in off.health] == [("ecc_off", False)]
    assert without.health == ()


@pytest.mark.parametrize(
    ("down", "detail"), [(1, "1 of its 18 NVLinks is down"), (18, "18 of its 18 NVLinks are down")]
)
def test_links_are_counted_against_what_the_model_has(
    fake_nvml: FakeNvml, tmp_path: Path, down: int, detail: str
) -> None:
    machine = Machine(H100S)
    for link in machine.gpu(1)["nvlinks"][:down]:
        link["active"] = False
    sound, cut = gpus(fake_nvml, machine, tmp_path)
    assert sound.health == ()
    (issue,) = cut.health
    assert (issue.code, issue.fatal, issue.detail) == ("nvlink_down", False, detail)


def test_links_that_are_not_wired_or_not_used_are_not_missed(fake_nvml: FakeNvml, tmp_path: Path) -> None:
    bridged = Machine.from_inventory(json.loads(dump(load(["sim:4xa100-pcie-bridged"]).inventory)))
    for link in bridged.gpu(0)["nvlinks"]:
        link["active"] = False
    assert [gpu.health for gpu in gpus(fake_nvml, bridged, tmp_path)] == [()] * 4
    split, alone = Machine(H100S), Machine(H100S).remove(1)
    split.gpu(0).update(MigMode=[1, 1], MaxMigDeviceCount=7, mig=[])
    for machine in (split, alone):
        for link in machine.gpu(0)["nvlinks"]:
            link["active"] = False
    assert gpus(fake_nvml, split, tmp_path)[0].health == ()
    assert gpus(fake_nvml, alone, tmp_path)[0].health == ()
    unknown = Machine(H100S).fail("nvmlDeviceGetNvLinkState", Code.UNKNOWN)
    assert [gpu.health for gpu in gpus(fake_nvml, unknown, tmp_path)] == [(), ()]


@pytest.mark.parametrize("number", [13, 31, 43, 45, 68, 109])
def test_xids_that_a_program_causes_leave_the_gpu_sound(number: int) -> None:
    issue = health.xid(number)
    assert (issue.code, issue.fatal) == (f"xid_{number}", False)


@pytest.mark.parametrize("number", [48, 62, 63, 64, 74, 79, 92, 94, 95, 119, 120, 999])
def test_every_other_xid_is_fatal(number: int) -> None:
    issue = health.xid(number)
    assert issue.fatal
    assert issue.detail.startswith(f"Xid {number}")
    assert "Xid" in health.advice(issue.code)


def test_every_code_has_advice_of_its_own() -> None:
    found = [
        *health.issues(
            row_remap_pending=True,
            row_remap_failed=True,
            retired_pages_pending=True,
            ecc_uncorrected=2,
            recovery_action="Reset",
            ecc_on=False,
            slowdowns=health.HW_THERMAL | health.HW_POWER_BRAKE,
        ),
        *health.issues(slowdowns=health.HW_SLOWDOWN),
        *health.nvlinks("NVIDIA H200", 3),
        health.GPU_LOST,
        health.RESET_REQUIRED,
    ]
    for issue in found:
        assert health.advice(issue.code) != health.advice("no such code"), issue.code
    assert [issue.code for issue in found if not issue.fatal] == [
        "thermal_slowdown",
        "power_slowdown",
        "ecc_off",
        "hw_slowdown",
        "nvlink_down",
    ]


def test_nvidia_smi_tells_the_same() -> None:
    text = (DATA / "2xh100.xml").read_text(encoding="utf-8")
    first, rest = text.split("</gpu>", 1)
    hot = first.replace("hw_thermal_slowdown>Not Active<", "hw_thermal_slowdown>Active<")
    hot = hot.replace("<current_ecc>Enabled<", "<current_ecc>Disabled<")
    for form in (hot, hot.replace("clocks_event_reason", "clocks_throttle_reason")):
        sick, sound = smi.read(f"{form}</gpu>{rest}", "r.xml").inventory.hosts[0].gpus
        assert [issue.code for issue in sick.health] == ["thermal_slowdown", "ecc_off"]
        assert sound.health == ()


# A driver that takes its time


def test_a_query_that_hangs_is_told_of(fake_nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpualloc.inventory.probe._SLOW_S", 0.2)
    reading = read(fake_nvml, Machine(H100S).hang("nvmlDeviceGetRemappedRows", 0.3, gpu=1), tmp_path)
    (warning,) = reading.warnings
    assert warning.code == "nvml-slow"
    assert warning.summary.startswith("nvmlDeviceGetRemappedRows took 0.")
    assert len(reading.inventory.hosts[0].gpus) == 2


def test_a_driver_that_never_answers_is_an_error(
    fake_nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml, "_PATIENCE", Patience(0.1))
    fake_nvml.describe(Machine(H100S).hang("nvmlDeviceGetName", 1, gpu=0))
    with fake_nvml.loaded():
        with pytest.raises(GpuallocError) as caught:
            nvml.read(tmp_path, tmp_path)
        next(t for t in threading.enumerate() if t.name == "nvml").join()  # before the library goes
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.summary) == ("nvml-hangs", "the NVIDIA driver has not answered for 0.1 s")


def test_no_more_than_one_call_is_stuck() -> None:
    patience, gate = Patience(0.05), threading.Event()
    before = threading.active_count()
    for _ in range(5):
        with pytest.raises(HangsError):
            patience.call(gate.wait)
    assert threading.active_count() == before + 1
    gate.set()
    while threading.active_count() > before:
        pass
    assert patience.call(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        patience.call(lambda: 1 // 0)
    assert patience.call(lambda: 4) == 4
