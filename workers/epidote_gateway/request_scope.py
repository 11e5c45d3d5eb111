"""This file is about what every request gets: an id, a caller, a log line, a clean error."""

import asyncio
import logging
import re
import uuid
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from epidote_gateway.api_errors import as_api_error, internal_error, stopping
from epidote_gateway.cache.controls import CATEGORY_HEADER, header_controls
from epidote_gateway.caller import Caller, Keyring
from epidote_gateway.http_exchange import (
    EVENT_STREAM,
    FAILED_STATUS,
    ClientGone,
    Exchange,
    headers_of,
)
from epidote_gateway.metrics import Metrics
from epidote_gateway.writing import error_events

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("epidote_gateway.access")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}\Z")
_EVENTS = next(header for header in EVENT_STREAM if header[0] == b"content-type")
_OPEN = frozenset(
    ("/health", "/healthz", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs")
)
_API = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/tokenize",
    "/detokenize",
)


def caller_of(scope: Scope) -> Caller:
    caller = scope["epidote.caller"]
    assert isinstance(caller, Caller)
    return caller


def endpoint_label(path: str) -> str:
    """A path as a metric's label: bounded, whatever clients ask for."""
    if path in _OPEN or path in _API:
        return path
    if path.startswith("/v1/models/"):
        return "/v1/models"
    return "/admin" if path.startswith("/admin/") else "other"


class RequestScope:
    """ASGI middleware, outermost of ours."""

    def __init__(
        self, app: ASGIApp, *, keyring: Keyring, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._app = app
        self._keyring = keyring
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = self._clock()
        path: str = scope["path"]
        headers = headers_of(scope)
        request_id = _request_id(headers.get(b"x-request-id", b""))
        status, is_streaming = 0, False

        async def send_with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status, is_streaming
            if message["type"] == "http.response.body":
                is_streaming &= message.get("more_body", False)
            if message["type"] == "http.response.start":
                status = message["status"]
                is_streaming = _EVENTS in message["headers"]
                message["headers"] = [
                    *message["headers"], (b"x-request-id", request_id.encode())
                ]  # fmt: skip
            await send(message)

        try:
            scope["epidote.caller"] = Caller(
                request_id=request_id,
                tenant=self._authorise(scope, path),
                is_admin=self._keyring.is_admin(headers),
                cache=header_controls(
                    _all_of(scope, b"cache-control"), headers.get(CATEGORY_HEADER, b"")
                ),
            )
            await self._app(scope, receive, send_with_id)
        except ClientGone:
            self._metrics.disconnects.inc()
            status = status or 499  # nginx's number for a client that left, for log and metrics
        except asyncio.CancelledError:
            # Not the client: the server has ended its patience with requests, since it stops.
            error, exchange = stopping(), Exchange(scope, receive, send_with_id)
            if not status:
                await exchange.error(error)
            elif is_streaming:  # whole events so far: one more can tell
                await exchange.failed(error, error_events(error))
            raise
        except Exception as error:
            # The last resort: nobody above could do better, and the client deserves a body.
            api_error = as_api_error(error)
            if api_error is None:
                logger.exception("request failed", extra={"request": request_id})
                api_error = internal_error(request_id)
            if status:
                raise  # the answer has begun: only closing the connection tells the client
            self._metrics.errors.labels(api_error.code).inc()
            await Exchange(scope, receive, send_with_id).error(api_error)
        finally:
            status = scope.get(FAILED_STATUS, status)
            self._metrics.requests.labels(endpoint_label(path), str(status)).inc()
            access_logger.info(
                "request",
                extra={
                    "request": request_id,
                    "path": endpoint_label(path),
                    "status": status,
                    "duration_ms": round((self._clock() - started_s) * 1e3, 2),
                },
            )

    def _authorise(self, scope: Scope, path: str) -> str:
        if path.startswith("/admin"):
            self._keyring.check_admin(headers_of(scope))
            return ""
        if path in _OPEN or scope["method"] == "OPTIONS":
            return ""
        return self._keyring.tenant(headers_of(scope))


def _request_id(given: bytes) -> str:
    """The client's id if it is harmless in logs and headers, else one of ours."""
    return given.decode() if _REQUEST_ID.match(given) else f"req-{uuid.uuid4().hex}"


def _all_of(scope: Scope, header: bytes) -> bytes:
    """Repeated lines of a list header mean one list (RFC 9110, 5.3)."""
    return b",".join(value for name, value in scope["headers"] if name == header)
