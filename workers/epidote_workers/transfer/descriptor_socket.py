"""This file is about passing pool descriptors to peers: SCM_RIGHTS over a unix socket.

One request per connection: the pool's name; the answer is "ok" with the descriptor, or nothing.
A thread answers, because descriptor passing and event loops (uvloop) do not mix.
"""

import logging
import os
import socket
import struct
import threading
from typing import Protocol

from epidote_core.errors import EpidoteError

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0
MAX_NAME_BYTES = 64


class NoDescriptor(EpidoteError):
    """The peer's descriptor can't be had: it is gone, or on another host or mount."""


class Descriptors(Protocol):
    """What knows the descriptors of pools."""

    def descriptor(self, name: str) -> int | None:
        """None: no such pool, or one that has none."""
        ...


class DescriptorServer:
    """Gives the descriptors of one allocator to processes of the same user."""

    def __init__(self, path: str, allocator: Descriptors) -> None:
        """Listen at once.

        Raises:
            OSError: the path is taken or too long (108 bytes).
        """
        self.path = path
        self._allocator = allocator
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._run, name="epidote-pools", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept; close alone does not
        self._listener.close()
        self._thread.join(TIMEOUT_S)
        if os.path.exists(self.path):
            os.unlink(self.path)

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return  # closed
            with peer:
                try:
                    self._answer(peer)
                except OSError as error:  # that peer's loss; others still want theirs
                    logger.warning("descriptor not passed", extra={"error": repr(error)})

    def _answer(self, peer: socket.socket) -> None:
        peer.settimeout(TIMEOUT_S)
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", credentials)[1] != os.getuid():
            return
        name = peer.recv(MAX_NAME_BYTES).decode(errors="replace")
        descriptor = self._allocator.descriptor(name)
        if descriptor is not None:
            socket.send_fds(peer, [b"ok"], [descriptor])


def fetch_descriptor(path: str, name: str) -> int:
    """The descriptor of a peer's pool; the caller closes it. Blocks for `TIMEOUT_S` at most.

    Raises:
        NoDescriptor: nobody answers there, or it has no such pool.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(TIMEOUT_S)
        try:
            peer.connect(path)
            peer.sendall(name.encode())
            _, descriptors, _, _ = socket.recv_fds(peer, 2, 1)
        except OSError as error:
            raise NoDescriptor(f"pool {name!r} at {path}: {error}") from error
    if not descriptors:
        raise NoDescriptor(f"pool {name!r} at {path}: the peer has none")
    return descriptors[0]
