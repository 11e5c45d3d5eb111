"""This file is about where a worker listens: "unix:/path" on one host, "tcp:host:port" beyond."""

from dataclasses import dataclass


@dataclass(frozen=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True)
class TcpAddress:
    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp:{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


def parse_address(text: str) -> Address:
    """Read an address as a `WorkerView` carries it.

    >>> parse_address("tcp:10.0.0.1:7000")
    TcpAddress(host='10.0.0.1', port=7000)

    Raises:
        ValueError: neither form.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "unix" and rest:
        return UnixAddress(rest)
    host, _, port = rest.rpartition(":")
    if scheme == "tcp" and host and port.isdigit():
        return TcpAddress(host, int(port))
    raise ValueError(f"address: wanted unix:/path or tcp:host:port, got {text!r}")
