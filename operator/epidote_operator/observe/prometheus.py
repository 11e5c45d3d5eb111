"""This file is about reading a service's traffic from Prometheus instead of from its gateways.

One instant query a look. Each part of it is `increase` of one of the gateways' counters over the
window, marked by its name in the label `part`; what comes back has the shape of a scrape's growth,
so that the same arithmetic serves both sources. The parts are the names of `PARTS`; the newest
scrape's time comes along, since values that nobody renews must not pass for present ones.

Gateways are found by the labels `namespace` and `service`, which the chart's PodMonitor sets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from epidote_core import metric_names as names
from epidote_core.errors import EpidoteError
from epidote_core.modality import Modality
from epidote_core.slo import Slo
from epidote_operator.observe.exposition import Scrape
from epidote_operator.observe.signals import attainment, cache_signals, traffic
from epidote_operator.observe.window import Traffic
from epidote_operator.spec.cluster import MetricsSource, MetricsSpec
from epidote_planner.snapshot import ModalityTraffic

TIMEOUT_S = 5.0
SCRAPED = "scraped_at"  # the part that says when
COUNTERS: Mapping[str, str] = {  # name: the labels that are read
    f"{names.EPIDOTE_ARRIVALS}_total": "modality",
    f"{names.EPIDOTE_REQUEST_ERRORS}_total": "code",
    f"{names.EPIDOTE_CACHE_HITS}_total": "",
    f"{names.EPIDOTE_CACHE_MISSES}_total": "why",
    f"{names.EPIDOTE_CACHE_BYPASSES}_total": "",
    f"{names.VLLM_PREFIX_CACHE_HITS}_total": "",
    f"{names.VLLM_PREFIX_CACHE_QUERIES}_total": "",
}
HISTOGRAMS = {
    names.EPIDOTE_TEXT_TOKENS: "modality",
    names.EPIDOTE_OUTPUT_TOKENS: "modality",
    names.EPIDOTE_MEDIA: "modality",
    names.EPIDOTE_MEDIA_TOKENS: "modality",
    names.EPIDOTE_TTFT_SECONDS: "modality",
    names.VLLM_REQUEST_TPOT_SECONDS: "",
}
PARTS: Mapping[str, tuple[str, ...]] = {
    **{name: (label,) if label else () for name, label in COUNTERS.items()},
    **{f"{name}_sum": (label,) if label else () for name, label in HISTOGRAMS.items()},
    **{f"{name}_bucket": (label, "le") if label else ("le",) for name, label in HISTOGRAMS.items()},
}


class PrometheusFailed(EpidoteError):
    """Prometheus can't be reached, or refused the query; the message has its words."""


def query_of(namespace: str, service: str, window_s: int) -> str:
    """The PromQL of one look.

    >>> print(query_of("ns", "chat", 60).splitlines()[-1])
    label_replace(max(timestamp(epidote_gateways{namespace="ns",service="chat"})), "part", \
"scraped_at", "", "")
    """
    where = f'{{namespace="{namespace}",service="{service}"}}'
    found = []
    for name, labels in PARTS.items():
        by = f" by ({','.join(labels)})" if labels else ""
        found.append(_marked(f"sum{by}(increase({name}{where}[{window_s}s]))", name))
    found.append(_marked(f"max(timestamp({names.EPIDOTE_GATEWAYS}{where}))", SCRAPED))
    return "\nor\n".join(found)


def source_for(
    metrics: MetricsSpec, namespace: str, service: str, *, default_url: str
) -> "PrometheusSource | None":
    """Where a spec has traffic read from; None: from the gateways."""
    if metrics.source is not MetricsSource.PROMETHEUS:
        return None
    return PrometheusSource(
        url=metrics.prometheus_url or default_url,
        namespace=namespace,
        service=service,
        window_s=metrics.window_seconds,
    )


def _marked(term: str, part: str) -> str:
    return f'label_replace({term}, "part", "{part}", "", "")'


@dataclass
class PrometheusSource:
    """Traffic of one service from the Prometheus at `url`; remembers the last known sizes."""

    url: str
    namespace: str
    service: str
    window_s: int
    _shapes: dict[Modality, ModalityTraffic] = field(default_factory=dict)
    _last: Traffic = field(default_factory=lambda: Traffic(message="no metrics yet"))

    async def read(self, slos: Mapping[Modality, Slo], now_s: float) -> Traffic:
        """The window's traffic, dated by the newest scrape. What fails is told in its message."""
        if not self.url:
            return Traffic(
                message="metrics.source is Prometheus, but neither metrics.prometheusUrl nor the "
                "operator's EPIDOTE_OPERATOR_PROMETHEUS_URL says where it is"
            )
        try:
            grown = await self._grown()
        except PrometheusFailed as error:
            self._last = Traffic(
                at_s=self._last.at_s,
                arrivals=self._last.arrivals,
                attainment=self._last.attainment,
                cache=self._last.cache,
                message=str(error),
            )
            return self._last
        if grown is None:
            why = f"Prometheus at {self.url} has no series of service {self.service!r}"
            return Traffic(message=why)
        arrivals = traffic(grown, float(self.window_s), shapes=self._shapes)
        self._shapes |= {t.modality: t for t in arrivals if t.output_tokens.mean > 0.0}
        self._last = Traffic(
            at_s=min(now_s, grown.at_s),
            arrivals=arrivals,
            attainment=attainment(grown, slos),
            cache=cache_signals(grown),
        )
        return self._last

    async def _grown(self) -> Scrape | None:
        """What the counters gained, dated by the newest scrape; None without any."""
        query = {"query": query_of(self.namespace, self.service, self.window_s)}
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as http:
                answer = await http.post(f"{self.url.rstrip('/')}/api/v1/query", data=query)
            body = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise PrometheusFailed(f"Prometheus at {self.url}: {error!r}") from error
        if body.get("status") != "success":
            told = body.get("error", f"HTTP {answer.status_code}")
            raise PrometheusFailed(f"Prometheus at {self.url}: {told}")
        return _scrape(body["data"]["result"])


def _scrape(result: list[dict[str, Any]]) -> Scrape | None:
    samples, at_s = {}, None
    for series in result:
        labels = dict(series["metric"])
        part, value = labels.pop("part"), float(series["value"][1])
        if part == SCRAPED:
            at_s = value
        else:
            samples[part, tuple(sorted(labels.items()))] = value
    return None if at_s is None else Scrape(at_s=at_s, samples=samples)
