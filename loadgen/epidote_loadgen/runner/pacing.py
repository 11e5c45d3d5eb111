"""This file is about sending on time: an open loop's sends, and a closed loop's returns."""

import asyncio
import heapq
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.client.dispatcher import Dispatcher
from epidote_loadgen.client.exchange import Exchange
from epidote_loadgen.precise_timer import PreciseTimer
from epidote_loadgen.records import (
    PlannedRequest,
    RequestRecord,
    RequestStatus,
    Slot,
    Workload,
)
from epidote_loadgen.runner.preparing import PayloadFailed, Preparer

# Wake so much before the time, and spin: what a system takes to wake us up, in 19 of 20 times.
# Measured: 25 to 75 µs in a virtual machine; spinning longer than the cap costs more than it saves.
EARLY_S, LEAST_EARLY_S, MOST_EARLY_S = 60e-6, 10e-6, 120e-6
LATER_S, SOONER_S = 19e-6, 1e-6  # steps: at rest where one wake-up in twenty comes too late
BURST = 32  # sends between two looks at what came in
AHEAD = 8  # requests staged before their time, so that sends can follow each other closely
RETRY_S = 0.001  # how soon to look again for a payload that is not ready
# A closed loop's user who got no reply at all asks again after a while, doubled each time: at once
# would be a flood on a target that is down, and none of it would be load.
BACK_OFF_S, MOST_BACK_OFF_S = 0.1, 10.0
NO_REPLY = frozenset(
    {RequestStatus.CONNECT, RequestStatus.RESET, RequestStatus.UNSENT, RequestStatus.CAPPED}
)

Submit = Callable[[PlannedRequest, float], None]


class OpenPacer:
    """Submits each request at `start_s` + its intended send, whatever became of the others."""

    def __init__(
        self, preparer: Preparer, dispatcher: Dispatcher, *, start_s: float, stop: asyncio.Event
    ) -> None:
        self._preparer = preparer
        self._dispatcher = dispatcher
        dispatcher.send_due = self._tick
        self._staged: deque[Exchange] = deque()
        self._early_s = EARLY_S
        self._armed_s = math.inf
        self._start_s = start_s
        self._stop = stop
        self._timer = PreciseTimer(asyncio.get_running_loop(), self._wake)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.num_submitted = 0
        self.prepare_waits = 0

    async def run(self) -> None:
        """Until the last request was submitted, or `stop`. Raises PayloadFailed."""
        self._preparer.next_send_s = lambda: self._armed_s
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            self._arm(self._start_s - self._early_s)
            both: set[asyncio.Future[Any]] = {self._done, stopping}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if self._done.done():
                self._done.result()
        finally:
            stopping.cancel()
            self._dispatcher.due_s = math.inf
            self._timer.close()

    def _arm(self, at_s: float) -> None:
        self._dispatcher.due_s = self._armed_s = at_s
        self._timer.arm(at_s)

    def _wake(self) -> None:
        """The timer's call; how late it comes tells how early to ask for it."""
        late_s = time.monotonic() - self._armed_s
        step_s = LATER_S if late_s > self._early_s else -SOONER_S
        self._early_s = min(MOST_EARLY_S, max(LEAST_EARLY_S, self._early_s + step_s))
        self._tick()

    def _tick(self) -> None:
        self._dispatcher.due_s = math.inf  # sending may read, but not send again
        if self._done.done():
            return
        try:
            next_s = self._send_due()
        except Exception as error:  # it belongs to whoever awaits the run
            self._done.set_exception(error)
            return
        if next_s is None:
            self._done.set_result(None)
        else:
            self._arm(next_s)

    def _send_due(self) -> float | None:
        """Send what is due; when to come back, None: all is done."""
        staged = self._staged
        for _ in range(BURST):
            if not staged and not self._stage():
                if self._preparer.is_exhausted:
                    return None
                self.prepare_waits += 1
                return time.monotonic() + RETRY_S
            due_s = self._start_s + staged[0].intended_s
            while time.monotonic() < due_s - self._early_s:
                if len(staged) >= AHEAD or not self._preparer.has_ready:
                    return due_s - self._early_s
                self._stage()
            while time.monotonic() < due_s:
                pass
            self._dispatcher.launch(staged.popleft())
            self.num_submitted += 1
        return time.monotonic()

    def _stage(self) -> bool:
        """Make the next request ready to be sent; whether there was one."""
        if self._preparer.peek() is None:
            return False
        planned = self._preparer.take()
        intended_s = planned.slot.intended_send_s
        assert intended_s is not None
        self._staged.append(self._dispatcher.stage(planned, intended_s))
        return True


