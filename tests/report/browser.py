"""A headless Chromium: what it says on its console about a page, and what a script of ours measures there."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find() -> str | None:
    """Return the browser: what ``CHROMIUM`` names, or the first that is installed."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@dataclass(frozen=True)
class Browser:
    """A browser with a profile of its own, in ``folder``."""

    program: str
    folder: Path

    def run(self, page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            self.program,
            "--headless",
            "--no-sandbox",  # as root, as in a container, it does not start with one
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            f"--user-data-dir={self.folder / 'profile'}",
            *arguments,
            page.as_uri(),
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    def console(self, page: Path) -> list[str]:
        """Return what the browser writes on its console about a page as it is."""
        done = self.run(page, "--dump-dom")
        assert "<main>" in done.stdout
        return re.findall(r"CONSOLE\S*\] (.*)", done.stderr)

    def measure(self, page: Path, script: str, width: int, *arguments: str) -> Any:
        """Return what ``script``, the body of a function, returns at the end of a page in a window so wide.

        The page's Content-Security-Policy is taken out: it would not let the script run.
        """
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
        answer = (
            "<script>{const answer = document.createElement('pre'); answer.id = 'answer';"
            f"answer.textContent = JSON.stringify((() => {{{script}}})()); document.body.append(answer);}}"
            "</script></body>"
        )
        copy = self.folder / f"measured-{page.name}"
        copy.write_text(text.replace("</body>", answer), encoding="utf-8")
        done = self.run(copy, f"--window-size={width},1400", "--dump-dom", *arguments)
        found = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.DOTALL)
        assert found is not None, done.stderr
        return json.loads(html.unescape(found.group(1)))

    def screenshot(self, page: Path, to: Path, size: tuple[int, int], *arguments: str) -> None:
        """Take a picture of a page."""
        self.run(page, f"--window-size={size[0]},{size[1]}", f"--screenshot={to}", *arguments)
