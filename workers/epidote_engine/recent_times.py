"""This file is about the mean of what was measured lately."""

from collections import deque

_WINDOW_S = 60.0


class RecentMean:
    """Mean of the values noted in the last minute; 0.0 if there are none."""

    def __init__(self) -> None:
        self._values: deque[tuple[float, float]] = deque(maxlen=4096)
        self._total = 0.0

    def note(self, value: float, now_s: float) -> None:
        if len(self._values) == self._values.maxlen:
            self._total -= self._values.popleft()[1]
        self._values.append((now_s, value))
        self._total += value

    def mean(self, now_s: float) -> float:
        while self._values and self._values[0][0] < now_s - _WINDOW_S:
            self._total -= self._values.popleft()[1]
        return self._total / len(self._values) if self._values else 0.0
