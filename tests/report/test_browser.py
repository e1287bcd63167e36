"""The page in a real browser, for every machine that is shipped: quiet, legible, and usable by keyboard.

``REPORT_SCREENSHOTS=FOLDER`` keeps pictures of every page, light, dark and as printed, to look at.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gpualloc.inventory import load, shipped
from gpualloc.render.places import Held
from gpualloc.render.report import report_html
from tests.render.samples import busy_plan, inventory, placement, plan, uuid
from tests.report import browser
from tests.report.browser import Browser

PROGRAM = browser.find()
ROOT = Path(__file__).resolve().parents[2]
DARK, LIGHT = "--blink-settings=preferredColorScheme=0", "--blink-settings=preferredColorScheme=1"
WIDTHS = (1280, 600)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium here (CHROMIUM names one)"),
]

OVERLAPS = """
const boxes = [], walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode;
  if (!node.textContent.trim() || node.parentElement.tagName === "title") continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const box of range.getClientRects()) boxes.push([node.textContent, box, node.parentElement.closest("svg")]);
}
const wrong = [];
for (const [text, box, svg] of boxes) {
  const around = svg && svg.getBoundingClientRect();
  if (svg && (box.left < around.left || box.right > around.right)) wrong.push([text, "outside its drawing"]);
}
for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
  const [one, a] = boxes[i], [other, b] = boxes[j];
  const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
  const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
  if (x > 1 && y > 2) wrong.push([one, other]);
}
// each text in a bar within its part of it
for (const text of document.querySelectorAll("svg text.ink")) {
  const part = text.parentElement.querySelector("rect").getBoundingClientRect(), own = text.getBoundingClientRect();
  if (own.right > part.right + 0.5) wrong.push([text.textContent, "wider than its part of the bar"]);
}
return {texts: boxes.length, wrong, wide: document.documentElement.scrollWidth - window.innerWidth};
"""

KEYS = """
const tip = document.getElementById("tip"), silent = [], outside = [];
const stops = [...document.querySelectorAll("[tabindex]")];
for (const stop of stops) {
  stop.focus();
  // a headless window may get the focus late or never, and only one that has it is told of the focus within
  if (!document.hasFocus()) stop.dispatchEvent(new FocusEvent("focusin", {bubbles: true}));
  window.dispatchEvent(new Event("scroll"));
  if (document.activeElement !== stop || tip.hidden || tip.textContent !== stop.getAttribute("aria-label"))
    silent.push(stop.getAttribute("aria-label"));
  const box = tip.getBoundingClientRect();
  if (box.left < 0 || box.right > window.innerWidth || box.top < 0) outside.push(tip.textContent);
}
document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
const closed = tip.hidden;
stops[0].dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
return {stops: stops.length, silent, outside, closed, hovered: !tip.hidden};
"""

CONTRAST = """
function light(colour) {
  const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}
function contrast(a, b) {
  const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}
const of = (element, name) => getComputedStyle(element)[name], page = of(document.body, "backgroundColor"), found = [];
for (const text of document.querySelectorAll("svg text")) {
  const group = text.closest("[tabindex]"), card = document.querySelector(".card");
  const behind = text.matches(".ink") ? group.querySelector("rect") : group ? card : null;
  found.push(contrast(of(text, "fill"), behind ? of(behind, "fill") : page));
}
for (const text of document.querySelectorAll("p, td, th, h1, h2, small")) found.push(contrast(of(text, "color"), page));
return {page: light(page), least: Math.min(...found)};
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    assert PROGRAM is not None
    return Browser(PROGRAM, tmp_path_factory.mktemp("browser"))


def gpualloc(*arguments: str, folder: Path) -> int:
    command = [sys.executable, "-m", "gpualloc", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False).returncode


COMPOSE = """
name: pictures
services:
  trainer-with-a-name-that-is-longer-than-any-bar-of-a-device-is-wide:
    image: t
    x-gpualloc: {gpus: {min: 1, max: 2}}
  encoder-1: {image: t, x-gpualloc: {memory: 1GiB}}
  encoder-2: {image: t, x-gpualloc: {memory: 1GiB}}
  encoder-3: {image: t, x-gpualloc: {memory: 1GiB}}
  tokenizer:
    image: t
    x-gpualloc: {memory: 500MiB}
  too-much:
    image: t
    x-gpualloc: {gpus: 64}
"""


