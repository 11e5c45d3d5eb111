"""This file is about drawing whole numbers: token counts, images a request."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Protocol


class Distribution(Protocol):
    """Whole numbers by chance."""

    @property
    def most(self) -> int | None:
        """The largest number it can give; None: no limit."""
        ...

    def sample(self, rng: Random) -> int:
        """One number; mutates `rng` only."""
        ...


@dataclass(frozen=True)
class Fixed:
    value: int

    @property
    def most(self) -> int:
        return self.value

    def sample(self, rng: Random) -> int:
        return self.value


@dataclass(frozen=True)
class Uniform:
    """Every number in [low, high] alike."""

    low: int
    high: int

    @property
    def most(self) -> int:
        return self.high

    def sample(self, rng: Random) -> int:
        return rng.randint(self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class LogNormal:
    """The usual shape of prompt and answer lengths; `sigma` is of the natural logarithm.

    Draws outside [low, high] are put on its edge.
    """

    median: float
    sigma: float
    low: int = 1
    high: int

    @property
    def most(self) -> int:
        return self.high

    def sample(self, rng: Random) -> int:
        drawn = self.median * rng.lognormvariate(0.0, self.sigma)
        return max(self.low, min(self.high, round(drawn)))


@dataclass(frozen=True)
class Choice:
    """Values by weight."""

    weights: Mapping[int, float]

    @property
    def most(self) -> int:
        return max(self.weights)

    def sample(self, rng: Random) -> int:
        cumulative = list(itertools.accumulate(self.weights.values()))
        return rng.choices(list(self.weights), cum_weights=cumulative)[0]
