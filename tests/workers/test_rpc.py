"""This file is about the RPC layer's promises: order, cancellation, loss, back-pressure, limits."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.errors import InvalidRequest, Overloaded, WorkerLost
from epidote_workers.rpc import frames, silence
from epidote_workers.rpc import server as rpc_server
from epidote_workers.rpc.address import TcpAddress, UnixAddress
from epidote_workers.rpc.client import WINDOW, Connection, connect
from epidote_workers.rpc.errors import ConnectionLost, RemoteFailure
from epidote_workers.rpc.frames import FrameReader, FrameWriter, Kind, Method, ProtocolError
from epidote_workers.rpc.server import Server, Service


@dataclass(frozen=True)
class Ask:
    count: int = 0
    text: str = ""


COUNT: Method[Ask, int] = Method("count", Ask, int)
ECHO: Method[Ask, str] = Method("echo", Ask, str)
FAIL: Method[Ask, str] = Method("fail", Ask, str)
BLOBS: Method[Ask, bytes] = Method("blobs", Ask, bytes)


class Answers:
    """What the server under test does, and what became of it."""

    def __init__(self) -> None:
        self.produced = 0
        self.closed = asyncio.Event()
        self.errors: dict[str, Exception] = {
            "lost": WorkerLost("x", worker_id="w7"),
            "invalid": InvalidRequest("x", "messages[0]"),
            "full": Overloaded("x", retry_after_s=2.5),
            "moved": WorkerLost("x", worker_id="w", is_planned=True),
            "bug": RuntimeError("a secret detail"),
        }

    async def count(self, ask: Ask) -> AsyncGenerator[int, None]:
        try:
            for number in range(ask.count):
                self.produced += 1
                yield number
            if ask.text == "hold":
                await asyncio.Event().wait()
        finally:
            self.closed.set()

    async def blobs(self, ask: Ask) -> AsyncGenerator[bytes, None]:
        for _ in range(ask.count):
            self.produced += 1
            yield bytes(1 << 16)

    async def echo(self, ask: Ask) -> str:
        if ask.text == "hold":
            try:
                await asyncio.Event().wait()
            finally:
                self.closed.set()
        return ask.text

    async def fail(self, ask: Ask) -> str:
        raise self.errors[ask.text]


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[tuple[Answers, Server, str]]:
    answers, service = Answers(), Service()
    service.add_stream(COUNT, answers.count)
    service.add_stream(BLOBS, answers.blobs)
    service.add_call(ECHO, answers.echo)
    service.add_call(FAIL, answers.fail)
    server = Server(service)
    address = await server.listen(UnixAddress(str(tmp_path / "s")))
    try:
        yield answers, server, str(address)
    finally:
        await server.close()
        assert not server.tasks, "every handler ended"


@asynccontextmanager
async def connected(tmp_path: Path) -> AsyncIterator[tuple[Answers, Connection]]:
    async with served(tmp_path) as (answers, _, address):
        connection = await connect(address)
        try:
            yield answers, connection
        finally:
            connection.close("test over")


async def test_many_streams_keep_their_order_on_one_connection(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, connection):

        async def read(count: int) -> list[int]:
            return [number async for number in connection.stream(COUNT, Ask(count))]

        counts = [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 5000]
        assert await asyncio.gather(*map(read, counts)) == [list(range(n)) for n in counts]


async def test_closing_a_stream_cancels_its_handler_and_nothing_else(tmp_path: Path) -> None:
    async with connected(tmp_path) as (answers, connection):
        stream = connection.stream(COUNT, Ask(3, "hold"))
        assert await stream.next(60.0) == 0
        await stream.aclose()
        await stream.aclose()
        async with asyncio.timeout(60.0):
            await answers.closed.wait()
        assert await connection.call(ECHO, Ask(text="still here"), timeout_s=60.0) == "still here"


async def test_cancelling_a_call_cancels_its_handler(tmp_path: Path) -> None:
    async with connected(tmp_path) as (answers, connection):
        with pytest.raises(TimeoutError):
            await connection.call(ECHO, Ask(text="hold"), timeout_s=0.05)
        async with asyncio.timeout(60.0):
            await answers.closed.wait()


async def test_a_dead_peer_ends_every_stream_at_once_and_after_its_last_items(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (answers, server, address):
        connection = await connect(address)
        streams = [connection.stream(COUNT, Ask(3, "hold")) for _ in range(5)]
        for stream in streams:
            assert await stream.next(60.0) == 0
        for _ in range(50):  # turns of the loop, which all that was sent needs to arrive
            await asyncio.sleep(0.001)
        for peer in list(server.peers):
            peer.close("killed")
        for stream in streams:
            assert await stream.take(60.0) == [1, 2]
            with pytest.raises(ConnectionLost):
                await stream.take(60.0)
        with pytest.raises(ConnectionLost):
            connection.stream(COUNT, Ask(1))
        async with asyncio.timeout(60.0):
            await answers.closed.wait()


async def test_a_silent_peer_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "PING_EVERY_S", 0.02)
    silent = await asyncio.start_unix_server(lambda reader, writer: None, str(tmp_path / "s"))
    async with silent:
        connection = await connect(f"unix:{tmp_path}/s", silent_after_s=0.1)
        with pytest.raises(ConnectionLost, match="silent"):
            await connection.call(ECHO, Ask(), timeout_s=60.0)


async def test_a_dead_peer_is_found_by_a_loop_that_lags_at_every_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "PING_EVERY_S", 0.01)
    dead = await asyncio.start_unix_server(lambda reader, writer: None, str(tmp_path / "s"))
    async with dead:
        connection = await connect(f"unix:{tmp_path}/s", silent_after_s=0.5)
        turns = 0
        while connection.error is None and turns < 25:
            time.sleep(0.05)  # 10 turns are the silence, 3 more are forgiven
            await asyncio.sleep(0)
            turns += 1
        assert connection.error is not None
        connection.close("test over")


async def test_both_ends_standing_still_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "PING_EVERY_S", 0.02)
    monkeypatch.setattr(rpc_server, "PEER_SILENT_AFTER_S", 0.5)
    async with served(tmp_path) as (answers, _, address):
        connection = await connect(address, silent_after_s=0.5)
        stream = connection.stream(COUNT, Ask(1, "hold"))
        assert await stream.next(60.0) == 0
        for _ in range(2):
            await connection.answered(60.0)  # nothing waits to be read
            time.sleep(1.5)  # as in a paused container, or where others have the processor
            assert await connection.call(ECHO, Ask(text="well"), timeout_s=60.0) == "well"
            await asyncio.sleep(0.3)  # the server has looked at its peers
        await stream.confirm_open(60.0)
        assert not answers.closed.is_set()
        connection.close("test over")


async def test_a_client_that_says_nothing_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_server, "PEER_SILENT_AFTER_S", 0.2)
    async with served(tmp_path) as (_, _, address):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        async with asyncio.timeout(60.0):
            assert await reader.read(1) == b""
        writer.close()


async def test_a_reader_that_does_not_read_stops_the_producer(tmp_path: Path) -> None:
    async with connected(tmp_path) as (answers, connection):
        stream = connection.stream(COUNT, Ask(100_000))
        await asyncio.sleep(0.2)
        assert answers.produced <= WINDOW + 1
        assert sum([1 async for _ in stream]) == 100_000


async def test_a_socket_that_is_not_read_stops_the_producer(tmp_path: Path) -> None:
    async with served(tmp_path) as (answers, _, address):
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        out = FrameWriter()
        out.add(Kind.OPEN, 1, (BLOBS.name, 1_000_000, Ask(10_000)))
        writer.write(out.take())
        await asyncio.sleep(0.3)
        assert answers.produced < 200  # 64 KiB each: the buffers hold some MiB
        writer.close()
        del reader


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("lost", WorkerLost),
        ("moved", WorkerLost),
        ("invalid", InvalidRequest),
        ("full", Overloaded),
    ],
)
async def test_planned_errors_arrive_as_they_were_raised(
    tmp_path: Path, text: str, kind: type[Exception]
) -> None:
    async with connected(tmp_path) as (answers, connection):
        with pytest.raises(kind) as raised:
            await connection.call(FAIL, Ask(text=text), timeout_s=60.0)
        assert vars(raised.value) == vars(answers.errors[text])


async def test_a_bug_tells_its_kind_and_keeps_its_words(tmp_path: Path) -> None:
    async with connected(tmp_path) as (_, connection):
        with pytest.raises(RemoteFailure, match=r"^RuntimeError$"):
            await connection.call(FAIL, Ask(text="bug"), timeout_s=60.0)


async def test_an_unknown_method_is_refused(tmp_path: Path) -> None:
    unknown: Method[Ask, int] = Method("unknown", Ask, int)
    async with connected(tmp_path) as (_, connection):
        with pytest.raises(ProtocolError, match="unknown"):
            await connection.call(unknown, Ask(), timeout_s=60.0)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
        frames.HEADER.pack(frames.MAX_BODY_BYTES + 1, Kind.OPEN, 1),
        frames.HEADER.pack(3, Kind.OPEN, 1) + b"\xc1\xc1\xc1",
        frames.HEADER.pack(1, Kind.ITEM, 1) + b"\xc0",
    ],
)
async def test_garbage_ends_that_connection_only(tmp_path: Path, garbage: bytes) -> None:
    async with served(tmp_path) as (_, server, address):
        healthy = await connect(address)
        reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        writer.write(garbage)
        async with asyncio.timeout(60.0):
            assert await reader.read() == b""
        writer.close()
        assert await healthy.call(ECHO, Ask(text="well"), timeout_s=60.0) == "well"
        assert len(server.peers) == 1
        healthy.close("test over")


async def test_a_body_of_wrong_types_fails_its_call_alone(tmp_path: Path) -> None:
    wrong: Method[list[int], int] = Method("count", list[int], int)
    async with connected(tmp_path) as (_, connection):
        with pytest.raises(RemoteFailure):
            await connection.call(wrong, [1], timeout_s=60.0)
        assert await connection.call(ECHO, Ask(text="well"), timeout_s=60.0) == "well"


async def test_tcp_asks_for_the_secret(tmp_path: Path) -> None:
    answers, service = Answers(), Service()
    service.add_call(ECHO, answers.echo)
    server = Server(service)
    address = str(await server.listen(TcpAddress("127.0.0.1", 0), secret=b"right"))
    try:
        connection = await connect(address, secret=b"right")
        assert await connection.call(ECHO, Ask(text="in"), timeout_s=60.0) == "in"
        connection.close("test over")
        for secret in (b"wrong", None):
            with pytest.raises(ConnectionLost):  # noqa: PT012
                intruder = await connect(address, secret=secret, timeout_s=60.0)
                await intruder.call(ECHO, Ask(text="in"), timeout_s=60.0)
    finally:
        await server.close()


async def test_nothing_large_is_buffered_for_strangers(tmp_path: Path) -> None:
    answers, service = Answers(), Service()
    service.add_call(ECHO, answers.echo)
    server = Server(service)
    address = await server.listen(TcpAddress("127.0.0.1", 0), secret=b"right")
    assert isinstance(address, TcpAddress)
    try:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        hello = await reader.readexactly(frames.HEADER.size + 34)
        assert hello[4] == Kind.HELLO
        writer.write(frames.HEADER.pack(1 << 20, Kind.HELLO, 0) + b"x" * 100)
        async with asyncio.timeout(60):
            assert await reader.read(1) == b""  # told by the header alone
        writer.close()
        friend = await connect(str(address), secret=b"right")
        text = "x" * 100_000  # of those who know the secret, as ever
        assert await friend.call(ECHO, Ask(text=text), timeout_s=60.0) == text
        friend.close("test over")
    finally:
        await server.close()


async def test_strangers_may_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_server, "STRANGER_LEAVES_AFTER_S", 0.05)
    monkeypatch.setattr(rpc_server, "PEER_SILENT_AFTER_S", 0.4)
    server = Server(Service())
    address = await server.listen(TcpAddress("127.0.0.1", 0), secret=b"right")
    assert isinstance(address, TcpAddress)
    try:
        reader, writer = await asyncio.open_connection(address.host, address.port)

        async def ping() -> None:
            while True:
                writer.write(frames.HEADER.pack(1, Kind.PING, 0) + b"\xc0")
                await asyncio.sleep(0.05)

        pinging = asyncio.create_task(ping())
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionResetError):
                while await reader.read(1 << 16):
                    pass
        pinging.cancel()
        writer.close()
    finally:
        await server.close()


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(ConnectionLost):
        await connect(f"unix:{tmp_path}/nobody")


@given(
    bodies=st.lists(st.binary(max_size=50), max_size=20),
    cuts=st.lists(st.integers(0, 2000), max_size=10),
)
def test_frames_survive_any_cutting_of_the_byte_stream(
    bodies: list[bytes], cuts: list[int]
) -> None:
    writer, reader = FrameWriter(), FrameReader()
    for number, body in enumerate(bodies):
        writer.add(Kind.ITEM, number, body)
    stream = bytes(writer.take())
    edges = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    found = [frame for start, end in pairwise(edges) for frame in reader.feed(stream[start:end])]
    method: Method[Ask, bytes] = Method("m", Ask, bytes)
    assert [(kind, n, method.decode_item(body)) for kind, n, body in found] == [
        (Kind.ITEM, n, body) for n, body in enumerate(bodies)
    ]
