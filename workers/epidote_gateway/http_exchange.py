"""This file is about one HTTP exchange on bare ASGI: body in, bytes out, and a client that leaves.

Bare, because a framework's response would cost a task hop and several allocations per chunk.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from epidote_gateway.api_errors import ApiError
from epidote_gateway.memory_budget import Holding

BODY_TIMEOUT_S = 60.0  # a phone's uplink; no endless trickle
WRITE_TIMEOUT_S = 60.0  # for 64 KiB to be read: slower than any line
ABORT = "epidote.abort"  # in a scope's extensions: cuts the connection, unsent bytes and all
FAILED_STATUS = "epidote.failed_status"  # in a scope: what a stream that began well came to
Headers = Iterable[tuple[bytes, bytes]]
JSON: Headers = ((b"content-type", b"application/json"),)
EVENT_STREAM: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold tokens back
)


class ClientGone(Exception):
    """The client closed the connection; nobody reads an answer."""


class ClientStalled(ClientGone):
    """The client keeps the connection, but does not read."""


def headers_of(scope: Scope) -> Mapping[bytes, bytes]:
    """Names in lower case; of a repeated header, the last."""
    return dict(scope["headers"])


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = headers_of(scope)
        self._scope = scope
        self.has_started = False
        self.write_timeout_s = WRITE_TIMEOUT_S
        self._receive = receive
        self._send = send
        self._abort = (scope.get("extensions") or {}).get(ABORT)
        self._is_complete = False

    async def read_json_body(
        self,
        max_bytes: int,
        *,
        timeout_s: float = BODY_TIMEOUT_S,
        holding: Holding | None = None,
    ) -> bytes:
        """The whole body; `holding` grows by it.

        Raises:
            ApiError: 408 after `timeout_s`, 429 or 413 of `holding`, and those of `_read_json`.
            ClientGone: in the middle of the body.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._read_json(max_bytes, holding)
        except TimeoutError as error:
            raise ApiError(
                408, f"the body took longer than {timeout_s:g} s", code="timeout"
            ) from error

    async def _read_json(self, max_bytes: int, holding: Holding | None) -> bytes:
        """See `read_json_body`.

        Raises:
            ApiError: 415 if not declared as JSON (a browser may send other types across sites
                without asking first), 413 if larger than `max_bytes`; a declared size is judged
                unread.
            ClientGone: in the middle of the body.
        """
        content_type = self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type != b"application/json" and not content_type.endswith(b"+json"):
            raise ApiError(415, "the body must be application/json", code="unsupported_media_type")
        too_large = ApiError(
            413, f"the body must be at most {max_bytes} bytes", code="request_too_large"
        )
        told = self.headers.get(b"content-length", b"")[:20]
        declared = int(told) if told.isdigit() else 0
        if declared > max_bytes:
            raise too_large
        if holding is not None:
            holding.check_room(declared)
        pieces: list[bytes] = []
        num_bytes = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            num_bytes += len(piece)
            if num_bytes > max_bytes:
                raise too_large
            if holding is not None:
                holding.grow(len(piece))
            pieces.append(piece)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def until_disconnect(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work unless the client leaves: then cancel it, wait until it has cleaned up.

        The body must have been read. Raises what the work raises, or `ClientGone`.
        """
        task = asyncio.ensure_future(work)
        watcher = asyncio.ensure_future(self._disconnected())
        try:
            await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not self._is_complete:
                raise ClientGone
            await task
        finally:
            for future in (task, watcher):
                if not future.done():
                    future.cancel()
            await asyncio.gather(task, watcher, return_exceptions=True)

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, headers: Headers) -> None:
        self.has_started = True
        await self._write(
            {"type": "http.response.start", "status": status, "headers": list(headers)}
        )

    async def body(self, body: bytes, *, more: bool = False) -> None:
        """One write; the last one has `more=False`."""
        self._is_complete = not more
        await self._write({"type": "http.response.body", "body": body, "more_body": more})

    async def _write(self, message: dict[str, Any]) -> None:
        """Servers let a write wait while the client has not read what was written before.

        Raises:
            ClientStalled: for `write_timeout_s`; the connection is cut.
        """
        try:
            async with asyncio.timeout(self.write_timeout_s):
                await self._send(message)
        except TimeoutError as error:
            if self._abort is not None:
                self._abort()
            raise ClientStalled from error

    async def whole(self, status: int, body: bytes, headers: Headers = JSON) -> None:
        """A complete answer."""
        await self.start(status, (*headers, (b"content-length", b"%d" % len(body))))
        await self.body(body)

    async def failed(self, error: ApiError, last: bytes) -> None:
        """End a stream that has begun with an error; log and metrics count it as one."""
        self._scope[FAILED_STATUS] = error.status
        await self.body(last)

    async def error(self, error: ApiError) -> None:
        more = [(name.encode(), value.encode("latin-1")) for name, value in error.headers.items()]
        await self.whole(error.status, error.body(), (*JSON, *more))
