"""This file is about the last window of metrics: scrapes of all gateways, and what they gained.

Kept in memory only: after a restart the first tick has nothing to compare with, and so it holds.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from epidote_core import metric_names as names
from epidote_core.modality import Modality
from epidote_core.slo import Slo
from epidote_operator.observe.exposition import Scrape, growth, summed
from epidote_operator.observe.signals import attainment, cache_signals, traffic
from epidote_planner.snapshot import Attainment, CacheSignals, ModalityTraffic

MIN_GAP_S = 0.5  # rates over less are noise
NO_HITS = CacheSignals()


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What the window says; `at_s` None: nothing can be said."""

    at_s: float | None = None
    arrivals: tuple[ModalityTraffic, ...] = ()
    attainment: Attainment | None = None
    cache: CacheSignals = NO_HITS
    message: str = ""


@dataclass
class MetricsWindow:
    """Scrapes by gateway. A gateway that is new or gone counts for nothing in its window."""

    attainment_s: float = 60.0
    _scrapes: dict[str, deque[Scrape]] = field(default_factory=dict)
    _shapes: dict[Modality, ModalityTraffic] = field(default_factory=dict)
    _last: Traffic = field(default_factory=lambda: Traffic(message="no metrics yet"))

    def add(self, scrapes: Mapping[str, Scrape], now_s: float) -> None:
        """Take in this tick's scrapes by gateway; those that did not answer are left out."""
        for gateway, scrape in scrapes.items():
            kept = self._scrapes.setdefault(gateway, deque())
            kept.append(scrape)
            while len(kept) > 2 and kept[1].at_s <= now_s - self.attainment_s:
                kept.popleft()
        for gateway in list(self._scrapes):
            if self._scrapes[gateway][-1].at_s < now_s - 10 * self.attainment_s:
                del self._scrapes[gateway]

    def read(self, slos: Mapping[Modality, Slo], now_s: float) -> Traffic:
        """Arrivals since the tick before (since an earlier one, if that was a moment ago),
        attainment over the window.

        When no gateway answered this tick, the last reading stays, and grows stale.
        """
        recent, long, seconds, queue = [], [], [], 0.0
        for kept in self._scrapes.values():
            after = kept[-1]
            earlier = (s for s in reversed(kept) if after.at_s - s.at_s >= MIN_GAP_S)
            before = next(earlier, None)
            if before is None or after.at_s < now_s:
                continue
            recent.append(growth(before, after))
            long.append(growth(kept[0], after))
            seconds.append(after.at_s - before.at_s)
            queue += after.total(names.EPIDOTE_REQUESTS_QUEUED)
            queue -= before.total(names.EPIDOTE_REQUESTS_QUEUED)
        if not recent:
            return self._last
        arrivals = traffic(
            summed(recent),
            sum(seconds) / len(seconds),
            queue_growth=queue,
            shapes=self._shapes,
        )
        self._shapes |= {t.modality: t for t in arrivals if t.output_tokens.mean > 0.0}
        grown = summed(long)
        self._last = Traffic(
            at_s=now_s,
            arrivals=arrivals,
            attainment=attainment(grown, slos),
            cache=cache_signals(summed(recent)),
        )
        return self._last
