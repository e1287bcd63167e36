"""What a scheduler that places one worker at a time sees: the devices as they are now, and what fits on them."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.oracle.objective import Choice
    from tests.oracle.rules import Case, Device, Job

    Chooser = Callable[["State", Job], "Iterable[int] | None"]
    """Devices for the next worker, all on one host, each among `State.fitting`; None where it is left out."""

MILLI = 1000
"""A whole device, in thousandths."""


class State:
    """A case with the workers placed so far. The hard rules are here, the same for every peer."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.load = [device.foreign_load for device in case.devices]
        self.jobs: list[list[Job]] = [[] for _ in case.devices]
        self.hosts: dict[str, list[int]] = {}
        for device in case.devices:
            self.hosts.setdefault(device.host, []).append(device.at)

    def takes(self, job: Job, d: int) -> bool:
        """Tell whether a device may be given to a worker now: filters, capacity and sharing."""
        share = job.shares.get(d)
        if share is None:
            return False
        here = self.jobs[d]
        if not here:
            return True
        if job.exclusive or any(other.exclusive for other in here):
            return False
        if self.case.devices[d].gpu.compute_mode == "exclusive_process":
            return False
        return len(here) < self.slots and self.load[d] + share <= 1

    @property
    def slots(self) -> int:
        """How many workers may share a device."""
        return self.case.policy.sharing.max_workers_per_gpu

    def fitting(self, job: Job) -> dict[str, list[int]]:
        """Return the hosts that can take the worker now, each with the devices that can, in PCI order."""
        found = {host: [d for d in devices if self.takes(job, d)] for host, devices in self.hosts.items()}
        return {host: devices for host, devices in found.items() if len(devices) >= job.low}

    def place(self, job: Job, devices: Iterable[int]) -> None:
        """Give devices to a worker."""
        for d in devices:
            self.load[d] += job.shares[d]
            self.jobs[d].append(job)

    def device(self, d: int) -> Device:
        """Return a device by its number."""
        return self.case.devices[d]

    def memory(self, d: int) -> int:
        """Return the usable memory of a device in MiB, 0 where unknown."""
        usable = self.case.devices[d].usable
        return int(usable) if usable else 0

    def memory_asked(self, job: Job, d: int) -> int:
        """Return what a worker takes of a device's memory, in MiB."""
        return int(job.shares.get(d, Fraction(0)) * self.memory(d))

    def memory_used(self, d: int) -> int:
        """Return how much of a device's memory is given out or foreign, in MiB."""
        return min(self.memory(d), int(self.load[d] * self.memory(d)))

    def slots_asked(self, job: Job) -> int:
        """Return how many of a device's slots a worker takes: all of them, where it wants it alone."""
        return self.slots if job.exclusive else 1

    def slots_used(self, d: int) -> int:
        """Return how many of a device's slots are taken."""
        return sum(self.slots_asked(job) for job in self.jobs[d])

    def milli_left(self, d: int) -> int:
        """Return what is left of a device, in thousandths."""
        if any(job.exclusive for job in self.jobs[d]):
            return 0
        return max(0, int((1 - self.load[d]) * MILLI))


def one_by_one(case: Case, choose: Chooser) -> Choice:
    """Place the workers in their order, each once and for good.

    A worker whose devices are all still there and still good for it keeps them, as a running container does under every
    one of these schedulers; what is left is for the others.
    """
    state = State(case)
    chosen: list[frozenset[int] | None] = [None] * len(case.jobs)
    for number, job in enumerate(case.jobs):
        if job.previous is not None and all(state.takes(job, d) for d in job.previous):
            chosen[number] = job.previous
            state.place(job, job.previous)
    for number, job in enumerate(case.jobs):
        if chosen[number] is None:
            devices = choose(state, job)
            if devices is not None:
                chosen[number] = frozenset(devices)
                state.place(job, chosen[number] or ())
    return tuple(chosen)


def first_fit(state: State, job: Job) -> list[int] | None:
    """Choose the first devices of the first host on which the worker fits."""
    for devices in state.fitting(job).values():
        return devices[: job.low]
    return None
