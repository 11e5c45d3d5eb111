"""This file is about sending many streams' tokens on time with one timer."""

import asyncio
import heapq
import time
from collections.abc import Callable

from epidote_loadgen.precise_timer import PreciseTimer

SLACK_S = 0.0002  # due so soon is due now: one wake-up for many tokens


class Pump:
    """Calls back at wall times of `time.monotonic`, many thousand of them pending."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = PreciseTimer(loop, self._run)
        self._heap: list[tuple[float, int, Callable[[float], float | None]]] = []
        self._num_pushed = 0

    def push(self, due_s: float, step: Callable[[float], float | None]) -> None:
        """Call `step(now_s)` at `due_s`; it returns when it wants the next call, None: never."""
        self._num_pushed += 1
        heapq.heappush(self._heap, (due_s, self._num_pushed, step))
        if self._heap[0][0] == due_s:
            self._timer.arm(due_s)

    def close(self) -> None:
        self._heap.clear()
        self._timer.close()

    def _run(self) -> None:
        heap = self._heap
        now_s = time.monotonic()
        horizon_s = now_s + SLACK_S
        while heap and heap[0][0] <= horizon_s:
            _, number, step = heap[0]
            next_s = step(now_s)
            if next_s is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (next_s, number, step))
        if heap:
            self._timer.arm(heap[0][0])
