"""What Docker was asked to give a container, and where that is not what the compose file says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpualloc.verify.docker import Container, DeviceRequest
    from gpualloc.verify.expect import Expectation
    from gpualloc.verify.machine import Machine

_NOTHING = frozenset(("", "void", "none"))
"""Values of NVIDIA_VISIBLE_DEVICES that give no device (NVIDIA container toolkit, "Environment variables")."""


def asked_for(container: Container, machine: Machine) -> tuple[str, ...]:
    """Return the devices that a container asks for, in PCI order; ids that this host does not have stay as written."""
    requests = [request for request in container.requests if _is_gpu(request)]
    if requests:
        return machine.ordered(uuid for request in requests for uuid in _answer(request, machine))
    if container.runtime != "nvidia":
        return ()
    value = container.environment.get("NVIDIA_VISIBLE_DEVICES", "all")
    return () if value in _NOTHING else machine.resolve(value.split(","))


def given_to(container: Container, machine: Machine) -> tuple[str, ...]:
    """Return the devices that a container can reach: those it asks for, or all where it is privileged."""
    return machine.everything if container.privileged else asked_for(container, machine)


def by_cdi(container: Container) -> bool:
    """Return whether a container's devices come through the container device interface."""
    return any(request.driver == "cdi" for request in container.requests)


def differences(expected: Expectation, container: Container, machine: Machine) -> Iterator[str]:
    """Yield how a container differs from the file it should have been made from."""
    asked = asked_for(container, machine)
    file = expected.given if expected.devices is None else expected.devices
    if set(asked) != set(file):
        had, has = machine.label(asked) or "no GPU", machine.label(file) or "none"
        yield f"it asks for {had}, and the file gives it {has}"
    for name, value in sorted(expected.environment.items()):
        actual = container.environment.get(name)
        if actual is None:
            yield f"it has no {name}, and the file says {value}"
        elif actual != value:
            yield f"its {name} is {actual}, and the file says {value}"


def _is_gpu(request: DeviceRequest) -> bool:
    if request.driver == "cdi":
        return any(name.startswith("nvidia.com/") for name in request.ids)
    return request.driver == "nvidia" or (not request.driver and bool(request.capabilities & {"gpu", "nvidia"}))


def _answer(request: DeviceRequest, machine: Machine) -> tuple[str, ...]:
    if request.ids:
        return machine.resolve(request.ids)
    return machine.everything if request.count < 0 else machine.first(request.count)
