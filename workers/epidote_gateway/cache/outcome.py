"""This file is about what became of one request in the cache, and how its client is told.

x-epidote-cache: hit; kind=semantic; category=faq; similarity=0.913; age=12; id=4f…
x-epidote-cache: miss; why=numbers; category=faq; similarity=0.981
x-epidote-cache: bypass; why=temperature
"""

from dataclasses import dataclass
from enum import StrEnum

from epidote_gateway.cache.fingerprint import Bypass
from epidote_gateway.cache.protocols import Reason


class Status(StrEnum):
    HIT = "hit"
    MISS = "miss"
    BYPASS = "bypass"


class Kind(StrEnum):
    """How a hit was found."""

    EXACT = "exact"
    SEMANTIC = "semantic"


class Why(StrEnum):
    """Why there was no hit, besides a guard's reason or a bypass."""

    ASKED = "no-cache"  # the client wants a new answer
    NOTHING_NEAR = "nothing-near"
    THRESHOLD = "below-threshold"
    MAX_AGE = "max-age"  # the client wants a newer answer
    TOKEN_LIMIT = "token-limit"  # the cached answer would have been cut, or was
    STORE = "store-unavailable"
    EMBEDDER = "embedder-failed"
    COLLAPSED = "collapsed"  # the same question is being answered: this one listens


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """`similarity` is that of the nearest neighbour; of a hit, its own."""

    status: Status
    kind: Kind | None = None
    why: Why | Reason | Bypass | None = None
    category: str = ""
    similarity: float | None = None
    age_s: float | None = None
    is_relaxed: bool = False  # accepted only because load relaxed threshold or lifetime
    entry_id: str = ""

    def header(self) -> bytes:
        """Of the answer; nothing of the question is in it."""
        words: list[str] = [self.status]
        if self.kind is not None:
            words.append(f"kind={self.kind}")
        if self.why is not None:
            words.append(f"why={self.why}")
        if self.category:
            words.append(f"category={self.category}")
        if self.similarity is not None:
            words.append(f"similarity={self.similarity:.3f}")
        if self.age_s is not None:
            words.append(f"age={self.age_s:.0f}")
        if self.is_relaxed:
            words.append("relaxed")
        if self.entry_id:
            words.append(f"id={self.entry_id}")
        return "; ".join(words).encode("ascii")
