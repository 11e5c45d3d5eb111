"""This file is about sockets that several processes of one user listen on."""

import socket


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound socket that other gateway replicas of this user may share (SO_REUSEPORT).

    The kernel spreads connections over the sockets of one port.
    """
    family, kind, proto, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    return sock
