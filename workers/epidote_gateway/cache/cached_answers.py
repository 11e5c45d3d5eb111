"""This file is about the cache in the path of requests: an `Answers` before another one."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from epidote_core.generation import TokenChunk
from epidote_gateway.answers import Answers, Facts, Job
from epidote_gateway.cache.answer_codec import is_whole, without_traces
from epidote_gateway.cache.lookup import Hit, Miss, Skip
from epidote_gateway.cache.outcome import Why
from epidote_gateway.cache.response_cache import ResponseCache
from epidote_gateway.cache.single_flight import Flights

Item = list[TokenChunk]


class CachedAnswers:
    """Answers from the cache, else from `answers`, whose whole answers are kept (`Answers`)."""

    def __init__(self, answers: Answers, cache: ResponseCache) -> None:
        self._answers = answers
        self._cache = cache
        self._flights = Flights()

    async def stream(self, job: Job, facts: Facts) -> AsyncGenerator[Item, None]:
        """See `answers.Answers.stream`."""
        found = await self._cache.look_up(job, self._flights.is_under_way)
        facts.cache = found.outcome
        match found:
            case Hit():
                items = _replay(found, job.cache.streamed)
            case Skip():
                items = self._answers.stream(job, facts)
            case Miss() if found.may_share:
                items = self._flights.stream(found.key, lambda: self._kept(job, facts, found))
                if found.outcome.why is Why.COLLAPSED:
                    items = _as_listener(items)
            case Miss():
                items = self._kept(job, facts, found)
        async with aclosing(items) as stream:
            async for item in stream:
                yield item

    async def _kept(self, job: Job, facts: Facts, miss: Miss) -> AsyncGenerator[Item, None]:
        """The fleet's answer, kept before its end is told: whoever saw the end will get a hit."""
        chunks: list[TokenChunk] = []
        unfinished = len(job.request.choices)
        async with aclosing(self._answers.stream(job, facts)) as stream:
            async for item in stream:
                chunks += item
                unfinished -= sum(chunk.finish_reason is not None for chunk in item)
                if not unfinished and is_whole(chunks):
                    self._cache.admit(job, miss, chunks)
                yield item


async def _as_listener(items: AsyncGenerator[Item, None]) -> AsyncGenerator[Item, None]:
    """Without the traces of the work, which was done for another request."""
    async with aclosing(items) as stream:
        async for item in stream:
            yield [without_traces(chunk) for chunk in item]


async def _replay(hit: Hit, streamed: bool) -> AsyncGenerator[Item, None]:
    """At once, or for streams at the category's speed."""
    speed = hit.replay_tokens_per_s if streamed else 0.0
    if not speed:
        yield list(hit.chunks)
        return
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    for chunk in hit.chunks:
        yield [chunk]
        due_s += len(chunk.token_ids) / speed
        await asyncio.sleep(max(0.0, due_s - loop.time()))
