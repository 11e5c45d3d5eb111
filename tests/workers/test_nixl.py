"""This file is about reading pools by NIXL, over TCP, from a peer that lives, stalls or dies."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.generation import Route
from epidote_core.roles import Role
from epidote_workers.client import FleetClient
from epidote_workers.fake_fleet import ask_for, fleet_of, picture
from epidote_workers.fake_tokens import answer
from epidote_workers.rpc.client import Connection, connect
from epidote_workers.rpc.errors import ConnectionLost
from epidote_workers.transfer import nixl_transport, staging
from epidote_workers.transfer.copy_thread import CopyThread
from epidote_workers.transfer.copying import pack
from epidote_workers.transfer.descriptor_socket import NoDescriptor
from epidote_workers.transfer.layout import LayoutMismatch, PoolLayout, as_units, kv_layout
from epidote_workers.transfer.nixl_agent import NixlHandle, decode, encode, open_agent
from epidote_workers.transfer.nixl_transport import NixlPool, NixlTransport, pieces, stretches
from epidote_workers.transfer.packed import PackedTransport
from epidote_workers.transfer.staging import Staging
from epidote_workers.transfer.transport import LocalPool

SHAPE = (3, 2, 40, 4, 2, 8)  # layers, keys and values, blocks, block size, heads, width
HANDLE = NixlHandle(
    agent="p-1", metadata=b"m" * 9, memory="VRAM", device=3, address=1 << 45, num_bytes=1 << 20
)
OWNER = """
import asyncio, os, sys, torch
from epidote_workers.messages import READ
from epidote_workers.rpc.address import UnixAddress
from epidote_workers.rpc.server import Server, Service
from epidote_workers.transfer.layout import as_units, kv_layout
from epidote_workers.transfer.nixl_agent import encode, open_agent
from epidote_workers.transfer.packed import answer_read
from epidote_workers.transfer.transport import LocalPool
async def main():
    tensor = torch.arange(float(torch.Size(eval(sys.argv[2])).numel())).view(eval(sys.argv[2]))
    layout = kv_layout(tensor, "m")
    pool = LocalPool(as_units(tensor, layout), layout)
    agent = open_agent("owner")
    where = encode(agent.lend(pool.units))
    service = Service()
    service.add_stream(READ, lambda call: answer_read(call, lambda name: pool))
    server = Server(service)
    await server.listen(UnixAddress(sys.argv[1]))
    os.write(int(sys.argv[3]), where.encode() + b"\\n")
    await asyncio.Event().wait()
