"""This file is about where the target is: its URL, taken apart and checked before a run."""

import re
import ssl
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from epidote_loadgen.plan import Target

CACHE_HEADER = b"x-epidote-cache"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # all but the tab


class InvalidTarget(ValueError):
    """The target can't be asked at all; the message names the field, never the key."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where to connect and what to write. `tls` is None for plain HTTP."""

    host: str  # of the target; "" for a unix socket
    port: int
    unix_path: str = ""
    tls: ssl.SSLContext | None = None
    proxy: tuple[str, int] | None = None
    prefix: str = ""  # of every path; absolute when an HTTP proxy reads it
    fixed_head: bytes = field(repr=False)  # header lines of every request, the key among them

    def head(self, path: str, length: int, request_id: str, extra: bytes = b"") -> bytes:
        """A POST's request line and headers."""
        return b"POST %b HTTP/1.1\r\n%bx-request-id: %b\r\n%bcontent-length: %d\r\n\r\n" % (
            (self.prefix + path).encode(),
            self.fixed_head,
            request_id.encode(),
            extra,
            length,
        )


def resolve(target: Target) -> Address:
    """Raises InvalidTarget."""
    parts = _split("target.url", target.url)
    if parts.scheme == "unix":
        if not parts.path or parts.netloc:
            raise InvalidTarget(f"target.url: want unix:///path/to.sock, got {target.url!r}")
        return Address(
            host="", port=0, unix_path=parts.path, fixed_head=_fixed_head("localhost", target)
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidTarget(
            f"target.url: want http://HOST:PORT, https://HOST:PORT or unix:///PATH, "
            f"got {_shown(parts)!r}"
        )
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    prefix = parts.path.rstrip("/").removesuffix("/v1")
    proxy = None
    if target.proxy_url:
        through = _split("target.proxy_url", target.proxy_url)
        if through.scheme != "http" or not through.hostname:
            raise InvalidTarget("target.proxy_url: want http://HOST:PORT")
        proxy = (through.hostname, through.port or 8080)
    netloc = parts.netloc.rpartition("@")[2]
    if proxy is not None and not secure:
        prefix = f"http://{netloc}{prefix}"
    return Address(
        host=parts.hostname,
        port=port,
        tls=_tls(target) if secure else None,
        proxy=proxy,
        prefix=prefix,
        fixed_head=_fixed_head(netloc, target),
    )


def _split(name: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise InvalidTarget(f"{name}: {error}") from error
    if parts.username or parts.password:
        raise InvalidTarget(f"{name}: must not hold a user or password; give the key apart")
    if parts.query or parts.fragment:
        raise InvalidTarget(f"{name}: must have neither a query nor a fragment")
    return parts


def _shown(parts: SplitResult) -> str:
    return f"{parts.scheme}://{parts.hostname or ''}"


def _tls(target: Target) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=target.ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidTarget(f"target.ca_file: can't be read: {error}") from error
    if not target.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def header_lines(headers: tuple[tuple[str, str], ...]) -> bytes:
    """Raises InvalidTarget for a header that would break out of its line."""
    lines = []
    for name, value in headers:
        if not name or ":" in name or _CONTROL.search(f"{name}{value}"):
            raise InvalidTarget(
                f"headers: {name!r} is no header, or its value has control characters"
            )
        try:
            lines.append(f"{name}: {value}\r\n".encode("latin-1"))
        except UnicodeEncodeError:
            raise InvalidTarget(f"headers: {name!r} must be latin-1") from None
    return b"".join(lines)


def _fixed_head(host: str, target: Target) -> bytes:
    headers = [
        ("host", host),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("user-agent", "epidote-loadgen"),
        *target.headers,
    ]
    if target.api_key:
        try:
            key = header_lines((("authorization", f"Bearer {target.api_key}"),))
        except InvalidTarget:
            raise InvalidTarget("target.api_key: has characters that no header may hold") from None
    else:
        key = b""
    return header_lines(tuple(headers)) + key
