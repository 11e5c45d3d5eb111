"""This file is about the answering side: a listener, its peers, one task per stream."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from epidote_core.errors import EpidoteError, Overloaded
from epidote_workers.rpc.address import Address, TcpAddress, UnixAddress
from epidote_workers.rpc.errors import ConnectionLost, to_wire
from epidote_workers.rpc.frames import (
    MAX_BODY_BYTES,
    Kind,
    Method,
    Opening,
    ProtocolError,
    decode_opening,
)
from epidote_workers.rpc.link import Link
from epidote_workers.rpc.secret import is_proof, new_nonce

logger = logging.getLogger(__name__)

MAX_STREAMS = 8192  # of one peer
STRANGER_BODY_BYTES = 4096  # a proof is 34: nothing larger is buffered for who has not proven it
STRANGER_LEAVES_AFTER_S = 30.0  # pings alone keep nobody here
PEER_SILENT_AFTER_S = 30.0  # clients ping twice a second; tcp alone would not notice a lost host

Args = TypeVar("Args")
Item = TypeVar("Item")
_decode_int = msgspec.msgpack.Decoder(int).decode
_decode_bytes = msgspec.msgpack.Decoder(bytes).decode


class Service:
    """The methods that a server answers."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[Method[Any, Any], Callable[..., Awaitable[Any]]]] = {}
        self.streams: dict[str, tuple[Method[Any, Any], Callable[..., Any]]] = {}

    def add_call(
        self, method: Method[Args, Item], handler: Callable[[Args], Awaitable[Item]]
    ) -> None:
        """`handler(args)` returns the one item; it is cancelled when the client goes."""
        self.answers[method.name] = (method, handler)

    def add_stream(
        self, method: Method[Args, Item], handler: Callable[[Args], AsyncGenerator[Item, None]]
    ) -> None:
        """`handler(args)` yields items; it is closed when the client goes or closes the stream.

        Hence a handler's `finally` is where everything it holds for the client is given back.
        """
        self.streams[method.name] = (method, handler)


class _Stream:
    def __init__(self, credit: int) -> None:
        self.credit = credit
        self.waiter: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None


