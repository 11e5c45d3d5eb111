"""This file is about having payloads ready before their time, made in a thread of their own."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from epidote_loadgen.records import PlannedRequest, Slot, Workload
from epidote_loadgen.runner.precedence import give_precedence

MAX_AHEAD = 4096  # requests
MAX_AHEAD_BYTES = 128 << 20
CHECK_S = 0.1  # how often a full buffer is looked at
ROOM_S = 200e-6  # to the next send, for a payload: some 5 to 100 µs of the interpreter's time
PAST_S = 100e-6  # after a send the loop reads what came in
JOIN_S = 0.5  # for the thread to end; it looks between two payloads


class PayloadFailed(Exception):
    """The workload could not make a request: the plan is wrong, the run can't go on."""


def _never() -> float:
    return math.inf


class Preparer:
    """Makes the requests of `slots`, in order, some way ahead of whoever takes them.

    A context manager: its thread ends with it.
    """

    def __init__(self, slots: Iterator[Slot], workload: Workload) -> None:
        self._slots = slots
        self._workload = workload
        self._ready: deque[PlannedRequest] = deque()  # appends and pops are atomic
        self._made_bytes = 0  # counted by the thread alone
        self._taken_bytes = 0  # by the taker alone; the difference is in the buffer
        self._room = threading.Event()
        self._filled = threading.Event()
        self._stop = False
        self._exhausted = False
        self._error: BaseException | None = None
        self.next_send_s: Callable[[], float] = _never  # of `time.monotonic`
        self._thread = threading.Thread(target=self._run, name="payloads", daemon=True)

    def __enter__(self) -> "Preparer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Waits a moment: a thread that makes a huge payload may outlive it by that payload."""
        self._stop = True
        self._room.set()
        self._thread.join(JOIN_S)

    @property
    def is_filled(self) -> bool:
        """Whether the buffer was full once, or everything is made. Raises PayloadFailed."""
        self._check()
        return self._filled.is_set()

    @property
    def has_ready(self) -> bool:
        """Whether `take` has something to give."""
        return bool(self._ready)

    @property
    def is_exhausted(self) -> bool:
        """Whether everything was made and taken."""
        return self._exhausted and not self._ready

    def peek(self) -> PlannedRequest | None:
        """The next request; None: not ready yet, or there is none. Raises PayloadFailed."""
        if self._ready:
            return self._ready[0]
        self._check()
        self._room.set()
        return None

    def take(self) -> PlannedRequest:
        """What `peek` showed."""
        planned = self._ready.popleft()
        self._taken_bytes += len(planned.body)
        if len(self._ready) < MAX_AHEAD // 2 and self._num_bytes < MAX_AHEAD_BYTES // 2:
            self._room.set()
        return planned

    @property
    def _num_bytes(self) -> int:
        return self._made_bytes - self._taken_bytes

    def _check(self) -> None:
        if self._error is not None:
            raise PayloadFailed(f"{type(self._error).__name__}: {self._error}") from self._error

    def _give_way(self) -> None:
        """Leave the interpreter to a send that is due soon, unless there is little left to send."""
        while len(self._ready) > MAX_AHEAD // 4 or self._num_bytes > MAX_AHEAD_BYTES // 4:
            room_s = self.next_send_s() - time.monotonic()
            if room_s > ROOM_S or self._stop:
                return
            time.sleep(max(0.0, room_s) + PAST_S)

    def _run(self) -> None:
        give_precedence()
        try:
            for slot in self._slots:
                self._give_way()
                planned = self._workload.request(slot)
                self._made_bytes += len(planned.body)
                self._ready.append(planned)
                if len(self._ready) >= MAX_AHEAD or self._num_bytes >= MAX_AHEAD_BYTES:
                    self._filled.set()
                    # Fill up in long strokes: a thread that works all the time steals the
                    # interpreter from the sends.
                    self._room.clear()
                    while not self._stop and not self._room.wait(CHECK_S):
                        pass
                if self._stop:
                    return
            self._exhausted = True
        except Exception as error:  # handed to the loop's side, which raises it
            self._error = error
        finally:
            self._filled.set()
