"""This file is about whether a difference between two runs is more than chance.

Requests of one run are not independent: a stall hits neighbours together. So chance is measured
on blocks of neighbouring requests (block bootstrap; Künsch 1989), which keeps what hangs together
together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # over the last axis
NUM_DRAWS = 400  # a standard error is then known to 4 %
LEAST_BLOCKS = 30
MOST_VALUES = 4_000_000  # drawn at a time, to bound the memory


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`after` minus `before`, with its confidence interval."""

    before: float
    after: float
    low: float
    high: float

    @property
    def change(self) -> float:
        return self.after - self.before

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0.0 or self.high < 0.0


def difference(
    before: Sequence[float],
    after: Sequence[float],
    statistic: Statistic,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """The difference of a statistic of two runs; values in order of time, at least one each.

    Raises:
        ValueError: a run without values.
    """
    one, other = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if not len(one) or not len(other):
        raise ValueError("a comparison wants values of both runs")
    rng = np.random.default_rng(seed)
    first, second = float(statistic(one)), float(statistic(other))
    spread = float(np.hypot(*(resampled(v, statistic, rng).std(ddof=1) for v in (one, other))))
    half = NormalDist().inv_cdf(0.5 + confidence / 2.0) * spread
    change = second - first
    return Difference(before=first, after=second, low=change - half, high=change + half)


def resampled(values: Floats, statistic: Statistic, rng: np.random.Generator) -> Floats:
    """The statistic of `NUM_DRAWS` runs made of this one's blocks (circular, so none is rare)."""
    size = len(values)
    length = max(1, min(round(size ** (1 / 2)), size // LEAST_BLOCKS))
    count = -(-size // length)
    offsets = np.arange(length)
    at_once = max(1, MOST_VALUES // size)
    found = []
    for first in range(0, NUM_DRAWS, at_once):
        draws = min(at_once, NUM_DRAWS - first)
        starts = rng.integers(0, size, (draws, count, 1))
        places = (starts + offsets).reshape(draws, -1)[:, :size] % size
        found.append(statistic(values[places]))
    return np.concatenate(found)


def mean(values: Floats) -> Floats:
    return np.asarray(values.mean(axis=-1))


def quantile(q: float) -> Statistic:
    """The q-quantile as a statistic."""
    return lambda values: np.asarray(np.quantile(values, q, axis=-1))
