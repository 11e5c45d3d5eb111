"""This file is about finding an answer: the same question, else one that means the same, else none.

Any doubt is a miss. A neighbour must be in the same context and category, near enough, young
enough, fit the token limit, and pass every guard.
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

from epidote_core.generation import TokenChunk
from epidote_gateway.answers import Job
from epidote_gateway.cache.answer_codec import decode_answer
from epidote_gateway.cache.cache_state import CacheState
from epidote_gateway.cache.entry import Entry
from epidote_gateway.cache.fingerprint import Asked, Bypass, fingerprint
from epidote_gateway.cache.forbidden import forbidding
from epidote_gateway.cache.judges import Judges
from epidote_gateway.cache.outcome import Kind, Outcome, Status, Why
from epidote_gateway.cache.policy import DEFAULT_CATEGORY, CategorySpec
from epidote_gateway.cache.protocols import Reason, Vector
from epidote_gateway.cache.store_errors import StoreUnavailable

logger = logging.getLogger(__name__)
NEIGHBOURS = 8  # looked at: the nearest may be refused by a guard, and the next be right


@dataclass(frozen=True, kw_only=True)
class Hit:
    outcome: Outcome
    entry: Entry
    chunks: tuple[TokenChunk, ...] = field(repr=False)
    replay_tokens_per_s: float


@dataclass(frozen=True, kw_only=True)
class Miss:
    """What admission needs to know later. `begun_s` is of the monotonic clock."""

    outcome: Outcome
    asked: Asked
    judges: Judges
    category: str
    is_named: bool
    own: str  # category of the question itself; "": nobody could tell
    vector: Vector | None = field(repr=False)
    begun_s: float
    num_invalidations: int  # when the request came
    may_share: bool  # with equal questions at the same time

    @property
    def key(self) -> Hashable:
        """Equal for requests that get the same answer: the same question, and put after the same
        invalidations, since what was begun before one must not be told after it."""
        return self.asked.exact, self.asked.max_tokens, self.num_invalidations


@dataclass(frozen=True, kw_only=True)
class Skip:
    outcome: Outcome


Found = Hit | Miss | Skip


async def look_up(
    state: CacheState, job: Job, *, is_under_way: Callable[[Hashable], bool] = lambda key: False
) -> Found:
    """Judge `job` and count what became of it.

    `is_under_way(Miss.key)`: whether the same question is being answered at this moment.
    """
    begun_s = state.clock()
    found = await _LookUp(state, job, begun_s).find()
    if isinstance(found, Miss) and found.may_share and is_under_way(found.key):
        found = replace(found, outcome=replace(found.outcome, why=Why.COLLAPSED))
    outcome = found.outcome
    if outcome.status is not Status.BYPASS:
        state.ratios.observe(outcome.category, isinstance(found, Hit))
    if isinstance(found, Hit):
        entry = found.entry
        entry.hits += 1
        state.metrics.saved_s.labels(outcome.category).inc(entry.saved_s)
        state.metrics.saved_tokens.labels(outcome.category).inc(entry.total_tokens)
    state.metrics.observe(outcome, state.clock() - begun_s)
    return found


class _LookUp:
    """One request's way through the cache."""

    def __init__(self, state: CacheState, job: Job, begun_s: float) -> None:
        self._state = state
        self._job = job
        self._begun_s = begun_s
        self._num_invalidations = state.barriers.count
        self._judges = state.judges
        self._policy = self._judges.policy
        self._controls = job.cache.controls
        honours = self._policy.requests.controls
        self._may_hit = not (honours and self._controls.no_cache)
        self._max_age_s = self._controls.max_age_s if honours else None
        self._why: Why | Reason = Why.NOTHING_NEAR if self._may_hit else Why.ASKED
        self._similarity: float | None = None
        self._own = ""  # as `Miss.own`

    async def find(self) -> Found:
        asked = fingerprint(
            self._job, self._policy, self._state.lineages, revision=self._state.revision
        )
        if isinstance(asked, Bypass):
            return _skip(asked)
        named = self._named()
        kept_out = await forbidding(self._job, self._judges, self._state.verdicts, named=named)
        if kept_out is not None:
            return _skip(*kept_out)
        entry = self._state.catalog.exact(asked.exact) if self._may_hit else None
        if entry is not None and named in ("", entry.category):
            hit = await self._judge(entry, asked, Kind.EXACT, 1.0)
            if hit is not None:
                return hit
        vector = await self._embed(asked.text)
        if vector is not None:
            found = self._judges.classifier.classify(vector, asked.text).name
            self._own = self._policy.category(found).name
        category = self._policy.category(named or self._own or DEFAULT_CATEGORY)
        if not category.enabled:
            return _skip(Bypass.CATEGORY, category.name)
        if not self._state.ratios.is_worthwhile(category):
            return _skip(Bypass.BREAK_EVEN, category.name)
        if vector is not None and self._may_hit and category.semantic:
            hit = await self._among_neighbours(asked, category, vector)
            if hit is not None:
                return hit
        return Miss(
            outcome=Outcome(
                status=Status.MISS,
                why=self._why,
                category=category.name,
                similarity=self._similarity,
            ),
            asked=asked,
            judges=self._judges,
            category=category.name,
            is_named=bool(named),
            own=self._own,
            vector=vector,
            begun_s=self._begun_s,
            num_invalidations=self._num_invalidations,
            may_share=self._may_hit and self._max_age_s is None,
        )

    def _named(self) -> str:
        """The category that the request names; unknown names are left to the classifier."""
        name = self._controls.category
        allowed = self._policy.requests.named_category and self._policy.knows(name)
        return name if allowed else ""

    async def _embed(self, text: str) -> Vector | None:
        embedder = self._judges.embedder
        if not text or not embedder.is_whole(text):
            return None
        try:
            vector: Vector = (await embedder.embed([text]))[0]
        except Exception:
            # Safe: without a vector only the very same question hits.
            logger.exception("embedding failed")
            self._why = Why.EMBEDDER
            return None
        return vector

    async def _among_neighbours(
        self, asked: Asked, category: CategorySpec, vector: Vector
    ) -> Hit | None:
        threshold = self._state.bounds(category, asked.tenant).threshold
        near = self._state.catalog.near(asked.context, category.name, vector, NEIGHBOURS)
        for entry, similarity in near:
            if self._similarity is None:
                self._similarity = similarity
                self._why = Why.THRESHOLD
            if similarity < threshold:
                break
            refusal = self._judges.guards_of(category.name).check(asked.text, entry.text)
            if refusal is not None:
                self._refuse(category.name, refusal.reason)
                continue
            hit = await self._judge(entry, asked, Kind.SEMANTIC, similarity)
            if hit is not None:
                return hit
        return None

    async def _judge(self, entry: Entry, asked: Asked, kind: Kind, similarity: float) -> Hit | None:
        """A hit, if `entry` may be served; else the reason is noted."""
        state = self._state
        if not state.is_live(entry):
            self._drop_expired(entry)
            return None
        if self._own and entry.age_s(state.unix_time()) >= state.ttl_s(self._own):
            return None  # a category that the client named makes no answer true for longer
        if not self._suits(entry, asked):
            return None
        chunks = await self._read(entry)
        if chunks is None:
            return None
        if self._wants_second_check(kind) and not await self._agrees(entry, asked, chunks):
            self._refuse(entry.category, Reason.SECOND_CHECK)
            return None
        # Reading took a moment, in which the entry may have been invalidated or expired.
        if not state.is_live(entry):
            return None
        category = self._policy.category(entry.category)
        bounds = state.bounds(category, asked.tenant)
        age_s = entry.age_s(state.unix_time())
        plain_ttl_s = min(
            state.bounds(self._policy.category(name)).plain_ttl_s for name in entry.categories
        )
        state.lineages.join(
            asked.after("".join(c.text for c in chunks if c.index == chunks[0].index)), entry.after
        )
        return Hit(
            outcome=Outcome(
                status=Status.HIT,
                kind=kind,
                category=entry.category,
                similarity=similarity if kind is Kind.SEMANTIC else None,
                age_s=age_s,
                is_relaxed=similarity < bounds.plain_threshold or age_s >= plain_ttl_s,
                entry_id=entry.entry_id,
            ),
            entry=entry,
            chunks=chunks,
            replay_tokens_per_s=category.replay_tokens_per_second,
        )

    def _suits(self, entry: Entry, asked: Asked) -> bool:
        too_old = self._max_age_s is not None and (
            entry.age_s(self._state.unix_time()) > self._max_age_s
        )
        if too_old:
            self._why = Why.MAX_AGE
            return False
        if not entry.fits(asked.max_tokens):
            self._why = Why.TOKEN_LIMIT
            return False
        return True

    async def _read(self, entry: Entry) -> tuple[TokenChunk, ...] | None:
        state = self._state
        try:
            body = await state.keeper.body(entry.entry_id)
            if body is not None:
                return decode_answer(body)
            if state.catalog.get(entry.entry_id) is entry:
                state.drop(entry, "lost")  # another gateway removed it, or the server did
        except StoreUnavailable as error:
            self._why = Why.STORE
            state.metrics.store_failures.inc()
            logger.warning("no answer from the store", extra={"error": str(error)})
        except ValueError as error:
            state.drop(entry, "lost")
            logger.warning("a stored answer is damaged", extra={"error": str(error)})
        return None

    def _wants_second_check(self, kind: Kind) -> bool:
        return (
            kind is Kind.SEMANTIC
            and self._policy.guards.enabled
            and self._policy.guards.second_check
        )

    async def _agrees(self, entry: Entry, asked: Asked, chunks: tuple[TokenChunk, ...]) -> bool:
        if self._state.second_check is None:
            return False  # asked for, and nobody there: no
        answer = "".join(chunk.text for chunk in chunks if chunk.index == chunks[0].index)
        try:
            return await self._state.second_check.agrees(asked.text, entry.text, answer)
        except Exception:
            # Safe: who can't say yes says no, and the fleet answers.
            logger.exception("second check failed")
            return False

    def _drop_expired(self, entry: Entry) -> None:
        if self._state.catalog.get(entry.entry_id) is not entry:
            return
        if self._state.is_enabled(entry):
            self._state.drop(entry, "expired")

    def _refuse(self, category: str, reason: Reason) -> None:
        self._why = reason
        self._state.metrics.refusals.labels(category, str(reason)).inc()


def _skip(why: Bypass, category: str = "") -> Skip:
    return Skip(outcome=Outcome(status=Status.BYPASS, why=why, category=category))
