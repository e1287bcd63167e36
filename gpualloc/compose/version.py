"""Whether the Docker Compose on this machine can read what is written for it."""

from __future__ import annotations

import re
import shutil
import subprocess

from gpualloc.errors import Diagnostic

OVERRIDE_TAG = (2, 24, 4)
"""The first Compose that replaces lists under ``!override`` (docker/compose release notes)."""

_SECONDS = 10


def too_old_for_override() -> Diagnostic | None:
    """Return a warning (``compose-version``) if the Compose found here is too old for ``!override``.

    None where it is new enough, or where there is none to ask.
    """
    program = shutil.which("docker")
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and the program was found on PATH
            [program, "compose", "version", "--short"], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", done.stdout.strip())
    if done.returncode or found is None or tuple(map(int, found.groups())) >= OVERRIDE_TAG:
        return None
    summary = f"Docker Compose {found[0]} here cannot read !override, which the override file needs"
    hint = f"update it to {'.'.join(map(str, OVERRIDE_TAG))} or newer, or apply in place"
    return Diagnostic("compose-version", summary, None, hint, "warning")