class Peer(Link):
    """The server's end of one link."""

    def __init__(self, server: "Server", secret: bytes | None) -> None:
        super().__init__()
        self._server = server
        self._secret = secret
        self._nonce: bytes | None = None
        self.since_s = self._loop.time()
        self._streams: dict[int, _Stream] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.peers.add(self)
        if self._secret is not None:
            self._nonce = new_nonce()
            self._reader.max_body_bytes = STRANGER_BODY_BYTES
            self.send(Kind.HELLO, 0, self._nonce)

    @property
    def is_stranger(self) -> bool:
        """Whether the peer has yet to show that it knows the secret."""
        return self._nonce is not None

    def on_frame(self, kind: Kind, stream: int, body: bytes) -> None:
        if self._nonce is not None:
            self._check_hello(kind, body)
            return
        match kind:
            case Kind.OPEN:
                self._open(stream, decode_opening(body))
            case Kind.CREDIT:
                self._add_credit(stream, _decode_int(body))
            case Kind.CANCEL:
                known = self._streams.pop(stream, None)
                if known is not None and known.task is not None:
                    known.task.cancel()
            case Kind.PING:
                self.send(Kind.PONG, 0)
            case _:
                raise ProtocolError(f"a client does not send {kind.name}")

    def on_lost(self, error: ConnectionLost) -> None:
        self._server.peers.discard(self)
        for stream in self._streams.values():
            if stream.task is not None:
                stream.task.cancel()
        self._streams.clear()

    def _check_hello(self, kind: Kind, body: bytes) -> None:
        assert self._secret is not None
        assert self._nonce is not None
        if kind is Kind.PING:
            return
        if kind is not Kind.HELLO or not is_proof(self._secret, self._nonce, _decode_bytes(body)):
            raise ProtocolError("the peer does not know the secret")
        self._nonce = None
        self._reader.max_body_bytes = MAX_BODY_BYTES

    def _open(self, number: int, opening: Opening) -> None:
        if number in self._streams:
            raise ProtocolError(f"stream {number} is open already")
        stream = self._streams[number] = _Stream(opening.credit)
        task = self._loop.create_task(self._serve(number, stream, opening))
        stream.task = task
        self._server.tasks.add(task)
        task.add_done_callback(self._server.tasks.discard)

    def _add_credit(self, number: int, count: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            stream.credit += count
            if stream.waiter is not None and not stream.waiter.done():
                stream.waiter.set_result(None)

    async def _serve(self, number: int, stream: _Stream, opening: Opening) -> None:
        try:
            if len(self._streams) > MAX_STREAMS:
                raise Overloaded(f"more than {MAX_STREAMS} streams", retry_after_s=1.0)
            if opening.method in self._server.service.answers:
                method, answer = self._server.service.answers[opening.method]
                args = method.decode_args(bytes(opening.args))
                self.send(Kind.LAST, number, await answer(args))
            elif opening.method in self._server.service.streams:
                method, produce = self._server.service.streams[opening.method]
                args = method.decode_args(bytes(opening.args))
                async with aclosing(produce(args)) as items:
                    await self._pump(number, stream, items)
                self.send(Kind.END, number)
            else:
                raise ProtocolError(f"no method {opening.method!r}")
        except ConnectionLost as error:
            if self.error is None:  # of another link, below the handler
                self._fail(number, error)
        except Exception as error:
            if not isinstance(error, EpidoteError | TimeoutError | msgspec.ValidationError):
                logger.exception("handler failed", extra={"method": opening.method})
            self._fail(number, error)
        finally:
            self._streams.pop(number, None)

    async def _pump(self, number: int, stream: _Stream, items: AsyncGenerator[Any, None]) -> None:
        async for item in items:
            self.send(Kind.ITEM, number, item)
            stream.credit -= 1
            while stream.credit <= 0:
                stream.waiter = self._loop.create_future()
                await stream.waiter
            if self.is_full:
                await self.drained()

    def _fail(self, number: int, error: Exception) -> None:
        if self.error is None and number in self._streams:
            self.send(Kind.ERROR, number, to_wire(error))


class Server:
    """A listener and its peers. Belongs to one event loop."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.peers: set[Peer] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.AbstractServer] = []
        self._unix_paths: list[str] = []
        self._watch: asyncio.Task[None] | None = None

    async def listen(self, address: Address, *, secret: bytes | None = None) -> Address:
        """Start answering; returns the address with the port that the system chose for 0.

        Raises:
            OSError: the address is taken or not ours.
        """
        loop = asyncio.get_running_loop()
        if isinstance(address, UnixAddress):
            listener = await loop.create_unix_server(lambda: Peer(self, None), address.path)
            os.chmod(address.path, 0o600)
            self._unix_paths.append(address.path)
        else:
            listener = await loop.create_server(
                lambda: Peer(self, secret), address.host, address.port
            )
            address = TcpAddress(address.host, listener.sockets[0].getsockname()[1])
        self._listeners.append(listener)
        if self._watch is None:
            self._watch = loop.create_task(self._drop_silent_peers())
        return address

    async def close(self, timeout_s: float = 5.0) -> None:
        """Stop listening, drop every peer, wait until the handlers have cleaned up."""
        if self._watch is not None:
            self._watch.cancel()
        for listener in self._listeners:
            listener.close()
        for peer in list(self.peers):
            peer.close("the server stops")
        if self.tasks:
            await asyncio.wait(list(self.tasks), timeout=timeout_s)
        for path in self._unix_paths:
            if os.path.exists(path):
                os.unlink(path)
        self._listeners, self._unix_paths, self._watch = [], [], None

    async def _drop_silent_peers(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + PEER_SILENT_AFTER_S / 4
            await asyncio.sleep(PEER_SILENT_AFTER_S / 4)
            now_s = loop.time()
            for peer in list(self.peers):
                if peer.silence.length_s(now_s, due_s) > PEER_SILENT_AFTER_S:
                    peer.close("the peer was silent")
                elif peer.is_stranger and now_s - peer.since_s > STRANGER_LEAVES_AFTER_S:
                    peer.close("the peer did not show that it knows the secret")
