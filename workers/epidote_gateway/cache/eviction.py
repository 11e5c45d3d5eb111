"""This file is about which entry makes room: expired ones, then the least worth its bytes.

    worth = priority · (1 + ln(1 + hits)) · seconds saved · freshness / bytes

A reconstruction of the category paper's value (arXiv 2510.26835), whose formula is not public.
Categories over their quota pay first, the one furthest over it before all. Freshness falls with
time, so no order of entries stays right: the least worthy of a random sample goes, as Redis does
it. Samples of 64 keep the victim among the worst 5 % with probability 0.96 (1 - 0.95^64).
"""

from collections.abc import Callable
from math import log1p
from random import Random

from epidote_gateway.cache.catalog import Catalog
from epidote_gateway.cache.entry import Entry
from epidote_gateway.cache.policy import CachePolicy

SAMPLE = 64


def worth(entry: Entry, *, priority: float, ttl_s: float, now_s: float) -> float:
    """Of keeping `entry`; 0 once it is expired."""
    freshness = max(0.0, 1.0 - entry.age_s(now_s) / ttl_s)
    saved_s = max(entry.saved_s, 1e-6)
    return priority * (1.0 + log1p(entry.hits)) * saved_s * freshness / max(1, entry.num_bytes)


class Eviction:
    """Chooses victims in `catalog`. `ttl_s(category)` is how long an entry may be served now."""

    def __init__(self, catalog: Catalog, rng: Random, ttl_s: Callable[[str], float]) -> None:
        self._catalog = catalog
        self._rng = rng
        self._ttl_s = ttl_s

    def is_over(self, policy: CachePolicy) -> bool:
        """Whether something has to go."""
        limits = policy.limits
        catalog = self._catalog
        return len(catalog) > limits.max_entries or catalog.num_bytes > limits.max_bytes

    def victim(self, policy: CachePolicy, now_s: float) -> Entry | None:
        """The entry to remove next; None only if there is none."""
        shelves = self._catalog.shelves
        name = max(shelves, key=lambda name: self.overuse(name, policy), default=None)
        if name is not None and self.overuse(name, policy) > 1.0:
            sample = shelves[name].sample(self._rng, SAMPLE)
        else:
            total = max(1, len(self._catalog))
            sample = []
            for shelf in shelves.values():  # in proportion, and at least one of each
                share = -(-SAMPLE * len(shelf) // total)
                sample += shelf.sample(self._rng, share)
        return min(sample, key=lambda entry: self._worth(entry, policy, now_s), default=None)

    def overuse(self, name: str, policy: CachePolicy) -> float:
        """What a category holds over what its quota entitles it to; above 1.0 it pays first."""
        shelf = self._catalog.shelves[name]
        ratio = max(policy.category(name).quota_ratio, 1e-9)
        entries = len(shelf) / (ratio * policy.limits.max_entries)
        return max(entries, shelf.num_bytes / (ratio * policy.limits.max_bytes))

    def _worth(self, entry: Entry, policy: CachePolicy, now_s: float) -> float:
        category = policy.category(entry.category)
        if not category.enabled:
            return -1.0
        ttl_s = self._ttl_s(entry.category)
        return worth(entry, priority=category.priority, ttl_s=ttl_s, now_s=now_s)
