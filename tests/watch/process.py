"""A ``gpualloc watch`` as a process of its own, and the events that it tells."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60


class Watch:
    """A running watch; its lines are read as they come."""

    def __init__(self, folder: Path, env: dict[str, str], *args: str) -> None:
        command = [sys.executable, "-m", "gpualloc", "watch", "--format", "json", *args]
        env = {k: v for k, v in env.items() if not k.startswith(("COMPOSE_", "GPUALLOC_P"))} | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.told: list[dict[str, Any]] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def until(self, kind: str, **facts: Any) -> dict[str, Any]:
        """Wait for an event."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                event = self.lines.get(timeout=max(end - time.monotonic(), 0))
            except queue.Empty:
                errors = (
                    "" if self.process.poll() is None or self.process.stderr is None else self.process.stderr.read()
                )
                pytest.fail(f"no {kind} {facts} after {self.told}\n{errors}")
            self.told.append(event)
            if event["event"] == kind and all(event[key] == value for key, value in facts.items()):
                return event

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        self.reader.join()
        while not self.lines.empty():
            self.told.append(self.lines.get())
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        errors = self.process.stderr.read()
        self.process.stderr.close()
        self.process.stdout.close()
        return code, errors

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.told]
