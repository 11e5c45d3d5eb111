"""This file is about reading a pool that can't be mapped: packed there, carried, unpacked here.

The carrier is Ray's object store where both sides have one (its data plane moves large objects
between hosts), else the connection itself. KV may travel as codes of one byte (`quantized.py`).
Either way the peer holds at most `MAX_READ_BYTES` of packed data for us at a time: that is the
back-pressure.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

import torch

from epidote_workers.messages import READ, Packed, ReadCall
from epidote_workers.rpc.client import Connection
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.copying import pack, unpack
from epidote_workers.transfer.layout import PoolLayout, check_same
from epidote_workers.transfer.quantized import (
    codes_for,
    num_bytes_of,
    pack_codes,
    unpack_codes,
)
from epidote_workers.transfer.ray_objects import free_object, get_object, has_ray, put_object
from epidote_workers.transfer.side_stream import beside_the_model
from epidote_workers.transfer.transport import LocalPool

MAX_READ_BYTES = 32 << 20
READ_TIMEOUT_S = 30.0


def to_bytes(packed: torch.Tensor) -> bytes:
    return packed.reshape(-1).view(torch.uint8).numpy().tobytes()


class PackedPool:
    """A peer's pool behind calls; a `PeerPool`."""

    def __init__(
        self, connection: Connection, layout: PoolLayout, copies: CopyThread, codes: str
    ) -> None:
        self._connection, self._layout, self._copies = connection, layout, copies
        self._codes = codes
        self._carrier = "connection"

    @property
    def transport(self) -> str:
        return self._carrier

    async def read(
        self, units: Sequence[int], into: LocalPool, into_units: Sequence[int], layers: range
    ) -> int:
        per_unit = len(layers) * self._layout.unit_bytes
        step = max(1, MAX_READ_BYTES // per_unit)
        for at in range(0, len(units), step):
            await self._read_some(units[at : at + step], into, into_units[at : at + step], layers)
        if self._codes:
            return num_bytes_of(self._layout, len(units), len(layers))
        return per_unit * len(units)

    async def _read_some(
        self, units: Sequence[int], into: LocalPool, into_units: Sequence[int], layers: range
    ) -> None:
        call = ReadCall(
            pool=self._layout.name,
            first_layer=layers.start,
            end_layer=layers.stop,
            units=tuple(units),
            ray=has_ray(),
            codes=self._codes,
        )
        stream = self._connection.stream(READ, call)
        try:
            packed = await stream.next(READ_TIMEOUT_S)
            assert packed is not None
            data: bytes | memoryview = packed.data
            self._carrier = "ray_objects" if packed.ticket else "connection"
            if packed.ticket:
                data = await asyncio.to_thread(get_object, packed.ticket, READ_TIMEOUT_S)

            def settle() -> None:
                with beside_the_model(into.units.device):
                    self._settle(data, into, into_units, layers)

            if into.units.is_cuda:  # the loop must not wait for the device
                await self._copies.run_apart(settle)
            else:
                await self._copies.run(settle, len(data))
        finally:
            stream.close()  # only now may the peer free the object

    def _settle(
        self, data: bytes | memoryview, into: LocalPool, units: Sequence[int], layers: range
    ) -> None:
        if self._codes:
            unpack_codes(data, into, units, layers, self._codes)
            return
        shape = (len(layers), self._layout.num_parts, len(units), self._layout.unit_values)
        tensor = torch.frombuffer(bytearray(data), dtype=self._layout.torch_dtype).view(shape)
        unpack(tensor, into.units, units, layers)

    def close(self) -> None:
        """Nothing is held."""


class PackedTransport:
    """Reads over the connection or Ray's object store; a `Transport`."""

    def __init__(self, copies: CopyThread, kv_transfer_dtype: str = "auto") -> None:
        self._copies, self._kv_transfer_dtype = copies, kv_transfer_dtype

    async def attach(
        self, connection: Connection, where: str, ours: PoolLayout, theirs: PoolLayout
    ) -> PackedPool:
        check_same(ours, theirs)
        codes = codes_for(self._kv_transfer_dtype, ours)
        return PackedPool(connection, theirs, self._copies, codes)


async def answer_read(
    call: ReadCall, pool_of: Callable[[str], LocalPool]
) -> AsyncGenerator[Packed, None]:
    """The peer's side: pack what an open loan lets the caller read, keep it until it has it.

    Raises:
        ValueError: units or layers outside the pool, more than `MAX_READ_BYTES`, or codes that
            are unknown or of a pool that holds codes itself.
    """
    pool = pool_of(call.pool)
    layers = range(call.first_layer, call.end_layer)
    if not 0 <= call.first_layer < call.end_layer <= pool.layout.num_layers:
        raise ValueError(f"layers {layers} of {pool.layout.num_layers}")
    if not call.units or not all(0 <= unit < pool.layout.num_units for unit in call.units):
        raise ValueError(f"units outside 0 … {pool.layout.num_units - 1}, or none")
    if len(call.units) > max(1, MAX_READ_BYTES // (len(layers) * pool.layout.unit_bytes)):
        raise ValueError(f"{len(call.units)} units are too many for one read")
    data = await asyncio.to_thread(_packed, pool, call, layers)
    if call.ray and has_ray():
        ticket = await asyncio.to_thread(put_object, data)
        try:
            yield Packed(ticket=ticket)
            await asyncio.sleep(READ_TIMEOUT_S)  # closed by the reader when it is done
        finally:
            free_object(ticket)
    else:
        yield Packed(data=data)


def _packed(pool: LocalPool, call: ReadCall, layers: range) -> bytes:
    with beside_the_model(pool.units.device):
        if call.codes:
            return pack_codes(pool, call.units, layers, call.codes)
        return to_bytes(pack(pool.units, call.units, layers))
