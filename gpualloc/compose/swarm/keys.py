"""Which keys of a service ``docker stack`` takes, and why it does not take the others.

Source: docker/cli ``cli/compose/types/types.go`` (``UnsupportedProperties``, ``DeprecatedProperties`` and
``ForbiddenProperties``), ``cli/compose/schema/data/config_schema_v3.13.json``, and ``cli/compose/convert/service.go``,
which passes over a few that the schema has (``depends_on``, ``group_add``, ``tmpfs``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpualloc.compose.swarm import shapes

if TYPE_CHECKING:
    from collections.abc import Callable

ORDER = (
    "image",
    "command",
    "entrypoint",
    "working_dir",
    "user",
    "hostname",
    "init",
    "environment",
    "ports",
    "networks",
    "dns",
    "dns_search",
    "extra_hosts",
    "volumes",
    "secrets",
    "configs",
    "credential_spec",
    "healthcheck",
    "depends_on",
    "logging",
    "labels",
    "cap_add",
    "cap_drop",
    "read_only",
    "stdin_open",
    "tty",
    "stop_signal",
    "stop_grace_period",
    "sysctls",
    "ulimits",
    "isolation",
    "oom_score_adj",
    "deploy",
)
"""The order in which a service's keys are written."""

PLAIN: dict[str, Callable[[Any], Any]] = {
    "image": shapes.text,
    "command": shapes.command,
    "entrypoint": shapes.command,
    "working_dir": shapes.text,
    "user": shapes.text,
    "hostname": shapes.text,
    "init": shapes.boolean,
    "dns": shapes.unique,
    "dns_search": shapes.unique,
    "extra_hosts": shapes.hosts,
    "labels": shapes.mapping,
    "cap_add": shapes.unique,
    "cap_drop": shapes.unique,
    "read_only": shapes.boolean,
    "stdin_open": shapes.boolean,
    "tty": shapes.boolean,
    "stop_signal": shapes.text,
    "stop_grace_period": shapes.duration,
    "sysctls": shapes.mapping,
    "isolation": shapes.text,
    "oom_score_adj": shapes.integer,
    "credential_spec": dict,
}
"""The keys that need no more than another shape."""

_UNKNOWN = "Swarm has no word for it"
_HOST = "Swarm shares nothing of the node's with a task"

LEFT_OUT: dict[str, str] = {
    "blkio_config": _UNKNOWN,
    "cgroup": _UNKNOWN,
    "cgroup_parent": _UNKNOWN,
    "cgroupns_mode": _UNKNOWN,
    "cpu_count": "limits stand under deploy.resources",
    "cpu_percent": "limits stand under deploy.resources",
    "cpu_period": "limits stand under deploy.resources",
    "cpu_quota": "limits stand under deploy.resources",
    "cpu_rt_period": _UNKNOWN,
    "cpu_rt_runtime": _UNKNOWN,
    "cpu_shares": "limits stand under deploy.resources",
    "cpuset": "Swarm binds no task to CPUs",
    "device_cgroup_rules": "Swarm gives a task no devices",
    "devices": "Swarm gives a task no devices",
    "dns_opt": _UNKNOWN,
    "domainname": _UNKNOWN,
    "external_links": "services find each other by name in a network",
    "group_add": "docker stack passes over it",
    "ipc": _HOST,
    "label_file": "docker stack does not know it",
    "mac_address": "Swarm chooses addresses itself",
    "mem_swappiness": _UNKNOWN,
    "memswap_limit": _UNKNOWN,
    "models": "docker stack does not know it",
    "network_mode": _HOST,
    "oom_kill_disable": _UNKNOWN,
    "pid": _HOST,
    "platform": "a node takes the image that fits it",
    "post_start": _UNKNOWN,
    "pre_stop": _UNKNOWN,
    "privileged": "Swarm starts no privileged tasks; cap_add names what is needed",
    "provider": "docker stack does not know it",
    "security_opt": _UNKNOWN,
    "storage_opt": _UNKNOWN,
    "use_api_socket": "docker stack does not know it",
    "userns_mode": _UNKNOWN,
    "uts": _HOST,
    "volumes_from": "docker stack refuses it: name the volume in both services",
}
"""The keys that change what runs, and why they are not in a stack."""

HARMLESS: dict[str, str] = {
    "annotations": "docker stack does not know it",
    "attach": "nothing attaches to a task",
    "container_name": "a task's container has a name of its own",
    "develop": "it is for docker compose watch",
    "expose": "services on a network reach each other's ports anyway",
    "pull_policy": "docker stack deploy --resolve-image says when to look for an image",
    "pull_refresh_after": "docker stack deploy --resolve-image says when to look for an image",
}
"""The keys that nothing which runs depends on."""

RESOLVED: dict[str, str] = {
    "extends": "what it extends is in the service itself",
    "profiles": "services of active profiles are in the stack, others are not",
}
"""The keys whose work is done once the project is read."""

DEPLOY = ("mode", "replicas", "placement", "resources", "update_config", "rollback_config", "restart_policy", "labels")
"""The keys of ``deploy`` in the order in which they are written; ``endpoint_mode`` is taken, too."""

UPDATE: dict[str, Callable[[Any], Any]] = {
    "parallelism": shapes.integer,
    "delay": shapes.duration,
    "failure_action": shapes.text,
    "monitor": shapes.duration,
    "max_failure_ratio": shapes.number,
    "order": shapes.text,
}
RESTART: dict[str, Callable[[Any], Any]] = {
    "condition": shapes.text,
    "delay": shapes.duration,
    "max_attempts": shapes.integer,
    "window": shapes.duration,
}
HEALTH: dict[str, Callable[[Any], Any]] = {
    "test": shapes.command,
    "interval": shapes.duration,
    "timeout": shapes.duration,
    "retries": shapes.integer,
    "start_period": shapes.duration,
    "start_interval": shapes.duration,
    "disable": shapes.boolean,
}
