"""What the driver tells of by itself: errors of a GPU, as they happen."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpualloc.inventory.nvml import session
from gpualloc.inventory.probe import Probe, QueryError, as_text

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_DOUBLE_BIT_ECC, _XID = 0x2, 0x8
_GPU_UNAVAILABLE, _RECOVERY_ACTION = 0x4000, 0x8000
_WANTED = _DOUBLE_BIT_ECC | _XID | _GPU_UNAVAILABLE | _RECOVERY_ACTION
"""``nvmlEventType…`` of nvml.h; not every version of pynvml names them all."""

_AT_ONCE = 16
"""So many events are taken in a row before the GPUs are looked at."""


@dataclass(frozen=True, slots=True)
class GpuEvent:
    """Something happened to a GPU: an Xid with its number, else that it is worth a look (None)."""

    uuid: str
    xid: int | None


class EventsLostError(Exception):
    """The driver tells of nothing any more: it went away, or a GPU did."""


class GpuEvents:
    """Listens to the events of the GPUs that there are now, until it is closed. The driver stays in use meanwhile.

    ``listening`` is false where no GPU tells of events. Raises ``GpuallocError`` where NVML cannot be opened.
    """

    def __init__(self) -> None:
        self._session: AbstractContextManager[Any] = session()
        self._nvml = self._session.__enter__()
        self._probe = Probe(self._nvml)
        self._set: Any = None
        self._uuids: dict[int | None, str] = {}
        try:
            self._set = self._probe.call("nvmlEventSetCreate")
            for index in range(self._probe.call("nvmlDeviceGetCount")):
                self._register(index)
        except QueryError:
            self.close()

    @property
    def listening(self) -> bool:
        """Whether anything may come."""
        return self._set is not None and bool(self._uuids)

    def _register(self, index: int) -> None:
        """Listen to a GPU, if it tells of events at all."""
        try:
            handle = self._probe.call("nvmlDeviceGetHandleByIndex", index)
            uuid = as_text(self._probe.call("nvmlDeviceGetUUID", handle))
            types = self._probe.call("nvmlDeviceGetSupportedEventTypes", handle) & _WANTED
            if types:
                self._probe.call("nvmlDeviceRegisterEvents", handle, types, self._set)
                self._uuids[_address(handle)] = uuid
        except QueryError:  # a GPU that is lost, or a model without events
            return

    def wait(self, seconds: float) -> tuple[GpuEvent, ...]:
        """Return what happens within so many seconds, as soon as it does. Raises ``EventsLostError``."""
        found: list[GpuEvent] = []
        while len(found) < _AT_ONCE:
            try:
                data = self._probe.call("nvmlEventSetWait_v2", self._set, 0 if found else int(seconds * 1000))
            except QueryError as error:
                if error.code == self._nvml.NVML_ERROR_TIMEOUT:
                    break
                raise EventsLostError(error.reason) from None
            xid = int(data.eventData) if data.eventType == _XID else None
            found.append(GpuEvent(self._uuids.get(_address(data.device), ""), xid))
        return tuple(found)

    def close(self) -> None:
        """Stop listening."""
        if self._set is not None:
            with suppress(QueryError):  # the driver may have gone, and the set with it
                self._probe.call("nvmlEventSetFree", self._set)
            self._set = None
        self._session.__exit__(None, None, None)


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
