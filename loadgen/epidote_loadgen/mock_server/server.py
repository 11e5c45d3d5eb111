"""This file is about the mock server: an OpenAI-compatible endpoint that obeys a latency law.

`POST /v1/chat/completions` and `/v1/completions`, streamed or not; `GET /v1/models`, `/health`;
`GET /mock/truth` (what it served, and when), `POST /mock/reset` (forget it).
"""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from epidote_loadgen.mock_server import replies
from epidote_loadgen.mock_server.connection import Ask, Connection, Stream
from epidote_loadgen.mock_server.faults import Fault, FaultMix
from epidote_loadgen.mock_server.law import LatencyLaw, Station
from epidote_loadgen.mock_server.pump import Pump
from epidote_loadgen.mock_server.truth import ServedRequest, TruthLog

BACKLOG = 4096


@dataclass(frozen=True, kw_only=True)
class MockSettings:
    """What the server pretends to be. Port 0: any free one; with a `unix_path` no port at all."""

    law: LatencyLaw = field(default_factory=LatencyLaw)
    faults: FaultMix = field(default_factory=FaultMix)
    num_tokens: int = 16  # unless the request asks for fewer
    host: str = "127.0.0.1"
    port: int = 0
    unix_path: str = ""
    tls_cert: str = ""
    tls_key: str = ""


