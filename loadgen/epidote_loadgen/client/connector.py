"""This file is about opening connections: TCP, TLS, unix sockets, and through a proxy."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable

from epidote_loadgen.client.address import Address

OWN_LIMITS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}


class CannotConnect(Exception):
    """`is_own_limit`: this machine had no descriptor or port left; else the target's doing."""

    def __init__(self, message: str, *, is_own_limit: bool = False) -> None:
        super().__init__(message)
        self.is_own_limit = is_own_limit


async def connect(
    address: Address, factory: Callable[[], asyncio.Protocol], *, timeout_s: float
) -> None:
    """Open one connection for `factory`'s protocol.

    Raises:
        CannotConnect: the message is one short line.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            if address.unix_path:
                await loop.create_unix_connection(factory, address.unix_path)
            elif address.proxy is not None:
                await _through_proxy(loop, address, address.proxy, factory)
            else:
                await loop.create_connection(factory, address.host, address.port, ssl=address.tls)
    except TimeoutError:
        raise CannotConnect(f"no connection within {timeout_s:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise CannotConnect(f"TLS: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise CannotConnect(f"TLS: {error.reason or error}") from error
    except (OSError, ConnectionError) as error:
        own = error.errno in OWN_LIMITS
        raise CannotConnect(plain(error), is_own_limit=own) from error


def plain(error: OSError) -> str:
    """The reason in the system's words, whatever the event loop made of it.

    >>> plain(OSError(111, "Connect call failed ('::1', 9)"))
    'connection refused'
    """
    if isinstance(error, socket.gaierror):
        return f"name not found: {error.strerror}"
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    if "refused" in str(error).lower() or "[Errno 111]" in str(error):
        return os.strerror(errno.ECONNREFUSED).lower()  # every address of the name refused
    return str(error) or type(error).__name__


async def _through_proxy(
    loop: asyncio.AbstractEventLoop,
    address: Address,
    proxy: tuple[str, int],
    factory: Callable[[], asyncio.Protocol],
) -> None:
    if address.tls is None:
        await loop.create_connection(factory, *proxy)  # requests name the target themselves
        return
    transport, tunnel = await loop.create_connection(_Tunnel, *proxy)
    try:
        host = f"[{address.host}]" if ":" in address.host else address.host
        name = f"{host}:{address.port}".encode()
        transport.write(b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (name, name))
        await tunnel.opened
        protocol = factory()
        secured = await loop.start_tls(
            transport, protocol, address.tls, server_hostname=address.host
        )
    except BaseException:
        transport.abort()
        raise
    if secured is None:
        raise ConnectionError("the proxy closed the tunnel")
    protocol.connection_made(secured)


class _Tunnel(asyncio.Protocol):
    """Waits for a proxy's answer to CONNECT."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answer = b""

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if b"\r\n\r\n" not in self._answer or self.opened.done():
            return
        status = self._answer.split(b" ", 2)[1:2]
        if status == [b"200"]:
            self.opened.set_result(None)
        else:
            shown = status[0][:3].decode("latin-1") if status else "nothing"
            self.opened.set_exception(ConnectionError(f"the proxy answered CONNECT with {shown}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("the proxy closed the connection"))
