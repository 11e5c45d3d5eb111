"""This file is about reading a peer's pool in GPU memory on the same host: mapped by CUDA IPC.

A handle names an allocation of the driver; the peer's process opens it once and then copies from
it like from its own memory, over NVLink where the pool lies on another GPU of the host. The device
is named by its UUID, since two processes may number the same GPUs differently.

A read runs on a stream of its own, in the copy thread, and has ended when it returns. The source
needs no event: spans are announced only after the device has written them
(`epidote_engine.layer_events`), and the loan keeps them as they are.
Source: CUDA C++ Programming Guide, interprocess communication; torch keeps the exporting side's
memory alive while a peer maps it.
"""

import asyncio
import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch

from epidote_core.errors import InvalidRequest
from epidote_workers.rpc.client import Connection
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.copying import copy_units
from epidote_workers.transfer.descriptor_socket import NoDescriptor
from epidote_workers.transfer.layout import PoolLayout, check_same
from epidote_workers.transfer.transport import LocalPool

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CudaHandle:
    """What another process needs to map one tensor's storage. Plain values, checked on arrival."""

    device_uuid: str
    memory: bytes
    storage_bytes: int
    storage_offset_bytes: int
    counter: bytes
    counter_offset: int
    event: bytes
    event_sync_required: bool
    tensor_offset_bytes: int  # of the pool in its storage


class DeviceAllocator:
    """Pools in a GPU's memory; fits the engine's `allocate` argument. Nothing to pass over a
    socket: peers get handles (`export`)."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._names: set[str] = set()

    def allocate(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A zeroed tensor on the device.

        Raises:
            ValueError: the name is taken.
        """
        if name in self._names:
            raise ValueError(f"pool {name!r} exists already")
        self._names.add(name)
        return torch.zeros(tuple(shape), dtype=dtype, device=self._device)

    def descriptor(self, name: str) -> int | None:
        """None: such a pool has no descriptor."""
        return None

    def close(self) -> None:
        """Nothing is held: the memory is the tensors'."""


def export(tensor: torch.Tensor) -> str:
    """Where a peer on this host finds `tensor`.

    "" for one that is empty, not in GPU memory, or in memory that the driver shares with nobody (a
    part of a GPU under MIG, WSL): peers then read it another way. Once a pool: every call takes
    one of torch's counters for as long as the pool lives.
    """
    if not tensor.is_cuda or not tensor.numel():
        return ""
    storage: Any = tensor.untyped_storage()
    try:
        shared = storage._share_cuda_()
    except RuntimeError as error:  # not lost: packed reads, NIXL and Ray need no handle
        logger.warning("pool in GPU memory can't be mapped", extra={"error": repr(error)})
        return ""
    device, memory, size, offset, counter, counter_offset, event, sync = shared
    return encode(
        CudaHandle(
            device_uuid=str(torch.cuda.get_device_properties(device).uuid),
            memory=memory,
            storage_bytes=size,
            storage_offset_bytes=offset,
            counter=counter,
            counter_offset=counter_offset,
            event=event,
            event_sync_required=sync,
            tensor_offset_bytes=int(tensor.storage_offset()) * tensor.element_size(),
        )
    )


def encode(handle: CudaHandle) -> str:
    """A handle as text, to go where a descriptor's path goes."""
    return base64.b64encode(msgspec.msgpack.encode(handle)).decode()


def decode(where: str, layout: PoolLayout) -> CudaHandle:
    """The handle that a peer sent for a pool of `layout`.

    Raises:
        NoDescriptor: not a handle, or the memory it names is smaller than the pool.
    """
    try:
        handle = msgspec.msgpack.decode(base64.b64decode(where, validate=True), type=CudaHandle)
    except (ValueError, msgspec.MsgspecError) as error:
        raise NoDescriptor(f"pool {layout.name!r}: not a CUDA handle: {error}") from error
    room = handle.storage_bytes - handle.tensor_offset_bytes
    if handle.tensor_offset_bytes < 0 or room < layout.num_bytes:
        raise NoDescriptor(
            f"pool {layout.name!r}: wanted {layout.num_bytes} bytes, the handle has {room}"
        )
    return handle


def device_of(uuid: str) -> int:
    """This process's number of a GPU.

    Raises:
        NoDescriptor: it has no such GPU (or none at all).
    """
    for index in range(torch.cuda.device_count()):
        if str(torch.cuda.get_device_properties(index).uuid) == uuid:
            return index
    raise NoDescriptor(f"the peer's GPU {uuid} is not visible to this process")


def map_pool(handle: CudaHandle, layout: PoolLayout) -> torch.Tensor:
    """A peer's pool as [layers, parts, index, unit]; unmapped when the tensor is collected.

    Raises:
        NoDescriptor: the GPU is not visible here, or the driver refuses.
    """
    device = device_of(handle.device_uuid)
    untyped: Any = torch.UntypedStorage
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        storage = untyped._new_shared_cuda(
            device, handle.memory, handle.storage_bytes, handle.storage_offset_bytes,
            handle.counter, handle.counter_offset, handle.event, handle.event_sync_required,
        )  # fmt: skip
    except RuntimeError as error:
        raise NoDescriptor(f"pool {layout.name!r}: not mapped: {error}") from error
    flat = torch.empty(0, dtype=torch.uint8, device=f"cuda:{device}").set_(storage)
    start = handle.tensor_offset_bytes
    return flat[start : start + layout.num_bytes].view(layout.torch_dtype).view(layout.shape)


class CudaMappedPool:
    """A peer's pool in GPU memory that this process has mapped; a `PeerPool`."""

    def __init__(self, units: torch.Tensor, layout: PoolLayout, copies: CopyThread) -> None:
        self._units: torch.Tensor | None = units
        self._layout, self._copies = layout, copies
        self._stream: Any = None

    @property
    def transport(self) -> str:
        return "cuda_ipc"

    async def read(
        self, units: Sequence[int], into: LocalPool, into_units: Sequence[int], layers: range
    ) -> int:
        source = self._units
        assert source is not None, "read after close"
        if not into.units.is_cuda:
            raise InvalidRequest("transfer: a pool in GPU memory is copied to another one only")

        def copy() -> None:
            device = into.units.device
            if self._stream is None:
                self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            with torch.cuda.device(device), torch.cuda.stream(self._stream):
                copy_units(source, units, into.units, into_units, layers)
            self._stream.synchronize()

        # always in the thread: the loop must not wait for the device
        await self._copies.run_apart(copy)
        return len(layers) * len(units) * self._layout.unit_bytes

    def close(self) -> None:
        self._units = None  # unmapped with the last copy that still runs


class CudaIpcTransport:
    """Maps pools in GPU memory of the same host; a `Transport`. `where` is a peer's `export`."""

    def __init__(self, copies: CopyThread) -> None:
        self._copies = copies

    async def attach(
        self, connection: Connection, where: str, ours: PoolLayout, theirs: PoolLayout
    ) -> CudaMappedPool:
        check_same(ours, theirs)
        handle = decode(where, theirs)
        units = await asyncio.to_thread(map_pool, handle, theirs)
        return CudaMappedPool(units, theirs, self._copies)
