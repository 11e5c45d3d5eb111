"""This file is about what the cache counts; names and labels are in `epidote_core.metric_names`."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from epidote_core import metric_names as names
from epidote_gateway.cache.outcome import Outcome, Status
from epidote_gateway.histograms import STAGE_S, Histogram

Gauges = Callable[[], Iterable[tuple[str, str, float]]]  # (metric, category or "", value)


class CacheMetrics(Collector):
    """Counters, one histogram, and gauges read when asked for."""

    def __init__(self, registry: CollectorRegistry | None, gauges: Gauges) -> None:
        """`registry` None: counted, but shown nowhere."""
        registry = registry or CollectorRegistry(auto_describe=False)
        self._gauges = gauges

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        category = "category"
        self.hits = counter(
            names.EPIDOTE_CACHE_HITS, "Answered from the cache.", category, "kind", "relaxed"
        )
        self.misses = counter(names.EPIDOTE_CACHE_MISSES, "Not so.", category, "why")
        self.bypasses = counter(names.EPIDOTE_CACHE_BYPASSES, "Not looked up.", "why")
        self.refusals = counter(
            names.EPIDOTE_CACHE_REFUSALS, "Neighbours that a guard refused.", category, "reason"
        )
        self.saved_s = counter(
            names.EPIDOTE_CACHE_SAVED_SECONDS, "What the answers of hits once took.", category
        )
        self.saved_tokens = counter(
            names.EPIDOTE_CACHE_SAVED_TOKENS, "Generated tokens of hits.", category
        )
        self.wrong_hits = counter(names.EPIDOTE_CACHE_WRONG_HITS, "Hits reported wrong.", category)
        self.evictions = counter(names.EPIDOTE_CACHE_EVICTIONS, "Entries gone.", category, "reason")
        self.store_failures = counter(
            names.EPIDOTE_CACHE_STORE_FAILURES, "Calls that the store refused."
        )
        self.policy_failures = counter(
            names.EPIDOTE_CACHE_POLICY_FAILURES, "Policies that were refused."
        )
        self._lookup = Histogram(names.EPIDOTE_CACHE_LOOKUP_SECONDS, "Look-ups.", (), STAGE_S)
        registry.register(self)

    def observe(self, outcome: Outcome, lookup_s: float) -> None:
        """One request."""
        self._lookup.of().observe(lookup_s)
        why = str(outcome.why or "")
        match outcome.status:
            case Status.HIT:
                relaxed = "true" if outcome.is_relaxed else "false"
                self.hits.labels(outcome.category, str(outcome.kind), relaxed).inc()
            case Status.MISS:
                self.misses.labels(outcome.category, why).inc()
            case Status.BYPASS:
                self.bypasses.labels(why).inc()

    def collect(self) -> Iterable[Metric]:
        yield from self._lookup.collect()
        families: dict[str, GaugeMetricFamily] = {}
        for name, category, value in self._gauges():
            labels = ("category",) if category else ()
            family = families.setdefault(name, GaugeMetricFamily(name, name, labels=labels))
            family.add_metric((category,) if category else (), value)
        yield from families.values()
