"""This file is about the Prometheus text format: from a scrape to numbers by name and labels."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]

_LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
_ESCAPE = re.compile(r"\\[\\\"n]")


@dataclass(frozen=True, kw_only=True)
class Scrape:
    """Every sample of one process at one moment; `at_s` is the scraper's clock."""

    at_s: float
    samples: Mapping[Series, float] = field(default_factory=dict)

    def total(self, name: str, **labels: str) -> float:
        """Sum of the series called `name` that carry these labels; 0 where there is none."""
        return sum(value for _, value in self.matching(name, labels))

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """Sums of `name` by one label's values."""
        found: dict[str, float] = {}
        for labels, value in self.matching(name, {}):
            key = dict(labels).get(label, "")
            found[key] = found.get(key, 0.0) + value
        return found

    def matching(self, name: str, labels: Mapping[str, str]) -> Iterator[tuple[Labels, float]]:
        wanted = set(labels.items())
        for (found, has), value in self.samples.items():
            if found == name and wanted <= set(has):
                yield has, value


def parse_scrape(text: str, at_s: float) -> Scrape:
    """Comments, timestamps and lines that are no samples are skipped.

    >>> parse_scrape('a_total{x="1"} 2.0', 0.0).total("a_total", x="1")
    2.0
    """
    samples: dict[Series, float] = {}
    for line in text.splitlines():
        if line.startswith("#") or (match := _LINE.match(line)) is None:
            continue
        name, labels, number = match.groups()
        try:
            value = float(number)
        except ValueError:
            continue
        samples[name, _labels(labels or "")] = value
    return Scrape(at_s=at_s, samples=samples)


def _labels(text: str) -> Labels:
    return tuple(
        sorted((name, _ESCAPE.sub(lambda m: _ESCAPES[m[0]], v)) for name, v in _LABEL.findall(text))
    )


def growth(before: Scrape, after: Scrape) -> Scrape:
    """What counters and buckets gained; a counter that fell has restarted from 0.

    Series of `before` that are gone are dropped. Gauges make no sense here.
    """
    gained = {}
    for series, value in after.samples.items():
        old = before.samples.get(series, 0.0)
        gained[series] = value - old if value >= old else value
    return Scrape(at_s=after.at_s, samples=gained)


def summed(scrapes: Iterable[Scrape]) -> Scrape:
    """Several processes as one; dated by the oldest. No scrapes: no samples, at minus infinity."""
    samples: dict[Series, float] = {}
    at_s = float("inf")
    for scrape in scrapes:
        at_s = min(at_s, scrape.at_s)
        for series, value in scrape.samples.items():
            samples[series] = samples.get(series, 0.0) + value
    return Scrape(at_s=at_s if samples else float("-inf"), samples=samples)


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """A histogram: cumulative counts at rising bounds, the last of them infinite."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total: float

    @classmethod
    def of(cls, scrape: Scrape, name: str, **labels: str) -> "Buckets":
        """The histogram `name`, summed over the labels that are not given."""
        counts: dict[float, float] = {}
        for has, value in scrape.matching(f"{name}_bucket", labels):
            bound = float(dict(has).get("le", "nan"))
            counts[bound] = counts.get(bound, 0.0) + value
        bounds = tuple(sorted(counts))
        return cls(
            bounds=bounds,
            counts=tuple(counts[bound] for bound in bounds),
            total=scrape.total(f"{name}_sum", **labels),
        )

    @property
    def count(self) -> float:
        return self.counts[-1] if self.counts else 0.0

    @property
    def mean(self) -> float:
        """0 without observations."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """The value under which `share` of the observations lie, linear within a bucket.

        Above the last finite bound that bound is all that is known. No observations: 0.
        """
        wanted, low, below = share * self.count, 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count >= wanted and count > below:
                if bound == float("inf"):
                    return low
                return low + (bound - low) * (wanted - below) / (count - below)
            low, below = (bound if bound != float("inf") else low), count
        return low if self.count else 0.0

    def share_at_most(self, value: float) -> float:
        """Share of the observations <= `value`, linear within a bucket; 1 without observations."""
        if not self.count:
            return 1.0
        low, below = 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if value < bound:
                if bound == float("inf"):
                    return below / self.count
                inside = (value - low) / (bound - low) if bound > low else 0.0
                return (below + (count - below) * inside) / self.count
            low, below = bound, count
        return 1.0
