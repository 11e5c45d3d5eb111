"""This file is about pools in shared memory, across real processes and their sudden deaths."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epidote_workers.messages import READ
from epidote_workers.rpc.address import UnixAddress
from epidote_workers.rpc.client import connect
from epidote_workers.rpc.server import Server, Service
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.copying import copy_units, pack, unpack
from epidote_workers.transfer.descriptor_socket import (
    DescriptorServer,
    NoDescriptor,
    fetch_descriptor,
)
from epidote_workers.transfer.layout import (
    LayoutMismatch,
    PoolLayout,
    as_units,
    check_same,
    kv_layout,
)
from epidote_workers.transfer.packed import PackedTransport, answer_read
from epidote_workers.transfer.shared_memory import MappedPool, SharedMemoryTransport
from epidote_workers.transfer.shared_pool import SharedMemoryAllocator, map_read_only
from epidote_workers.transfer.transport import LocalPool

SHAPE = (3, 2, 40, 4, 2, 8)  # layers, keys and values, blocks, block size, heads, width
OWNER = """
import sys, torch, time
from epidote_workers.transfer.shared_pool import SharedMemoryAllocator
from epidote_workers.transfer.descriptor_socket import DescriptorServer
allocator = SharedMemoryAllocator()
pool = allocator.allocate("kv", (int(sys.argv[2]),), torch.float32)
pool.fill_(7.0)
server = DescriptorServer(sys.argv[1], allocator)
print("ready", flush=True)
sys.stdin.read()
"""


def mapped(pid: int | str) -> list[str]:
    """The lines of a process's memory map; [] if it is gone or somebody else's."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/maps").read_text().splitlines()
    return []


def who_maps(inode: int) -> set[str]:
    """Processes that hold a pool's memory."""
    processes = [path.name for path in Path("/proc").glob("[0-9]*")]
    pool = [str(inode), "/memfd:epidote-kv"]
    return {pid for pid in processes if any(line.split()[4:6] == pool for line in mapped(pid))}


def layout_of(values: int) -> PoolLayout:
    return PoolLayout(
        name="kv",
        dtype="float32",
        num_layers=1,
        num_parts=1,
        num_units=1,
        unit_values=values,
        block_size=1,
        fingerprint="m",
    )


@pytest.fixture
def copies() -> Iterator[CopyThread]:
    thread = CopyThread()
    yield thread
    thread.close()


def random_pool(allocator: SharedMemoryAllocator | None = None) -> LocalPool:
    if allocator is None:
        tensor = torch.randn(SHAPE)
    else:
        tensor = allocator.allocate("kv", SHAPE, torch.float32).copy_(torch.randn(SHAPE))
    layout = kv_layout(tensor, "model")
    return LocalPool(as_units(tensor, layout), layout)


def test_killing_the_owner_leaves_no_name_and_returns_the_memory(tmp_path: Path) -> None:
    values = 1 << 20
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "fds"), str(values)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"ready\n"
    descriptor = fetch_descriptor(str(tmp_path / "fds"), "kv")
    inode = os.fstat(descriptor).st_ino
    pool: torch.Tensor | None = map_read_only(descriptor, layout_of(values))
    os.close(descriptor)
    assert who_maps(inode) == {str(owner.pid), str(os.getpid())}
    assert not [line for line in mapped(owner.pid) if "/dev/shm/" in line], "a pool has no name"
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert pool is not None
    assert float(pool.sum()) == 7.0 * values, "who is attached may still read"
    assert who_maps(inode) == {str(os.getpid())}
    pool = None
    assert who_maps(inode) == set(), "the last one gone, the kernel frees the memory"


def test_a_peer_can_neither_write_nor_shrink_a_pool() -> None:
    allocator = SharedMemoryAllocator()
    allocator.allocate("kv", (1024,), torch.float32)
    descriptor = allocator.descriptor("kv")
    assert descriptor is not None
    import mmap

    with pytest.raises(PermissionError):
        mmap.mmap(descriptor, 4096)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    allocator.close()


def test_a_pool_that_nobody_has_is_said_so(tmp_path: Path) -> None:
    server = DescriptorServer(str(tmp_path / "fds"), SharedMemoryAllocator())
    with pytest.raises(NoDescriptor):
        fetch_descriptor(str(tmp_path / "fds"), "kv")
    server.close()
    with pytest.raises(NoDescriptor):
        fetch_descriptor(str(tmp_path / "fds"), "kv")


@pytest.mark.parametrize(
    "theirs",
    [
        torch.zeros(SHAPE, dtype=torch.bfloat16),
        torch.zeros(SHAPE, dtype=torch.int8),
        torch.zeros((2, *SHAPE[1:])),
        torch.zeros((*SHAPE[:3], 8, 2, 8)),
    ],
)
def test_pools_of_another_kind_are_refused(theirs: torch.Tensor) -> None:
    ours = kv_layout(torch.zeros(SHAPE), "model")
    with pytest.raises(LayoutMismatch):
        check_same(ours, kv_layout(theirs, "model"))


