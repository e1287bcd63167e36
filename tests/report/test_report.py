"""The page as text: what it says, that nothing in it comes from elsewhere, and that others' text stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from gpualloc.cli import cli
from gpualloc.inventory import load, shipped
from gpualloc.model import DeviceRef, Inventory, PlanWarning, Refusal, Unplaced
from gpualloc.render.places import Evicted, Held
from gpualloc.render.report import report_html
from gpualloc.render.report.tables import TIERS
from gpualloc.solve import tiers
from tests.render.samples import busy_plan, inventory, machine, placement, plan, two_hosts, uuid, workstation

VOID = {"meta", "rect", "path"}


class Page(HTMLParser):
    """The elements of a page, in order, with what they are in; every element has to be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def labels(self) -> list[str]:
        return [attrs["aria-label"] for _, attrs in self.found if "tabindex" in attrs]

    def words(self, *tags: str) -> list[str]:
        return [data for tag, data in self.texts if tag in tags]


def page(held: dict[str, Held] | None = None) -> Page:
    return Page(report_html(busy_plan(), inventory(8), held or {}, "demo"))


def test_it_shows_every_worker_where_it_is_and_why() -> None:
    labels = page().labels()
    assert "trainer-1 on GPU 3: all of it · pinned · the fewest devices" in labels
    assert "encoder on GPU 6: 12 GiB · moved · the fewest devices" in labels
    assert any(label.startswith("counter on GPU 6: a share") for label in labels)


def test_a_replan_shows_where_workers_were_too() -> None:
    of = page()
    assert of.words("figcaption") == ["Now", "As planned"]
    assert "trainer-2 had GPU 6 · will be resized · the fewest devices" in of.labels()
    assert any(label.startswith("GPU-deadbeef-1111") and "encoder" in label for label in of.labels())


def test_a_worker_that_no_longer_fits_is_drawn_where_it_was() -> None:
    gone = Unplaced("eval", (Refusal("memory", (), "needs 40 GiB"),), "")
    some = plan(replace(placement("w", 0), action="keep"), unplaced=(gone,))
    was = (Evicted("eval", "eval", (uuid(1), "GPU-gone"), 4096, exclusive=False),)
    of = Page(report_html(some, inventory(2), {}, "demo", was))
    assert of.words("figcaption") == ["Now", "As planned"]
    assert "eval had GPU 1 · does not fit any more" in of.labels()
    assert any(label.startswith("GPU-gone") and label.endswith("given to eval") for label in of.labels())
    assert not any(label.startswith("eval on ") for label in of.labels())


def test_where_nobody_fits_any_more_there_is_still_what_was() -> None:
    gone = Unplaced("eval", (Refusal("unhealthy", (), "row_remap_pending"),), "")
    was = (Evicted("eval", "eval", ("1",), None, exclusive=True),)
    of = Page(report_html(plan(unplaced=(gone,)), two_hosts(), {}, "demo", was))
    assert of.words("figcaption") == ["Now", "As planned"]
    assert "eval had GPU 1 · does not fit any more" in of.labels()


def test_the_command_tells_the_page_who_no_longer_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("compose.yaml").write_text("services:\n  a: {image: a, gpus: all}\n  b: {image: b, gpus: [{count: 1}]}\n")
    machine_ = ["--inventory", "sim:4xl40s"]
    run = CliRunner()
    assert run.invoke(cli, ["apply", "-y", *machine_], standalone_mode=False).return_value == 0
    four = ["--without", "index:0", "--without", "index:1", "--without", "index:2", "--without", "index:3"]
    assert run.invoke(cli, ["plan", *machine_, *four, "--html", "page.html"], standalone_mode=False).return_value == 3
    labels = Page(Path("page.html").read_text(encoding="utf-8")).labels()
    assert sum(label.endswith("does not fit any more") for label in labels) == 4


def test_a_first_plan_has_one_drawing() -> None:
    first = Page(report_html(plan(placement("w", 0)), inventory(2), {}, "demo"))
    assert first.words("figcaption") == ["As planned"]


def test_devices_are_in_one_place_before_and_after() -> None:
    some = plan(
        replace(placement("w", 0), exclusive=False, memory_mib=100),
        replace(placement("v", 0), exclusive=False, memory_mib=100, action="move", previous=("GPU-1",)),
    )
    text = report_html(some, inventory(4), {}, "demo")
    heights = re.findall(r'<text x="[\d.]+" y="([\d.]+)" xml:space="preserve">GPU [123] ', text)
    assert heights[:3] == heights[3:6]


def test_what_others_hold_and_what_is_left_out_is_there() -> None:
    labels = page({uuid(7): Held(2048, ("llm/server",)), uuid(5): Held(40960, left_out=True)}).labels()
    assert "GPU 7: held by llm/server: 2 GiB" in labels
    assert labels.count("GPU 5: this plan does without it") == 1  # not where the workers are now


def test_tiers_have_their_bounds_and_what_they_count() -> None:
    text = report_html(busy_plan(), inventory(8), {}, "demo")
    row = re.search(r"<tr><th scope=\"row\">2\. devices_used</th>.*?</tr>", text)
    assert row is not None
    assert "less is better</td><td>2</td><td>2</td><td>✓ proven best" in row.group()


