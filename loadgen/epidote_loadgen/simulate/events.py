"""This file is about simulated time: a heap of calls, in order of time and then of request."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Call = Callable[[float, Any], None]


class Events:
    """Calls to make at a simulated time. Equal times run in the order they were scheduled."""

    __slots__ = ("_count", "heap", "now_s")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Call, Any]] = []
        self.now_s = 0.0
        self._count = 0

    def at(self, when_s: float, call: Call, argument: Any = None) -> None:
        self._count += 1
        heappush(self.heap, (when_s, self._count, call, argument))

    def run_until(self, end_s: float) -> None:
        """Make every call due before or at `end_s`."""
        heap = self.heap
        while heap and heap[0][0] <= end_s:
            now_s, _, call, argument = heappop(heap)
            self.now_s = now_s
            call(now_s, argument)
        self.now_s = end_s
