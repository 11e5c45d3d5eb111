"""This file is about a quantity per request, kept as a mean and three quantiles."""

from dataclasses import dataclass
from math import isfinite

# Share of the requests that each point of `Distribution.points` stands for: under the median,
# median to p90, p90 to p99, above p99.
WEIGHTS = (0.50, 0.40, 0.09, 0.01)
LEAST_MEAN = 1e-9  # a shape around next to nothing is none: its quantiles over its mean are noise


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Tokens (or images) per request. A mean alone hides the long prompt that misses TTFT."""

    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0

    def __post_init__(self) -> None:
        values = (self.mean, self.p50, self.p90, self.p99)
        if not all(isfinite(value) and value >= 0.0 for value in values):
            raise ValueError(f"a distribution's values are finite and >= 0, got {values}")

    @classmethod
    def constant(cls, value: float) -> "Distribution":
        """Every request alike."""
        return cls(mean=value, p50=value, p90=value, p99=value)

    @classmethod
    def of(cls, samples: list[float]) -> "Distribution":
        """Summary of samples; no samples give zeros.

        >>> Distribution.of([1.0, 2.0, 3.0]).p50
        2.0
        """
        if not samples:
            return cls()
        ordered = sorted(samples)
        last = len(ordered) - 1
        return cls(
            mean=sum(ordered) / len(ordered),
            p50=ordered[round(0.50 * last)],
            p90=ordered[round(0.90 * last)],
            p99=ordered[round(0.99 * last)],
        )

    def points(self) -> tuple[float, float, float, float]:
        """One value for each of `WEIGHTS`; their weighted mean is `mean`.

        >>> Distribution.constant(5.0).points()
        (5.0, 5.0, 5.0, 5.0)
        """
        middle = (self.p50 + self.p90) / 2
        high = (self.p90 + self.p99) / 2
        tail = WEIGHTS[1] * middle + WEIGHTS[2] * high + WEIGHTS[3] * self.p99
        low = (self.mean - tail) / WEIGHTS[0]
        if low >= 0.0:
            return (low, middle, high, self.p99)
        scale = self.mean / tail if tail > 0.0 else 0.0
        return (0.0, middle * scale, high * scale, self.p99 * scale)

    def scaled_to(self, mean: float) -> "Distribution":
        """The same shape with another mean."""
        if self.mean < LEAST_MEAN:
            return Distribution.constant(mean)
        scale = mean / self.mean
        return Distribution(
            mean=mean, p50=self.p50 * scale, p90=self.p90 * scale, p99=self.p99 * scale
        )

    def blended(self, other: "Distribution", share: float) -> "Distribution":
        """`share` of `other` and the rest of this one, quantile by quantile."""
        keep = 1.0 - share
        return Distribution(
            mean=keep * self.mean + share * other.mean,
            p50=keep * self.p50 + share * other.p50,
            p90=keep * self.p90 + share * other.p90,
            p99=keep * self.p99 + share * other.p99,
        )


NOTHING = Distribution()