asyncio.run(main())
"""


def has_nixl() -> bool:
    try:
        import nixl._api  # noqa: F401
    except ImportError:
        return False
    return True


needs_nixl = pytest.mark.skipif(not has_nixl(), reason="nixl is not installed (epidote[nixl])")


@pytest.fixture(autouse=True)
def _over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """As between hosts: nothing that only works inside one; and as much time as it takes."""
    monkeypatch.setenv("UCX_TLS", "tcp")
    monkeypatch.setenv("UCX_NET_DEVICES", "lo")
    monkeypatch.setattr(nixl_transport, "TRY_TIMEOUT_S", 60.0)
    monkeypatch.setattr(nixl_transport, "READ_TIMEOUT_S", 60.0)


@pytest.fixture
def copies() -> Iterator[CopyThread]:
    thread = CopyThread()
    yield thread
    thread.close()


def pool_of(tensor: torch.Tensor) -> LocalPool:
    layout = kv_layout(tensor, "m")
    return LocalPool(as_units(tensor, layout), layout)


def test_a_handle_arrives_as_it_was_sent() -> None:
    assert decode(encode(HANDLE), pool_of(torch.zeros(SHAPE)).layout) == HANDLE


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("/run/epidote/w1.fds", "not a NIXL handle"),
        ("bm9uc2Vuc2U=", "not a NIXL handle"),
        (encode(replace(HANDLE, num_bytes=999)), "wanted 61440 bytes, the handle has 999"),
        (encode(replace(HANDLE, memory="FILE")), "of no memory: 'FILE'"),
        (encode(replace(HANDLE, address=-1)), "of no memory"),
    ],
)
def test_what_is_no_handle_of_this_pool_is_refused(where: str, words: str) -> None:
    with pytest.raises(NoDescriptor, match=words):
        decode(where, pool_of(torch.zeros(SHAPE)).layout)


@given(
    units=st.lists(st.integers(0, 39), min_size=1, max_size=40, unique=True),
    first=st.integers(0, 2),
    count=st.integers(1, 3),
)
def test_stretches_name_the_bytes_that_packing_would_copy(
    units: list[int], first: int, count: int
) -> None:
    pool = pool_of(torch.randn(SHAPE))
    layers = range(first, min(3, first + count))
    expected = pack(pool.units, units, layers).numpy().tobytes()
    source = pool.units.numpy().tobytes()
    theirs, ours = stretches(pool.layout, units, layers, (1000, 7), (5000, 0))
    found = bytearray(len(expected))
    for (there, size, device), (here, same, _) in zip(theirs.tolist(), ours.tolist(), strict=True):
        assert (size, device) == (same, 7)
        found[here - 5000 : here - 5000 + size] = source[there - 1000 : there - 1000 + size]
    assert bytes(found) == expected
    neighbours = sum(b == a + 1 for a, b in pairwise(units))
    assert len(theirs) == len(layers) * 2 * (len(units) - neighbours)


@given(
    num_units=st.integers(1, 3000),
    num_layers=st.integers(1, 90),
    unit_values=st.integers(1, 1 << 21),
)
def test_pieces_fit_into_a_slot_and_are_everything_once(
    num_units: int, num_layers: int, unit_values: int
) -> None:
    layout = PoolLayout(
        name="kv", dtype="float32", num_layers=num_layers, num_parts=2, num_units=num_units,
        unit_values=unit_values, block_size=16, fingerprint="m",
    )  # fmt: skip
    found = list(pieces(layout, num_units, range(num_layers)))
    assert sum(len(u) * len(layers) for u, layers in found) == num_units * num_layers
    assert len({(u.start, layers.start) for u, layers in found}) == len(found)
    assert all(u.stop <= num_units and layers.stop <= num_layers for u, layers in found)
    if layout.unit_bytes <= staging.SLOT_BYTES:
        sizes = [len(u) * len(layers) * layout.unit_bytes for u, layers in found]
        assert max(sizes) <= staging.SLOT_BYTES


def test_without_nixl_there_is_no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nixl._api", None)
    assert open_agent("w") is None


class Owner:
    """Another process that lends a pool of 0, 1, 2, … by NIXL, and packs it for who asks."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "s")
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, self.path, repr(SHAPE), str(writing)],
            pass_fds=[writing],
        )
        os.close(writing)
        with os.fdopen(reading) as pipe:
            self.where = pipe.readline().strip()
        assert self.where, "the owner died"
        self.units = pool_of(torch.arange(float(torch.Size(SHAPE).numel())).view(SHAPE)).units

    def pause(self) -> None:
        """Return when no thread of it runs any more."""
        self.process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.process.pid}/task")
        while any(" T " not in (one / "stat").read_text() for one in threads.iterdir()):
            time.sleep(0.001)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@asynccontextmanager
async def attached(
    owner: Owner, ours: LocalPool, copies: CopyThread
) -> AsyncIterator[tuple[NixlPool, Connection, Staging]]:
    connection = await connect(owner.path if ":" in owner.path else f"unix:{owner.path}")
    agent = await asyncio.to_thread(open_agent, "reader")
    assert agent is not None
    slots = Staging(agent, torch.device("cpu"))
    transport = NixlTransport(agent, slots, copies, PackedTransport(copies))
    pool = await transport.attach(connection, owner.where, ours.layout, ours.layout)
    try:
        yield pool, connection, slots
    finally:
        pool.close()
        connection.close("test over")
        transport.close()


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    process = Owner(tmp_path)
    yield process
    process.stop()


@needs_nixl
@pytest.mark.slow
async def test_a_peer_process_reads_blocks_of_some_layers(
    owner: Owner, copies: CopyThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nixl_transport, "SLOT_BYTES", 2 << 10)  # several pieces
    ours = pool_of(torch.full(SHAPE, -1.0))
    async with attached(owner, ours, copies) as (pool, _, slots):
        for theirs, into, layers in (
            ([7, 8, 30], [0, 5, 6], range(1, 3)),
            (list(range(39, 19, -1)), list(range(10, 30)), range(3)),
        ):
            num_bytes = await pool.read(theirs, ours, into, layers)
            assert num_bytes == len(layers) * len(theirs) * ours.layout.unit_bytes
            span = slice(layers.start, layers.stop)
            assert ours.units[span, :, into].equal(owner.units[span, :, theirs])
        assert (ours.units[0, :, :10] == -1).all()
        assert (ours.units[:, :, [1, 2, 3, 4, 7, 8, 9, 30, 39]] == -1).all()
        assert slots.num_resting == 0


