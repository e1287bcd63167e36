"""Hosts for tests of several: shipped machines under other names, with UUIDs of their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gpualloc.inventory import load
from gpualloc.inventory.snapshot import dump

if TYPE_CHECKING:
    from pathlib import Path


def host_text(name: str, machine: str = "4xl40s", gpus: int | None = None) -> str:
    """Return a snapshot of a machine called ``name``; its UUIDs end in a number made from that name."""
    data = json.loads(dump(load([f"sim:{machine}"]).inventory))
    (host,) = data["hosts"]
    mark = f"{sum(name.encode()):04x}"
    text = json.dumps(host | {"name": name})
    for gpu in host["gpus"]:
        text = text.replace(gpu["uuid"], gpu["uuid"][:-4] + mark)
        for part in gpu["mig"] or ():
            text = text.replace(part["uuid"], part["uuid"][:-4] + mark)
    own: dict[str, Any] = json.loads(text)
    if gpus is not None:
        kept = {gpu["uuid"] for gpu in own["gpus"][:gpus]}
        own["gpus"] = own["gpus"][:gpus]
        own["links"] = [link for link in own["links"] if {link["a"], link["b"]} <= kept]
    data["hosts"] = [own]
    return json.dumps(data)


def save(folder: Path, *names: str, machine: str = "4xl40s", gpus: int | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.json").write_text(host_text(name, machine, gpus), encoding="utf-8")
    return folder
