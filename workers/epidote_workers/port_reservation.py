"""This file is about claiming a TCP port for gateways that will be started later.

The claim is a bound socket that never listens: it gets no connections, the gateways of the same
user bind beside it (SO_REUSEPORT), and everybody else finds the port taken.
"""

import errno
import socket
from types import TracebackType

from epidote_core.errors import EpidoteError


class PortTaken(EpidoteError, OSError):
    """Somebody listens on the port or has claimed it."""


class HostNotOurs(EpidoteError, OSError):
    """The address is none of this machine's."""


class PortReservation:
    """Held until `release`, or the end of a `with` block. `port` 0 takes any free one."""

    def __init__(self, host: str, port: int) -> None:
        """Claim it.

        Raises:
            PortTaken: what was wanted and what to do.
            HostNotOurs: no port of it can be had.
        """
        self.host = host
        try:
            with self._socket(host) as probe:  # without REUSEPORT: refused by any other owner
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
            self._held = self._claim(host, port)
        except OSError as error:
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                raise HostNotOurs(f"{host!r} is no address of this machine: {error}") from error
            raise PortTaken(f"{host}:{port} can't be used: {error.strerror or error}") from error
        self.port: int = self._held.getsockname()[1]

    @staticmethod
    def _socket(host: str) -> socket.socket:
        return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)

    def _claim(self, host: str, port: int) -> socket.socket:
        # Not SO_REUSEADDR at first: with it on both sides, two sockets that don't listen yet could
        # both bind, and a second service would not see that this one is starting.
        for reuse_address in (0, 1):
            held = self._socket(host)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse_address)
            try:
                held.bind((host, port))
                return held
            except OSError:  # closing connections of an earlier owner: these need REUSEADDR
                held.close()
                if reuse_address:
                    raise
        raise AssertionError("unreachable")

    def release(self) -> None:
        self._held.close()

    def __enter__(self) -> "PortReservation":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
