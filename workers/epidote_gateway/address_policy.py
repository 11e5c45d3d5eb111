"""This file is about which hosts and addresses the gateway may connect to for a client.

A client's URL must not reach what only this machine can reach (SSRF): so names are resolved here,
every address is judged, and the connection goes to the judged address (no second look-up).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

# Ranges that carry an IPv4 address inside an IPv6 one: judged by what is inside, or refused.
_NAT64 = ip_network("64:ff9b::/96")
_EMBEDDING = tuple(
    ip_network(text)
    for text in (
        "64:ff9b:1::/48",  # local NAT64
        "2002::/16",  # 6to4
        "2001::/32",  # Teredo
        "::/96",  # IPv4-compatible, deprecated; also :: and ::1
        "::ffff:0:0:0/96",  # IPv4-translated (SIIT)
        "fec0::/10",  # site-local, deprecated
    )
)


def is_public(address: Address) -> bool:
    """Whether strangers could reach the address too.

    >>> [is_public(ip_address(a)) for a in ("1.1.1.1", "10.0.0.1", "::ffff:127.0.0.1", "::1")]
    [True, False, False, False]
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.scope_id is not None or any(address in network for network in _EMBEDDING):
            return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified
    )


def normal_host(host: str) -> str:
    """Lower case, no brackets, no final dot."""
    return host.strip("[]").rstrip(".").lower()


@dataclass(frozen=True, kw_only=True)
class AddressPolicy:
    """`domains`: if any, only these and their subdomains. `private_hosts`: host or host:port that
    may have addresses which aren't public (an image store in the cluster)."""

    domains: Sequence[str] = ()
    private_hosts: Sequence[str] = ()

    def allows_host(self, host: str) -> bool:
        """Whether the list of domains admits this host name."""
        host = normal_host(host)
        wanted = [normal_host(domain) for domain in self.domains]
        return not wanted or any(host == d or host.endswith(f".{d}") for d in wanted)

    def allows_private(self, host: str, port: int) -> bool:
        host = normal_host(host)
        for entry in self.private_hosts:
            name, colon, entry_port = entry.rpartition(":")
            if colon and entry_port.isdigit() and (":" not in name or name.endswith("]")):
                if normal_host(name) == host and int(entry_port) == port:
                    return True
            elif normal_host(entry) == host:
                return True
        return False

    def choose(self, host: str, port: int, addresses: Iterable[str]) -> str | None:
        """The address to connect to; None if any is not public and the host may not be private.

        One bad address spoils the host: a name with a public and a private address is an attack
        or a mistake.
        """
        parsed = [ip_address(text) for text in addresses]
        if not parsed:
            return None
        if all(is_public(a) for a in parsed) or self.allows_private(host, port):
            return str(parsed[0])
        return None
