"""This file is about a head that another one has taken the place of.

A fleet serves on without its head, and its nodes look for the old one where it was. A new head's
register knows nobody: where the head's name leads elsewhere, waiting is in vain.
"""

import socket
import threading
from collections.abc import Callable

LOOK_S = 5.0
CONNECT_S = 5.0


class HeadWatch:
    """Looks in a thread of its own, since asking for a name may take seconds.

    `resolve` and `listens` ask the network; `pause_s` is between two looks.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        pause_s: float = LOOK_S,
        resolve: Callable[[str], str | None] | None = None,
        listens: Callable[[str, int], bool] | None = None,
    ) -> None:
        self._host, self._port, self._pause_s = host, port, pause_s
        self._resolve, self._listens = resolve or address_of, listens or is_listening
        self._joined = self._resolve(host)
        self._ended = threading.Event()
        self.is_replaced = False

    def start(self) -> None:
        """Until `stop`, or until the head is replaced."""
        threading.Thread(target=self._run, daemon=True, name="head-watch").start()

    def stop(self) -> None:
        self._ended.set()

    def look(self) -> None:
        """A name that leads nowhere, or to nobody who listens, tells nothing."""
        address = self._resolve(self._host)
        if address is not None and self._joined is not None and address != self._joined:
            self.is_replaced = self._listens(address, self._port)

    def _run(self) -> None:
        while not self.is_replaced and not self._ended.wait(self._pause_s):
            self.look()


def address_of(host: str) -> str | None:
    """What the name stands for now; None: nobody knows."""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return None


def is_listening(host: str, port: int) -> bool:
    """Whether a connection can be made."""
    try:
        with socket.create_connection((host, port), timeout=CONNECT_S):
            return True
    except OSError:
        return False
