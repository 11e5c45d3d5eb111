"""This file is about driving one job through the fleet until every choice is finished.

Route, start encoding, stream; when a worker is lost, route around it with the tokens
that the client already has. One recovery path for every stage.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from random import Random
from typing import Any, cast

from epidote_core.block_hash import chain
from epidote_core.errors import EpidoteError, Overloaded, WorkerLost
from epidote_core.generation import GenerateRequest, MediaPixels, Route, TokenChunk
from epidote_gateway.answers import Facts, Job
from epidote_gateway.api_errors import ApiError, as_api_error, no_worker
from epidote_gateway.avoidance import Avoidance
from epidote_gateway.backend import Backend, TokenStream
from epidote_gateway.patience import Patience
from epidote_gateway.progress import Progress
from epidote_gateway.routing import NobodyServes, Wanted, choose_route
from epidote_gateway.settings import GatewaySettings
from epidote_gateway.underway import OneUnderway, UnderwayCounts

logger = logging.getLogger(__name__)
POLL_S = 0.02  # a role switch takes some 100 ms; looking costs microseconds


class Generation:
    """Answers jobs from the fleet (`answers.Answers`)."""

    def __init__(
        self,
        backend: Backend,
        settings: GatewaySettings,
        *,
        rng: Random,
        clock: Callable[[], float],
        on_lost: Callable[[WorkerLost], None] = lambda lost: None,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._rng = rng
        self._clock = clock
        self._on_lost = on_lost
        self._underway = UnderwayCounts()

    async def stream(self, job: Job, facts: Facts) -> AsyncGenerator[list[TokenChunk], None]:
        """See `answers.Answers.stream`."""
        progress = Progress(job.request)
        avoid = Avoidance(self._clock)
        patience = Patience(self._settings, self._clock)
        while True:
            request = progress.remaining()
            route = await self._route(request, job, avoid, patience.deadline_s())
            facts.routes.append(route)
            patience.attempt()
            try:
                with self._underway.of(request, route) as underway:
                    async with aclosing(self._attempt(job, request, route, underway)) as attempt:
                        async for chunks in attempt:
                            patience.got_tokens()
                            progress.add(chunks)
                            yield chunks
                            if progress.is_finished:
                                return
                raise WorkerLost("the stream ended too early", worker_id=route.decode)
            except WorkerLost as lost:
                self._on_lost(lost)
                logger.log(
                    logging.INFO if lost.is_planned else logging.WARNING,
                    "worker handed on its work" if lost.is_planned else "worker lost",
                    extra={"request": request.request_id, "worker": lost.worker_id},
                )
                (patience.moved if lost.is_planned else patience.lost)(lost)
                avoid.add(lost.worker_id, self._backend.workers())
            except Overloaded as full:
                facts.routes.pop()
                await asyncio.sleep(patience.pause_when_full(full))
            except EpidoteError as error:
                raise as_api_error(error) or error from error

    async def _route(
        self, request: GenerateRequest, job: Job, avoid: Avoidance, deadline_s: float
    ) -> Route:
        """Choose workers; while a stage has none (a role switch), wait until `deadline_s`."""
        hashes: Sequence[bytes] | None = None
        while True:
            workers = self._backend.workers()
            if hashes is None and any(worker.block_hashes for worker in workers):
                hashes = self._block_hashes(request)
            wanted = Wanted(
                num_prompt_tokens=len(request.prompt_token_ids),
                num_choices=len(request.choices),
                block_size=self._backend.block_size,
                block_hashes=hashes or (),
                media_keys=[pixels.key for pixels in job.pixels],
                avoid=avoid.now(workers),
            )
            found = choose_route(
                workers,
                wanted,
                mine=self._underway.by_worker,
                rng=self._rng,
                encoder_cache_slack=self._settings.encoder_cache_slack,
            )
            match found:
                case Route():
                    return found
                case NobodyServes(stages=stages):
                    if self._clock() >= deadline_s:
                        names = ", ".join(stage.value for stage in stages)
                        raise no_worker(f"no worker serves: {names}; try again")
                    await asyncio.sleep(POLL_S)

    def _block_hashes(self, request: GenerateRequest) -> list[bytes]:
        emitted = request.choices[0].emitted_token_ids
        return list(
            chain(
                request.prompt_token_ids + emitted,
                self._backend.block_size,
                media=request.media,
                salt=request.cache_salt,
            )
        )

    async def _attempt(
        self, job: Job, request: GenerateRequest, route: Route, underway: OneUnderway
    ) -> AsyncGenerator[list[TokenChunk], None]:
        """The chunks of one route; raises what any of its stages raises."""
        stall_s = self._settings.stall_timeout_s
        async with aclosing(self._backend.generate(request, route)) as stream:
            try:
                async with asyncio.timeout(self._settings.first_token_timeout_s):
                    first = await self._first(stream, self._encodes(job, request, route))
            except TimeoutError as error:
                raise ApiError(
                    503, "no token within this server's time limit", code="timeout"
                ) from error
            if first is None:
                return
            underway.prefilled()
            yield first
            while True:
                try:
                    async with asyncio.timeout(stall_s):
                        chunks = await _next(stream)
                except TimeoutError as error:
                    text = f"no token for {stall_s:g} s"
                    raise WorkerLost(text, worker_id=route.decode) from error
                if chunks is None:
                    return
                yield chunks

    def _encodes(self, job: Job, request: GenerateRequest, route: Route) -> list[Awaitable[None]]:
        by_key: dict[str, MediaPixels] = {pixels.key: pixels for pixels in job.pixels}
        return [
            self._backend.encode(worker_id, by_key[key], request_id=request.request_id)
            for key, worker_id in route.encode
        ]

    async def _first(
        self, stream: TokenStream, encodes: Sequence[Awaitable[None]]
    ) -> list[TokenChunk] | None:
        """The first item, while media are handed to encoders; a failed hand-over fails it."""
        if not encodes:
            return await _next(stream)
        first: asyncio.Future[Any] = asyncio.ensure_future(_next(stream))
        handing_over = [asyncio.ensure_future(encode) for encode in encodes]
        pending: set[asyncio.Future[Any]] = set(handing_over)
        try:
            while pending and not first.done():
                done, _ = await asyncio.wait({first, *pending}, return_when=asyncio.FIRST_COMPLETED)
                if first in done:
                    break
                for future in pending & done:
                    future.result()
                pending -= done
            return cast(list[TokenChunk] | None, await first)
        finally:
            first.cancel()
            for future in handing_over:
                future.cancel()
            await asyncio.gather(first, *handing_over, return_exceptions=True)


async def _next(stream: TokenStream) -> list[TokenChunk] | None:
    try:
        return await stream.__anext__()
    except StopAsyncIteration:
        return None
