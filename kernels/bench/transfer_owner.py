"""This file is about the other side of `bench_transfers.py`: a process that lends one pool.

Its argument is one JSON object; it says on one line where it listens, and ends when standard input
does. A line on standard input is the address of a Ray cluster to join, answered by a line.
"""

import asyncio
import json
import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from epidote_workers.messages import POOLS, READ, Nothing, Pools
from epidote_workers.pool_lending import PoolLending
from epidote_workers.rpc.address import TcpAddress
from epidote_workers.rpc.server import Server, Service
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.cuda_ipc import DeviceAllocator
from epidote_workers.transfer.descriptor_socket import DescriptorServer
from epidote_workers.transfer.layout import as_units, kv_layout
from epidote_workers.transfer.packed import PackedTransport, answer_read
from epidote_workers.transfer.shared_pool import SharedMemoryAllocator
from epidote_workers.transfer.transport import LocalPool


@dataclass(frozen=True, kw_only=True)
class OwnerSettings:
    """`shape` as a KV pool's."""

    device: str
    dtype: str
    shape: tuple[int, ...]
    folder: str


def filled(tensor: torch.Tensor) -> torch.Tensor:
    """The same random numbers in both processes."""
    random = torch.Generator().manual_seed(1)
    layer = torch.rand(tensor.shape[1:], generator=random) + 0.5
    for number in range(tensor.shape[0]):
        tensor[number].copy_(layer * (number + 1))
    return tensor


async def main(settings: OwnerSettings) -> None:
    on_gpu = settings.device.startswith("cuda")
    allocator: Any = DeviceAllocator(settings.device) if on_gpu else SharedMemoryAllocator()
    tensor = filled(allocator.allocate("kv", settings.shape, getattr(torch, settings.dtype)))
    if on_gpu:
        torch.cuda.synchronize()
    layout = kv_layout(tensor, "bench")
    pools = {"kv": LocalPool(as_units(tensor, layout), layout)}
    descriptors = DescriptorServer(str(Path(settings.folder) / "fds"), allocator)
    lending, copies = PoolLending("bench", pools), CopyThread()
    await lending.open_nixl("owner", copies, PackedTransport(copies))

    async def describe(_: Nothing) -> Pools:
        return lending.describe(descriptors.path, allocator)

    service = Service()
    service.add_call(POOLS, describe)
    service.add_stream(READ, lambda call: answer_read(call, lambda name: pools[name]))
    address = await Server(service).listen(TcpAddress("127.0.0.1", 0))
    print(json.dumps({"address": str(address)}), flush=True)
    await asyncio.Event().wait()


def _obey() -> None:
    try:
        for cluster in iter(sys.stdin.readline, ""):
            import ray

            ray.init(address=cluster.strip(), log_to_driver=False, configure_logging=False)
            print(json.dumps({"joined": True}), flush=True)
    finally:
        os._exit(0)  # whoever asked must not wait for an answer


if __name__ == "__main__":
    torch.set_num_threads(1)
    threading.Thread(target=_obey, daemon=True).start()
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=OwnerSettings)))
