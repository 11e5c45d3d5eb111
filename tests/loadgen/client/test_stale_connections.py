"""A server may close idle connections just as we write to them: what is sent again, what not."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from epidote_loadgen.client import connection
from epidote_loadgen.fakes import BODY, RecordingClient
from epidote_loadgen.plan import Limits, Target
from epidote_loadgen.records import PlannedRequest, RequestStatus, Slot


def planned(index: int) -> PlannedRequest:
    slot = Slot(index=index, intended_send_s=0.0, class_name="chat", item=index)
    return PlannedRequest(slot=slot, body=BODY)


LAST = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
GOOD_REPLY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(LAST), LAST)
)


class OneReply:
    """A server that answers a connection's first request, and resets it at the second."""

    def __init__(self, *, resets_after_s: float = 0.0, resets_fresh: bool = False) -> None:
        self._resets_after_s = resets_after_s
        self.resets_fresh = resets_fresh  # at their first request
        self.requests: list[int] = []  # the connection of each, in order

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[RecordingClient]:
        connections = itertools.count()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            number = next(connections)
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await _read_request(reader)
                self.requests.append(number)
                if not self.resets_fresh:
                    writer.write(GOOD_REPLY)
                    await writer.drain()
                    await _read_request(reader)
                    self.requests.append(number)
                    await asyncio.sleep(self._resets_after_s)
            writer.transport.abort()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = RecordingClient(Target(url=url), Limits())
        try:
            yield client
        finally:
            await client.dispatcher.close("over")
            server.close()


async def _read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))


async def test_every_stale_connection_is_tried_once_more_on_a_fresh_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server may close idle connections in the moment in which we write to them."""
    monkeypatch.setattr(connection, "AT_ONCE_S", 30.0)  # a slow machine's moment
    server = OneReply()
    async with server.serving() as client:
        client.send(*(planned(index) for index in range(3)))
        await client.ended(3)
        await asyncio.sleep(0)  # connections are freed after their records
        client.send(*(planned(index) for index in range(3, 6)))
        records = await client.ended(6)
    assert [record.status for record in records] == [RequestStatus.OK] * 6
    assert [record.num_retries for record in records] == [0, 0, 0, 1, 1, 1]
    # Never on another old connection: three resets, then three new ones.
    assert sorted(server.requests) == [0, 0, 1, 1, 2, 2, 3, 4, 5]
    assert client.dispatcher.num_sent == 6
    for record in records[3:]:
        assert record.connect_s == 0.0  # is a part of the lateness, and these were sent on time


async def test_a_server_that_takes_a_request_and_then_resets_has_failed() -> None:
    server = OneReply(resets_after_s=0.2)
    async with server.serving() as client:
        client.send(planned(0))
        await client.ended(1)
        await asyncio.sleep(0)
        client.send(planned(1))
        records = await client.ended(2)
    assert (records[1].status, records[1].num_retries) == (RequestStatus.RESET, 0)
    assert server.requests == [0, 0]


async def test_a_second_reset_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "AT_ONCE_S", 30.0)
    server = OneReply()
    async with server.serving() as client:
        client.send(planned(0))
        await client.ended(1)
        await asyncio.sleep(0)
        server.resets_fresh = True
        client.send(planned(1))
        records = await client.ended(2)
    assert (records[1].status, records[1].num_retries) == (RequestStatus.RESET, 1)
    assert server.requests == [0, 0, 1]
