"""This file is about encoding media here, and lending the embeddings to peers."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator

from epidote_core.errors import InvalidRequest, Overloaded, WorkerLost
from epidote_core.generation import StageTiming
from epidote_core.roles import Stage
from epidote_engine.events import MediaFailed, MediaReady, MediaRows
from epidote_workers.engine_protocol import EngineLike
from epidote_workers.kept_pixels import KeptPixels
from epidote_workers.messages import EncodeCall, FetchMediaCall, LentMedia, Nothing
from epidote_workers.parts import Parts

PROMISE_S = 2.0  # prefill asks for an embedding right after its request was routed
MAX_TIMINGS = 4096


class EncodeStage:
    """Media queued, being encoded, and just encoded here. Belongs to the loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._queued: dict[str, tuple[float, int]] = {}  # key: (since, tokens), until ready
        self._kept = KeptPixels(parts.settings.max_kept_pixel_bytes)
        self._failed: OrderedDict[str, str] = OrderedDict()
        self._timings: OrderedDict[str, StageTiming] = OrderedDict()

    @property
    def num_queued(self) -> int:
        return len(self._queued)

    def is_queued(self, key: str) -> bool:
        return key in self._queued

    async def encode(self, call: EncodeCall) -> Nothing:
        """Accept a medium; returns before it is encoded.

        Raises:
            Overloaded: the queue is full.
            WorkerLost: this worker does not encode now.
        """
        self._parts.gate.check(Stage.ENCODE)
        pixels = call.pixels
        limit = self._parts.settings.max_encode_queue
        if pixels.key not in self._queued:
            if len(self._queued) >= limit:
                raise Overloaded(f"{limit} media are waiting to be encoded", retry_after_s=0.2)
            self._failed.pop(pixels.key, None)
            self._queued[pixels.key] = (time.monotonic(), pixels.num_tokens)
            self._parts.engine.post_or(
                lambda engine: engine.submit_media(pixels),
                lambda error: self.note(MediaFailed(key=pixels.key, message=str(error))),
            )
        self._kept.add(pixels, time.monotonic())
        return Nothing()

    def note(self, event: MediaReady | MediaFailed) -> None:
        """The engine is done with a medium (its own or one that was copied here)."""
        since_s, num_tokens = self._queued.pop(event.key, (0.0, 0))
        if isinstance(event, MediaFailed):
            self._kept.drop(event.key)
            self._failed[event.key] = event.message
            _shorten(self._failed)
            self._parts.engine.post(lambda _: None)  # lets those who wait look again
        elif since_s:
            self._timings[event.key] = StageTiming(
                stage=Stage.ENCODE,
                worker_id=self._parts.worker_id,
                busy_s=time.monotonic() - since_s,
                num_tokens=num_tokens,
            )
            _shorten(self._timings)

    def timing(self, key: str) -> StageTiming:
        """What encoding cost; nothing if it was in the cache."""
        return self._timings.get(key) or StageTiming(
            stage=Stage.ENCODE, worker_id=self._parts.worker_id
        )

    async def ready(self, key: str, owner: str, timeout_s: float) -> MediaRows:
        """Wait for a medium that is or will be encoded here; `owner` then holds it.

        One that was encoded and then evicted, before anybody fetched it, is encoded again.
        The caller releases it in any case, also after an error.

        Raises:
            InvalidRequest: it can't be encoded.
            WorkerLost: nobody encodes it here (any more).
            TimeoutError: not in time.
        """

        again = True

        def look(engine: EngineLike) -> MediaRows | None:
            nonlocal again
            rows = engine.acquire_media(key, owner)
            if rows is not None:
                return rows
            gate = self._parts.gate
            pixels = self._kept.get(key) if gate.life.role.serves(Stage.ENCODE) else None
            if pixels is not None and again and key not in self._queued:
                again = False  # the next look follows the step that encodes it, before any other
                engine.submit_media(pixels)
            if key in self._failed:
                raise InvalidRequest(f"a medium can't be encoded: {self._failed[key]}")
            if key not in self._queued and pixels is None:
                gate.check(Stage.ENCODE)  # then the gateway's `encode` may still come
            return None

        return await self._parts.engine.until(look, timeout_s)

    async def fetch_media(self, call: FetchMediaCall) -> AsyncGenerator[LentMedia, None]:
        """Lend an embedding: its rows stay until the stream is closed, or `lease_s`."""
        owner = self._parts.owner("lent")
        settings = self._parts.settings
        try:
            timeout_s = min(call.timeout_s, settings.media_timeout_s)
            rows = await self.ready(call.key, owner, timeout_s)
            self._kept.used(call.key)
            yield LentMedia(
                rows=tuple((part.start, part.stop) for part in rows.rows),
                timing=self.timing(call.key),
            )
            await asyncio.sleep(settings.lease_s)
            raise WorkerLost("an embedding was lent too long", worker_id=self._parts.worker_id)
        finally:
            self._parts.engine.post(lambda engine: engine.release_media(call.key, owner))

    def is_owed(self, now_s: float) -> bool:
        """Whether media are in work here, or encoded for prefills that will ask any moment."""
        return bool(self._queued) or self._kept.newest_s > now_s - PROMISE_S

    def tidy(self, now_s: float) -> None:
        """Forget pixels of requests that are gone."""
        self._kept.expire(now_s - self._parts.settings.media_timeout_s)

    def used(self, key: str) -> None:
        """A request on this worker has what it needed of this medium."""
        self._kept.used(key)


def _shorten(kept: "OrderedDict[str, str] | OrderedDict[str, StageTiming]") -> None:
    while len(kept) > MAX_TIMINGS:
        kept.popitem(last=False)
