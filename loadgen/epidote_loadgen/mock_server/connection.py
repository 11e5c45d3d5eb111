"""This file is about one client connection of the mock server: requests in, token streams out."""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import Protocol, cast

import httptools
import msgspec

from epidote_loadgen.mock_server import replies
from epidote_loadgen.mock_server.faults import Fault
from epidote_loadgen.mock_server.truth import ServedRequest

RESET_NOW = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Ask(msgspec.Struct):
    """The little that the mock server reads of a body."""

    stream: bool = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream_options: _StreamOptions | None = None


_decode = msgspec.json.Decoder(Ask).decode


@dataclass(kw_only=True)
class Stream:
    """One reply under way. `times_s` are when its tokens are due."""

    connection: "Connection"
    times_s: list[float]
    ending: bytes
    fault: Fault | None
    truth: ServedRequest
    sent: int = 0


class Host(Protocol):
    """What a connection needs of the server."""

    def admin(self, method: str, path: str) -> bytes | None: ...
    def begin(
        self, connection: "Connection", ask: Ask, *, request_id: str, body: bytes
    ) -> None: ...
    def left(self, connection: "Connection") -> None: ...
    def joined(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, one request at a time."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport | None = None
        self.stream: Stream | None = None
        self._path = b""
        self._body: list[bytes] = []
        self._request_id = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass
        self._host.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._host.left(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.write(replies.error(400, str(error)))
            self.close()

    def on_message_begin(self) -> None:
        self._path, self._body, self._request_id = b"", [], ""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self._request_id = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method, path = self._parser.get_method().decode(), self._path.decode("latin-1")
        body = b"".join(self._body)
        self._body = []
        if method != "POST" or not path.endswith("/completions"):
            answer = self._host.admin(method, path)
            self.write(answer or replies.error(404, f"no {method} {path} here"))
            return
        try:
            ask = _decode(body)
        except msgspec.DecodeError as error:
            self.write(replies.error(400, f"body: {error}"))
            return
        self._host.begin(self, ask, request_id=self._request_id, body=body)

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        """Break the connection so that the client sees a reset."""
        if self.transport is None:
            return
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            with contextlib.suppress(OSError):  # gone already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_NOW)
        self.transport.abort()
