"""This file is about copies on a GPU that neither wait for the model's steps nor hold them up.

All threads of a process share a device's default stream: there a copy of a few blocks would begin
when the steps that are enqueued have ended. What is copied needs no such order: it was written
before its peer heard of it, or nobody reads it yet.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def beside_the_model(device: torch.device) -> Iterator[None]:
    """Within it a GPU works on a stream of its own, and has done so when it ends.

    Blocks the thread; on a CPU it changes nothing.
    """
    if device.type != "cuda":
        yield
        return
    stream = _stream(device)
    with torch.cuda.device(device), torch.cuda.stream(stream):
        yield
    stream.synchronize()


@functools.cache
def _stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
