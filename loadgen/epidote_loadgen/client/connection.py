"""This file is about one connection of the client: a request out, its reply in, then the next."""

import asyncio
import os
import re
import time
from typing import Protocol, cast

import httptools

from epidote_loadgen.client.address import CACHE_HEADER
from epidote_loadgen.client.exchange import Exchange
from epidote_loadgen.records import RequestStatus

ERROR_BODY_BYTES = 4096
MOST_LOOSE_BYTES = 1 << 20  # that belong to no reply's body: headers without end, leftovers
AT_ONCE_S = 0.05  # a closed connection's reset takes one round trip; later ones are the server's
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
    def judged(self, connection: "Connection") -> None: ...
    def lost(self, connection: "Connection", unanswered: Exchange | None) -> None: ...


class Connection(asyncio.Protocol):
    """Carries one exchange at a time. Keeps being used until one side wants it closed."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._fd = -1  # of a plain socket, written to at once
        self.exchange: Exchange | None = None
        self.num_sent = 0
        self.sent_at_s = 0.0  # the present exchange's latest send
        self.busy_since_s = 0.0
        self.is_open = False
        self._now_s = 0.0
        self._answered = False  # a byte of the present reply came
        self._streams = False
        self._awaiting = False  # a reply's end
        self._is_free = False  # its reply ended just now
        self._num_loose = 0
        self._error_body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass
        if transport.get_extra_info("sslcontext") is None:
            sock = transport.get_extra_info("socket")
            self._fd = sock.fileno() if sock is not None else -1
        self.is_open = True
        self._owner.opened(self)

    def send(self, exchange: Exchange) -> None:
        """Hand the request to the socket."""
        self.exchange = exchange
        self.num_sent += 1
        self._answered = self._streams = False
        self._awaiting = True
        self._num_loose = 0
        self._error_body = b""
        self.sent_at_s = time.monotonic()
        self._write(exchange.head, exchange.planned.body)
        if exchange.sent_at_s is None:
            exchange.sent_at_s = self.sent_at_s

    def _write(self, head: bytes, body: bytes) -> None:
        """To the socket itself where nothing waits before it.

        uvloop's transport writes only after the loop has served everything else that is due, so
        a send would happen later than it says.
        """
        assert self._transport is not None
        done = 0
        if self._fd >= 0 and not self._transport.get_write_buffer_size():
            try:
                done = os.writev(self._fd, (head, body))
            except BlockingIOError:
                pass
            except OSError:  # reset already: `connection_lost` follows
                self._transport.abort()
                return
        if done == 0:
            self._transport.write(head + body)
        elif done < len(head) + len(body):
            self._transport.write((head + body)[done:])

    def eof_received(self) -> None:
        """The server closes: nothing more is sent here, though `connection_lost` comes later."""
        self.is_open = False

    def data_received(self, data: bytes) -> None:
        if not self._awaiting:
            self.close()  # nobody asked: what it answers can't be told any more
            return
        self._now_s = time.monotonic()
        if self._now_s >= self._owner.due_s:
            self._owner.send_due()
        self._answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            # A bug of ours ends this exchange and nobody else's; its type is told, never its data.
            cause = error.__context__ or error
            self.give_up(RequestStatus.BAD_SSE, f"could not be read: {type(cause).__name__}")
        except httptools.HttpParserError as error:
            self.give_up(RequestStatus.BAD_SSE, f"no HTTP: {type(error).__name__}")
        self._num_loose += len(data)
        if self._num_loose > MOST_LOOSE_BYTES:
            told = f"over {MOST_LOOSE_BYTES >> 20} MiB of headers or leftovers"
            self.give_up(RequestStatus.BAD_SSE, told)
        if self._is_free:
            # Only now: what else was read with the reply's end must not pass for the next one.
            self._is_free = False
            if self.is_open:
                self._owner.freed(self)
        elif self.is_stale:
            self._owner.judged(self)

    def on_message_begin(self) -> None:
        if not self._awaiting:
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
        self._num_loose = 0
        status = exchange.http_status or 0
        if not 200 <= status < 300:
            self._error_body = (self._error_body + body)[:ERROR_BODY_BYTES]
        elif not self._streams:
            self._end(RequestStatus.BAD_SSE, "a reply that is no event stream")
            self.close()
        elif exchange.body(body, self._now_s):
            self._forget()
            if exchange.is_hopeless:
                self.close()  # at once: it would go on

    def on_message_complete(self) -> None:
        if not self._awaiting or 100 <= self._parser.get_status_code() < 200:
            return  # not the reply, but a word before it
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
        self._is_free = True

    def _forget(self) -> None:
        """The exchange is over; the connection lives until its reply has ended."""
        self.exchange = None
        self.busy_since_s = self._now_s

    def _end(self, status: RequestStatus, error: str, *, is_cut: bool = False) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.end(status, error, is_cut=is_cut)

    @property
    def is_stale(self) -> bool:
        """Its reply was judged and yet does not end."""
        return self.exchange is None and self._awaiting

    def give_up(self, status: RequestStatus, error: str, *, is_cut: bool = False) -> None:
        """End the exchange now, and the connection with it."""
        self._end(status, error, is_cut=is_cut)
        self.close()

    def close(self) -> None:
        """At once; `lost` follows."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._transport = None
        self._fd = -1
        exchange, self.exchange = self.exchange, None
        unanswered = None
        if exchange is not None and not exchange.is_over:
            if self._was_closed_before(exchange):
                unanswered = exchange
            elif exc is None and self._answered:
                exchange.end(RequestStatus.TRUNCATED, "the connection closed within the reply")
            else:
                exchange.end(RequestStatus.RESET, "connection reset")
        self._owner.lost(self, unanswered)

    def _was_closed_before(self, exchange: Exchange) -> bool:
        """Whether the server closed an idle connection in the moment in which we wrote to it.

        A server that took the request and then broke resets later, or has answered something:
        that is its failure, and no second try hides it.
        """
        return (
            self.num_sent > 1
            and not self._answered
            and not exchange.num_retries
            and time.monotonic() - self.sent_at_s <= AT_ONCE_S
        )
