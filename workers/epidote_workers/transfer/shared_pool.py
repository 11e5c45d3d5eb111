"""This file is about pools in anonymous shared memory.

A pool is a memfd: it has no name in any file system, so there is nothing to sweep after a crash.
The kernel frees it with the last process that maps it or holds its descriptor. Seals keep a peer
from shrinking it under our feet (SIGBUS) and from mapping it writable.
"""

import fcntl
import math
import mmap
import os
import warnings
from collections.abc import Sequence

import torch

from epidote_workers.transfer.layout import PoolLayout

F_SEAL_FUTURE_WRITE = 0x10  # Linux 5.1; not in Python's fcntl


class SharedMemoryAllocator:
    """Allocates tensors whose memory a peer can map. Owns one descriptor per pool.

    `allocate` fits the engine's `allocate` argument.
    """

    def __init__(self) -> None:
        self._descriptors: dict[str, int] = {}

    def allocate(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A zeroed tensor in shared memory; physical pages come with the first write.

        The tensor may outlive `close`.

        Raises:
            ValueError: the name is taken.
            OSError: the kernel has no memory or no memfd.
        """
        if name in self._descriptors:
            raise ValueError(f"pool {name!r} exists already")
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes == 0:
            return torch.zeros(tuple(shape), dtype=dtype)
        descriptor = os.memfd_create(f"epidote-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, num_bytes)
            memory = mmap.mmap(descriptor, num_bytes)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | F_SEAL_FUTURE_WRITE
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals | fcntl.F_SEAL_SEAL)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptors[name] = descriptor
        return torch.frombuffer(memory, dtype=dtype).view(tuple(shape))

    def descriptor(self, name: str) -> int | None:
        """The pool's descriptor, still owned here; None: no such pool (or an empty one)."""
        return self._descriptors.get(name)

    def close(self) -> None:
        """Close the descriptors: no new peer can attach, those who are attached keep theirs."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()


def map_read_only(descriptor: int, layout: PoolLayout) -> torch.Tensor:
    """A peer's pool as [layers, parts, index, unit]; unmapped when the tensor is collected.

    `descriptor` may be closed afterwards. Writing to the tensor kills the process (SIGSEGV).

    Raises:
        ValueError: the memory is smaller than the layout says.
    """
    size = os.fstat(descriptor).st_size
    if size < layout.num_bytes:
        raise ValueError(f"pool {layout.name!r}: wanted {layout.num_bytes} bytes, found {size}")
    memory = mmap.mmap(descriptor, layout.num_bytes, prot=mmap.PROT_READ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch has no read-only tensors
        return torch.frombuffer(memory, dtype=layout.torch_dtype).view(layout.shape)
