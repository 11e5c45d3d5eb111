"""This file is about bringing a request's embeddings into this worker's media pool.

Requests that are let in (`media_room`) get all the rows that they need; rows of one request are
reserved at once or not at all.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from epidote_core.errors import InvalidRequest, Overloaded
from epidote_core.generation import GenerateRequest, MediaSpan, StageTiming
from epidote_engine.events import MediaRows
from epidote_workers.encode_stage import EncodeStage
from epidote_workers.engine_protocol import EngineLike
from epidote_workers.media_room import MediaRoom
from epidote_workers.messages import FETCH_MEDIA, FetchMediaCall
from epidote_workers.parts import Parts
from epidote_workers.peer_errors import PEER_ERRORS, lost
from epidote_workers.shared_work import Share, SharedWork

Timings = tuple[StageTiming, ...]


@dataclass(frozen=True)
class Source:
    """Where a medium is encoded."""

    worker_id: str
    address: str | None


class MediaFetcher:
    """Fetches for all requests of one worker; a medium that several want is copied once."""

    def __init__(self, parts: Parts, encoder: EncodeStage) -> None:
        self._parts, self._encoder = parts, encoder
        self._turn = asyncio.Lock()
        self._work: SharedWork[Timings] = SharedWork()

    @cached_property
    def room(self) -> MediaRoom:
        """Where requests wait before they may hold embeddings."""
        return MediaRoom(self._parts.media.layout.num_units)

    @property
    def num_running(self) -> int:
        """Media on their way and requests that need them: 0 when nothing is at work."""
        return len(self._work) + len(self.room)

    async def fetch(
        self, request: GenerateRequest, sources: Mapping[str, str], addresses: Mapping[str, str]
    ) -> Timings:
        """Return once every medium of `request` is in this worker's pool.

        Raises:
            WorkerLost: naming the encoder that failed.
            Overloaded: no room for so many embeddings, for too long.
            InvalidRequest: one can't be encoded, or has no source.
        """
        spans = {span.key: span for span in request.media}
        shares: dict[str, Share[Timings]] = {}
        try:
            async with self._turn:
                await self._work.settled(spans)
                for key in spans:
                    if key in self._work:
                        shares[key] = self._work.join(key)
                    elif self._is_local(key, sources):
                        shares[key] = self._work.start(key, lambda key=key: self._await(key))  # type: ignore[misc]
                missing = [span for key, span in spans.items() if key not in shares]
                for span, rows in (await self._reserve(missing)).items():
                    source = Source(
                        sources.get(span.key, ""), addresses.get(sources.get(span.key, ""))
                    )
                    shares[span.key] = self._work.start(
                        span.key,
                        lambda span=span, rows=rows, source=source: self._fill(span, rows, source),  # type: ignore[misc]
                    )
            timings = [await share.wait() for share in shares.values()]
        finally:
            for share in shares.values():
                share.leave()
        return tuple(timing for some in timings for timing in some)

    def _is_local(self, key: str, sources: Mapping[str, str]) -> bool:
        return sources.get(key) == self._parts.worker_id or self._encoder.is_queued(key)

    async def _await(self, key: str) -> Timings:
        """A medium that is encoded here."""
        owner = self._parts.owner("own")
        try:
            await self._encoder.ready(key, owner, self._parts.settings.media_timeout_s)
        except TimeoutError as error:
            raise lost(self._parts.worker_id, error) from error
        finally:
            self._parts.engine.post(lambda engine: engine.release_media(key, owner))
        self._encoder.used(key)
        return (self._encoder.timing(key),)

    async def _reserve(self, spans: Sequence[MediaSpan]) -> dict[MediaSpan, MediaRows]:
        """Rows to fill for all of `spans` but those that are in the pool already."""
        reserved: dict[MediaSpan, MediaRows] = {}

        def cancel(engine: EngineLike) -> None:
            for span in reserved:
                engine.cancel_media(span.key)
            reserved.clear()

        def reserve_all(engine: EngineLike) -> bool | None:
            for span in spans:
                rows = engine.reserve_media(span.key, span.num_tokens)
                if rows is None:
                    cancel(engine)
                    return None
                if not rows.ready:
                    reserved[span] = rows
            return True

        if spans:
            try:
                await self._parts.engine.until(reserve_all, self._parts.settings.media_timeout_s)
            except BaseException as error:
                self._parts.engine.post(cancel)
                if isinstance(error, TimeoutError):
                    raise Overloaded("no room for embeddings", retry_after_s=1.0) from error
                raise
        return reserved

    async def _fill(self, span: MediaSpan, rows: MediaRows, source: Source) -> Timings:
        """Copy a medium from its encoder into reserved rows."""
        key, timeout_s = span.key, self._parts.settings.media_timeout_s
        try:
            if not source.worker_id:
                raise InvalidRequest("a medium has no encoder on the route", "route")
            loop = asyncio.get_running_loop()
            peer = await self._parts.peers.get(source.worker_id, source.address)
            call = FetchMediaCall(key=key, timeout_s=timeout_s)
            stream = peer.connection.stream(FETCH_MEDIA, call)
            try:
                lent = await stream.next(timeout_s)
                if lent is None:
                    raise TimeoutError("an encoder ended the loan at once")
                start_s = loop.time()
                theirs = [row for start, stop in lent.rows for row in range(start, stop)]
                ours = [row for part in rows.rows for row in part]
                if len(theirs) != len(ours):
                    raise InvalidRequest(
                        f"a medium has {len(theirs)} embeddings, the prompt {len(ours)}", "media"
                    )
                num_bytes = 0
                for into in self._parts.media_of_ranks:
                    pool = await peer.pool(into)
                    num_bytes += await pool.read(theirs, into, ours, range(1))
                # after a loan that ended meanwhile the rows may hold something else
                await stream.confirm_open(self._parts.settings.call_timeout_s)
            finally:
                stream.close()
        except BaseException as error:
            self._parts.engine.post(lambda engine: engine.cancel_media(key))
            if isinstance(error, PEER_ERRORS):
                raise lost(source.worker_id, error) from error
            raise
        self._parts.engine.post(lambda engine: engine.commit_media(key))
        moved = StageTiming(
            stage="transfer",
            worker_id=self._parts.worker_id,
            busy_s=loop.time() - start_s,
            num_tokens=len(ours),
            num_bytes=num_bytes,
        )
        return (lent.timing, moved)
