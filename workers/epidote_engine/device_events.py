"""This file is about a device that runs beside the host: made current, and waited for."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch


class DeviceEvent(Protocol):
    """A point in the device's work; `torch.cuda.Event` is one."""

    def synchronize(self) -> Any:
        """Wait until the device has come there."""
        ...


Record = Callable[[], DeviceEvent]


def recorded_event() -> DeviceEvent:
    """An event behind everything that the current CUDA stream was given so far."""
    event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    found: DeviceEvent = event
    return found


def made_current(device: torch.device) -> AbstractContextManager[Any]:
    """Within it `device` is the thread's current one, where events, streams and graphs are made.

    On a CPU it changes nothing.
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