def test_a_peer_with_other_kv_codes_is_refused_by_both_names() -> None:
    ours = kv_layout(torch.zeros(SHAPE, dtype=torch.int8), "model")
    theirs = kv_layout(torch.zeros(SHAPE, dtype=torch.float8_e4m3fn), "model")
    with pytest.raises(LayoutMismatch, match="dtype: 'float8_e4m3fn' there, 'int8' here"):
        check_same(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("packed", [False, True])
def test_codes_of_one_byte_are_copied_as_they_are(dtype: torch.dtype, packed: bool) -> None:
    source = torch.randn(SHAPE).to(dtype)
    layout = kv_layout(source, "model")
    assert layout.num_bytes == source.numel()
    allocator = SharedMemoryAllocator()
    try:
        target = allocator.allocate("kv", SHAPE, dtype)
        theirs, ours = as_units(source, layout), as_units(target, layout)
        if packed:
            unpack(pack(theirs, [3, 9, 4], range(3)), ours, [0, 5, 1], range(3))
        else:
            copy_units(theirs, [3, 9, 4], ours, [0, 5, 1], range(3))
        descriptor = allocator.descriptor("kv")
        assert descriptor is not None
        mapped_there = map_read_only(descriptor, layout)
        copied = mapped_there[:, :, [0, 5, 1]]
        assert copied.equal(source.view(torch.int8).view(layout.shape)[:, :, [3, 9, 4]])
    finally:
        allocator.close()


def test_another_model_is_refused_and_another_size_is_not() -> None:
    ours = kv_layout(torch.zeros(SHAPE), "model")
    with pytest.raises(LayoutMismatch, match="fingerprint: 'other' there"):
        check_same(ours, kv_layout(torch.zeros(SHAPE), "other"))
    check_same(ours, kv_layout(torch.zeros((3, 2, 99, 4, 2, 8)), "model"))


units = st.integers(0, 39)
pairs = st.integers(0, 40).flatmap(
    lambda n: st.tuples(
        st.lists(units, min_size=n, max_size=n, unique=True),
        st.lists(units, min_size=n, max_size=n, unique=True),
    )
)


@given(pairs=pairs, first=st.integers(0, 2), packed=st.booleans())
def test_copies_reach_exactly_their_units_and_layers(
    pairs: tuple[list[int], list[int]], first: int, packed: bool
) -> None:
    source, target = random_pool(), random_pool()
    layers = range(first, 3)
    expected = target.units.clone()
    for at, to in zip(*pairs, strict=True):
        expected[first:, :, to] = source.units[first:, :, at]
    if packed and pairs[0]:
        unpack(pack(source.units, pairs[0], layers), target.units, pairs[1], layers)
    else:
        copy_units(source.units, pairs[0], target.units, pairs[1], layers)
    assert torch.equal(target.units, expected)


def test_many_scattered_units() -> None:
    source, target = random_pool(), random_pool()
    scattered = list(range(39, -1, -1))
    copy_units(source.units, scattered, target.units, list(range(40)), range(3))
    assert torch.equal(target.units, source.units.flip(2))


async def test_mapped_and_packed_reads_agree(tmp_path: Path, copies: CopyThread) -> None:
    allocator = SharedMemoryAllocator()
    theirs = random_pool(allocator)
    descriptors = DescriptorServer(str(tmp_path / "fds"), allocator)
    service = Service()
    service.add_stream(READ, lambda call: answer_read(call, lambda name: theirs))
    server = Server(service)
    address = await server.listen(UnixAddress(str(tmp_path / "s")))
    connection = await connect(str(address))
    try:
        found = []
        for transport in (SharedMemoryTransport(copies), PackedTransport(copies)):
            ours = random_pool()
            ours.units.zero_()
            pool = await transport.attach(
                connection, str(tmp_path / "fds"), ours.layout, theirs.layout
            )
            await pool.read([3, 4, 9], ours, [0, 1, 7], range(1, 3))
            pool.close()
            found.append(ours.units)
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0][1:, :, [0, 1, 7]], theirs.units[1:, :, [3, 4, 9]])
        assert not found[0][0].any()
    finally:
        connection.close("test over")
        await server.close()
        descriptors.close()
        allocator.close()


async def test_a_cancelled_copy_is_over_before_its_caller_goes_on(copies: CopyThread) -> None:
    over = []

    may_end = threading.Event()

    def copy() -> None:
        may_end.wait()
        over.append(True)

    task = asyncio.create_task(copies.run(copy, num_bytes=1 << 30))
    for _ in range(2):
        await asyncio.sleep(0.02)
        task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert over == [True]


async def test_fifty_megabytes_move_about_as_fast_as_memory_copies(copies: CopyThread) -> None:
    shape = (8, 2, 300, 16, 4, 64)  # 50 MiB of float32 in 200 of 300 blocks
    source = torch.randn(shape)
    layout = kv_layout(source, "m")
    target = LocalPool(as_units(torch.zeros(shape), layout), layout)
    pool = MappedPool(as_units(source, layout), layout, copies)
    moved_s, plain_s = [], []  # of the CPU: whoever else uses it would interrupt the longer copy
    waited_s = []  # by the clock: a path that sleeps or polls uses no CPU
    for _ in range(6):  # the first faults the pages in; the best is what the code can do
        called_s, start_s = time.monotonic(), time.process_time()
        num_bytes = await pool.read(range(200), target, range(200), range(8))
        moved_s.append(time.process_time() - start_s)
        waited_s.append(time.monotonic() - called_s)
        start_s = time.process_time()
        target.units[:, :, 200:].copy_(source.view_as(target.units)[:, :, 200:])
        plain_s.append(2 * (time.process_time() - start_s))  # half as many blocks
    print(f"{num_bytes / 2**20:.0f} MiB in {min(moved_s) * 1e3:.1f} ms")
    assert num_bytes == 200 * 2 * 8 * 16 * 4 * 64 * 4
    assert torch.equal(target.units[:, :, :200], as_units(source, layout)[:, :, :200])
    assert min(moved_s) < 5 * min(plain_s)
    assert min(waited_s) < 0.5  # 5 ms on two idle cores; generous, for they are seldom idle
