"""This file is about whether samples come from a distribution: the Kolmogorov-Smirnov test."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ks_statistic(samples: Floats, cdf: Callable[[Floats], Floats]) -> float:
    """The largest distance between the samples' distribution function and `cdf`, in [0, 1].

    >>> ks_statistic(np.array([0.5]), lambda x: x)
    0.5
    """
    ordered = np.sort(samples)
    expected = cdf(ordered)
    count = len(ordered)
    above = np.arange(1, count + 1) / count - expected
    below = expected - np.arange(count) / count
    return float(max(above.max(), below.max()))


def ks_threshold(count: int, *, significance: float = 0.05) -> float:
    """The distance that a sample of `count` exceeds by chance with probability `significance`.

    Asymptotic (Smirnov 1948), good from some dozen samples on.
    """
    return math.sqrt(-0.5 * math.log(significance / 2.0) / count)


def ks_p_value(statistic: float, count: int) -> float:
    """How probable so large a distance is by chance; asymptotic, in [0, 1]."""
    x = statistic * math.sqrt(count)
    if x < 0.2:
        return 1.0  # the series below converges slowly there, to 1
    terms = [
        math.copysign(2.0, k % 2 - 0.5) * math.exp(-2.0 * k * k * x * x) for k in range(1, 101)
    ]
    return min(1.0, max(0.0, sum(terms)))
