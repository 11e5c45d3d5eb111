"""This file is about the bodies of the endpoints that watch and change the response cache."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from epidote_gateway.cache.cache_state import CacheState
from epidote_gateway.cache.entry import Entry
from epidote_gateway.cache.policy import CategorySpec
from epidote_gateway.cache.selection import Selection

Seconds = Annotated[float, Meta(ge=0, le=1e10)]
Name = Annotated[str, Meta(max_length=1024)]


class EntryView(msgspec.Struct, kw_only=True):
    """One entry. `text` is the question."""

    id: str
    category: str
    tenant: str
    model: str
    text: str
    media: list[str]
    age_s: float
    hits: int
    saved_s: float
    num_tokens: int
    num_bytes: int
    context: str  # equal for questions that may be compared: same tenant, past, media, sampling …
    num_turns: int  # of the conversation before the question

    @classmethod
    def of(cls, entry: Entry, now_s: float) -> "EntryView":
        return cls(
            id=entry.entry_id,
            category=entry.category,
            tenant=entry.tenant,
            model=entry.model,
            text=entry.text,
            media=list(entry.media),
            age_s=round(entry.age_s(now_s), 3),
            hits=entry.hits,
            saved_s=round(entry.saved_s, 6),
            num_tokens=entry.total_tokens,
            num_bytes=entry.num_bytes,
            context=entry.context.hex(),
            num_turns=entry.num_turns,
        )


class EntryAnswer(msgspec.Struct, kw_only=True):
    entry: EntryView
    choices: list[str]  # texts, by index


class LookupRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is near `text`, in every context that the rest allows.

    A text alone does not say in which context it will be asked: `context` of an entry narrows it.
    """

    text: Annotated[str, Meta(min_length=1, max_length=65_536)]
    tenant: Name | None = None
    model: Name | None = None
    context: Annotated[str, Meta(pattern="^[0-9a-f]{4,32}$")] | None = None  # or its beginning
    limit: Annotated[int, Meta(ge=1, le=100)] = 10


class Neighbour(msgspec.Struct, kw_only=True):
    """`refused_by`: the guard that would refuse it, and the difference that it found.

    `is_near_enough` is about the cosine and the category; a hit needs the entry's context besides.
    """

    entry: EntryView
    similarity: float
    is_near_enough: bool
    refused_by: str | None
    detail: str


class LookupAnswer(msgspec.Struct, kw_only=True):
    category: str
    category_similarity: float
    threshold: float
    is_enabled: bool  # False: questions of this category have nothing to do with the cache
    num_contexts: int  # that these neighbours are of: a request is compared within its own only
    neighbours: list[Neighbour]


class InvalidateRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Every given field must match; at least one must be given (`flush` removes everything)."""

    tenant: Name | None = None
    model: Name | None = None
    category: Name | None = None
    media: Name | None = None
    older_than_s: Seconds | None = None
    dry_run: bool = False

    def selection(self) -> Selection:
        fields = ("tenant", "model", "category", "media", "older_than_s")
        return Selection(**{name: getattr(self, name) for name in fields})


class Invalidated(msgspec.Struct, kw_only=True):
    num_entries: int
    num_bytes: int
    dry_run: bool
    examples: list[str]  # ids of some
    pending: int = 0  # still in the store: owed to it, and back after a crash before it is paid


class FeedbackRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The hit with this id (of the header x-epidote-cache) was a wrong answer."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]


class Feedback(msgspec.Struct, kw_only=True):
    category_threshold: float  # from now on


class PressureBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    pressure: Annotated[float, Meta(ge=0, le=1)]


class CategoryStats(msgspec.Struct, kw_only=True):
    """`threshold` and `ttl_s` are those in force."""

    enabled: bool
    entries: int
    bytes: int
    hit_ratio: float
    break_even_hit_ratio: float
    threshold: float
    tightened_by: float
    ttl_s: float

    @classmethod
    def of(cls, state: CacheState, category: CategorySpec) -> "CategoryStats":
        shelf = state.catalog.shelves.get(category.name)
        bounds = state.bounds(category)
        return cls(
            enabled=category.enabled,
            entries=len(shelf) if shelf else 0,
            bytes=shelf.num_bytes if shelf else 0,
            hit_ratio=round(state.ratios.ratio(category.name), 6),
            break_even_hit_ratio=category.break_even_hit_ratio,
            threshold=round(bounds.threshold, 6),
            tightened_by=round(state.relaxation.tightening(category, state.policy), 6),
            ttl_s=bounds.ttl_s,
        )


class CacheStats(msgspec.Struct, kw_only=True):
    """`pressure` is what counts, `signal` what the planner said last."""

    enabled: bool
    is_loaded: bool
    entries: int
    bytes: int
    index_bytes: int
    partitions: int
    pressure: float
    signal: float
    vectors: str
    categories: dict[str, CategoryStats]


class PolicyBody(msgspec.Struct, kw_only=True):
    """A CachePolicy, as in its file; `kind` and `apiVersion` may be left out."""

    spec: dict[str, Any]
    kind: str = "CachePolicy"
    api_version: str = msgspec.field(default="serving.epidote.dev/v1alpha1", name="apiVersion")
