"""This file is about which rate to try next: bracket the knee, then halve the bracket.

Pure: told what each probe showed, it says what to probe now. The rates it settles on are `low`,
the highest that held, and `high`, the lowest that did not.
"""

import math

GROWTH = 2.0  # between rates while no bracket is known


class RateSearch:
    """`tolerance` is the width of the final bracket over its lower end.

    >>> search = RateSearch(start_rps=10.0, tolerance=0.05)
    >>> while (rps := search.next_rps()) is not None:
    ...     search.tell(rps, held=rps <= 47.0)
    >>> search.low_rps <= 47.0 < search.high_rps <= 1.05 * search.low_rps
    True
    """

    def __init__(
        self,
        *,
        start_rps: float,
        tolerance: float = 0.05,
        min_rps: float = 0.01,
        max_rps: float = math.inf,
    ) -> None:
        if not 0.0 < min_rps <= start_rps <= max_rps:
            raise ValueError(
                f"rates: want 0 < min <= start <= max, got {min_rps:g}, {start_rps:g}, {max_rps:g}"
            )
        if not 0.0 < tolerance < 1.0:
            raise ValueError(f"tolerance: must lie inside (0, 1), got {tolerance:g}")
        self._start_rps = start_rps
        self._tolerance = tolerance
        self._min_rps = min_rps
        self._max_rps = max_rps
        self.low_rps = 0.0  # 0: none held yet
        self.high_rps = math.inf  # inf: none failed yet

    def tell(self, rps: float, *, held: bool) -> None:
        """A probe at `rps` is over."""
        if held:
            self.low_rps = max(self.low_rps, rps)
            # A lower rate that failed was bad luck, or the service was still cold.
            if self.high_rps <= self.low_rps:
                self.high_rps = math.inf
        else:
            self.high_rps = min(self.high_rps, rps)

    def next_rps(self) -> float | None:
        """The rate to probe now; None: the bracket is narrow enough, or has met a limit."""
        if self.low_rps == 0.0:
            if math.isinf(self.high_rps):
                return self._start_rps
            lower = self.high_rps / GROWTH
            return None if self.high_rps <= self._min_rps else max(lower, self._min_rps)
        if math.isinf(self.high_rps):
            upper = min(self.low_rps * GROWTH, self._max_rps)
            return None if self.low_rps >= self._max_rps else upper
        if self.high_rps / self.low_rps - 1.0 <= self._tolerance:
            return None
        return math.sqrt(self.low_rps * self.high_rps)
