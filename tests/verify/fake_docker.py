"""Stands in for the docker command: answers from a JSON description, and runs what is to run in a container right here.

FAKE_DOCKER names the description: ``containers`` as ``docker inspect`` prints them, ``inside`` with the environment of
each (by id), ``error`` to complain with instead of answering, ``hashes`` of the services. It logs its words beside it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    path = Path(os.environ["FAKE_DOCKER"])
    facts = json.loads(path.read_text())
    words = sys.argv[1:]
    with path.with_suffix(".log").open("a") as log:
        log.write(f"{json.dumps(words)}\n")
    if facts.get("error"):
        sys.stderr.write(facts["error"])
        return 1
    if words[:2] == ["container", "ls"]:
        sys.stdout.write("\n".join(container["Id"] for container in facts["containers"]))
    elif words[:2] == ["container", "inspect"]:
        sys.stdout.write(json.dumps([container for container in facts["containers"] if container["Id"] in words]))
    elif words[0] == "compose":
        sys.stdout.write("\n".join(f"{name} {value}" for name, value in facts.get("hashes", {}).items()))
    elif words[0] == "exec":
        return execute(facts["inside"], words[words.index("--workdir") + 2 :])
    else:
        return 1
    return 0


def execute(inside: dict[str, dict[str, str]], words: list[str]) -> int:
    environment = inside[words[0]]
    if words[1].startswith("python") and "NO_PYTHON" not in environment:
        command = [sys.executable, *words[2:], "--own-environment"]
        return subprocess.run(command, env=environment, cwd="/", check=False).returncode
    sys.stderr.write(f'exec: "{words[1]}": executable file not found in $PATH')
    return 127


if __name__ == "__main__":
    sys.exit(main())
