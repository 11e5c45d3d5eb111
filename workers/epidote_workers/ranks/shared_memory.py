"""This file is about a pool on the CPU that two ranks of one worker write to.

The leader makes the memory of every rank's pools, so that it can copy into them what a peer lends;
the follower's engine computes there. Once both have mapped it, nobody else can for writing.
"""

import fcntl
import math
import mmap
import os
from collections.abc import Sequence

import torch

from epidote_workers.transfer.shared_pool import F_SEAL_FUTURE_WRITE


def new_memory(name: str, num_bytes: int) -> int:
    """A descriptor of zeroed memory that can neither grow nor shrink.

    Raises:
        OSError: the kernel has none.
    """
    descriptor = os.memfd_create(f"epidote-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, num_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def mapped(descriptor: int, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """The memory as a tensor that may be written; `descriptor` may be closed afterwards."""
    memory = mmap.mmap(descriptor, num_bytes(shape, dtype))
    return torch.frombuffer(memory, dtype=dtype).view(tuple(shape))


def seal(descriptor: int) -> None:
    """From here on it can be mapped for reading only."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL)


def num_bytes(shape: Sequence[int], dtype: torch.dtype) -> int:
    return math.prod(shape) * dtype.itemsize
