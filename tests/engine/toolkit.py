"""Stands in for NVIDIA's container toolkit: puts devices that do not exist into containers, by the toolkit's rules.

    toolkit.py hook HOST         the hook: a container's state on stdin (OCI runtime specification, "Hooks")
    toolkit.py runtime RUNC …    the runtime "nvidia": adds that hook to containers, and hands over to runc

HOST is a folder: ``gpus`` has a file for each device of the machine, named in PCI order; ``names.json`` says which ids
each goes by; ``libcuda.so.1`` and ``nvidia-smi`` are what a container gets with the capabilities compute and utility;
where ``wsl2`` is, every container gets every device; ``swarm-resource`` names a variable that outranks
NVIDIA_VISIBLE_DEVICES where a container has it. In a container the devices are the files under /run/standin/gpus.
Rules: the toolkit's "Specialized configurations".
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

DEVICES = "run/standin/gpus"
LIBRARIES = {"compute": ("libcuda.so.1", "usr/lib/libcuda.so.1"), "utility": ("nvidia-smi", "usr/bin/nvidia-smi")}
"""What each driver capability brings: a file of the host, and where it is in a container."""


def hook(host: Path) -> None:
    """Give the container that starts what it asks for."""
    state = json.load(sys.stdin)
    bundle = Path(state["bundle"])
    config = json.loads((bundle / "config.json").read_text())
    root = bundle / config["root"]["path"]
    environment = dict(entry.split("=", 1) for entry in config["process"]["env"])  # the last one counts
    privileged = "CAP_SYS_ADMIN" in config["process"]["capabilities"]["bounding"]
    variables = ["NVIDIA_VISIBLE_DEVICES"]
    if (host / "swarm-resource").exists():
        variables.insert(0, (host / "swarm-resource").read_text())
    named: str = next((environment[name] for name in variables if name in environment), "all")
    wanted = "all" if privileged or (host / "wsl2").exists() else named
    capabilities = environment.get("NVIDIA_DRIVER_CAPABILITIES") or "compute,utility"
    (root / DEVICES).mkdir(parents=True, exist_ok=True)
    for file in chosen(host, wanted):
        shutil.copy(file, root / DEVICES)
    for capability, (name, path) in LIBRARIES.items():
        if {capability, "all"} & set(capabilities.split(",")):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(host / name, root / path)


def chosen(host: Path, wanted: str) -> list[Path]:
    """Return the files of the devices that NVIDIA_VISIBLE_DEVICES names. An unknown id keeps the container down."""
    files = sorted((host / "gpus").iterdir())
    if wanted in {"", "void", "none"}:
        return []
    if wanted == "all":
        return files
    names = json.loads((host / "names.json").read_text())
    for name in wanted.split(","):
        if name not in names:
            sys.exit(f"nvidia-container-cli: device error: {name}: unknown device")
    return [file for file in files if file.name in {names[name] for name in wanted.split(",")}]


def runtime(runc: str, arguments: list[str]) -> None:
    """Hand over to runc; to a container that is made, the hook is added, unless Docker has added it already."""
    if "create" in arguments:
        path = Path(arguments[arguments.index("--bundle") + 1]) / "config.json"
        config = json.loads(path.read_text())
        hooks = config.setdefault("hooks", {}).setdefault("prestart", [])
        program = shutil.which("nvidia-container-runtime-hook")
        if program is not None and not any(Path(entry["path"]).name == Path(program).name for entry in hooks):
            hooks.append({"path": program, "args": [program, "prestart"], "env": [f"PATH={os.environ['PATH']}"]})
        path.write_text(json.dumps(config))
    os.execv(runc, [runc, *arguments])  # noqa: S606 - no shell


def cdi_spec(host: Path) -> dict[str, Any]:
    """Return the CDI spec of the machine as it is now: every device under its index and its UUID, and ``all``."""
    names: dict[str, str] = json.loads((host / "names.json").read_text())

    def mount(source: Path, target: str) -> dict[str, Any]:
        return {"hostPath": str(source), "containerPath": f"/{target}", "options": ["ro", "bind"]}

    def device(name: str, files: list[str]) -> dict[str, Any]:
        nodes = [{"path": f"/dev/nvidia{int(file)}", "type": "c", "major": 1, "minor": 3} for file in files]
        mounts = [mount(host / "gpus" / file, f"{DEVICES}/{file}") for file in files]
        return {"name": name, "containerEdits": {"mounts": mounts, "deviceNodes": nodes}}

    return {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [
            *(device(name, [file]) for name, file in names.items() if ":" not in name),
            device("all", sorted(set(names.values()))),
        ],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "mounts": [mount(host / name, path) for name, path in LIBRARIES.values()],
        },
    }


if __name__ == "__main__":
    if sys.argv[1] == "hook":
        hook(Path(sys.argv[2]))
    else:
        runtime(sys.argv[2], sys.argv[3:])
