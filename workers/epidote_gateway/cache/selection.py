"""This file is about choosing entries to invalidate: by whose, about what, how old."""

from collections.abc import Callable
from dataclasses import dataclass

from epidote_gateway.cache.entry import Entry

REMEMBERED_S = 3600.0  # no answer takes longer upstream


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Every given field must match; none given: everything."""

    tenant: str | None = None
    model: str | None = None
    category: str | None = None
    media: str | None = None  # key of a medium that the request had
    embedder: str | None = None
    older_than_s: float | None = None

    def matches(self, entry: Entry, now_s: float) -> bool:
        return (
            self.tenant in (None, entry.tenant)
            and self.model in (None, entry.model)
            and self.category in (None, entry.category)
            and (self.media is None or self.media in entry.media)
            and self.embedder in (None, entry.embedder)
            and (self.older_than_s is None or entry.age_s(now_s) > self.older_than_s)
        )


class Barriers:
    """Invalidations, remembered until every answer that began before them has ended.

    An answer computed from what was true before an invalidation must not be kept after it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._past: list[tuple[int, float, Selection]] = []
        self.count = 0  # invalidations so far

    def add(self, selection: Selection) -> None:
        now_s = self._clock()
        self._past = [past for past in self._past if now_s - past[1] < REMEMBERED_S]
        self._past.append((self.count, now_s, selection))
        self.count += 1

    def forbids(self, entry: Entry, num_before: int, now_s: float) -> bool:
        """Whether `entry`, asked for when there were `num_before`, was invalidated since."""
        since = [which for number, _, which in self._past if number >= num_before]
        return any(which.matches(entry, now_s) for which in since)
