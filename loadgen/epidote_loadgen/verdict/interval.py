"""This file is about how sure a share of requests is, and what would make it surer.

Wilson's interval (1927) keeps its level for shares near 1 and few requests, where p ± z·se says
nothing. It assumes independent requests, but a stall hits neighbours together: the number of
requests is first divided by the design effect (Kish 1965), the sum of how requests in time order
correlate (Geyer, Practical Markov chain Monte Carlo, Statistical Science 7, 1992). That works for
runs of any length; what no run shows is how misses cluster of which it saw none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

MOST_REQUESTS = 100_000_000  # "so many more" beyond it means never


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a share, inside [0, 1]."""

    low: float
    high: float


def each_of(confidence: float, count: int) -> float:
    """The level of each of `count` intervals at which all of them hold together with `confidence`.

    Bonferroni's: it assumes nothing about how promises hang together, which they do. Of twenty
    promises judged at 95 % each, one in two runs would have one judged wrong.

    >>> round(each_of(0.95, 20), 6)
    0.9975
    """
    return 1.0 - (1.0 - confidence) / max(1, count)


def wilson(met: float, total: float, *, confidence: float = 0.95) -> Interval:
    """The two-sided score interval of met/total; (0, 1) of nothing. Counts may be effective ones.

    >>> wilson(99, 100).low < 0.99 < wilson(99, 100).high
    True
    """
    if total <= 0:
        return Interval(0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    share, square = met / total, z * z
    center = (share + square / (2.0 * total)) / (1.0 + square / total)
    spread = math.sqrt(share * (1.0 - share) / total + square / (4.0 * total * total))
    half = z * spread / (1.0 + square / total)
    low = 0.0 if met <= 0 else max(0.0, center - half)
    high = 1.0 if met >= total else min(1.0, center + half)
    return Interval(low, high)


def design_effect(flags: Sequence[bool]) -> float:
    """How many requests in time order are worth one independent request, >= 1.

    One plus twice the autocorrelations, summed as Geyer's initial monotone sequence: in pairs of
    lags, up to the first pair that is not positive and none larger than the one before, since what
    comes later is noise. 1 where nothing varies.

    >>> design_effect([True] * 1000)
    1.0
    >>> design_effect(([True] * 9 + [False]) * 100) < 1.5
    True
    >>> design_effect([True] * 900 + [False] * 100) > 10
    True
    """
    values = np.asarray(flags, dtype=np.float64)
    num = len(values)
    if num < 2 or values.min() == values.max():
        return 1.0
    spectrum = np.fft.rfft(values - values.mean(), 2 * num)  # padded: lags must not wrap around
    covariance = np.fft.irfft(np.abs(spectrum) ** 2)[: num - num % 2]
    pairs = (covariance[0::2] + covariance[1::2]) / covariance[0]
    ends = np.flatnonzero(pairs <= 0.0)
    kept = np.minimum.accumulate(pairs[: ends[0] if len(ends) else None])
    return min(float(num), max(1.0, 2.0 * float(kept.sum()) - 1.0))


def more_requests(
    met: int, total: int, ratio: float, *, effect: float = 1.0, confidence: float = 0.95
) -> int | None:
    """How many more requests settle on which side of `ratio` the share lies, if it stays as it is.

    None: no number would, the share is the ratio itself. 0: it's settled.

    >>> more_requests(100, 100, 0.99)
    281
    """
    share = met / total if total else 1.0

    def settled(num: int) -> bool:
        found = wilson(share * num / effect, num / effect, confidence=confidence)
        return found.low >= ratio or found.high < ratio

    low, high = total, max(total, 1)
    if settled(high):
        return high - total
    while not settled(high):
        if high > MOST_REQUESTS:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    return high - total
