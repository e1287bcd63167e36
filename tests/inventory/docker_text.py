"""What the docker command prints about running containers, as a script to put in its place."""

from __future__ import annotations

import json
import shlex
from typing import Any


def docker_says(*running: dict[str, Any], code: int = 0, error: str = "") -> str:
    """A script that answers as docker does: which containers run, and all about them."""
    ids = "\n".join(one["id"] for one in running)
    facts = "\n".join(json.dumps(one) for one in running)
    trouble = f"echo {shlex.quote(error)} >&2\n" if error else ""
    return (
        f"case $2 in ls) echo {shlex.quote(ids)};; inspect) echo {shlex.quote(facts)}; {trouble.strip() or ':'}\n"
        f"exit {code};; esac"
    )


def facts(name: str, pid: int, labels: dict[str, str] | None = None, **host: Any) -> dict[str, Any]:
    config = {"Labels": labels, "Image": host.pop("image", "i"), "Env": host.pop("env", None)}
    return {"id": name, "pid": pid, "config": config, "host": {"Runtime": "runc"} | host}
