"""This file is about telling the parent without delaying a send: by the loop, in the gaps.

A thread would do it at any moment, holding the interpreter; and when the system takes the processor
from such a thread, the sends wait for it by milliseconds.
"""

import asyncio
import math
import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

from epidote_loadgen.runner.part import Glance

SLICE = 8  # records written at once: some 50 µs
ROOM_S = 150e-6  # to the next send, for a slice
PAUSE_S = 0.002  # between two looks for a gap
MOST_AT_ONCE = 16  # slices; then the loop serves others
MOST_WAITING = 16_000  # records; more are written whatever is due


def _never() -> float:
    return math.inf


def _num_records(message: object) -> int:
    return len(message.records) if isinstance(message, Glance) else 0


class Outbox:
    """Call it from the loop's thread, or with no loop running; `flush` at the end."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._waiting: deque[object] = deque()
        self._num_records = 0
        self._poll = select.poll()
        self._poll.register(pipe.fileno(), select.POLLOUT)
        self._handle: asyncio.TimerHandle | None = None
        self.due_s: Callable[[], float] = _never  # when the next send is, of `time.monotonic`

    def put(self, message: object) -> None:
        """Write it soon. A glance with many records goes in small pieces."""
        self._waiting.append(message)
        self._num_records += _num_records(message)
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(0.0, self._write_some)

    def flush(self) -> None:
        """Write everything, waiting for the parent if need be. The loop has ended."""
        with suppress(OSError):  # the parent is gone
            while self._waiting:
                self._pipe.send(self._take())

    def _take(self) -> object:
        """The next piece: cut off when its time comes, for all at once would take a while."""
        message = self._waiting.popleft()
        self._num_records -= min(SLICE, _num_records(message))
        if isinstance(message, Glance) and len(message.records) > SLICE:
            self._waiting.appendleft(replace(message, records=message.records[SLICE:]))
            return replace(message, records=message.records[:SLICE])
        return message

    def _write_some(self) -> None:
        self._handle = None
        for _ in range(MOST_AT_ONCE):
            if not self._waiting:
                return
            is_pressed = self._num_records > MOST_WAITING
            if not is_pressed and self.due_s() - time.monotonic() < ROOM_S:
                break
            if not self._poll.poll(0):
                break  # the pipe is full
            try:
                self._pipe.send(self._take())
            except OSError:
                self._waiting.clear()  # the parent is gone
                self._num_records = 0
                return
        self._handle = asyncio.get_running_loop().call_later(PAUSE_S, self._write_some)