class ClosedPacer:
    """Users in a loop. Payloads are made in `executor`, one turn ahead."""

    def __init__(
        self,
        loop: ClosedLoop,
        users: range,
        workload: Workload,
        submit: Submit,
        *,
        executor: Executor,
        start_s: float,
        stop: asyncio.Event,
    ) -> None:
        self._closed = loop
        self._users = users
        self._workload = workload
        self._submit = submit
        self._executor = executor
        self._start_s = start_s
        self._stop = stop
        self._timer = PreciseTimer(asyncio.get_running_loop(), self._tick)
        self._due: list[tuple[float, int, int]] = []  # intended send, user, turn
        self._ready: dict[tuple[int, int], asyncio.Future[PlannedRequest]] = {}
        self._failed: dict[int, int] = {}  # by user: requests without a reply, in a row
        self._num_busy = 0
        self._over = asyncio.Event()
        self._error: Exception | None = None
        self.num_submitted = 0
        self.prepare_waits = 0

    async def run(self) -> None:
        """Until every user is through, or `stop`. Raises PayloadFailed."""
        for user in self._users:
            self._plan(user, 0, self._closed.first_send_s(user))
        if not self._due:
            return
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._over, self._stop)]
        try:
            self._timer.arm(self._start_s)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._due.clear()
            for task in waiting:
                task.cancel()
            for future in self._ready.values():
                future.cancel()
            self._timer.close()
        if self._error is not None:
            raise self._error

    def finished(self, record: RequestRecord) -> None:
        """One of our requests ended: its user thinks, then asks again."""
        self._num_busy -= 1
        turn, user = divmod(record.index, self._closed.num_users)
        if not self._stop.is_set() and record.end_s is not None:
            pause_s = self._closed.think(user, turn + 1) + self._back_off_s(user, record.status)
            self._plan(user, turn + 1, record.end_s + pause_s)
            if self._due:
                self._timer.arm(self._start_s + self._due[0][0] - EARLY_S)
        if not self._due and not self._num_busy:
            self._over.set()

    def _back_off_s(self, user: int, status: RequestStatus) -> float:
        if status not in NO_REPLY:
            self._failed.pop(user, None)
            return 0.0
        failed = self._failed[user] = self._failed.get(user, 0) + 1
        return min(MOST_BACK_OFF_S, BACK_OFF_S * 2.0 ** min(failed - 1, 20))

    def _plan(self, user: int, turn: int, at_s: float) -> None:
        most = self._closed.requests_of(user)
        if at_s >= self._closed.duration_s or (most is not None and turn >= most):
            return
        heapq.heappush(self._due, (at_s, user, turn))
        self._prepare(user, turn)

    def _prepare(self, user: int, turn: int) -> None:
        if (user, turn) not in self._ready:
            slot: Slot = self._closed.slot(user, turn)
            self._ready[user, turn] = asyncio.wrap_future(
                self._executor.submit(self._workload.request, slot)
            )

    def _tick(self) -> None:
        while self._due:
            at_s, user, turn = self._due[0]
            due_s = self._start_s + at_s
            if time.monotonic() < due_s - EARLY_S:
                self._timer.arm(due_s - EARLY_S)
                return
            future = self._ready[user, turn]
            if not future.done():
                self.prepare_waits += 1
                self._timer.arm(time.monotonic() + RETRY_S)
                return
            heapq.heappop(self._due)
            del self._ready[user, turn]
            error = future.exception()
            if error is not None:
                self._error = PayloadFailed(f"{type(error).__name__}: {error}")
                self._over.set()
                return
            self._num_busy += 1
            self.num_submitted += 1
            most = self._closed.requests_of(user)
            if most is None or turn + 1 < most:
                self._prepare(user, turn + 1)
            self._submit(future.result(), at_s)
