"""This file is about one socket: frames out in few writes, frames in, and its end.

Everything sent within one turn of the event loop leaves in one write: an engine step's tokens for
64 streams are one system call. `is_full` tells senders to wait in `drained`, so that a slow reader
costs this process at most `HIGH_WATER_BYTES` and a frame.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from epidote_workers.rpc.errors import ConnectionLost
from epidote_workers.rpc.frames import FrameReader, FrameWriter, Kind, ProtocolError
from epidote_workers.rpc.silence import Silence

HIGH_WATER_BYTES = 1 << 20


class Link(asyncio.Protocol):
    """Base of both ends. Belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._writer = FrameWriter()
        self._flushing = False
        self._paused = False
        self._room: list[asyncio.Future[None]] = []
        self._transport: asyncio.Transport | None = None
        self._error: ConnectionLost | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.silence = Silence(self._loop.time())

    # What the two ends fill in

    def on_frame(self, kind: Kind, stream: int, body: bytes) -> None:
        """One frame arrived. May raise `ProtocolError` or msgspec's errors: the link closes."""
        raise NotImplementedError

    def on_lost(self, error: ConnectionLost) -> None:
        """The link ended; called once."""
        raise NotImplementedError

    # Sending

    @property
    def error(self) -> ConnectionLost | None:
        """Why the link ended, None while it is up."""
        return self._error

    def send(self, kind: Kind, stream: int, body: Any = None) -> None:
        """Queue a frame for the write at the end of this turn of the loop.

        Raises:
            ConnectionLost: the link has ended.
            ProtocolError: the body is too large.
        """
        if self._error is not None:
            raise self._error
        self._writer.add(kind, stream, body)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._transport is not None and self._error is None and len(self._writer):
            self._transport.write(self._writer.take())

    @property
    def is_full(self) -> bool:
        """Whether the peer reads more slowly than this side sends."""
        return self._paused or len(self._writer) > HIGH_WATER_BYTES

    async def drained(self) -> None:
        """Wait for room. Bounded by the link's life: a silent peer loses it.

        Raises:
            ConnectionLost: the link ended meanwhile.
        """
        self._flush()
        while self.is_full and self._error is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._room.append(waiter)
            await waiter
        if self._error is not None:
            raise self._error

    def close(self, reason: str) -> None:
        """End the link now; what is queued and not written is dropped."""
        self._end(ConnectionLost(reason))

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)

    def data_received(self, data: bytes) -> None:
        self.silence.end(self._loop.time())
        on_frame: Callable[[Kind, int, bytes], None] = self.on_frame
        try:
            for kind, stream, body in self._reader.feed(data):
                on_frame(kind, stream, body)
        except ConnectionLost:
            return  # ended by one of its own frames
        except (ProtocolError, ValueError) as error:  # msgspec's errors are ValueErrors
            self.close(f"the peer broke the protocol: {error}")

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectionLost("the peer closed the connection"))

    def _end(self, error: ConnectionLost) -> None:
        if self._error is not None:
            return
        self._error = error
        if self._transport is not None:
            self._transport.abort()
        self._wake()
        self.on_lost(error)
        if not self.closed.done():
            self.closed.set_result(None)

    def _wake(self) -> None:
        for waiter in self._room:
            if not waiter.done():
                waiter.set_result(None)
        self._room.clear()
