"""GPU pools that a peer maps: the protocol anywhere, the mapping where there is a GPU."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from epidote_core.errors import InvalidRequest
from epidote_workers.pool_lending import PoolLending
from epidote_workers.transfer import cuda_ipc
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.cuda_ipc import CudaHandle, CudaIpcTransport, CudaMappedPool
from epidote_workers.transfer.descriptor_socket import NoDescriptor
from epidote_workers.transfer.layout import LayoutMismatch, as_units, kv_layout
from epidote_workers.transfer.transport import LocalPool

SHAPE = (3, 2, 40, 4, 2, 8)  # layers, keys and values, blocks, block size, heads, width
HANDLE = CudaHandle(
    device_uuid="GPU-of-nobody",
    memory=b"m" * 64,
    storage_bytes=1 << 20,
    storage_offset_bytes=512,
    counter=b"/torch_1",
    counter_offset=3,
    event=b"",
    event_sync_required=False,
    tensor_offset_bytes=256,
)


@pytest.fixture
def copies() -> Iterator[CopyThread]:
    thread = CopyThread()
    yield thread
    thread.close()


def pool() -> LocalPool:
    tensor = torch.arange(float(torch.Size(SHAPE).numel())).view(SHAPE)
    layout = kv_layout(tensor, "tiny@1")
    return LocalPool(as_units(tensor, layout), layout)


def test_a_handle_arrives_as_it_was_sent() -> None:
    assert cuda_ipc.decode(cuda_ipc.encode(HANDLE), pool().layout) == HANDLE


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("/run/epidote/w1.fds", "not a CUDA handle"),
        ("bm9uc2Vuc2U=", "not a CUDA handle"),
        (cuda_ipc.encode(replace(HANDLE, storage_bytes=999)), "wanted 61440 bytes, .* has 743"),
        (cuda_ipc.encode(replace(HANDLE, tensor_offset_bytes=-1)), "wanted 61440 bytes"),
    ],
)
def test_what_is_no_handle_of_this_pool_is_refused(where: str, words: str) -> None:
    with pytest.raises(NoDescriptor, match=words):
        cuda_ipc.decode(where, pool().layout)


async def test_a_gpu_that_is_not_visible_here_leaves_it_to_another_transport(
    copies: CopyThread,
) -> None:
    ours = pool().layout
    transport = CudaIpcTransport(copies)
    with pytest.raises(NoDescriptor, match="GPU-of-nobody is not visible"):
        await transport.attach(None, cuda_ipc.encode(HANDLE), ours, ours)  # type: ignore[arg-type]
    with pytest.raises(LayoutMismatch, match="dtype: 'float16' there"):
        await transport.attach(
            None,
            cuda_ipc.encode(HANDLE),
            ours,
            replace(ours, dtype="float16"),  # type: ignore[arg-type]
        )


async def test_a_pool_on_the_cpu_is_not_exported_and_not_copied_into(copies: CopyThread) -> None:
    here = pool()
    assert cuda_ipc.export(here.units) == ""
    peer = CudaMappedPool(here.units, here.layout, copies)
    with pytest.raises(InvalidRequest, match="copied to another one only"):
        await peer.read([0], here, [1], range(1))
    peer.close()


class Unshareable:
    """GPU memory of which CUDA gives no handle, as a part of a GPU under MIG is."""

    is_cuda = True

    def __init__(self) -> None:
        self.num_asked = 0

    def numel(self) -> int:
        return 8

    def untyped_storage(self) -> "Unshareable":
        return self

    def _share_cuda_(self) -> None:
        self.num_asked += 1
        raise RuntimeError("CUDA error: operation not supported")


def test_memory_that_cuda_shares_with_nobody_is_lent_another_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    layout, memory = replace(pool().layout, num_units=0), Unshareable()
    lending = PoolLending("node", {"kv": LocalPool(memory, layout)})  # type: ignore[arg-type]
    told = [lending.describe("", cuda_ipc.DeviceAllocator("cpu")) for _ in range(3)]
    assert [pools.cuda_handles for pools in told] == [(("kv", ""),)] * 3
    assert told[0].layouts == (layout,)  # which is all that a packed read needs
    assert memory.num_asked == 1
    assert "can't be mapped" in caplog.text


def test_pools_of_one_name_are_made_once() -> None:
    allocator = cuda_ipc.DeviceAllocator("cpu")
    made = allocator.allocate("kv", (2, 3), torch.float16)
    assert made.shape == (2, 3)
    assert not made.any()
    assert allocator.descriptor("kv") is None
    with pytest.raises(ValueError, match="pool 'kv' exists already"):
        allocator.allocate("kv", (1,), torch.float16)


OWNER = """
import sys, torch
from epidote_workers.transfer import cuda_ipc
allocator = cuda_ipc.DeviceAllocator("cuda")
pool = allocator.allocate("kv", (3, 2, 40, 4, 2, 8), torch.float32)
pool.copy_(torch.arange(pool.numel(), device="cuda").view_as(pool))
torch.cuda.synchronize()
print(cuda_ipc.export(pool), flush=True)
sys.stdin.read()
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
async def test_a_peer_process_reads_blocks_of_some_layers(copies: CopyThread) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert owner.stdout is not None
        where = owner.stdout.readline().strip()
        want = pool()
        ours = LocalPool(torch.full_like(want.units, -1, device="cuda"), want.layout)
        peer = await CudaIpcTransport(copies).attach(None, where, want.layout, want.layout)  # type: ignore[arg-type]
        num_bytes = await peer.read([7, 8, 30], ours, [0, 5, 6], range(1, 3))
        assert num_bytes == 2 * 3 * want.layout.unit_bytes
        got = ours.units.cpu()
        assert got[1:, :, [0, 5, 6]].equal(want.units[1:, :, [7, 8, 30]])
        assert (got[0] == -1).all()
        assert (got[:, :, [1, 2, 3, 4, 7]] == -1).all()
        peer.close()
    finally:
        owner.communicate("", timeout=60)
