"""As much of TensorFlow as the Airflow example's probe uses, over numpy; copied to where it can be imported as such.

STANDIN_TENSORFLOW is JSON: the models of the GPUs it lists, how many of them are usable, and what goes wrong on one.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

_settings: dict[str, Any] = json.loads(os.environ.get("STANDIN_TENSORFLOW", "{}"))
_models: list[str] = _settings.get("models", [])
_current: list[str] = []
_grown: set[str] = set()
_soft: list[bool] = []

__version__ = "0.0-standin"
float32 = np.float32


class OpError(Exception):
    """The base of TensorFlow's own errors, which is no RuntimeError there either."""


@dataclass(frozen=True)
class Device:
    """A physical or logical device."""

    name: str


@dataclass(frozen=True)
class Tensor:
    """An array that knows its device."""

    values: Any
    device: str

    def numpy(self) -> Any:
        """Return the array."""
        return self.values


def _list(prefix: str, kind: str, number: int) -> list[Device]:
    return [Device(f"{prefix}:GPU:{ordinal}") for ordinal in range(number)] if kind == "GPU" else []


def _details(device: Device) -> dict[str, Any]:
    return {"device_name": _models[int(device.name.rsplit(":", 1)[1])], "compute_capability": (9, 0)}


@contextlib.contextmanager
def device(name: str) -> Iterator[None]:
    """Run what follows on a device."""
    _current.append(name)
    yield
    _current.pop()


def constant(values: Any, dtype: Any) -> Any:
    """Return the array in the type asked for."""
    return np.asarray(values, dtype)


def matmul(left: Any, right: Any) -> Tensor:
    """Multiply, or go wrong where the settings say so."""
    name = _current[-1]
    fault = _settings.get("faults", {}).get(name)
    if fault == "memory":
        raise OpError("failed to allocate memory")
    if fault == "elsewhere" or _soft[-1:] != [False]:
        name = "/device:CPU:0"
    product = left @ right
    if fault == "wrong":
        product[5, 7] += 1
    return Tensor(product, f"/job:localhost/replica:0/task:0{name}")


def _set_memory_growth(gpu: Device, enable: bool) -> None:  # noqa: FBT001 - as TensorFlow has it
    if enable:
        _grown.add(gpu.name.rsplit(":", 1)[1])


def _logical(kind: str) -> list[Device]:
    if len(_grown) < len(_models):
        raise OpError("another worker needs the memory that this one would take")
    return _list("/device", kind, _settings.get("usable", len(_models)))


test = SimpleNamespace(is_built_with_cuda=lambda: bool(_settings.get("cuda_build", True)))
errors = SimpleNamespace(OpError=OpError)
config = SimpleNamespace(
    list_physical_devices=lambda kind: _list("/physical_device", kind, len(_models)),
    list_logical_devices=_logical,
    set_soft_device_placement=_soft.append,
    experimental=SimpleNamespace(get_device_details=_details, set_memory_growth=_set_memory_growth),
)
