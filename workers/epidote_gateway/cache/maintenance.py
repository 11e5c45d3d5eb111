"""This file is about what the cache does between requests: load, follow others, forget, rebuild.

Everything is done in slices, so that no request waits longer than one of them takes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

import numpy as np

from epidote_gateway.cache.cache_state import CacheState
from epidote_gateway.cache.entry import Entry
from epidote_gateway.cache.judges import Judges
from epidote_gateway.cache.neighbours import Neighbours
from epidote_gateway.cache.policy import DEFAULT_CATEGORY
from epidote_gateway.cache.protocols import Change, Vector
from epidote_gateway.cache.store_errors import StoreUnavailable

logger = logging.getLogger(__name__)
FOLLOW_S = 0.25  # how late another gateway's entries are found; its removals are seen at once
TIDY_S = 1.0
SWEEP_EVERY = 10  # rounds of tidying: expired entries are not served anyway
PAGE = 500  # changes read at a time
SLICE = 1000  # entries looked at between two requests: a millisecond
EMBED_BATCH = 16


async def forever(round: Callable[[], Awaitable[None]], pause_s: float) -> NoReturn:
    """Call `round` again and again; its failures are logged.

    A library may take a cancellation for its own (`wait_for` before Python 3.12 does, when its time
    and the cancellation come together); it holds all the same.
    """
    task = asyncio.current_task()
    assert task is not None, "called from a coroutine"
    while True:
        try:
            await round()
        except StoreUnavailable as error:
            logger.warning("the cache store does not answer", extra={"error": str(error)})
        except Exception:
            # Safe: a round begins from what there is, whatever the one before left.
            logger.exception("cache maintenance failed")
        if task.cancelling():
            raise asyncio.CancelledError
        await asyncio.sleep(pause_s)


class Maintenance:
    """Chores of one cache."""

    def __init__(self, state: CacheState) -> None:
        self._state = state
        self._cursor = ""
        self._round = 0
        self._embedding = asyncio.Lock()
        self.has_loaded = asyncio.Event()

    async def follow(self) -> None:
        """Take in all that the store has and this process doesn't know."""
        while True:
            changes, self._cursor = await self._state.keeper.changes(self._cursor, PAGE)
            for change in changes:
                self._take_in(change)
                await asyncio.sleep(0)
            if not changes:
                break
        self._state.make_room()
        self.has_loaded.set()

    def _take_in(self, change: Change) -> None:
        state = self._state
        known = state.catalog.get(change.entry_id)
        if change.removed:
            if known is not None and state.catalog.remove(known):
                state.metrics.evictions.labels(known.category, "invalidated").inc()
            return
        if known is not None or state.keeper.is_forgotten(change.entry_id):
            return
        try:
            entry = Entry.from_facts(change.entry_id, change.facts or {})
        except (KeyError, TypeError, ValueError) as error:
            logger.warning("an entry of another version is skipped", extra={"error": repr(error)})
            return
        same = state.catalog.exact(entry.exact)
        if same is not None:
            if same.created_s >= entry.created_s:
                return
            state.drop(same, "replaced")
        vector: Vector | None = None
        if entry.embedder == state.judges.vectors:
            vector = np.frombuffer(change.vector, "<f4").astype(np.float32)
        self._classify(entry, vector, state.judges)
        state.catalog.add(entry, vector)
        if entry.text and vector is None:
            state.without_vector.append(entry)

    def _classify(self, entry: Entry, vector: Vector | None, judges: Judges) -> None:
        """Of an entry that is in no catalog: the category that its question has today."""
        if vector is not None:
            entry.category, entry.own = self._categories_of(entry, vector, judges)

    @staticmethod
    def _categories_of(entry: Entry, vector: Vector, judges: Judges) -> tuple[str, str]:
        """(category, own). One that was named stays, unless the question is of a disabled one."""
        found = judges.policy.category(judges.classifier.classify(vector, entry.text).name)
        if not entry.is_named or not found.enabled or found.name == entry.category:
            return found.name, ""
        return entry.category, found.name

    async def tidy(self) -> None:
        """Graphs where they pay, now and then the expired, and vectors for entries without: last,
        since a model that fails must not keep the store from being cleared."""
        for partition in self._state.catalog.wanting_building():
            await partition.build()
        self._round += 1
        if self._round % SWEEP_EVERY == 0:
            await self._sweep()
        await self.embed_missing()

    async def _sweep(self) -> None:
        state = self._state
        entries = list(state.catalog)
        for start in range(0, len(entries), SLICE):
            now_s = state.unix_time()
            part = entries[start : start + SLICE]
            names = {name for entry in part for name in entry.categories}
            ttl_s = {name: state.ttl_s(name) for name in names}
            for entry in part:
                if entry.age_s(now_s) >= min(ttl_s[name] for name in entry.categories):
                    state.drop(entry, "expired")
            await asyncio.sleep(0)
        await self._drop_disabled()
        await state.keeper.sweep()

    async def _drop_disabled(self) -> None:
        """What was kept before its category was disabled: of that category, or of a conversation
        that nobody judged for it, since only its last question is known here."""
        state = self._state
        policy, kept_out = state.policy, state.policy.kept_out
        if not kept_out:
            return
        enabled = {c.name: c.enabled for c in policy.categories}
        default = policy.category(DEFAULT_CATEGORY).enabled
        for number, entry in enumerate(list(state.catalog)):
            if state.policy is not policy:
                return  # a newer policy does it
            unjudged = entry.kept_out != kept_out and (entry.num_turns or not entry.text)
            if unjudged or not all(enabled.get(name, default) for name in entry.categories):
                state.drop(entry, "disabled")
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    async def embed_missing(self) -> None:
        """Embed the questions whose vectors another model made, a few at a time."""
        state = self._state
        async with self._embedding:
            while state.without_vector:
                judges = state.judges
                count = min(EMBED_BATCH, len(state.without_vector))
                batch = [state.without_vector.popleft() for _ in range(count)]
                batch = [e for e in batch if judges.embedder.is_whole(e.text)]
                if not batch:
                    continue
                try:
                    vectors = await judges.embedder.embed([entry.text for entry in batch])
                except BaseException:
                    state.without_vector.extend(batch)  # the next round tries again
                    raise
                if judges.vectors != state.judges.vectors:  # changed again meanwhile
                    state.without_vector.extend(batch)
                    continue
                for entry, vector in zip(batch, vectors, strict=True):
                    if state.catalog.get(entry.entry_id) is entry:
                        self._settle(entry, vector, state.judges)
                        entry.embedder = judges.vectors
                        state.catalog.attach(entry, vector)

    def _settle(self, entry: Entry, vector: Vector, judges: Judges) -> None:
        name, entry.own = self._categories_of(entry, vector, judges)
        if name != entry.category:
            self._state.catalog.move(entry, name)

    async def change_judges(self, judges: Judges) -> None:
        """Judge by these from now on; entries move to where they would be looked for."""
        state, before = self._state, self._state.judges
        state.judges = judges
        state.relaxation.forget_other_thresholds(judges.policy)
        if judges.vectors != before.vectors:
            precision, dimensions = judges.policy.embedder.precision, judges.embedder.dimensions
            state.catalog.forget_vectors(lambda: Neighbours(dimensions, precision))
            state.without_vector.clear()
            state.without_vector.extend(entry for entry in state.catalog if entry.text)
        elif not judges.classifies_like(before):
            await self._reclassify(judges)
        await self._drop_disabled()
        state.make_room()

    async def _reclassify(self, judges: Judges) -> None:
        entries = list(self._state.catalog)
        for number, entry in enumerate(entries):
            if self._state.judges is not judges:
                return  # a newer policy does it
            if self._state.catalog.get(entry.entry_id) is entry:
                vector = self._state.catalog.vector(entry)
                if vector is not None:
                    self._settle(entry, vector, judges)
            if number % 50 == 49:  # a vector of a graph takes some 10 µs
                await asyncio.sleep(0)
