"""Servers that say far too much, or what nobody asked for: one request fails, others go on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from epidote_loadgen.fakes import BODY, RecordingClient
from epidote_loadgen.plan import Limits, Target
from epidote_loadgen.records import PlannedRequest, Slot

Answer = Callable[[asyncio.StreamWriter, int], Awaitable[None]]
CHUNK = b"x" * (1 << 18)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
LAST = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
GOOD = b"%bcontent-length: %d\r\n\r\n%b" % (HEAD, len(LAST), LAST)


def planned(index: int) -> PlannedRequest:
    slot = Slot(index=index, intended_send_s=0.0, class_name="chat", item=index)
    return PlannedRequest(slot=slot, body=BODY)


@contextlib.asynccontextmanager
async def served(answer: Answer, limits: Limits | None = None) -> AsyncIterator[RecordingClient]:
    """A client of a server that gives its n-th request of all (from 0) `answer`."""
    num_asked = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_asked
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.rpartition(b"content-length: ")[2].split()[0]))
                number, num_asked = num_asked, num_asked + 1
                await answer(writer, number)
        writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = RecordingClient(Target(url=url), limits or Limits())
    try:
        yield client
    finally:
        await client.dispatcher.close("over")
        server.close()


@pytest.mark.parametrize(
    ("begin", "error"),
    [
        (HEAD + b"\r\ndata: ", "an event of over 8 MiB"),
        (HEAD + b"x-more: ", "headers or leftovers"),
        (HEAD + b"content-length: 3\r\n\r\na\n\n", "no field of an event"),
        (b"", "no HTTP"),
        (b"HTTP/1.1 500 ", ""),
    ],
)
async def test_a_line_of_two_hundred_megabytes_fails_its_own_request_soon(
    begin: bytes, error: str
) -> None:
    told = 0

    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal told
        if number:
            writer.write(GOOD)
            return
        writer.write(begin)
        for _ in range(200 * (1 << 20) // len(CHUNK)):
            writer.write(CHUNK)
            await writer.drain()
            told += len(CHUNK)

    async with served(answer) as client:
        client.send(planned(0))
        (first,) = await client.ended(1)
        client.send(*(planned(index) for index in range(1, 5)))
        records = await client.ended(5)
    assert not first.ok
    assert error in first.error
    assert "x" * 20 not in first.error
    assert told < 100 << 20  # it was not read to its end
    assert all(record.ok for record in records[1:])


async def test_a_word_before_the_reply_is_no_reply() -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + GOOD)

    async with served(answer) as client:
        for index in range(3):
            client.send(planned(index))
            await client.ended(index + 1)
        assert client.dispatcher.num_connections == 1
    assert all(record.ok for record in client.records)


@pytest.mark.parametrize("later", [False, True])
async def test_a_second_reply_to_one_request_is_given_to_nobody(later: bool) -> None:
    stray = b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"

    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(GOOD + b"" if later else GOOD + stray)
        if later and number == 0:
            await writer.drain()
            writer.write(stray)

    async with served(answer, Limits(max_connections=1)) as client:
        client.send(*(planned(index) for index in range(4)))
        records = await client.ended(4)
    # One that was written in the same moment may meet it: a server's word, and its own failure.
    assert sum(record.ok for record in records) >= 3
    if not later:
        assert all(record.ok for record in records)
