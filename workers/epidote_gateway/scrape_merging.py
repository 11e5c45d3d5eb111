"""This file is about adding up the metrics of several gateway processes behind one port.

Counters and histograms add up. Counters of the workers are the same ones in every process, but one
that started later has not seen the workers that ended before: the largest holds. While the process
that knows most does not answer, or after its end, they fall. Gauges are what every process sees
alike (the fleet, the cache's settings) and are taken from the first, but for those that count a
process's own requests.
"""

from collections.abc import Sequence

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Sample

from epidote_core import metric_names as names

ADDED_GAUGES = frozenset(
    (names.EPIDOTE_REQUESTS_IN_FLIGHT, names.EPIDOTE_REQUESTS_QUEUED, names.EPIDOTE_GATEWAYS)
)
FLEET_COUNTERS = frozenset(  # every process reads them from the same workers
    (
        names.VLLM_PREFIX_CACHE_QUERIES,
        names.VLLM_PREFIX_CACHE_HITS,
        names.VLLM_NUM_PREEMPTIONS,
        names.EPIDOTE_TRANSFER_BYTES,
        names.EPIDOTE_TRANSFER_SECONDS,
        names.EPIDOTE_TRANSFER_COPIES,
        names.EPIDOTE_EXPERT_TOKENS,
        names.EPIDOTE_EXPERT_MOVES,
    )
)
_Key = tuple[str, tuple[tuple[str, str], ...]]


class _Merged(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def merge(scrapes: Sequence[bytes]) -> bytes:
    """One Prometheus text of several; the first one is the process that answers."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[_Key, Sample]] = {}
    for number, text in enumerate(scrapes):
        for family in text_string_to_metric_families(text.decode()):
            adds = number == 0 or _adds_up(family)
            is_fleets = family.name in FLEET_COUNTERS
            known = families.setdefault(family.name, family)
            samples = values.setdefault(known.name, {})
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                if key not in samples:
                    samples[key] = sample
                elif is_fleets:
                    samples[key] = max(samples[key], sample, key=lambda one: one.value)
                elif adds and not sample.name.endswith("_created"):
                    samples[key] = sample._replace(value=samples[key].value + sample.value)
    for name, family in families.items():
        family.samples = list(values[name].values())
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Merged(list(families.values())))
    return generate_latest(registry)


def _adds_up(family: Metric) -> bool:
    if family.type in ("counter", "histogram", "summary"):
        return family.name not in FLEET_COUNTERS
    return family.name in ADDED_GAUGES
