"""This file is about what the parts of the cache share in one process, on one event loop."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from epidote_gateway.cache.cache_metrics import CacheMetrics
from epidote_gateway.cache.catalog import Catalog
from epidote_gateway.cache.entry import Entry
from epidote_gateway.cache.eviction import Eviction
from epidote_gateway.cache.forbidden import Verdicts
from epidote_gateway.cache.judges import Judges
from epidote_gateway.cache.keeper import Keeper
from epidote_gateway.cache.lineage import Lineages
from epidote_gateway.cache.policy import CachePolicy, CategorySpec
from epidote_gateway.cache.protocols import SecondCheck
from epidote_gateway.cache.relaxation import Bounds, Relaxation
from epidote_gateway.cache.selection import Barriers
from epidote_gateway.cache.worthwhile import HitRatios


@dataclass(kw_only=True)
class CacheState:
    """`clock` is monotonic seconds, `unix_time` seconds since 1970. `revision` names the model's
    weights, part of every key."""

    judges: Judges
    catalog: Catalog
    keeper: Keeper
    relaxation: Relaxation
    eviction: Eviction
    ratios: HitRatios
    barriers: Barriers
    lineages: Lineages
    metrics: CacheMetrics
    second_check: SecondCheck | None
    rng: Random
    clock: Callable[[], float]
    unix_time: Callable[[], float]
    revision: str = ""
    verdicts: Verdicts = field(default_factory=Verdicts)
    without_vector: deque[Entry] = field(default_factory=deque)  # to be embedded (again)

    @property
    def policy(self) -> CachePolicy:
        return self.judges.policy

    def bounds(self, category: CategorySpec, tenant: str = "") -> Bounds:
        """`tenant`: whose reports of wrong hits count, besides those that count for all."""
        return self.relaxation.bounds(category, self.policy, tenant)

    def ttl_s(self, category: str) -> float:
        """How long an entry of this category may be served now."""
        return self.bounds(self.policy.category(category)).ttl_s

    def longest_s(self, entry: Entry) -> float:
        """How long `entry` may be served now: what a client named can't lengthen it."""
        return min(self.ttl_s(name) for name in entry.categories)

    def is_live(self, entry: Entry) -> bool:
        """In the catalog, enabled and not expired."""
        return (
            self.catalog.get(entry.entry_id) is entry
            and self.is_enabled(entry)
            and entry.age_s(self.unix_time()) < self.longest_s(entry)
        )

    def is_enabled(self, entry: Entry) -> bool:
        """Whether no category of it is disabled."""
        return all(self.policy.category(name).enabled for name in entry.categories)

    def drop(self, entry: Entry, reason: str) -> bool:
        """Out of the catalog and the store; False if it was out already."""
        if not self.catalog.remove(entry):
            return False
        self.keeper.forget(entry.entry_id)
        self.metrics.evictions.labels(entry.category, reason).inc()
        return True

    def make_room(self) -> None:
        """Evict until the limits hold."""
        while self.eviction.is_over(self.policy):
            victim = self.eviction.victim(self.policy, self.unix_time())
            if victim is None:
                return
            self.drop(victim, "room")
