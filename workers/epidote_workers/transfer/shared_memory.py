"""This file is about reading a peer's pool on the same host: mapped once, one copy per read."""

import asyncio
import os
from collections.abc import Sequence

import torch

from epidote_workers.rpc.client import Connection
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.copying import copy_units
from epidote_workers.transfer.descriptor_socket import NoDescriptor, fetch_descriptor
from epidote_workers.transfer.layout import PoolLayout, check_same
from epidote_workers.transfer.shared_pool import map_read_only
from epidote_workers.transfer.transport import LocalPool


class MappedPool:
    """A peer's pool in this process's address space, read-only; a `PeerPool`."""

    def __init__(self, units: torch.Tensor, layout: PoolLayout, copies: CopyThread) -> None:
        self._units: torch.Tensor | None = units
        self._layout, self._copies = layout, copies

    @property
    def transport(self) -> str:
        return "shared_memory"

    async def read(
        self, units: Sequence[int], into: LocalPool, into_units: Sequence[int], layers: range
    ) -> int:
        source = self._units
        assert source is not None, "read after close"
        num_bytes = len(layers) * len(units) * self._layout.unit_bytes
        await self._copies.run(
            lambda: copy_units(source, units, into.units, into_units, layers), num_bytes
        )
        return num_bytes

    def close(self) -> None:
        self._units = None  # unmapped with the last copy that still runs


class SharedMemoryTransport:
    """Maps pools whose descriptors are passed over a unix socket; a `Transport`."""

    def __init__(self, copies: CopyThread) -> None:
        self._copies = copies

    async def attach(
        self, connection: Connection, where: str, ours: PoolLayout, theirs: PoolLayout
    ) -> MappedPool:
        check_same(ours, theirs)
        if not where or not os.path.exists(where):
            raise NoDescriptor(f"pool {theirs.name!r}: no socket {where!r} on this host")
        return await asyncio.to_thread(self._map, where, theirs)

    def _map(self, where: str, layout: PoolLayout) -> MappedPool:
        descriptor = fetch_descriptor(where, layout.name)
        try:
            return MappedPool(map_read_only(descriptor, layout), layout, self._copies)
        finally:
            os.close(descriptor)
