"""The style and the script of the page. Both are constants, so that the page can name them by their hashes."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fff; --text: #1b1f24; --quiet: #57606a; --line: #c8ced5; --card: #f6f8fa; --free: #fff; --held: #8c959f;
  --nvlink: #2da44e; --pcie: #8c959f; --focus: #0969da; --bad: #b42318; --ink: #14181d;
  --c0: #9ecbff; --c1: #ffc680; --c2: #a6e3a1; --c3: #f5b0d0;
  --c4: #d2b8ff; --c5: #f2e08a; --c6: #93e2de; --c7: #d7c2ae;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1318; --text: #e6edf3; --quiet: #9da7b3; --line: #39424d; --card: #1a2027; --free: #0f1318;
    --held: #6e7681; --nvlink: #3fb950; --pcie: #6e7681; --focus: #58a6ff; --bad: #ff8577; --ink: #0b0e12;
    --c0: #79b8ff; --c1: #f0a950; --c2: #7fce7a; --c3: #e68bb8;
    --c4: #b794f6; --c5: #d9c65a; --c6: #5fc9c4; --c7: #bfa58c;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 22px; line-height: 1.3; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 28px 0 8px; overflow-wrap: anywhere; }
h2 small { font-weight: normal; font-size: 14px; color: var(--quiet); }
.summary { font-weight: 600; margin: 0; }
.inputs, .legend { color: var(--quiet); font-size: 13px; margin: 4px 0; overflow-wrap: anywhere; }
.panes { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; }
figure { margin: 0; flex: 0 1 560px; min-width: 0; }
figcaption { font-size: 13px; font-weight: 600; color: var(--quiet); margin-bottom: 4px; }
svg { display: block; width: 100%; height: auto; }
svg.defs { position: absolute; width: 0; height: 0; }
svg text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: var(--text); }
svg text.quiet { fill: var(--quiet); }
svg text.bad { fill: var(--bad); }
svg text.ink { fill: var(--ink); }
.group { fill: none; stroke: var(--line); stroke-width: 1; }
.group.island { stroke: var(--nvlink); }
.group.NUMA { stroke-dasharray: 6 3; }
.card { fill: var(--card); stroke: var(--line); }
.gone .card { stroke-dasharray: 4 3; fill: none; }
.bar { fill: var(--free); stroke: var(--line); }
.held { fill: url(#held); stroke: var(--line); }
.hatch { stroke: var(--held); stroke-width: 2; }
.work { stroke: var(--page); stroke-width: 1; }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); }
.c4 { fill: var(--c4); } .c5 { fill: var(--c5); } .c6 { fill: var(--c6); } .c7 { fill: var(--c7); }
.link { fill: none; stroke: var(--pcie); stroke-width: 1; opacity: .75; }
.link.pcie { stroke-dasharray: 3 3; }
.link.nv { stroke: var(--nvlink); }
.link.rail { stroke-width: 6; stroke-linecap: round; opacity: 1; }
.link.w2 { stroke-width: 1.6; } .link.w3 { stroke-width: 2.2; }
[tabindex] { cursor: help; outline: none; }
[tabindex]:focus-visible .edge, [tabindex]:hover .edge { stroke: var(--focus); stroke-width: 2.5; }
#tip {
  position: fixed; max-width: min(460px, calc(100vw - 24px)); padding: 8px 10px; z-index: 2; font-size: 13px;
  background: var(--text); color: var(--page); border-radius: 6px; white-space: pre-line; overflow-wrap: anywhere;
  pointer-events: none;
}
.wide { overflow-x: auto; margin-top: 28px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
caption { text-align: left; font-size: 17px; font-weight: 600; padding-bottom: 6px; }
th, td { text-align: left; vertical-align: top; padding: 5px 14px 5px 0; border-top: 1px solid var(--line); }
thead th { border: 0; color: var(--quiet); font-weight: 600; font-size: 13px; }
tbody th { font-weight: 600; }
.misfit { border-left: 4px solid var(--bad); padding-left: 12px; margin: 16px 0; overflow-wrap: anywhere; }
.misfit ul { margin: 4px 0; padding-left: 20px; }
.note { border-left: 4px solid var(--c1); padding-left: 12px; margin: 8px 0; overflow-wrap: anywhere; }
@media print {
  :root {
    color-scheme: light; --page: #fff; --text: #000; --quiet: #444; --line: #aaa; --card: #fff; --free: #fff;
    --ink: #000; --held: #888; --nvlink: #1a7f37; --pcie: #777; --bad: #b42318;
    --c0: #9ecbff; --c1: #ffc680; --c2: #a6e3a1; --c3: #f5b0d0;
    --c4: #d2b8ff; --c5: #f2e08a; --c6: #93e2de; --c7: #d7c2ae;
  }
  body { font-size: 12px; }
  main { max-width: none; padding: 0; }
  .panes { flex-wrap: nowrap; }
  figure { flex: 1 1 0; max-width: 50%; break-inside: avoid; }
  svg * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  tr, .misfit, .note { break-inside: avoid; }
  .wide { overflow: visible; }
  #tip { display: none; }
}
"""

SCRIPT = """
"use strict";
const tip = document.getElementById("tip");
let shown = null;
function show(of) {
  shown = of;
  tip.textContent = of.getAttribute("aria-label");
  tip.hidden = false;
  const at = of.getBoundingClientRect(), size = tip.getBoundingClientRect();
  const below = at.bottom + 8 + size.height <= window.innerHeight;
  tip.style.top = Math.max(8, below ? at.bottom + 8 : at.top - size.height - 8) + "px";
  tip.style.left = Math.max(8, Math.min(at.left, window.innerWidth - size.width - 12)) + "px";
}
function hide() { shown = null; tip.hidden = true; }
const told = (event) => event.target.closest("[tabindex][aria-label]");
document.addEventListener("focusin", (event) => { const of = told(event); of ? show(of) : hide(); });
document.addEventListener("focusout", hide);
document.addEventListener("mouseover", (event) => {
  const of = told(event);
  if (of) show(of); else if (shown && shown !== document.activeElement) hide();
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
// a part that gets the focus may be scrolled into view after that
window.addEventListener("scroll", () => { if (shown) show(shown); }, {passive: true});
"""
