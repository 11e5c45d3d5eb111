"""This file is about reuse: few things asked for often, many rarely (Zipf's law)."""

from array import array
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from random import Random


@dataclass(frozen=True, kw_only=True)
class Zipf:
    """Ranks 0 to `count` - 1; rank r has a weight of 1 / (r + 1) ** exponent. 0: all alike."""

    count: int
    exponent: float = 1.0

    def __post_init__(self) -> None:
        if self.count < 1 or not 0.0 <= self.exponent < float("inf"):
            raise ValueError(
                f"Zipf: want count >= 1 and exponent >= 0, got {self.count}, {self.exponent}"
            )

    def sample(self, rng: Random) -> int:
        """A rank; mutates `rng` only."""
        cumulative = _cumulative(self.count, self.exponent)
        drawn = rng.random() * cumulative[-1]
        return min(self.count - 1, bisect_right(cumulative, drawn))


@lru_cache(maxsize=64)
def _cumulative(count: int, exponent: float) -> "array[float]":
    return array("d", accumulate((rank + 1) ** -exponent for rank in range(count)))
