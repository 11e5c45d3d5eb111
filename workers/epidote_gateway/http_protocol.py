"""This file is about connections that bind a server without asking for anything.

uvicorn bounds how long an idle connection lives, but neither how long headers may take, nor how
long an answer may lie unread in its buffer, nor how many connections there are: beyond the files
that a process may open nobody would be answered any more, the probes neither.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from epidote_gateway.api_errors import ApiError
from epidote_gateway.http_exchange import ABORT

HEADER_TIMEOUT_S = 20.0  # from a request's first byte, or from the connection; nginx waits 60


_FULL_BODY = ApiError(503, "too many connections", code="too_many_connections").body()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(_FULL_BODY), _FULL_BODY)
)


def limited_to(max_connections: int) -> "type[GatewayProtocol]":
    """The protocol of a server that refuses further connections with a 503."""
    return type("LimitedProtocol", (GatewayProtocol,), {"max_connections": max_connections})


class GatewayProtocol(HttpToolsProtocol):
    """uvicorn's, with a time limit on headers; applications may cut their connection."""

    header_timeout_s = HEADER_TIMEOUT_S
    max_connections: int | None = None
    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.max_connections is not None and len(self.connections) > self.max_connections:
            transport.write(_FULL)
            transport.close()
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._await_headers()
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {ABORT: self.transport.abort}

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def timeout_keep_alive_handler(self) -> None:
        """Idle for too long; what the client has not read by now it never will."""
        self.transport.abort()

    def _await_headers(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_timeout_s, self._cut)

    def _stop_waiting(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _cut(self) -> None:
        self.transport.abort()