@needs_nixl
@pytest.mark.slow
async def test_a_silent_peer_times_out_and_what_it_sends_later_harms_nothing(
    owner: Owner, copies: CopyThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = pool_of(torch.full(SHAPE, -1.0))
    async with attached(owner, ours, copies) as (pool, _, slots):
        monkeypatch.setattr(nixl_transport, "READ_TIMEOUT_S", 0.5)
        owner.pause()
        for _ in range(3):  # the third does not even get a slot
            with pytest.raises(TimeoutError):
                await pool.read([1, 2], ours, [1, 2], range(3))
        cancelled = asyncio.create_task(pool.read([1, 2], ours, [1, 2], range(3)))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert slots.num_resting == staging.MAX_SLOTS_PER_POOL
        assert (await slots.take("of somebody else", 60.0)) is not None
        owner.resume()
        async with asyncio.timeout(60.0):
            while slots.num_resting:
                await asyncio.sleep(0.02)
        assert (ours.units == -1).all(), "late bytes went into slots, not into the pool"
        monkeypatch.setattr(nixl_transport, "READ_TIMEOUT_S", 60.0)
        await pool.read([1, 2], ours, [1, 2], range(3))
        assert ours.units[:, :, [1, 2]].equal(owner.units[:, :, [1, 2]])


@needs_nixl
@pytest.mark.slow
async def test_a_peer_that_dies_is_a_lost_connection(owner: Owner, copies: CopyThread) -> None:
    ours = pool_of(torch.full(SHAPE, -1.0))
    async with attached(owner, ours, copies) as (pool, _, slots):
        owner.pause()
        reading = asyncio.create_task(pool.read([1, 2], ours, [1, 2], range(3)))
        await asyncio.sleep(0.05)  # in the middle of the read, or before: either must end well
        owner.process.kill()
        with pytest.raises(ConnectionLost):
            await reading
        with pytest.raises(ConnectionLost):
            await pool.read([1, 2], ours, [1, 2], range(3))
        async with asyncio.timeout(60.0):
            while slots.num_resting:
                await asyncio.sleep(0.02)
        assert (ours.units == -1).all()


@needs_nixl
@pytest.mark.slow
async def test_when_nixl_fails_and_the_peer_lives_the_read_goes_another_way(
    owner: Owner,
    copies: CopyThread,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours = pool_of(torch.full(SHAPE, -1.0))
    async with attached(owner, ours, copies) as (pool, _, _):
        pool._agent._agent.remove_remote_agent(decode(owner.where, ours.layout).agent)
        assert pool.transport == "nixl"
        await pool.read([1, 2], ours, [4, 5], range(3))
        assert pool.transport == "connection"
        assert ours.units[:, :, [4, 5]].equal(owner.units[:, :, [1, 2]])
    assert "NIXL failed, reading otherwise" in caplog.messages


@needs_nixl
@pytest.mark.slow
async def test_a_peer_that_can_not_be_reached_leaves_it_to_another_transport(
    owner: Owner, copies: CopyThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = pool_of(torch.zeros(SHAPE))
    agent = open_agent("reader")
    assert agent is not None
    slots = Staging(agent, torch.device("cpu"))
    transport = NixlTransport(agent, slots, copies, PackedTransport(copies))
    connection = await connect(f"unix:{owner.path}")
    good = decode(owner.where, ours.layout)
    try:
        other = encode(replace(good, metadata=b"of another version"))
        with pytest.raises(NoDescriptor, match="NIXL does not reach the peer"):
            await transport.attach(connection, other, ours.layout, ours.layout)
        other_layout = replace(ours.layout, dtype="float16")
        with pytest.raises(LayoutMismatch, match="dtype: 'float16' there"):
            await transport.attach(connection, owner.where, ours.layout, other_layout)
        owner.pause()  # as behind a wall that swallows packets
        with monkeypatch.context() as hurried:
            hurried.setattr(nixl_transport, "TRY_TIMEOUT_S", 0.5)
            with pytest.raises(NoDescriptor, match="more than"):
                await transport.attach(connection, owner.where, ours.layout, ours.layout)
        owner.resume()
        pool = await transport.attach(connection, owner.where, ours.layout, ours.layout)
        await pool.read([3], ours, [9], range(3))
        assert ours.units[:, :, 9].equal(owner.units[:, :, 3])
        pool.close()
    finally:
        connection.close("test over")
        transport.close()


@needs_nixl
@pytest.mark.slow
async def test_split_workers_of_other_hosts_copy_by_nixl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EPIDOTE_RPC_SECRET", "between hosts")
    caplog.set_level("INFO", "epidote_workers.peers")
    async with fleet_of(tmp_path) as fleet:
        for worker_id, role in (("e", Role.ENCODE), ("p", Role.PREFILL), ("d", Role.DECODE)):
            await fleet.add(worker_id, role, tcp_host="127.0.0.1")
        fleet.client = FleetClient()
        await fleet.connect()
        pictures = [picture("x", 5), picture("y", 30)]
        request = ask_for("r", prompt=200, pictures=pictures)
        route = Route(prefill="p", decode="d", encode=(("x", "e"), ("y", "e")))
        assert (await fleet.ask(request, route, pictures))[0] == answer(request, pictures)
        assert await fleet.leaks() == {}
    used = {
        r.__dict__["pool"]: r.__dict__["transport"] for r in caplog.records if "pool" in r.__dict__
    }
    assert used == {"kv": "nixl", "media": "nixl"}
