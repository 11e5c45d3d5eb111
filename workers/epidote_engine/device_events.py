"""This file is about knowing how far a device has come with what it was given."""

from collections.abc import Callable
from typing import Any, Protocol


class DeviceEvent(Protocol):
    """A point in the device's work; `torch.cuda.Event` is one."""

    def synchronize(self) -> Any:
        """Wait until the device has come there."""
        ...


Record = Callable[[], DeviceEvent]


def recorded_event() -> DeviceEvent:
    """An event behind everything that the current CUDA stream was given so far."""
    import torch

    event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    found: DeviceEvent = event
    return found
