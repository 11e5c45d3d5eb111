"""This file is about fetching a client's picture from a URL without becoming its proxy."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

from epidote_gateway.address_policy import AddressPolicy
from epidote_gateway.api_errors import bad_field
from epidote_gateway.data_url import too_large

Resolve = Callable[[str, int], Awaitable[list[str]]]
_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {b"http": 80, b"https": 443, "http": 80, "https": 443}
_HEADERS = [
    (b"accept", b"image/*"),
    (b"accept-encoding", b"identity"),  # a compressed body could be a bomb of its own
    (b"user-agent", b"epidote-gateway"),
]


class _Refused(Exception):
    """The policy says no; the message may be shown to the client."""


async def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host; a literal address (in any notation) is its own."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(item[4][0]) for item in found]


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that the policy passed; TLS still verifies the host's name."""

    def __init__(self, policy: AddressPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise _Refused("the host name can't be resolved") from error
        address = self._policy.choose(host, port, addresses)
        if address is None:
            raise _Refused("the host's address is not public")
        return await self._plain.connect_tcp(address, port, timeout)

    async def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        raise _Refused("not an internet host")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class UrlFetcher:
    """GETs pictures over http(s). Environment proxies are not used: they would see the address
    after our check."""

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        timeout_s: float,
        max_redirects: int,
        max_bytes: int,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._timeout_s = timeout_s
        self._max_redirects = max_redirects
        self._max_bytes = max_bytes
        self._pool = httpcore.AsyncConnectionPool(
            network_backend=_CheckedNetwork(policy, resolve),
            ssl_context=tls or ssl.create_default_context(),
            max_keepalive_connections=0,  # a kept connection would skip the next check
        )

    async def fetch(self, url: str, *, field: str) -> bytes:
        """The body of a 200.

        Raises:
            ApiError: 400 naming `field`, for whatever stands in the way. The message tells the
                kind of failure, nothing of what answered.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url, field)
        except _Refused as error:
            raise bad_field(field, str(error), code="image_url_refused") from error
        except TimeoutError as error:
            wanted = f"took longer than {self._timeout_s:g} s"
            raise bad_field(field, wanted, code="image_url_timeout") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise bad_field(
                field, f"can't be fetched ({type(error).__name__})", code="image_url_failed"
            ) from error

    async def _follow(self, url: str, field: str) -> bytes:
        secure = False
        for _ in range(self._max_redirects + 1):
            scheme = self._check(url)
            if secure and scheme != "https":
                raise _Refused("redirects from https to http are not followed")
            secure = scheme == "https"
            status, found = await self._get(url, field)
            if status == 200 and isinstance(found, bytes):
                return found
            if not isinstance(found, str):
                wanted = f"answered with status {status}"
                raise bad_field(field, wanted, code="image_url_failed")
            try:
                url = urljoin(url, found)
            except ValueError as error:
                raise _Refused("redirected to what is no URL") from error
        raise _Refused(f"more than {self._max_redirects} redirects")

    def _check(self, url: str) -> str:
        """The URL's scheme, if the URL alone gives no reason to refuse it."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
            (host or "").encode("idna")
        except ValueError as error:
            raise _Refused("not a valid URL") from error
        if parts.scheme not in ("http", "https") or not host or port == 0:
            raise _Refused("must be an http or https URL with a host")
        if parts.username is not None or parts.password is not None:
            raise _Refused("must not carry a user name or password")
        if any(ord(character) <= 32 or ord(character) == 127 for character in url):
            raise _Refused("not a valid URL")
        if not self._policy.allows_host(host):
            raise _Refused("the host is not on this server's list")
        return parts.scheme

    async def _get(self, url: str, field: str) -> tuple[int, bytes | str | None]:
        """(status, body of a 200 | target of a redirect | None)."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request_url = httpcore.URL(
            scheme=parts.scheme.encode(),
            host=host.encode("ascii" if host.isascii() else "idna"),
            port=parts.port,
            target=_quoted(target),
        )
        async with self._pool.stream("GET", request_url, headers=self._headers(request_url)) as r:
            headers = {name.lower(): value for name, value in r.headers}
            if r.status in _REDIRECTS and b"location" in headers:
                return r.status, headers[b"location"].decode("latin-1")
            if r.status != 200:
                return r.status, None
            body = bytearray()
            async for piece in r.aiter_stream():
                body += piece
                if len(body) > self._max_bytes:
                    raise too_large(field, self._max_bytes)
            return 200, bytes(body)

    @staticmethod
    def _headers(url: httpcore.URL) -> list[tuple[bytes, bytes]]:
        host = b"[" + url.host + b"]" if b":" in url.host else url.host
        if url.port is not None and url.port != _PORTS[url.scheme]:
            host += b":%d" % url.port
        return [(b"host", host), *_HEADERS]

    async def aclose(self) -> None:
        await self._pool.aclose()


def _quoted(target: str) -> bytes:
    """Characters outside ASCII as percent-encoded UTF-8, the rest as given."""
    return b"".join(
        character.encode()
        if character.isascii()
        else b"".join(b"%%%02X" % byte for byte in character.encode())
        for character in target
    )
