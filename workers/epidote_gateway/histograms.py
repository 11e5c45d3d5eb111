"""This file is about histograms that are cheap for tokens: a request counts by itself, then adds.

prometheus-client takes a lock and walks a Python loop for each observation; at ten thousand
tokens a second that would be felt. Here an observation is one bisection and one addition.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import HistogramMetricFamily

# vLLM's buckets, hence its dashboards' resolution.
TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
ITL_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
E2E_S = (
    0.005, 0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0,
    50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
STAGE_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
MEDIA = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
TOKENS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))


class Counts:
    """Observations of one labelled histogram."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self._bounds, value)] += 1
        self.total += value

    def observe_each(self, value: float, count: int) -> None:
        """`count` equal observations."""
        self.buckets[bisect_left(self._bounds, value)] += count
        self.total += value * count

    def add(self, other: "Counts") -> None:
        """Take in what another one of the same bounds observed."""
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]
        self.total += other.total


class Histogram:
    """One metric: `Counts` by label values. For one event loop: no locks."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self.name = name
        self.bounds = bounds
        self._text = text
        self._labels = labels
        self._by_labels: dict[tuple[str, ...], Counts] = {}

    def of(self, *values: str) -> Counts:
        """The counts under these label values."""
        counts = self._by_labels.get(values)
        if counts is None:
            counts = self._by_labels[values] = Counts(self.bounds)
        return counts

    def collect(self) -> Iterable[HistogramMetricFamily]:
        family = HistogramMetricFamily(self.name, self._text, labels=self._labels)
        for values, counts in self._by_labels.items():
            cumulated, buckets = 0, []
            for bound, count in zip((*self.bounds, float("inf")), counts.buckets, strict=True):
                cumulated += count
                text = "+Inf" if bound == float("inf") else str(bound)
                buckets.append((text, float(cumulated)))
            family.add_metric(values, buckets, counts.total)
        yield family