class MockServer:
    """One event loop's worth. Times are `time.monotonic`."""

    def __init__(self, settings: MockSettings) -> None:
        self.settings = settings
        self.truth = TruthLog()
        self._station = Station(settings.law)
        self._pump = Pump(asyncio.get_running_loop())
        self._connections: set[Connection] = set()

    def close(self) -> None:
        self._pump.close()
        for connection in list(self._connections):
            connection.reset()

    def joined(self, connection: Connection) -> None:
        self._connections.add(connection)

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection.stream is not None:
            connection.stream = None
            self.truth.closed()

    def admin(self, method: str, path: str) -> bytes | None:
        match method, path:
            case "GET", "/v1/models":
                model = {"id": replies.MODEL, "object": "model", "created": 0, "owned_by": "mock"}
                return replies.response(200, {"object": "list", "data": [model]})
            case "GET", "/health":
                return replies.response(200, {})
            case "GET", "/mock/truth":
                return replies.response(200, json.dumps(self.truth.to_json()))
            case "POST", "/mock/reset":
                self.truth = TruthLog()
                self._station = Station(self.settings.law)
                return replies.response(200, {})
        return None

    def begin(self, connection: Connection, ask: Ask, *, request_id: str, body: bytes) -> None:
        """A request is complete: the law says what follows."""
        now_s = time.monotonic()
        if self.truth.start_s is None:
            self.truth.start_s = now_s
        start_s = self.truth.start_s
        key = request_id or str(len(self.truth.served))
        num_tokens = ask.max_completion_tokens or ask.max_tokens or self.settings.num_tokens
        num_tokens = min(num_tokens, self.settings.num_tokens)
        fault = self.settings.faults.pick(key)
        times_s = self._station.serve(
            now_s - start_s,
            key=key,
            num_tokens=num_tokens,
            num_images=body.count(b'"image_url":'),
        )
        truth = ServedRequest(
            key=key, arrival_s=now_s - start_s, due_s=times_s[0], fault=fault or ""
        )
        self.truth.served.append(truth)
        if self._refused(connection, fault):
            return
        usage = bool(ask.stream_options and ask.stream_options.include_usage)
        prompt_tokens = len(body) // 4
        stream = connection.stream = Stream(
            connection=connection,
            times_s=[start_s + at_s for at_s in times_s],
            ending=replies.ending(prompt_tokens, num_tokens, usage=usage),
            fault=fault,
            truth=truth,
        )
        self.truth.opened()
        if ask.stream:
            connection.write(replies.HEAD + replies.ROLE)
            self._pump.push(stream.times_s[0], lambda at_s: self._stream(stream, at_s))
        else:
            stream.ending = replies.whole(prompt_tokens, num_tokens)
            self._pump.push(stream.times_s[-1], lambda at_s: self._whole(stream, at_s))

    def _refused(self, connection: Connection, fault: Fault | None) -> bool:
        """Answer the faults that come before a stream."""
        match fault:
            case Fault.HTTP_500:
                connection.write(replies.error(500, "broken on request"))
            case Fault.HTTP_429:
                connection.write(replies.error(429, "overloaded on request"))
            case Fault.NOT_SSE:
                connection.write(replies.response(200, "<html>hello</html>", kind="text/html"))
            case Fault.REFUSE:
                connection.reset()
            case _:
                return False
        return True

    def _whole(self, stream: Stream, now_s: float) -> None:
        if stream.connection.stream is stream:
            stream.connection.write(stream.ending)
            self._finish(stream, now_s)

    def _stream(self, stream: Stream, now_s: float) -> float | None:
        """Send what is due. Returns when the next token is; None: the stream is over."""
        connection = stream.connection
        if connection.stream is not stream:
            return None  # the client left
        if stream.sent == 0:
            assert self.truth.start_s is not None
            stream.truth.first_token_s = now_s - self.truth.start_s
        if stream.fault is Fault.EMPTY:
            connection.write(stream.ending)
            self._finish(stream, now_s)
            return None
        due = stream.sent + 1
        while due < len(stream.times_s) and stream.times_s[due] <= now_s:
            due += 1
        connection.write(replies.TOKEN * (due - stream.sent))
        stream.sent = due
        if stream.fault is not None and self._broken(stream):
            return None
        if due < len(stream.times_s):
            return stream.times_s[due]
        if stream.fault is Fault.ENDLESS:
            return now_s + max(0.001, self.settings.law.itl_s)
        connection.write(stream.ending)
        self._finish(stream, now_s)
        return None

    def _broken(self, stream: Stream) -> bool:
        """Do what the fault wants after the first token; whether that was the end of it."""
        connection = stream.connection
        match stream.fault:
            case Fault.RESET:
                connection.reset()
            case Fault.TRUNCATE:
                connection.write(replies.LAST_CHUNK)
            case Fault.GARBAGE:
                connection.write(replies.GARBAGE + replies.chunk(replies.DONE) + replies.LAST_CHUNK)
            case Fault.ERROR_EVENT:
                connection.write(
                    replies.ERROR_EVENT + replies.chunk(replies.DONE) + replies.LAST_CHUNK
                )
            case Fault.HANG:
                return True  # the stream stays open until the client leaves
            case _:
                return False
        if connection.stream is stream:
            connection.stream = None
            self.truth.closed()
        return True

    def _finish(self, stream: Stream, now_s: float) -> None:
        assert self.truth.start_s is not None
        stream.truth.end_s = now_s - self.truth.start_s
        stream.connection.stream = None
        self.truth.closed()


@contextlib.asynccontextmanager
async def serving(settings: MockSettings) -> AsyncIterator[tuple[MockServer, str]]:
    """A listening server and its URL, until the end of the context.

    Raises:
        OSError: the address is taken, or a TLS file can't be read.
    """
    server = MockServer(settings)
    loop = asyncio.get_running_loop()
    context = None
    if settings.tls_cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.tls_cert, settings.tls_key or None)
    if settings.unix_path:
        listener = await loop.create_unix_server(
            lambda: Connection(server), settings.unix_path, backlog=BACKLOG, ssl=context
        )
        url = f"unix://{settings.unix_path}"
    else:
        listener = await loop.create_server(
            lambda: Connection(server),
            settings.host,
            settings.port,
            backlog=BACKLOG,
            ssl=context,
        )
        port = listener.sockets[0].getsockname()[1]
        url = f"{'https' if context else 'http'}://{settings.host}:{port}"
    try:
        yield server, url
    finally:
        listener.close()
        server.close()
        await listener.wait_closed()
