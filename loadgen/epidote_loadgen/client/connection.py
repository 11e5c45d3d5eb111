"""This file is about one connection of the client: a request out, its reply in, then the next."""

import asyncio
import re
import time
from typing import Protocol, cast

import httptools

from epidote_loadgen.client.address import CACHE_HEADER
from epidote_loadgen.client.exchange import Exchange
from epidote_loadgen.records import RequestStatus

ERROR_BODY_BYTES = 4096
_CODE = re.compile(rb'"(?:code|type)"\s*:\s*"?([\w.-]{1,40})"?')


class Owner(Protocol):
    """What a connection tells its pool.

    `due_s` is when the next send is due, of `time.monotonic`: a loop that is busy with replies
    comes round to its timers late, so whoever reads a reply looks at the clock for it.
    """

    due_s: float

    def send_due(self) -> None: ...
    def opened(self, connection: "Connection") -> None: ...
    def freed(self, connection: "Connection") -> None: ...
    def lost(self, connection: "Connection", unanswered: Exchange | None) -> None: ...


class Connection(asyncio.Protocol):
    """Carries one exchange at a time. Keeps being used until one side wants it closed."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.num_sent = 0
        self.busy_since_s = 0.0
        self.is_open = False
        self._now_s = 0.0
        self._answered = False  # a byte of the present reply came
        self._streams = False
        self._awaiting = False  # a reply's end
        self._error_body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass
        self.is_open = True
        self._owner.opened(self)

    def send(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Hand the request to the socket."""
        assert self._transport is not None
        self.exchange = exchange
        self.num_sent += 1
        self._answered = self._streams = False
        self._awaiting = True
        self._error_body = b""
        exchange.sent()
        self._transport.write(head + body)

    def data_received(self, data: bytes) -> None:
        self._now_s = time.monotonic()
        if self._now_s >= self._owner.due_s:
            self._owner.send_due()
        self._answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(RequestStatus.BAD_SSE, f"no HTTP: {type(error).__name__}")
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        lower = name.lower()
        if lower == b"content-type":
            self._streams = value.lower().startswith(b"text/event-stream")
        elif lower == CACHE_HEADER:
            exchange.cache = value[:40].decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.exchange is not None:
            self.exchange.http_status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return  # the rest of a reply that has been judged already
        status = exchange.http_status or 0
        if not 200 <= status < 300:
            self._error_body = (self._error_body + body)[:ERROR_BODY_BYTES]
        elif not self._streams:
            self._end(RequestStatus.BAD_SSE, "a reply that is no event stream")
            self.close()
        elif exchange.body(body, self._now_s):
            self._forget()

    def on_message_complete(self) -> None:
        self._awaiting = False
        exchange = self.exchange
        if exchange is not None:
            status = exchange.http_status or 0
            if 200 <= status < 300:
                exchange.complete()
                self._forget()
            else:
                code = _CODE.search(self._error_body)
                suffix = f" ({code[1].decode('latin-1')})" if code else ""
                self._end(RequestStatus.HTTP_ERROR, f"HTTP {status}{suffix}")
        if not self._parser.should_keep_alive():
            self.close()
        if self.is_open:
            self._owner.freed(self)

    def _forget(self) -> None:
        """The exchange is over; the connection lives until its reply has ended."""
        self.exchange = None
        self.busy_since_s = self._now_s

    def _end(self, status: RequestStatus, error: str) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.end(status, error)

    @property
    def is_stale(self) -> bool:
        """Its reply was judged and yet does not end."""
        return self.exchange is None and self._awaiting

    def give_up(self, status: RequestStatus, error: str) -> None:
        """End the exchange now, and the connection with it."""
        self._end(status, error)
        self.close()

    def close(self) -> None:
        """At once; `lost` follows."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._transport = None
        exchange, self.exchange = self.exchange, None
        unanswered = None
        if exchange is not None and not exchange.is_over:
            if not self._answered and self.num_sent > 1 and not exchange.is_retry:
                unanswered = exchange  # the server closed an idle connection as we wrote to it
            elif exc is None and self._answered:
                exchange.end(RequestStatus.TRUNCATED, "the connection closed within the reply")
            else:
                exchange.end(RequestStatus.RESET, "connection reset")
        self._owner.lost(self, unanswered)
