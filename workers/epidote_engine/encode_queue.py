"""This file is about media on their way through the vision tower into the media pool."""

import logging
from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from epidote_core.generation import MediaPixels
from epidote_engine.events import MediaFailed, MediaReady
from epidote_engine.media_cache import MediaCache

logger = logging.getLogger(__name__)

Encode = Callable[[Sequence[MediaPixels]], list[Tensor]]
# of one encoder batch: what one step delays everybody's next token by
_BATCH_TOKENS = 512
_GPU_BATCH_TOKENS = 4096  # fewer would not fill the device


class EncodeQueue:
    """First come, first served; a medium starts when its rows can be had."""

    def __init__(self, cache: MediaCache, pool: Tensor) -> None:
        self._cache = cache
        self._pool = pool
        self._batch_tokens = _GPU_BATCH_TOKENS if pool.is_cuda else _BATCH_TOKENS
        self._queued: deque[MediaPixels] = deque()

    def __len__(self) -> int:
        return len(self._queued)

    def __contains__(self, key: str) -> bool:
        return any(pixels.key == key for pixels in self._queued)

    def add(self, pixels: MediaPixels) -> None:
        self._queued.append(pixels)

    def step(self, encode: Encode) -> list[MediaReady | MediaFailed]:
        """Encode as many of the first media as belong into one batch; maybe none fits now."""
        events: list[MediaReady | MediaFailed] = []
        batch = self._take_batch(events)
        if batch:
            events += self._encode(batch, encode)
        return events

    def _take_batch(self, events: list[MediaReady | MediaFailed]) -> list[MediaPixels]:
        batch: list[MediaPixels] = []
        total = 0
        while self._queued:
            pixels = self._queued[0]
            if self._cache.is_known(pixels.key):  # a peer's copy came first
                self._queued.popleft()
                if self._cache.is_ready(pixels.key):
                    events.append(MediaReady(key=pixels.key))
                continue
            if batch and total + pixels.num_tokens > self._batch_tokens:
                break
            if self._cache.reserve(pixels.key, pixels.num_tokens) is None:
                break
            batch.append(self._queued.popleft())
            total += pixels.num_tokens
        return batch

    def _encode(
        self, batch: Sequence[MediaPixels], encode: Encode
    ) -> list[MediaReady | MediaFailed]:
        try:
            embeddings = encode(batch)
        except Exception as error:  # whatever one medium does must not end the others
            if len(batch) > 1:
                return [event for pixels in batch for event in self._encode([pixels], encode)]
            logger.warning("medium not encoded", extra={"key": batch[0].key, "error": repr(error)})
            self._cache.cancel(batch[0].key)
            return [MediaFailed(key=batch[0].key, message=f"{type(error).__name__}: {error}")]
        ready: list[MediaReady | MediaFailed] = []
        with torch.inference_mode():
            for pixels, rows in zip(batch, embeddings, strict=True):
                start = 0
                for part in self._cache.rows(pixels.key).rows:
                    end = start + len(part)
                    self._pool[part.start : part.stop] = rows[start:end]
                    start = end
                self._cache.commit(pixels.key)
                ready.append(MediaReady(key=pixels.key))
        if self._pool.is_cuda:
            # a peer copies as soon as it hears of them, and knows nothing of this device's order
            torch.cuda.current_stream(self._pool.device).synchronize()
        return ready
