"""This file is about reading a peer's pool on another host by NIXL, a slot of bytes at a time.

Each piece is read from the peer's pool into a slot by the network card, then copied from there into
ours; two pieces at a time, so that one is under way while the other is copied. A unit in one layer
and part is one stretch of memory on both sides, and neighbours are put together.

Whether the peer can be reached is tried once, with one unit, when its pool is attached; a network
that lets our connection through and not NIXL's costs a warning, not requests.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy
import torch

from epidote_workers.rpc.client import Connection
from epidote_workers.rpc.errors import ConnectionLost
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.copying import unpack
from epidote_workers.transfer.descriptor_socket import NoDescriptor
from epidote_workers.transfer.layout import PoolLayout, check_same
from epidote_workers.transfer.nixl_agent import NixlAgent, NixlHandle, decode, device_of
from epidote_workers.transfer.staging import SLOT_BYTES, Slot, Staging
from epidote_workers.transfer.transport import LocalPool, PeerPool, Transport

logger = logging.getLogger(__name__)

READ_TIMEOUT_S = 30.0  # of one piece, as of one packed read
TRY_TIMEOUT_S = 5.0  # of the first unit; UCX opens its connections then
SPIN_S = 0.002  # a piece on a fast link is here before a timer of the loop would ring
POLL_S = 0.001

_never_freed: list[Staging] = []


def pieces(layout: PoolLayout, num_units: int, layers: range) -> Iterator[tuple[range, range]]:
    """(positions among the units, layers) of reads that fit into a slot.

    >>> layout = PoolLayout(name="kv", dtype="float16", num_layers=4, num_parts=2, num_units=9,
    ...                     unit_values=1 << 20, block_size=16, fingerprint="m")
    >>> list(pieces(layout, 2, range(1, 4)))  # 4 MiB a unit and layer
    [(range(0, 1), range(1, 4)), (range(1, 2), range(1, 4))]
    """
    per_layer = layout.unit_bytes
    deep = max(1, min(len(layers), SLOT_BYTES // per_layer))
    wide = max(1, SLOT_BYTES // (per_layer * deep))
    for first in range(layers.start, layers.stop, deep):
        some = range(first, min(first + deep, layers.stop))
        for at in range(0, num_units, wide):
            yield range(at, min(at + wide, num_units)), some


def stretches(
    layout: PoolLayout,
    units: Sequence[int],
    layers: range,
    theirs: tuple[int, int],
    ours: tuple[int, int],
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Where a piece lies in the peer's pool and in a slot: [n, 3] of (address, bytes, device) each.

    `theirs`, `ours`: (address, device) of the pool's and the slot's beginning. In the slot a piece
    is [len(layers), parts, len(units), unit].
    """
    size = layout.unit_bytes // layout.num_parts
    cuts = [0, *(n + 1 for n, (a, b) in enumerate(pairwise(units)) if b != a + 1), len(units)]
    starts = numpy.array(cuts[:-1], dtype=numpy.uint64)
    lengths = numpy.diff(numpy.array(cuts)).astype(numpy.uint64) * numpy.uint64(size)
    first = numpy.array([units[at] for at in cuts[:-1]], dtype=numpy.uint64)
    planes = numpy.arange(
        layers.start * layout.num_parts, layers.stop * layout.num_parts, dtype=numpy.uint64
    )[:, None]
    there = (planes * numpy.uint64(layout.num_units) + first) * numpy.uint64(size)
    here = ((planes - planes[0]) * numpy.uint64(len(units)) + starts) * numpy.uint64(size)

    def rows(offsets: numpy.ndarray, address: int, device: int) -> numpy.ndarray:
        table = numpy.empty((*offsets.shape, 3), dtype=numpy.uint64)
        table[..., 0] = offsets + numpy.uint64(address)
        table[..., 1] = lengths
        table[..., 2] = device
        return table.reshape(-1, 3)

    return rows(there, *theirs), rows(here, *ours)


