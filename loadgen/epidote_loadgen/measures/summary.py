"""This file is about the figures of a class of requests, gathered record by record.

Two summaries merge into what one gatherer of both parts would have had, bit for bit.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from epidote_loadgen.measures.histogram import Histogram
from epidote_loadgen.records import RequestRecord, RequestStatus
from epidote_loadgen.slo import SloTable

TOTAL = ""  # the summary of all requests


@dataclass(kw_only=True)
class Summary:
    """Counts and latencies. Latencies are of requests that got so far; misses have none.

    `num_good` met every limit of every objective of its class (goodput).
    """

    num_requests: int = 0
    num_judged: int = 0  # some objective of their SLO class is about them
    num_good: int = 0
    by_status: Counter[RequestStatus] = field(default_factory=Counter)
    by_error: Counter[str] = field(default_factory=Counter)
    ttft: Histogram = field(default_factory=Histogram)
    tpot: Histogram = field(default_factory=Histogram)
    itl: Histogram = field(default_factory=Histogram)
    e2e: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    num_scored: int = 0
    num_correct: int = 0
    by_cache: Counter[str] = field(default_factory=Counter)

    def add(self, record: RequestRecord, *, good: bool | None) -> None:
        """`good` is None for a request that no objective judges."""
        self.num_requests += 1
        self.by_status[record.status] += 1
        if record.error:
            self.by_error[record.error] += 1
        if good is not None:
            self.num_judged += 1
            self.num_good += good
        for histogram, value in (
            (self.ttft, record.ttft_s),
            (self.tpot, record.tpot_s),
            (self.e2e, record.e2e_s),
            (self.lateness, record.lateness_s),
        ):
            if value is not None:
                histogram.add(max(0.0, value))
        self.itl.extend(record.itl_s)
        self.prompt_tokens += record.prompt_tokens or 0
        self.cached_tokens += record.cached_tokens or 0
        self.output_tokens += record.num_tokens
        if record.correct is not None:
            self.num_scored += 1
            self.num_correct += record.correct
        if record.cache:
            self.by_cache[record.cache] += 1

    def merge(self, other: "Summary") -> None:
        """Count the other's requests too."""
        for name in (
            "num_requests",
            "num_judged",
            "num_good",
            "prompt_tokens",
            "cached_tokens",
            "output_tokens",
            "num_scored",
            "num_correct",
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.by_status.update(other.by_status)
        self.by_error.update(other.by_error)
        self.by_cache.update(other.by_cache)
        for mine, theirs in (
            (self.ttft, other.ttft),
            (self.tpot, other.tpot),
            (self.itl, other.itl),
            (self.e2e, other.e2e),
            (self.lateness, other.lateness),
        ):
            mine.merge(theirs)

    @property
    def num_ok(self) -> int:
        return self.by_status[RequestStatus.OK]

    @property
    def attainment(self) -> float:
        """Good over judged; 1.0 of none."""
        return self.num_good / self.num_judged if self.num_judged else 1.0


class Gatherer:
    """Summaries of all requests (`TOTAL`) and of each SLO class, fed as requests end."""

    def __init__(self, slo: SloTable) -> None:
        self._slo = slo
        self.summaries: dict[str, Summary] = {TOTAL: Summary()}
        for slo_class in slo.classes:
            self.summaries[slo_class.name] = Summary()

    def add(self, record: RequestRecord) -> None:
        slo_class = self._slo.class_of(record)
        if slo_class is None:
            self.summaries[TOTAL].add(record, good=None)
        else:
            good = slo_class.good(record)
            self.summaries[TOTAL].add(record, good=good)
            self.summaries[slo_class.name].add(record, good=good)

    def merge(self, other: "Gatherer") -> None:
        """Raises KeyError for classes that this one doesn't know: the plans differ."""
        for name, summary in other.summaries.items():
            self.summaries[name].merge(summary)


def summarise(records: Iterable[RequestRecord], slo: SloTable) -> dict[str, Summary]:
    """`TOTAL` and one summary an SLO class."""
    gatherer = Gatherer(slo)
    for record in records:
        gatherer.add(record)
    return gatherer.summaries
