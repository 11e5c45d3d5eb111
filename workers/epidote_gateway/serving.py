"""This file is about serving one request: admission, jobs, chunks to bytes, metrics."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Scope, Send

from epidote_core.generation import TokenChunk
from epidote_gateway.answers import CACHE_HEADER, Job
from epidote_gateway.api_errors import as_api_error, internal_error, overloaded
from epidote_gateway.caller import Caller
from epidote_gateway.http_exchange import EVENT_STREAM, JSON, ClientGone, Exchange, Headers
from epidote_gateway.memory_budget import Holding
from epidote_gateway.merging import merged
from epidote_gateway.meter import Meter, usage_of
from epidote_gateway.request_scope import caller_of
from epidote_gateway.services import Services
from epidote_gateway.writing import Collected, Writer, error_events

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A checked request: what to answer, and how to write it. All jobs have as many choices."""

    jobs: Sequence[Job]
    writer: Writer
    stream: bool
    continuous_usage: bool = False


Prepare = Callable[[Services, Any, Caller], Awaitable[Prepared]]
Parse = Callable[[bytes], Any]
Items = AsyncIterator[tuple[int, list[TokenChunk]]]


class CompletionEndpoint:
    """An ASGI application for one path.

    `parse` reads and checks a body without waiting for anything; `prepare(services, request,
    caller)` then loads media and renders prompts, once admitted.
    """

    def __init__(self, services: Services, parse: Parse, prepare: Prepare) -> None:
        self._services = services
        self._parse = parse
        self._prepare = prepare

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        started_s = services.clock()
        exchange = services.exchange(scope, receive, send)
        # Judged before the body is read: what will be refused need not be held.
        if services.shedding.refuses_next():
            raise overloaded("the fleet is overloaded", services.settings.retry_after_s)
        services.admission.check_room()
        with services.memory.hold() as holding:
            # Nobody but `_serve` has the request, which lets go of it: pictures in base64.
            work = self._serve(
                exchange,
                self._parse(await services.read_body(exchange, holding)),
                caller_of(scope),
                started_s,
                holding,
            )
            await exchange.until_disconnect(work)

    async def _serve(
        self,
        exchange: Exchange,
        request: Any,
        caller: Caller,
        started_s: float,
        holding: Holding,
    ) -> None:
        services = self._services
        async with services.admission.slot() as waited_s:
            prepared = await self._prepare(services, request, caller)
            del request
            holding.keep(0)
            holding.grow(sum(job.num_bytes for job in prepared.jobs))
            for job in prepared.jobs:
                services.metrics.arrivals.labels(job.model, job.modality).inc()
            meters = [Meter(job, started_s=started_s) for job in prepared.jobs]
            streams = [services.answers.stream(meter.job, meter.facts) for meter in meters]
            notes = {
                "request_id": caller.request_id,
                "admission_ms": round(waited_s * 1e3, 3),
                "prepare_ms": round((services.clock() - started_s - waited_s) * 1e3, 3),
            }
            answer = _Answer(
                services=services,
                exchange=exchange,
                prepared=prepared,
                meters=meters,
                notes=notes if exchange.headers.get(b"x-epidote-timings") == b"1" else None,
                request_id=caller.request_id,
            )
            reason = "error"
            try:
                async with aclosing(merged(streams)) as items:
                    await (answer.stream(items) if prepared.stream else answer.collect(items))
            except (ClientGone, asyncio.CancelledError):
                reason = "abort"  # vLLM's word for a client that left
                raise
            finally:
                now_s = services.clock()
                for meter in meters:
                    services.metrics.ended(meter.finished(now_s), meter.num_unfinished, reason)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """Chunks on their way to the client. `notes` start the timings extension, if wanted."""

    services: Services
    exchange: Exchange
    prepared: Prepared
    meters: Sequence[Meter]
    notes: dict[str, Any] | None
    request_id: str

    def _timings(self) -> dict[str, Any] | None:
        if self.notes is None:
            return None
        prompts = [meter.timings(self.services.clock()) for meter in self.meters]
        return {**self.notes, **(prompts[0] if len(prompts) == 1 else {"prompts": prompts})}

    def _cache_header(self) -> Headers:
        """What the response cache made of each prompt; nothing where there is no cache."""
        told = [meter.facts.cache.header() for meter in self.meters if meter.facts.cache]
        return ((CACHE_HEADER, b", ".join(told)),) if told else ()

    async def collect(self, items: Items) -> None:
        """One body at the end."""
        choices = [
            {choice.index: Collected() for choice in meter.job.request.choices}
            for meter in self.meters
        ]
        async for number, chunks in items:
            self.meters[number].on_chunks(chunks, self.services.clock(), self.services.metrics)
            for chunk in chunks:
                choices[number][chunk.index].add(chunk)
        body = self.prepared.writer.whole(
            self.prepared.jobs,
            [list(group.values()) for group in choices],
            usage_of(self.meters),
            self._timings(),
        )
        await self.exchange.whole(200, body, (*JSON, *self._cache_header()))

    async def stream(self, items: Items) -> None:
        """Events, one write for each item; errors before the first are ordinary HTTP errors."""
        try:
            async for number, chunks in items:
                self.meters[number].on_chunks(chunks, self.services.clock(), self.services.metrics)
                await self._write(number, chunks)
        except ClientGone:
            raise
        except Exception as error:
            # The status is already sent: the stream itself has to say that it failed.
            if not self.exchange.has_started:
                raise
            api_error = as_api_error(error)
            if api_error is None:
                logger.exception("stream failed", extra={"request": self.request_id})
                api_error = internal_error(self.request_id)
            self.services.metrics.errors.labels(api_error.code).inc()
            await self.exchange.failed(api_error, error_events(api_error))

    async def _write(self, number: int, chunks: Sequence[TokenChunk]) -> None:
        pieces: list[bytes] = []
        writer = self.prepared.writer
        if not self.exchange.has_started:
            pieces += self._openings()
            await self.exchange.start(200, (*EVENT_STREAM, *self._cache_header()))
        is_last = not any(meter.num_unfinished for meter in self.meters)
        timings = self._timings() if is_last else None
        base = number * len(self.prepared.jobs[number].request.choices)
        for place, chunk in enumerate(chunks):
            more: dict[str, Any] = {}
            if self.prepared.continuous_usage:
                more["usage"] = usage_of(self.meters)
            if timings and not writer.envelope.include_usage and place == len(chunks) - 1:
                more["epidote"] = timings
            pieces.append(writer.event(chunk, base + chunk.index, **more))
        if is_last:
            pieces.append(writer.closing(usage_of(self.meters), timings))
        body = b"".join(pieces)
        if body:
            await self.exchange.body(body, more=not is_last)

    def _openings(self) -> list[bytes]:
        writer = self.prepared.writer
        return [
            writer.opening(job, number * len(job.request.choices) + choice.index)
            for number, job in enumerate(self.prepared.jobs)
            for choice in job.request.choices
        ]
