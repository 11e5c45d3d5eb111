"""This file is about the calling side: a connection, its calls, its streams."""

import asyncio
from collections import deque
from typing import Any, Generic, TypeVar

import msgspec

from epidote_workers.rpc import silence
from epidote_workers.rpc.address import UnixAddress, parse_address
from epidote_workers.rpc.errors import ConnectionLost, WireError, from_wire
from epidote_workers.rpc.frames import Kind, Method, ProtocolError
from epidote_workers.rpc.link import Link
from epidote_workers.rpc.secret import proof

CONNECT_TIMEOUT_S = 5.0
SILENT_AFTER_S = 10.0  # loading weights may keep a worker's loop busy for seconds
WINDOW = 256  # items under way on one stream before the server waits

Args = TypeVar("Args")
Item = TypeVar("Item")
_decode_error = msgspec.msgpack.Decoder(WireError).decode
_decode_bytes = msgspec.msgpack.Decoder(bytes).decode


class ClientStream(Generic[Item]):
    """The answer to one call, item by item, or everything that waits at once (`take`).

    Close it (`aclose`) unless it ended: the server then cancels its handler.
    """

    def __init__(self, connection: "Connection", number: int, method: Method[Any, Item]) -> None:
        self._connection, self._number, self._method = connection, number, method
        self._waiting: deque[bytes] = deque()
        self._taken = 0
        self._waiter: asyncio.Future[None] | None = None
        self._end: Exception | None = None

    def push(self, body: bytes) -> None:
        self._waiting.append(body)
        self._wake()

    def finish(self, error: Exception) -> None:
        """Called by the connection; `StopAsyncIteration` for a good end."""
        if self._end is None:
            self._end = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self, timeout_s: float | None = None) -> list[Item]:
        """Every item that waits, at least one; [] at the end of the stream.

        Raises:
            TimeoutError: nothing came within `timeout_s`; the stream goes on.
            ConnectionLost, or what the handler raised: after all items sent before it.
        """
        if not self._waiting and self._end is None:
            await self._wait(timeout_s)
        if self._waiting:
            decode = self._method.decode_item
            items = [decode(body) for body in self._waiting]
            self._waiting.clear()
            self._credit(len(items))
            return items
        assert self._end is not None
        if isinstance(self._end, StopAsyncIteration):
            return []
        raise self._end

    async def next(self, timeout_s: float | None = None) -> Item | None:
        """One item, None at the end; errors as `take`."""
        if not self._waiting and self._end is None:
            await self._wait(timeout_s)
        if self._waiting:
            item = self._method.decode_item(self._waiting.popleft())
            self._credit(1)
            return item
        assert self._end is not None
        if isinstance(self._end, StopAsyncIteration):
            return None
        raise self._end

    async def confirm_open(self, timeout_s: float) -> None:
        """Return if the stream was still open at the server after this call.

        One round trip: this process may have stood still, so what it knows of itself is too old.

        Raises:
            ConnectionLost, TimeoutError, or what the handler raised: the stream ended before.
        """
        await self._connection.answered(timeout_s)
        if isinstance(self._end, StopAsyncIteration):
            raise ConnectionLost("the stream has ended")
        if self._end is not None:
            raise self._end

    def __aiter__(self) -> "ClientStream[Item]":
        return self

    async def __anext__(self) -> Item:
        if (item := await self.next()) is None:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Cancel on the server, drop what waits; returns at once, also twice."""
        self.close()

    def close(self) -> None:
        """`aclose` for callers that are not coroutines."""
        if self._end is None:
            self._end = StopAsyncIteration()
            self._connection._forget(self._number, cancel=True)
        self._waiting.clear()
        self._wake()

    async def _wait(self, timeout_s: float | None) -> None:
        assert self._waiter is None, "one reader per stream"
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            if timeout_s is None:  # bounded by the connection's heartbeat
                await self._waiter
            else:
                async with asyncio.timeout(timeout_s):
                    await self._waiter
        finally:
            self._waiter = None

    def _credit(self, count: int) -> None:
        self._taken += count
        if self._taken >= WINDOW // 2 and self._end is None:
            self._connection._grant(self._number, self._taken)
            self._taken = 0


class Connection(Link):
    """The client's end of one link. Made by `connect`."""

    def __init__(self, silent_after_s: float, secret: bytes | None) -> None:
        super().__init__()
        self._streams: dict[int, ClientStream[Any]] = {}
        self._last = 0
        self._silent_after_s = silent_after_s
        self._secret = secret
        self._set_timer()
        self._asking: deque[asyncio.Future[None]] = deque()  # by ping, in the order of answers
        self.ready: asyncio.Future[None] = self._loop.create_future()
        if secret is None:
            self.ready.set_result(None)

    def stream(self, method: Method[Args, Item], args: Args) -> ClientStream[Item]:
        """Start a call whose answer is many items.

        Raises:
            ConnectionLost: the link has ended.
        """
        self._last += 1
        self.send(Kind.OPEN, self._last, (method.name, WINDOW, args))
        stream = self._streams[self._last] = ClientStream(self, self._last, method)
        return stream

    async def call(self, method: Method[Args, Item], args: Args, *, timeout_s: float) -> Item:
        """Call and wait for the one item of the answer. Cancelling it cancels the handler.

        Raises:
            ConnectionLost, TimeoutError, or what the handler raised.
        """
        stream = self.stream(method, args)
        try:
            if self.is_full:
                async with asyncio.timeout(timeout_s):
                    await self.drained()
            item = await stream.next(timeout_s)
        finally:
            stream.close()
        if item is None:
            raise ProtocolError(f"{method.name}: an end without an answer")
        return item

    async def answered(self, timeout_s: float) -> None:
        """Wait for a sign of life that the server gave after this call.

        What it had sent before on any stream has then arrived too.

        Raises:
            ConnectionLost, TimeoutError: there was none.
        """
        pong = self._ping()
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(pong)

    def on_frame(self, kind: Kind, stream: int, body: bytes) -> None:
        if kind is Kind.PONG:
            if not self._asking:
                raise ProtocolError("a pong that nobody asked for")
            self._asking.popleft().set_result(None)
            return
        if kind is Kind.HELLO:
            self._answer_hello(body)
            return
        known = self._streams.get(stream)
        if known is None:
            return  # closed by us; the server has not heard yet
        match kind:
            case Kind.ITEM:
                known.push(body)
            case Kind.LAST:
                known.push(body)
                self._finish(stream, StopAsyncIteration())
            case Kind.END:
                self._finish(stream, StopAsyncIteration())
            case Kind.ERROR:
                self._finish(stream, from_wire(_decode_error(body)))
            case _:
                raise ProtocolError(f"a server does not send {kind.name}")

    def on_lost(self, error: ConnectionLost) -> None:
        self._timer.cancel()
        for number in list(self._streams):
            self._finish(number, error)
        for pong in self._asking:
            pong.set_exception(error)
            pong.exception()  # most of them nobody waits for
        self._asking.clear()
        if not self.ready.done():
            self.ready.set_exception(error)

    def _finish(self, number: int, error: Exception) -> None:
        self._streams.pop(number).finish(error)

    def _forget(self, number: int, *, cancel: bool) -> None:
        if self._streams.pop(number, None) is not None and cancel and self.error is None:
            self.send(Kind.CANCEL, number)

    def _grant(self, number: int, count: int) -> None:
        if self.error is None:
            self.send(Kind.CREDIT, number, count)

    def _answer_hello(self, body: bytes) -> None:
        if self._secret is None:
            raise ProtocolError("the worker asks for a secret, none is set here")
        self._asking.clear()  # a server answers no ping before it knows who asks
        self.send(Kind.HELLO, 0, proof(self._secret, _decode_bytes(body)))
        if not self.ready.done():
            self.ready.set_result(None)

    def _ping(self) -> "asyncio.Future[None]":
        self.send(Kind.PING, 0)
        pong: asyncio.Future[None] = self._loop.create_future()
        self._asking.append(pong)
        return pong

    def _set_timer(self) -> None:
        self._due_s = self._loop.time() + silence.PING_EVERY_S
        self._timer = self._loop.call_at(self._due_s, self._beat)

    def _beat(self) -> None:
        if self.silence.length_s(self._loop.time(), self._due_s) > self._silent_after_s:
            self.close(f"the peer was silent for {self._silent_after_s:g} s")
            return
        self._ping()
        self._set_timer()


async def connect(
    address: str,
    *,
    timeout_s: float = CONNECT_TIMEOUT_S,
    silent_after_s: float = SILENT_AFTER_S,
    secret: bytes | None = None,
) -> Connection:
    """Connect to a worker. `secret` is used on tcp only.

    Raises:
        ConnectionLost: nobody listens there, or not within `timeout_s`.
    """
    loop = asyncio.get_running_loop()
    where = parse_address(address)
    try:
        async with asyncio.timeout(timeout_s):
            if isinstance(where, UnixAddress):
                _, link = await loop.create_unix_connection(
                    lambda: Connection(silent_after_s, None), where.path
                )
            else:
                _, link = await loop.create_connection(
                    lambda: Connection(silent_after_s, secret), where.host, where.port
                )
            try:
                await link.ready
            except BaseException:
                link.close("not connected in time")
                raise
    except TimeoutError as error:
        raise ConnectionLost(f"{address}: no connection within {timeout_s:g} s") from error
    except OSError as error:
        raise ConnectionLost(f"{address}: {error.strerror or error}") from error
    return link
