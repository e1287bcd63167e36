"""The containers of a Compose project, asked of Docker through its command line.

The command line honours what the user has set up: contexts, ``DOCKER_HOST`` with ssh, TLS. Commands are lists of words;
no shell sees them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpualloc.errors import GpuallocError, fail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from gpualloc.compose.project import ProjectOptions

LABEL = "com.docker.compose."
"""Compose's labels: ``project``, ``service``, ``container-number``, ``oneoff``, ``config-hash``,
``project.config_files`` (docker/compose ``pkg/api/labels.go``)."""

PATIENCE_S = 30.0
"""How long Docker may take to answer about containers."""


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """One entry of a container's ``HostConfig.DeviceRequests``; ``count`` -1 is all."""

    driver: str
    count: int
    ids: tuple[str, ...]
    capabilities: frozenset[str]


@dataclass(frozen=True, slots=True)
class Container:
    """One container as Docker has it. ``error`` is Docker's, for one that did not start; ``created`` is RFC 3339.

    ``own_pids``: whether process 1 in it is its own, and not the host's or another container's. ``files``: the compose
    files it was made from.
    """

    id: str
    name: str
    service: str
    number: int
    state: str
    exit_code: int | None
    error: str
    created: str
    config_hash: str | None
    environment: Mapping[str, str]
    requests: tuple[DeviceRequest, ...]
    runtime: str
    privileged: bool
    own_pids: bool
    files: tuple[str, ...]

    @property
    def running(self) -> bool:
        """Whether a process can be started in it."""
        return self.state == "running"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command in a container answered. ``code`` is None where it took too long."""

    code: int | None
    output: str
    errors: str

    @property
    def last_error(self) -> str:
        """The last line of what it complained, or nothing."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return lines[-1] if lines else ""


class Docker:
    """Docker's command line, run with the environment and in the folder of the caller."""

    def __init__(self, environ: Mapping[str, str], cwd: Path) -> None:
        """Find ``docker`` on the caller's PATH. Raises GpuallocError (``docker-missing``)."""
        found = shutil.which("docker", path=environ.get("PATH"))
        if found is None:
            hint = "verify looks into containers through Docker's command line: run it where `docker ps` works"
            raise fail("docker-missing", "docker is not on the PATH", None, hint)
        self._program = found
        self._environ = dict(environ)
        self._cwd = cwd

    def containers(self, project: str) -> tuple[Container, ...]:
        """Return the containers of a project, but not those of ``docker compose run``.

        Raises GpuallocError (``docker``) where Docker does not answer.
        """
        wanted = (f"label={LABEL}project={project}", f"label={LABEL}oneoff=False")
        filters = [word for text in wanted for word in ("--filter", text)]
        ids = self._ask("container", "ls", "--all", "--no-trunc", "--quiet", *filters).split()
        if not ids:
            return ()
        answer = self._run(("container", "inspect", *ids), PATIENCE_S)
        try:
            # one that went away in between is left out of the list, with a complaint
            found = json.loads(answer.output)
        except json.JSONDecodeError:
            raise _trouble(answer) from None
        return tuple(sorted(map(_container, found), key=lambda c: (c.service, c.number, c.created)))

    def execute(self, container: Container, command: Sequence[str], timeout_s: float, source: str = "") -> Answer:
        """Run a command in a container, with ``source`` on its standard input, in the root folder.

        In any other folder, Python would import what lies there before its own modules.
        """
        return self._run(("exec", "--interactive", "--workdir", "/", container.id, *command), timeout_s, source)

    def config_hashes(self, options: ProjectOptions) -> dict[str, str]:
        """Return what Compose's ``config-hash`` label would be for each service now; nothing if Compose cannot tell."""
        words = [
            *(word for file in options.files for word in ("--file", file)),
            *(word for name in options.profiles for word in ("--profile", name)),
            *(word for file in options.env_files for word in ("--env-file", file)),
            *(("--project-directory", options.project_directory) if options.project_directory else ()),
            *(("--project-name", options.project_name) if options.project_name else ()),
        ]
        answer = self._run(("compose", *words, "config", "--hash", "*"), PATIENCE_S)
        pairs = [line.split() for line in answer.output.splitlines()] if answer.code == 0 else []
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}

    def _ask(self, *words: str) -> str:
        answer = self._run(words, PATIENCE_S)
        if answer.code != 0:
            raise _trouble(answer)
        return answer.output

    def _run(self, words: Sequence[str], timeout_s: float, source: str = "") -> Answer:
        try:
            done = subprocess.run(  # noqa: S603 - no shell; the words are options, and ids that Docker gave
                [self._program, *words],
                input=source,
                capture_output=True,
                text=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout_s,
                check=False,
                env=self._environ,
                cwd=self._cwd,
            )
        except subprocess.TimeoutExpired:
            return Answer(None, "", "")
        except OSError as error:
            hint = "see what `docker version` says"
            raise fail("docker", f"docker cannot be run: {error.strerror}", None, hint) from None
        return Answer(done.returncode, done.stdout, done.stderr)


def _trouble(answer: Answer) -> GpuallocError:
    if answer.code is None:
        said = f"docker did not answer within {PATIENCE_S:.0f} s"
    else:
        said = f"docker says: {answer.last_error or 'nothing'}"
    return fail("docker", said, None, "is the engine running, and may you use it? try `docker ps`")


def _container(data: dict[str, Any]) -> Container:
    config, host, state = data["Config"], data["HostConfig"], data["State"]
    labels = config.get("Labels") or {}
    number = labels.get(f"{LABEL}container-number", "1")
    return Container(
        id=data["Id"],
        name=data["Name"].removeprefix("/"),
        service=labels.get(f"{LABEL}service", ""),
        number=int(number) if number.isdecimal() else 1,
        state=state["Status"],
        exit_code=state.get("ExitCode"),
        error=state.get("Error") or "",
        created=data["Created"],
        config_hash=labels.get(f"{LABEL}config-hash"),
        environment=dict(entry.split("=", 1) for entry in config.get("Env") or () if "=" in entry),
        requests=tuple(map(_request, host.get("DeviceRequests") or ())),
        runtime=host.get("Runtime") or "",
        privileged=bool(host.get("Privileged")),
        own_pids=not host.get("PidMode"),
        files=tuple(name for name in labels.get(f"{LABEL}project.config_files", "").split(",") if name),
    )


def _request(data: dict[str, Any]) -> DeviceRequest:
    capabilities = frozenset(name for group in data.get("Capabilities") or () for name in group)
    return DeviceRequest(
        driver=data.get("Driver") or "",
        count=data.get("Count") or 0,
        ids=tuple(data.get("DeviceIDs") or ()),
        capabilities=capabilities,
    )
