"""This file is about a request's way into the engine, with its media on the way to it."""

import asyncio
from collections.abc import Mapping

from epidote_core.errors import EpidoteError
from epidote_core.generation import GenerateRequest
from epidote_engine.sequence import Mode
from epidote_workers.inbox import Inbox
from epidote_workers.media_fetch import MediaFetcher, Timings
from epidote_workers.media_room import Seat
from epidote_workers.parts import Parts


class Intake:
    """Adds one request, fetches its media beside it; what goes wrong arrives in its inbox."""

    def __init__(
        self, parts: Parts, fetcher: MediaFetcher, request: GenerateRequest, inbox: Inbox
    ) -> None:
        self._parts, self._fetcher, self._request, self._inbox = parts, fetcher, request, inbox
        self._task: asyncio.Task[Timings] | None = None
        self._seat: Seat | None = None

    def begin(self, mode: Mode, sources: Mapping[str, str], addresses: Mapping[str, str]) -> None:
        """Returns at once. A prompt that is computed elsewhere needs no media here."""
        if not self._request.media or mode is Mode.DECODE:
            self._add(mode)
            return
        self._task = asyncio.create_task(self._fetch(mode, sources, addresses))
        self._task.add_done_callback(self._report)

    def prefilled(self) -> Timings:
        """The prompt is computed: its embeddings are not needed any more. What they cost."""
        self._leave()
        task = self._task
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return ()
        return task.result()

    def close(self) -> None:
        """The request is over, in whatever way."""
        if self._task is not None:
            self._task.cancel()
        self._leave()

    def _add(self, mode: Mode) -> None:
        request = self._request
        self._parts.engine.post_or(lambda engine: engine.add(request, mode=mode), self._inbox.fail)

    async def _fetch(
        self, mode: Mode, sources: Mapping[str, str], addresses: Mapping[str, str]
    ) -> Timings:
        self._seat = await self._fetcher.room.enter(self._request.media)
        self._add(mode)  # before the media arrive: the engine then holds them as they come
        return await self._fetcher.fetch(self._request, sources, addresses)

    def _report(self, task: "asyncio.Task[Timings]") -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, EpidoteError):
            error = RuntimeError(f"media: {error!r}")
        self._inbox.fail(error)

    def _leave(self) -> None:
        if self._seat is not None:
            self._seat.leave()
