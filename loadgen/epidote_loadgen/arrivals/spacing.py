"""This file is about how evenly requests follow each other at a given rate.

Each spacing is a process of rate one; `Rate.times_of` stretches it. Made in blocks, so that a run
of any length needs little memory; the k-th send depends on the seed and k, never on a reply.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from epidote_loadgen.arrivals.rate import Floats, Rate

BLOCK = 4096


@dataclass(frozen=True)
class Even:
    """One request every 1 / rate, the first at once."""

    def unit_gaps(self, rng: np.random.Generator, size: int) -> Floats:
        return np.ones(size)

    first = 0.0  # of the first gap, 1.0 leaves it as drawn


@dataclass(frozen=True)
class Poisson:
    """Independent clients: exponential gaps."""

    def unit_gaps(self, rng: np.random.Generator, size: int) -> Floats:
        return rng.exponential(1.0, size)

    first = 1.0


@dataclass(frozen=True)
class Gamma:
    """Gaps of a gamma distribution; `cv` (standard deviation over mean) > 1 makes bursts.

    cv 1 is Poisson. BurstGPT (Wang et al., 2024) fits production traffic so.
    """

    cv: float
    first = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cv) and self.cv > 0.0):
            raise ValueError(f"cv: must be > 0, got {self.cv}")

    def unit_gaps(self, rng: np.random.Generator, size: int) -> Floats:
        variance = self.cv * self.cv
        return rng.gamma(1.0 / variance, variance, size)


Spacing = Even | Poisson | Gamma


def send_times(
    spacing: Spacing,
    rate: Rate,
    *,
    seed: int,
    duration_s: float = math.inf,
    num_requests: int | None = None,
) -> Iterator[float]:
    """Send times in [0, duration_s), at most `num_requests`; lazily, equal for equal arguments.

    Ends by itself where the rate stays 0 for ever.

    >>> list(send_times(Even(), Rate(((0.0, 2.0),)), seed=1, duration_s=2.0))
    [0.0, 0.5, 1.0, 1.5]
    """
    rng = np.random.default_rng(seed)
    total, made = 0.0, 0
    while num_requests is None or made < num_requests:
        gaps = spacing.unit_gaps(rng, BLOCK)
        if made == 0:
            gaps[0] *= spacing.first
        counts = total + np.cumsum(gaps)
        total = float(counts[-1])
        times = rate.times_of(counts)
        left = BLOCK if num_requests is None else min(BLOCK, num_requests - made)
        for at_s in times[:left].tolist():
            if not at_s < duration_s:
                return
            yield at_s
        made += left
