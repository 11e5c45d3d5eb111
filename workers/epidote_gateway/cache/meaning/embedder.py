"""This file is about embedding off the event loop, with those who wait at the same time together.

One thread, one batch under way; what arrives meanwhile makes the next batch. Nobody waits for a
batch to fill.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from epidote_core.errors import EpidoteError
from epidote_gateway.cache.meaning.projection import Projection
from epidote_gateway.cache.meaning.sentence_model import SentenceModel
from epidote_gateway.cache.protocols import Vectors

MAX_BATCH = 16  # texts; about 40 ms on one core, the longest that a newcomer waits for others


class EmbedderClosed(EpidoteError):
    """The embedder was closed before it came to this text."""


@dataclass(eq=False)
class _Waiting:
    texts: Sequence[str]
    future: "asyncio.Future[Vectors]" = field(repr=False)


class BatchingEmbedder:
    """A `SentenceModel`, and a projection if there is one, as a `protocols.Embedder`."""

    def __init__(self, model: SentenceModel, projection: Projection | None = None) -> None:
        self._model = model
        self._projection = projection
        self.name = model.name if projection is None else f"{model.name}-{projection.digest}"
        self.dimensions = model.dimensions if projection is None else projection.matrix.shape[1]
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-embedder")
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """See `protocols.Embedder.embed`. Raises `EmbedderClosed` after `aclose`."""
        if self._closed:
            raise EmbedderClosed("the embedder is closed")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(texts, loop.create_future())
        self._waiting.append(waiting)
        if self._running is None:
            self._running = loop.create_task(self._work(), name="cache embedder")
        return await waiting.future

    def is_whole(self, text: str) -> bool:
        return self._model.is_whole(text)

    def embed_now(self, texts: Sequence[str]) -> Vectors:
        """The same in the calling thread, for tools without an event loop."""
        vectors = self._model.embed(texts)
        return vectors if self._projection is None else self._projection(vectors)

    async def aclose(self) -> None:
        """Finish the batch under way; whoever still waits gets `EmbedderClosed`."""
        self._closed = True
        _fail(list(self._waiting), EmbedderClosed("the embedder was closed"))
        self._waiting.clear()
        if self._running is not None:
            await asyncio.wait([self._running])
        self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while batch := self._next_batch():
                texts = [text for waiting in batch for text in waiting.texts]
                try:
                    vectors = await loop.run_in_executor(self._thread, self.embed_now, texts)
                except Exception as error:  # theirs to handle: each of them gets it
                    _fail(batch, error)
                    continue
                _hand_out(batch, vectors)
        finally:
            self._running = None

    def _next_batch(self) -> list[_Waiting]:
        """The oldest callers with up to `MAX_BATCH` texts (one caller's are never split)."""
        batch: list[_Waiting] = []
        num_texts = 0
        while self._waiting:
            waiting = self._waiting[0]
            if not waiting.future.done():  # else its caller has gone
                num_texts += len(waiting.texts)
                if batch and num_texts > MAX_BATCH:
                    break
                batch.append(waiting)
            self._waiting.popleft()
        return batch


def _hand_out(batch: list[_Waiting], vectors: Vectors) -> None:
    start = 0
    for waiting in batch:
        rows = vectors[start : start + len(waiting.texts)]
        start += len(waiting.texts)
        if not waiting.future.done():
            waiting.future.set_result(rows)


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.future.done():
            waiting.future.set_exception(error)