def test_every_tier_of_the_solver_is_explained() -> None:
    assert {rule.name for rule in tiers.TIERS if rule.reported} == set(TIERS)


def test_what_does_not_fit_and_warnings_are_told() -> None:
    said = " ".join(page().words("strong", "div", "li", "p"))
    assert "eval-2, eval-3" in said
    assert "GPU 0-2, 6: needs 40 GiB, 22 GiB free (memory)" in said
    assert "hint: raise limit to 9" in said
    assert "warning: trainer-1 and trainer-2 are apart" in said


def test_links_are_arcs_and_words() -> None:
    text = report_html(plan(placement("w", 0)), inventory(3), {}, "demo")
    assert text.count('class="link nv') == 3
    assert "Solid arcs are NVLink" in text
    assert "NV12 to GPU 1, 2" in text


def test_gpus_that_are_all_joined_alike_have_one_rail() -> None:
    text = report_html(plan(placement("w", 0)), inventory(8), {}, "demo")
    assert text.count('class="link nv rail"') == 1
    assert "arcs" not in text
    host = machine(8)
    less = replace(host, links=(replace(host.links[0], nvlink=4), *host.links[1:]))
    text = report_html(plan(placement("w", 0)), Inventory("sim", (less,)), {}, "demo")
    assert "rail" not in text.partition("<main>")[2]
    assert text.count('class="link nv') == 28


def test_every_part_that_can_be_focused_has_a_name() -> None:
    for tag, attrs in page().found:
        if "tabindex" in attrs:
            assert (tag, attrs["role"], attrs["tabindex"]) == ("g", "img", "0")
            assert attrs["aria-label"]


def test_ids_are_unique_on_a_page_of_several_hosts() -> None:
    several = plan(placement("a", 0, host="gpu01"), replace(placement("b", 0, host="gpu02", at=1), previous=("0",)))
    found = Page(report_html(several, two_hosts(), {}, "demo")).found
    ids = [attrs["id"] for _, attrs in found if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["aria-labelledby"] for _, attrs in found if "aria-labelledby" in attrs} <= set(ids)


def test_it_needs_nothing_from_elsewhere() -> None:
    text = report_html(busy_plan(), inventory(8), {}, "demo")
    assert not re.search(r"\b(?:src|href|data|action|srcset)=|@import|fetch\(|XMLHttp", text)
    assert set(re.findall(r"url\(([^)]*)\)", text)) == {"#held"}
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("kind", ["style", "script"])
def test_the_policy_of_the_page_admits_its_own_style_and_script_alone(kind: str) -> None:
    text = report_html(busy_plan(), inventory(8), {}, "demo")
    (inside,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
    assert f"{kind}-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert not re.search(r"\s(?:style|on\w+)=", text)


EVIL = "</title><script>alert('1')</script>\"'><img src=x onerror=alert(2)>&amp;\x1b\u202e"


def test_text_of_others_stays_text() -> None:
    host = machine(2, name=EVIL)
    sick = replace(host.gpus[0], name=EVIL, pci_bus_id=EVIL)
    on = Inventory("snapshot", (replace(host, driver=EVIL, gpus=(sick, host.gpus[1])),))
    evil = replace(
        placement("w", 0, host=EVIL), worker=EVIL, service=EVIL, reason=EVIL, action="move", previous=(EVIL,)
    )
    some = plan(
        evil,
        unplaced=(Unplaced(EVIL, (Refusal(EVIL, (uuid(0),), EVIL),), EVIL),),
        warnings=(PlanWarning(EVIL, EVIL, (EVIL,)),),
    )
    text = report_html(some, on, {uuid(1): Held(5, (EVIL,))}, EVIL)
    tags = [tag for tag, _ in Page(text).found]
    assert tags.count("script") == 1
    assert "img" not in tags
    assert tags.count("title") == 3  # the page's and those of the two drawings
    assert not set(text) & {"\x1b", "\u202e"}


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_machine_has_a_card_for_each_device(name: str) -> None:
    on = load((f"sim:{name}",)).inventory
    host = on.hosts[0]
    devices = [part.uuid for gpu in host.gpus for part in (gpu.mig or [gpu])]
    some = plan(replace(placement("w", host=host.name), devices=(DeviceRef(devices[0], 0),)))
    labels = Page(report_html(some, on, {}, "demo")).labels()
    assert sorted(u for u in devices if any(f" · {u} · " in label for label in labels)) == sorted(devices)


def test_a_machine_of_which_little_is_known() -> None:
    text = report_html(plan(placement("w", 3, host="desk")), workstation(), {}, "demo")
    assert "? of ?" in text
    assert "unfit: row_remap_pending" in text


def test_a_plan_without_workers_is_a_page_too() -> None:
    empty = Page(report_html(plan(objective=(), changed=False), inventory(2), {}, "demo"))
    assert "No worker asks for a GPU." in empty.words("p")
    assert len(empty.labels()) == 2
