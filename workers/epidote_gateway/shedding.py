"""This file is about refusing a share of new requests while whoever runs the fleet asks for it.

A pool that can't carry its load serves nobody well: refusing some at once, with 429 and a time to
come back, keeps the promise to the others while workers start.
"""

from collections.abc import Callable

HOLD_S = 60.0  # an operator that is gone must not leave a gateway refusing for ever


class Shedding:
    """Refuses exactly the share that was asked for, evenly spread. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ratio, self._until_s, self._owed = 0.0, float("-inf"), 0.0

    def tell(self, ratio: float) -> None:
        """Refuse this share from now on, for `HOLD_S` unless told again.

        Raises:
            ValueError: not in [0, 1].
        """
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"ratio: must be between 0 and 1, got {ratio!r}")
        self._ratio, self._until_s = ratio, self._clock() + HOLD_S

    @property
    def ratio(self) -> float:
        """What is in force, in [0, 1]."""
        return self._ratio if self._clock() < self._until_s else 0.0

    def refuses_next(self) -> bool:
        """Whether the request that has just arrived is one of them. Counts it."""
        ratio = self.ratio
        self._owed = self._owed + ratio if ratio > 0.0 else 0.0
        if self._owed < 1.0 - 1e-9:
            return False
        self._owed -= 1.0
        return True
