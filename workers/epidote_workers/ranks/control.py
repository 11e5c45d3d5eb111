"""This file is about the socket between a leader and one follower while they start.

Whole messages, pickled, some with a descriptor: both ends are this worker's own processes.
"""

import os
import pickle
import socket
from dataclasses import dataclass
from typing import TypeVar

from epidote_engine.parallel.lost import RankLost
from epidote_engine.settings import EngineConfig

MAX_BYTES = 1 << 16  # below what a socket takes at once; the longest is a handle
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Here:
    """The follower has imported what it needs."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a follower shall be. `meeting` is a file that the ranks find each other by."""

    config: EngineConfig
    rank: int
    size: int
    meeting: str
    num_threads: int


@dataclass(frozen=True, kw_only=True)
class PoolMemory:
    """A descriptor comes with it: the memory that the follower's pool of this name is to be in."""

    name: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The engine is made. `handles` (pool, CUDA handle) of pools in GPU memory."""

    handles: tuple[tuple[str, str], ...] = ()


class Control:
    """One end. Blocking; not shared between threads."""

    def __init__(self, end: socket.socket, peer: str) -> None:
        """`peer` names the other end in errors."""
        self._end, self._peer = end, peer

    @classmethod
    def pair(cls, peer: str) -> tuple["Control", socket.socket]:
        """Our end, and the other one to be inherited by a new process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours, peer), theirs

    def send(self, message: object, descriptor: int | None = None) -> None:
        """
        Raises:
            RankLost: nobody is there any more.
        """
        data = pickle.dumps(message)
        assert len(data) <= MAX_BYTES, "messages are small"
        try:
            socket.send_fds(self._end, [data], [] if descriptor is None else [descriptor])
        except OSError as error:
            raise RankLost(f"{self._peer} is gone: {error}") from error

    def receive(self, kind: type[T], timeout_s: float | None = None) -> tuple[T, int | None]:
        """The next message, which must be of `kind`, and its descriptor, the caller's to close.

        Raises:
            RankLost: the other end is closed, silent for too long, or says something else.
        """
        self._end.settimeout(timeout_s)
        try:
            data, descriptors, _, _ = socket.recv_fds(self._end, MAX_BYTES, 1)
        except OSError as error:
            raise RankLost(f"{self._peer} does not answer: {error!r}") from error
        descriptor = descriptors[0] if descriptors else None
        # from our own process, over a socket that no other one has
        message = pickle.loads(data) if data else None
        if not isinstance(message, kind):
            if descriptor is not None:
                os.close(descriptor)
            what = "closed its end" if message is None else f"said {type(message).__name__}"
            raise RankLost(f"{self._peer} {what} instead of {kind.__name__}")
        return message, descriptor

    def close(self) -> None:
        self._end.close()
