"""What Prometheus is told. The library is imported when somebody asks for metrics, and only then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpualloc.errors import fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gpualloc.policy.filters import Device
    from gpualloc.watch.watcher import Counts, Outcome

GPU_STATES = ("used", "free", "busy", "unhealthy")
WORKER_STATES = ("placed", "displaced")


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; ``:PORT`` is every address. Raises GpuallocError (``metrics``)."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise fail("metrics", f"--metrics: not an address: {text}", None, "write it as 127.0.0.1:9835")
    return host or "0.0.0.0", int(port)  # noqa: S104 - what a missing host means everywhere


def gpu_states(devices: Iterable[Device], pinned: frozenset[str]) -> dict[str, int]:
    """Count devices by state, each in the worst that it is in: unhealthy, busy, used by this project, free."""
    counts = dict.fromkeys(GPU_STATES, 0)
    for device in devices:
        if any(issue.fatal for issue in device.gpu.health):
            counts["unhealthy"] += 1
        elif device.busy:
            counts["busy"] += 1
        else:
            counts["used" if device.uuid in pinned else "free"] += 1
    return counts


class Metrics:
    """Serves what it was last told, over HTTP, in a thread of its own.

    Raises GpuallocError (``metrics``) where the address cannot be had.
    """

    def __init__(self, address: tuple[str, int], since_good_look: Callable[[], float]) -> None:
        import prometheus_client as prometheus  # noqa: PLC0415 - see above

        registry = prometheus.CollectorRegistry()
        gauge = prometheus.Gauge
        self._gpus = gauge("gpualloc_devices", "Devices by state.", ["state"], registry=registry)
        self._workers = gauge("gpualloc_workers", "Workers by state.", ["state"], registry=registry)
        self._counts: dict[str, Any] = {
            name: prometheus.Counter(f"gpualloc_{name}", text, registry=registry)
            for name, text in (
                ("looks", "Readings of the GPUs."),
                ("changes", "Changes that have held."),
                ("plans", "Plans that were made."),
                ("written", "Plans that were written."),
                ("moves", "Workers that got other devices."),
                ("commands", "Runs of the command."),
            )
        }
        self._failures = prometheus.Counter(
            "gpualloc_failures", "Failures by what failed.", ["what"], registry=registry
        )
        age = gauge("gpualloc_last_good_look_age_seconds", "Seconds since the last good look.", registry=registry)
        age.set_function(since_good_look)
        self._told: dict[str, int] = {}
        try:
            self._server, self._thread = prometheus.start_http_server(address[1], address[0], registry)
        except OSError as error:
            where = f"{address[0]}:{address[1]}"
            raise fail(
                "metrics", f"--metrics: cannot listen on {where}: {error.strerror}", None, "name another"
            ) from None

    def tell(self, counts: Counts, outcome: Outcome, states: dict[str, int]) -> None:
        """Take what is so now."""
        for state in GPU_STATES:
            self._gpus.labels(state).set(states.get(state, 0))
        self._workers.labels("placed").set(outcome.placed)
        self._workers.labels("displaced").set(outcome.displaced)
        for name, counter in self._counts.items():
            self._advance(name, counter, getattr(counts, name))
        for what, number in counts.failures.items():
            self._advance(f"failures of {what}", self._failures.labels(what), number)

    def _advance(self, name: str, counter: Any, number: int) -> None:
        counter.inc(number - self._told.get(name, 0))
        self._told[name] = number

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
