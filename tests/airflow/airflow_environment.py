"""A virtual environment with Airflow and TensorFlow, outside the repository and kept between runs.

    python tests/airflow/airflow_environment.py      # makes it, and prints where it is

It takes 1.8 GB and one to two minutes. It lies under GPUALLOC_TEST_CACHE, else under the user's cache directory, in a
folder named after the requirements and the Python that made it, so that a change of either makes a new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = (HERE / "requirements.txt", HERE / "constraints.txt")


class InstallError(Exception):
    """The environment could not be made; the message ends with what pip said."""


def folder() -> Path:
    """Return where the environment is, or will be."""
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in FILES)).hexdigest()[:12]
    cache = os.environ.get("GPUALLOC_TEST_CACHE")
    base = Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpualloc"
    return base / f"airflow-{sys.version_info.major}.{sys.version_info.minor}-{digest}"


def ensure() -> Path:
    """Make the environment unless it is there, and return the folder of its programs.

    Raises:
        InstallError: pip could not install the requirements.

    """
    target = folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    done = target / "complete"
    with (target.parent / f"{target.name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes make one environment
        if not done.exists():
            venv.create(target, clear=True, with_pip=True)
            requirements, constraints = (str(file) for file in FILES)
            command = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            command += ["--requirement", requirements, "--constraint", constraints]
            pip = subprocess.run(command, capture_output=True, text=True, check=False)
            if pip.returncode:
                raise InstallError("\n".join(["Airflow could not be installed:", *pip.stderr.splitlines()[-10:]]))
            done.touch()
    return target / "bin"


if __name__ == "__main__":
    start = time.monotonic()
    sys.stdout.write(f"{ensure()} ({time.monotonic() - start:.0f} s)\n")
