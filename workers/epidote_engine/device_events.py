"""This file is about a device that runs beside the host: made current, and waited for."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch

from epidote_core.errors import InvalidRequest


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


def check_device(name: str) -> None:
    """Refuse a device that torch has not got, before anything is loaded.

    Raises:
        InvalidRequest: no CUDA in this torch, no such GPU, or none that answers.
    """
    device = torch.device(name)
    if device.type != "cuda":
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        raise InvalidRequest(
            f"device: {name}: found {count} GPUs (this torch is built with {build})", "device"
        )


def made_current(device: torch.device) -> AbstractContextManager[Any]:
    """Within it `device` is the thread's current one, where events, streams and graphs are made.

    On a CPU it changes nothing.
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
