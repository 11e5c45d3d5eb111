"""This file is about addresses of pods: no two pods of this machine share one, whose ever they are.

Each node agent claims a network 127.N.0.0/16 of its own, so that test clusters run side by side.
"""

import socket

from epidote_operator.testing.processes import ProcessFailed

NETWORKS = range(1, 255)  # 127.0 is everybody's
CLAIM = "\0epidote-test-pods-127.{}"


class Addresses:
    """Loopback addresses for pods; a network is claimed until `close`, or until the process ends.

    The claim is a socket in Linux's abstract namespace: the kernel drops it with the process,
    however that ends, and containers with a loopback of their own don't see each other's claims.

    Raises:
        ProcessFailed: every network is claimed.
    """

    def __init__(self) -> None:
        self._claim, self.prefix = _claimed()
        self._taken: dict[str, int] = {}  # by pod uid

    def take(self, uid: str) -> str:
        number = next(n for n in range(2, 60_000) if n not in self._taken.values())
        self._taken[uid] = number
        return f"{self.prefix}.{number // 250}.{number % 250 + 1}"

    def give_back(self, uid: str) -> None:
        self._taken.pop(uid, None)

    def close(self) -> None:
        """Another node may have the network."""
        self._claim.close()


def _claimed() -> tuple[socket.socket, str]:
    for number in NETWORKS:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(CLAIM.format(number))
        except OSError:  # another node's
            claim.close()
            continue
        return claim, f"127.{number}"
    raise ProcessFailed(f"all {len(NETWORKS)} networks of 127.0.0.0/8 are claimed by test nodes")
