"""This file is about histograms of latencies that merge exactly, whatever their range.

Buckets are logarithmic, 64 an octave, so a quantile is off by at most 0.8 % of its value, from
nanoseconds to years (the layout of HDR Histogram, Tene 2013). Merging adds integers: the order and
the number of processes leave no trace.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SUB_BUCKETS = 64
LEAST_S = 1e-9  # everything below counts as this: a lateness may be 0


@dataclass(kw_only=True)
class Histogram:
    """Seconds, >= 0. `counts` by bucket; sums in whole nanoseconds, so that they add exactly."""

    counts: dict[int, int] = field(default_factory=dict)
    total_ns: int = 0
    min_s: float = math.inf
    max_s: float = 0.0

    def add(self, value_s: float) -> None:
        bucket = bucket_of(value_s)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.total_ns += round(value_s * 1e9)
        self.min_s = min(self.min_s, value_s)
        self.max_s = max(self.max_s, value_s)

    def extend(self, values_s: Iterable[float]) -> None:
        for value_s in values_s:
            self.add(value_s)

    def merge(self, other: "Histogram") -> None:
        """Count the other's values too."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.total_ns += other.total_ns
        self.min_s = min(self.min_s, other.min_s)
        self.max_s = max(self.max_s, other.max_s)

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    @property
    def mean_s(self) -> float:
        """0 of nothing."""
        return self.total_ns / 1e9 / self.count if self.counts else 0.0

    def quantile(self, q: float) -> float:
        """The nearest-rank q-quantile in seconds, within the true extremes; 0 of nothing.

        >>> histogram = Histogram()
        >>> histogram.extend([0.1] * 99 + [5.0])
        >>> round(histogram.quantile(0.5), 2), histogram.quantile(1.0)
        (0.1, 5.0)
        """
        rank = max(1, math.ceil(q * self.count))
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= rank:
                return min(max(middle_s(bucket), self.min_s), self.max_s)
        return 0.0

    def share_within(self, limit_s: float) -> float:
        """Share of values up to the bucket of `limit_s`; 1 of nothing."""
        last = bucket_of(limit_s)
        met = sum(count for bucket, count in self.counts.items() if bucket <= last)
        return met / self.count if self.counts else 1.0

    def to_json(self) -> dict[str, object]:
        """Everything: `from_json` makes an equal one. Keys are texts, as JSON wants them."""
        return {
            "counts": {str(bucket): self.counts[bucket] for bucket in sorted(self.counts)},
            "total_ns": self.total_ns,
            "min_s": self.min_s if self.counts else None,
            "max_s": self.max_s,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> "Histogram":
        counts, least = value["counts"], value["min_s"]
        assert isinstance(counts, Mapping)
        return cls(
            counts={int(bucket): int(count) for bucket, count in counts.items()},
            total_ns=int(str(value["total_ns"])),
            min_s=math.inf if least is None else float(str(least)),
            max_s=float(str(value["max_s"])),
        )


def bucket_of(value_s: float) -> int:
    """The bucket: 64 x the exponent of two, plus the place within the octave.

    >>> bucket_of(1.0) - bucket_of(0.5)
    64
    """
    mantissa, exponent = math.frexp(max(value_s, LEAST_S))  # mantissa in [0.5, 1)
    return exponent * SUB_BUCKETS + int((mantissa - 0.5) * 2 * SUB_BUCKETS)


def middle_s(bucket: int) -> float:
    """A bucket's middle."""
    exponent, place = divmod(bucket, SUB_BUCKETS)
    return math.ldexp(0.5 + (place + 0.5) / (2 * SUB_BUCKETS), exponent)
