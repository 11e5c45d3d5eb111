"""This file is about whether looking up pays: a category's hit ratio against its break-even.

A look-up costs every request c seconds and saves the hits T: below h* = c / T it costs more than it
saves (`algorithms.md` 1d.2). Such a category is not looked up, but for a small share of its
requests that keeps the estimate alive.
"""

from random import Random

from epidote_gateway.cache.policy import CategorySpec

SMOOTHING = 0.01  # weight of one look-up: the last few hundred count
PATIENCE = 200  # look-ups before a category may be found wanting: all start with nothing cached


class HitRatios:
    """Smoothed hit ratio of the look-ups of each category."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._ratio: dict[str, float] = {}
        self._count: dict[str, int] = {}

    def observe(self, category: str, hit: bool) -> None:
        count = self._count.get(category, 0) + 1
        # The plain mean first; from 1/SMOOTHING look-ups on, exponential.
        weight = max(SMOOTHING, 1.0 / count)
        before = self._ratio.get(category, 0.0)
        self._ratio[category] = before + weight * (hit - before)
        self._count[category] = count

    def ratio(self, category: str) -> float:
        """In [0, 1]; 0.0 before the first look-up."""
        return self._ratio.get(category, 0.0)

    def all(self) -> dict[str, float]:
        return dict(self._ratio)

    def is_worthwhile(self, category: CategorySpec) -> bool:
        """Whether to look this request up. Draws a random number where the category is poor."""
        if self._count.get(category.name, 0) < PATIENCE:
            return True
        if self.ratio(category.name) >= category.break_even_hit_ratio:
            return True
        return self._rng.random() < category.explore_ratio