@pytest.fixture(params=shipped())
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the page of a re-plan on a shipped machine, after one of its devices is gone."""
    name = request.param
    if load((f"sim:{name}",)).inventory.hosts[0].platform == "wsl2":
        # no subset of the GPUs can be had there: a plan for all of them
        (tmp_path / "compose.yaml").write_text(
            "services: {w: {image: t, x-gpualloc: {gpus: all, memory: 1GiB}}}\n", encoding="utf-8"
        )
    else:
        (tmp_path / "compose.yaml").write_text(COMPOSE, encoding="utf-8")
        assert gpualloc("apply", "-y", "--partial", "--inventory", f"sim:{name}", folder=tmp_path) == 3
    without = ("--without", "index:1") if len(load((f"sim:{name}",)).inventory.hosts[0].gpus) > 2 else ()
    code = gpualloc("plan", "--inventory", f"sim:{name}", "--html", f"{name}.html", *without, folder=tmp_path)
    assert code in {0, 3}
    return tmp_path / f"{name}.html"


@pytest.fixture
def busy(tmp_path: Path) -> Path:
    """Return a page with one of everything, on sixteen GPUs, with a device that many share."""
    some = busy_plan()
    many = tuple(replace(placement(f"small-worker-{n}", 9), exclusive=False, memory_mib=900) for n in range(30))
    wide = plan(*some.solution.placements, *many, unplaced=some.solution.unplaced, warnings=some.solution.warnings)
    held = {
        uuid(12): Held(40960, left_out=True),
        uuid(7): Held(20480, ("llm/server", "container 0123456789ab", "notebooks/jupyter-of-somebody-else")),
    }
    path = tmp_path / "busy.html"
    path.write_text(report_html(wide, inventory(16), held, "demo"), encoding="utf-8")
    return path


def look(chromium: Browser, page: Path) -> None:
    folder = os.environ.get("REPORT_SCREENSHOTS")
    if folder:
        for name, scheme in (("light", LIGHT), ("dark", DARK)):
            chromium.screenshot(page, Path(folder) / f"{page.stem}-{name}.png", (1280, 1500), scheme)
        chromium.run(page, f"--print-to-pdf={Path(folder) / page.stem}.pdf", "--no-pdf-header-footer")


def check(chromium: Browser, page: Path) -> None:
    look(chromium, page)
    assert chromium.console(page) == []
    both = f"return [(() => {{{OVERLAPS}}})(), (() => {{{KEYS}}})()];"
    wide, pressed = chromium.measure(page, both, WIDTHS[0])  # a browser's start is most of what a test takes
    for measured in (wide, *(chromium.measure(page, OVERLAPS, width) for width in WIDTHS[1:])):
        assert measured["texts"] > 10
        assert measured["wrong"] == []
        assert measured["wide"] <= 0
    assert pressed["stops"] > 1
    assert (pressed["silent"], pressed["outside"], pressed["closed"], pressed["hovered"]) == ([], [], True, True)


def test_every_shipped_machine_is_legible(chromium: Browser, page: Path) -> None:
    check(chromium, page)


def test_a_page_with_everything_is_legible(chromium: Browser, busy: Path) -> None:
    check(chromium, busy)


def test_light_and_dark_have_contrast_enough_for_small_text(chromium: Browser, busy: Path) -> None:
    light, dark = (chromium.measure(busy, CONTRAST, 1280, scheme) for scheme in (LIGHT, DARK))
    assert light["page"] > 0.9
    assert dark["page"] < 0.1
    # 4.5:1 is what WCAG 2.2, 1.4.3 asks for at this size
    assert light["least"] >= 4.5
    assert dark["least"] >= 4.5


def test_the_measure_finds_what_overlaps(chromium: Browser, busy: Path) -> None:
    spoiled = busy.with_name("spoiled.html")
    text = busy.read_text(encoding="utf-8")
    spoiled.write_text(text.replace("</main>", '<svg viewBox="0 0 99 9"><text>a</text><text>b</text></svg></main>'))
    assert chromium.measure(spoiled, OVERLAPS, 1280)["wrong"]


def test_the_console_tells_what_the_page_may_not_do(chromium: Browser, busy: Path) -> None:
    spoiled = busy.with_name("fetching.html")
    text = busy.read_text(encoding="utf-8")
    spoiled.write_text(text.replace("</main>", '<img src="https://example.invalid/a.png" alt=""></main>'))
    assert any("Content Security Policy" in line for line in chromium.console(spoiled))