class NixlPool:
    """A peer's pool that NIXL reads; a `PeerPool`. After a failure it is the other way's."""

    def __init__(
        self,
        agent: NixlAgent,
        staging: Staging,
        handle: NixlHandle,
        layout: PoolLayout,
        connection: Connection,
        copies: CopyThread,
        starts: CopyThread,
        otherwise: PeerPool,
    ) -> None:
        self._agent, self._staging, self._handle = agent, staging, handle
        self._layout, self._connection = layout, connection
        self._copies, self._starts = copies, starts
        self._otherwise = otherwise
        self._owner = f"{handle.agent}/{layout.name}"
        self._works = True
        self._is_closed = False
        self._stream: Any = None

    @property
    def transport(self) -> str:
        return "nixl" if self._works else self._otherwise.transport

    async def read(
        self, units: Sequence[int], into: LocalPool, into_units: Sequence[int], layers: range
    ) -> int:
        if self._works:
            try:
                return await self._read(units, into, into_units, layers)
            except ConnectionLost as error:
                if self._connection.error is not None:
                    raise self._connection.error from error
                self._works = False  # the peer may live: its connection, which is watched, tells
                logger.warning(
                    "NIXL failed, reading otherwise",
                    extra={"pool": self._layout.name, "reason": str(error)},
                )
        return await self._otherwise.read(units, into, into_units, layers)

    async def _read(
        self, units: Sequence[int], into: LocalPool, into_units: Sequence[int], layers: range
    ) -> int:
        try:
            async with asyncio.TaskGroup() as group:
                for where, some in pieces(self._layout, len(units), layers):
                    part = slice(where.start, where.stop)
                    group.create_task(self._piece(units[part], into, into_units[part], some))
        except BaseExceptionGroup as errors:  # of one piece; the others were cancelled
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        return len(layers) * len(units) * self._layout.unit_bytes

    async def _piece(
        self, units: Sequence[int], into: LocalPool, into_units: Sequence[int], layers: range
    ) -> None:
        slot = await self._staging.take(self._owner, READ_TIMEOUT_S)
        try:
            packed = await self.fetch(slot, units, layers, READ_TIMEOUT_S)
            await self._copies.run_apart(lambda: self._settle(packed, into, into_units, layers))
        finally:
            self._staging.give_back(slot)

    async def fetch(
        self, slot: Slot, units: Sequence[int], layers: range, timeout_s: float
    ) -> torch.Tensor:
        """Read a piece into a slot; returns it there, as [layers, parts, units, unit].

        Raises:
            ConnectionLost: the peer is gone, or NIXL's connection to it.
            TimeoutError: it is not here in time, and may still come: the slot must rest.
        """
        theirs, ours = stretches(
            self._layout, units, layers, (self._handle.address, self._handle.device),
            (slot.memory.data_ptr(), device_of(slot.memory)),
        )  # fmt: skip
        await self._starts.run_apart(lambda: self._begin(slot, theirs, ours))
        deadline_s = time.monotonic() + timeout_s
        while not self._agent.is_over(slot.transfer):
            if self._connection.error is not None:
                raise self._connection.error
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"a read by NIXL took more than {timeout_s:.0f} s")
            await asyncio.sleep(POLL_S)
        shape = (len(layers), self._layout.num_parts, len(units), self._layout.unit_values)
        num_bytes = len(layers) * len(units) * self._layout.unit_bytes
        return slot.memory[:num_bytes].view(self._layout.torch_dtype).view(shape)

    def _begin(self, slot: Slot, theirs: numpy.ndarray, ours: numpy.ndarray) -> None:
        """In the starting thread: start, and wait a little, as most reads are short."""
        slot.transfer = self._agent.begin(self._handle, theirs, slot.memory, ours)
        spin_until_s = time.monotonic() + SPIN_S
        while not self._agent.is_over(slot.transfer) and time.monotonic() < spin_until_s:
            time.sleep(0)  # lets other threads have the interpreter

    def _settle(
        self, packed: torch.Tensor, into: LocalPool, units: Sequence[int], layers: range
    ) -> None:
        """From a slot into the pool; on a GPU beside the model's own stream."""
        if not packed.is_cuda:
            unpack(packed, into.units, units, layers)
            return
        if self._stream is None:
            self._stream = torch.cuda.Stream(packed.device)  # type: ignore[no-untyped-call]
        with torch.cuda.device(packed.device), torch.cuda.stream(self._stream):
            unpack(packed, into.units, units, layers)
        self._stream.synchronize()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._agent.part(self._handle)
        self._otherwise.close()


class NixlTransport:
    """Reads pools by NIXL; a `Transport`. `where` is a peer's `NixlHandle`, encoded."""

    def __init__(
        self, agent: NixlAgent, staging: Staging, copies: CopyThread, otherwise: Transport
    ) -> None:
        """`otherwise` is how a pool is read once NIXL has failed."""
        self._agent, self._staging, self._copies = agent, staging, copies
        self._otherwise = otherwise
        self._starts = CopyThread()

    async def attach(
        self, connection: Connection, where: str, ours: PoolLayout, theirs: PoolLayout
    ) -> NixlPool:
        check_same(ours, theirs)
        handle = decode(where, theirs)
        if theirs.unit_bytes > SLOT_BYTES:
            raise NoDescriptor(f"pool {theirs.name!r}: units of {theirs.unit_bytes} bytes")
        otherwise = await self._otherwise.attach(connection, "", ours, theirs)
        await asyncio.to_thread(self._agent.join, handle)
        pool = NixlPool(
            self._agent, self._staging, handle, theirs, connection,
            self._copies, self._starts, otherwise,
        )  # fmt: skip
        try:
            slot = await self._staging.take(handle.agent, TRY_TIMEOUT_S)
            try:
                await pool.fetch(slot, [0], range(1), TRY_TIMEOUT_S)
            finally:
                self._staging.give_back(slot)
        except (ConnectionLost, TimeoutError) as error:
            pool.close()
            raise NoDescriptor(f"NIXL does not reach the peer: {error}") from error
        except BaseException:
            pool.close()
            raise
        return pool

    def close(self) -> None:
        """After the last read; the agent lends nothing any more."""
        self._starts.close()
        if self._staging.num_resting:  # their memory must not be anybody else's while they fill
            _never_freed.append(self._staging)
            logger.warning("reads of silent peers are still open")
            return
        self._agent.close()
