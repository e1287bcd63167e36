"""What becomes of a service's keys in a stack: taken, said in another way, or left out with a note."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.swarm.stacks import (
    stack,
    warned_of,
)

if TYPE_CHECKING:
    from pathlib import Path


SHM = "/dev/shm"  # noqa: S108 - a path in a container

TRANSLATED: list[tuple[str, str, Any]] = [
    ("restart: 'no'", "deploy.restart_policy", {"condition": "none"}),
    ("restart: unless-stopped", "deploy.restart_policy", {"condition": "any"}),
    ("restart: on-failure:3", "deploy.restart_policy", {"condition": "on-failure", "max_attempts": 3}),
    ("shm_size: 64m", "volumes", [{"type": "tmpfs", "target": SHM, "tmpfs": {"size": 64 << 20}}]),
    (
        "tmpfs: [/run, '/t:size=1k']",
        "volumes",
        [{"type": "tmpfs", "target": "/run"}, {"type": "tmpfs", "target": "/t", "tmpfs": {"size": 1024}}],
    ),
    ("scale: 2", "deploy.replicas", 2),
    ("mem_limit: 1g", "deploy.resources.limits.memory", "1g"),
    ("cpus: 1.5", "deploy.resources.limits.cpus", "1.5"),
    ("mem_reservation: 1g", "deploy.resources.reservations.memory", "1g"),
    ("oom_score_adj: 9", "oom_score_adj", 9),
    ("pids_limit: 9", "deploy.resources.limits.pids", 9),
    ("depends_on: {db: {condition: service_healthy}}", "depends_on", ["db"]),
    ("network_mode: host", "networks", ["gpualloc-host-network"]),
    ("environment: {A: true, B: 1, C: null}", "environment", {"A": "true", "B": "1", "C": None}),
    ("environment: [A=b, 'C=d e=f']", "environment", {"A": "b", "C": "d e=f"}),
    ("env_file: vars", "environment", {"FROM_FILE": "a b", "DOLLAR": "a$b"}),
    ("extra_hosts: [a=1.2.3.4, 'b:::1']", "extra_hosts", ["a:1.2.3.4", "b:::1"]),
    ("extra_hosts: {a: [1.2.3.4, 5.6.7.8]}", "extra_hosts", ["a:1.2.3.4", "a:5.6.7.8"]),
    ("ports: ['127.0.0.1:80:81', '[::1]:82:83', 84]", "ports", ["80:81", "82:83", 84]),
    (
        "ports: [{target: 80, published: '8080', protocol: udp, mode: host}]",
        "ports",
        [{"target": 80, "published": 8080, "protocol": "udp", "mode": "host"}],
    ),
    ("ports: [{target: 80, published: 8080-8090}]", "ports", [{"target": 80, "published": 8080}]),
    ("ports: ['8080-8090:80/udp', '90-91:80-81']", "ports", ["8080:80/udp", "90-91:80-81"]),
    ("stop_grace_period: 1d2h", "stop_grace_period", "24h2h"),
    ("healthcheck: {disable: true, test: x}", "healthcheck", {"disable": True}),
    (
        "ulimits: {nofile: {soft: '1', hard: 2}, memlock: '-1'}",
        "ulimits",
        {"nofile": {"soft": 1, "hard": 2}, "memlock": -1},
    ),
    ("cap_add: [A, A]", "cap_add", ["A"]),
    ("labels: [a=b, c]", "labels", {"a": "b", "c": ""}),
    ("secrets: [{source: s, mode: '0440'}]", "secrets", [{"source": "s", "mode": 0o440}]),
]


@pytest.mark.parametrize(("line", "path", "value"), TRANSLATED, ids=[line for line, _, _ in TRANSLATED])
def test_what_swarm_says_in_another_way(tmp_path: Path, line: str, path: str, value: Any) -> None:
    (tmp_path / "vars").write_text("FROM_FILE='a b'\nDOLLAR='a$b'\n")
    (tmp_path / "secret").write_text("x")
    text = f"services:\n  w: {{image: x, gpus: all}}\n  db: {{image: db}}\n  api:\n    image: y\n    {line}\n"
    made = stack(tmp_path, f"{text}secrets: {{s: {{file: secret}}}}\n")
    found: Any = made.services["api"]
    for step in path.split("."):
        found = found[step]
    if path == "environment":
        assert found.pop("NVIDIA_VISIBLE_DEVICES") == "void"  # it asks for no GPU
        found = {k: v.replace("$$", "$") if v else v for k, v in found.items()}
    assert found == value
    key = line.partition(":")[0]
    assert key in made.services["api"] or key in made.named()["api"]
    assert not warned_of(made.services)


LEFT_OUT = {
    "privileged: true": "warning",
    "container_name: c": "note",
    "expose: ['80']": "note",
    "devices: [/dev/kvm]": "warning",
    "ipc: host": "warning",
    "links: [db]": "note",
    "links: ['db:database']": "warning",
    "volumes_from: [db]": "warning",
    "network_mode: none": "warning",
    "security_opt: [x]": "warning",
    "group_add: [video]": "warning",
    "userns_mode: host": "warning",
    "cpu_shares: 5": "warning",
    "runtime: runsc": "warning",
    "pull_policy: always": "note",
    "platform: linux/amd64": "warning",
    "x-own: {a: 1}": "note",
    "networks: {default: {ipv4_address: 10.0.0.5}}": "warning",
    "deploy: {resources: {reservations: {devices: [{driver: other, count: 1, capabilities: [x]}]}}}": "warning",
}


@pytest.mark.parametrize(("line", "severity"), LEFT_OUT.items())
def test_what_swarm_has_no_word_for(tmp_path: Path, line: str, severity: str) -> None:
    text = f"services:\n  w: {{image: x, gpus: all}}\n  db: {{image: db}}\n  api:\n    image: y\n    {line}\n"
    made = stack(tmp_path, text)
    key = line.partition(":")[0]
    told = [n for n in made.notes if n.code == "swarm-left-out" and n.summary.startswith(f"api: {key}")]
    assert told
    assert severity in {note.severity for note in told}
    assert all(note.where is not None and note.where.line is not None and note.where.line >= 5 for note in told)
    assert not warned_of(made.services)
