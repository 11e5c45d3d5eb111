"""This file is about the least threshold whose hits are right often enough, as far as can be told.

"Often enough" is a one-sided Clopper-Pearson bound: were the precision below the wanted one, so few
mistakes would be seen with a chance of at most 1 - confidence. Source: Clopper and Pearson,
Biometrika 1934.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lgamma

import numpy as np
from numpy.typing import NDArray

from epidote_gateway.cache.meaning.trials import Trials

NEVER = 1.0  # a threshold that in practice only the same text reaches


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """`value` None: no threshold is precise enough; don't compare by meaning."""

    value: float | None
    num_asked: int
    num_hits: int
    num_wrong: int

    @property
    def hit_ratio(self) -> float:
        return self.num_hits / self.num_asked if self.num_asked else 0.0

    @property
    def precision(self) -> float:
        return 1.0 - self.num_wrong / self.num_hits if self.num_hits else 1.0


def is_surely_below(wrong: int, total: int, share: float, confidence: float) -> bool:
    """Whether `wrong` of `total` shows that the true share of wrong ones is at most `share`.

    >>> is_surely_below(0, 58, 0.05, 0.95), is_surely_below(0, 59, 0.05, 0.95)
    (False, True)
    """
    return total > 0 and _binomial_cdf(wrong, total, share) <= 1.0 - confidence


def _binomial_cdf(most: int, total: int, share: float) -> float:
    """P(X <= most) for X of `total` draws with probability `share`."""
    if share <= 0.0 or most >= total:
        return 1.0
    counts = np.arange(most + 1)
    constant = lgamma(total + 1)
    logs = [constant - lgamma(k + 1) - lgamma(total - k + 1) for k in counts]
    terms = np.array(logs) + counts * np.log(share) + (total - counts) * np.log1p(-share)
    return float(np.exp(terms).sum())


def least_threshold(
    trials: Trials, *, precision: float, confidence: float, floor: float = -1.0
) -> Threshold:
    """The lowest similarity from which on hits are right with `precision`, at least `floor`.

    Questions out of scope count: serving one is a wrong hit.
    """
    order = np.argsort(-trials.similarity, kind="stable")
    similarity = trials.similarity[order]
    wrong = np.cumsum(~trials.is_right[order])
    num_asked = int((~trials.is_outside).sum())
    last_of_its_value = np.ones(len(order), np.bool_)
    last_of_its_value[:-1] = similarity[1:] < similarity[:-1]
    for place in np.flatnonzero((similarity >= floor) & last_of_its_value)[::-1]:
        hits, mistakes = int(place) + 1, int(wrong[place])
        if is_surely_below(mistakes, hits, 1.0 - precision, confidence):
            return Threshold(
                value=max(floor, _between(similarity, int(place))),
                num_asked=num_asked,
                num_hits=int((~trials.is_outside[order[:hits]]).sum()),
                num_wrong=mistakes,
            )
    return Threshold(value=None, num_asked=num_asked, num_hits=0, num_wrong=0)


def outside_floor(
    outside: NDArray[np.float32], *, share: float, confidence: float
) -> tuple[float, bool]:
    """The similarity above which at most `share` of out-of-scope questions come.

    Also whether there are enough of them to be sure of that with `confidence`; if not, the floor is
    above all of them. None at all: -1.
    """
    if not len(outside):
        return -1.0, False
    ordered = np.sort(outside)[::-1]
    allowed = -1
    while allowed + 1 < len(ordered) and is_surely_below(
        allowed + 1, len(ordered), share, confidence
    ):
        allowed += 1
    above = float(np.ceil(float(ordered[max(allowed, 0)]) * 1e4 + 1) / 1e4)
    return min(max(above, -1.0), NEVER), allowed >= 0


def category_thresholds(
    trials: Trials, categories: Sequence[str], *, precision: float, confidence: float, floor: float
) -> Mapping[str, Threshold]:
    return {
        name: least_threshold(
            trials.of(name), precision=precision, confidence=confidence, floor=floor
        )
        for name in categories
    }


def _between(similarity: NDArray[np.float32], place: int) -> float:
    """At most `similarity[place]`, above the next one, with few decimals: files are for people."""
    lowest = float(similarity[place])
    following = float(similarity[place + 1]) if place + 1 < len(similarity) else -1.0
    for decimals in range(3, 9):
        rounded = float(np.floor(lowest * 10**decimals) / 10**decimals)
        if following < rounded <= lowest:
            return rounded
    return lowest
