"""This file is about the seam between a worker and the ways of copying from a peer's pool.

    SharedMemoryTransport   same host, pools on the CPU: the peer's pool is mapped, one copy
    CudaIpcTransport        same host, pools on GPUs: the peer's pool is mapped, device to device
    NixlTransport           between hosts: the network card reads the peer's memory (RDMA, or TCP)
    PackedTransport         anything else: the peer packs the units, which travel through Ray's
                            object store or through the connection, and are unpacked here

`Peers` tries them in this order, as far as both sides have what one needs, and logs which it took.
"""

from collections.abc import Sequence
from typing import Protocol

import torch

from epidote_workers.rpc.client import Connection
from epidote_workers.transfer.layout import PoolLayout


class LocalPool:
    """A pool of this worker as [layers, parts, index, unit]."""

    def __init__(self, units: torch.Tensor, layout: PoolLayout) -> None:
        self.units, self.layout = units, layout


class PeerPool(Protocol):
    """One pool of one peer, attached: its layout was compared with ours."""

    @property
    def transport(self) -> str:
        """How it is read now: shared_memory, cuda_ipc, nixl, ray_objects or connection."""
        ...

    async def read(
        self,
        units: Sequence[int],
        into: LocalPool,
        into_units: Sequence[int],
        layers: range,
    ) -> int:
        """Copy units; returns the number of bytes.

        When it returns or raises (cancelled too), nothing writes to `into` any more: the caller
        may give `into_units` to somebody else.

        Raises:
            ConnectionLost: the peer died. Whether what it lent is still its own is for the
                caller to know (an open loan).
        """
        ...

    def close(self) -> None:
        """Let go of the peer's memory."""
        ...


class Transport(Protocol):
    """A way to reach the pools of peers."""

    async def attach(
        self, connection: Connection, where: str, ours: PoolLayout, theirs: PoolLayout
    ) -> PeerPool:
        """Reach one pool. `where` is the peer's `Pools.descriptor_path`, or its handle.

        Raises:
            LayoutMismatch: the pools hold different things.
            NoDescriptor: not reachable this way; try another transport.
            ConnectionLost: the peer is gone.
        """
        ...
