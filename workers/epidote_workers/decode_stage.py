"""This file is about a request's stream: its decoder asks prefill, copies KV, decodes, answers."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from epidote_core.errors import Overloaded
from epidote_core.generation import GenerateRequest, StageTiming, TokenChunk
from epidote_core.roles import Stage
from epidote_engine.events import FirstToken, KvReserved, RequestFailed, TokensOut
from epidote_engine.sequence import Mode
from epidote_workers.inbox import Inbox, Item
from epidote_workers.intake import Intake
from epidote_workers.kv_agreement import check_codes
from epidote_workers.kv_spans import KvProgress
from epidote_workers.media_fetch import MediaFetcher, Timings
from epidote_workers.messages import PREFILL, GenerateCall, PrefillCall, PrefillItem, PrefillResult
from epidote_workers.parts import Parts
from epidote_workers.peer_errors import PEER_ERRORS, lost
from epidote_workers.peers import PeerWorker
from epidote_workers.request_failures import failure
from epidote_workers.rpc.client import ClientStream
from epidote_workers.stage_gate import Visit

STALL_S = 300.0  # without any token; the gateway gives up sooner, this is against leaks


@dataclass(frozen=True)
class Prepared:
    """What other workers did for the first token."""

    timings: Timings = ()
    num_cached_tokens: int = 0
    ended: tuple[TokenChunk, ...] = ()  # choices whose emitted tokens were all there is


class DecodeStage:
    """Client streams of this worker."""

    def __init__(self, parts: Parts, fetcher: MediaFetcher) -> None:
        self._parts, self._fetcher = parts, fetcher

    async def generate(self, call: GenerateCall) -> AsyncGenerator[list[TokenChunk], None]:
        """Every chunk that waits, until each choice has its `finish_reason`.

        Raises:
            WorkerLost: naming the stage that broke, refused, or moved its work away.
            Overloaded, InvalidRequest, ComputeFailed: as the stages say.
        """
        is_local = call.route.prefill == self._parts.worker_id
        if is_local:
            self._parts.gate.check(Stage.PREFILL)
        with self._parts.gate.admit(Stage.DECODE) as visit:
            request = self._parts.own(call.request)
            inbox = self._parts.inboxes.open(request.request_id)
            intake = Intake(self._parts, self._fetcher, request, inbox)
            try:
                mode = Mode.GENERATE if is_local else Mode.DECODE
                intake.begin(mode, dict(call.route.encode), call.addresses)
                prepared = Prepared()
                if not is_local:
                    async with visit.movable():
                        prepared = await self._prepare(request, call, inbox)
                    if prepared.ended:
                        yield list(prepared.ended)
                is_first = is_local
                unfinished = len(request.choices) - len(prepared.ended)
                async with aclosing(self._tokens(unfinished, inbox, visit)) as tokens:
                    async for chunks in tokens:
                        if is_first:
                            prepared, is_first = Prepared(intake.prefilled()), False
                        yield [_complete(chunk, prepared) for chunk in chunks]
            finally:
                intake.close()
                self._parts.inboxes.close(request.request_id)
                self._parts.engine.post(lambda engine: engine.abort(request.request_id))

    async def _tokens(
        self, unfinished: int, inbox: Inbox, visit: Visit
    ) -> AsyncGenerator[list[TokenChunk], None]:
        with visit.when_moved(lambda: inbox.fail(visit.moved_error)):
            while unfinished:
                chunks = [
                    chunk for item in await inbox.take(STALL_S) for chunk in self._chunks(item)
                ]
                unfinished -= sum(chunk.finish_reason is not None for chunk in chunks)
                if chunks:
                    yield chunks

    async def _prepare(
        self, request: GenerateRequest, call: GenerateCall, inbox: Inbox
    ) -> Prepared:
        """Have the prompt's KV computed elsewhere and copy it here; then decoding begins."""
        ended, reserved = await self._reserved(len(request.choices), inbox)
        if reserved is None:
            return Prepared(ended=ended)
        gone = {chunk.index for chunk in ended}
        first_choice = next(choice for choice in request.choices if choice.index not in gone)
        num_tokens = len(request.prompt_token_ids) + len(first_choice.emitted_token_ids)
        worker_id, had_work = call.route.prefill, False
        try:
            peer = await self._parts.peers.get(worker_id, call.addresses.get(worker_id))
            wanted = PrefillCall(
                request=call.request, encode=call.route.encode, addresses=call.addresses
            )
            stream = peer.connection.stream(PREFILL, wanted)
            had_work = True
            try:
                result, moved = await self._pull(num_tokens, reserved, peer, stream)
                first = FirstToken(token_id=result.token_id, logprob=result.logprob)
                await self._parts.engine.call(
                    lambda engine: engine.commit_kv(request.request_id, first)
                )
            finally:
                stream.close()  # the prefill worker may have its blocks back
        except PEER_ERRORS as error:
            raise lost(worker_id, error, had_work=had_work) from error
        cached = max(result.num_cached_tokens, reserved.num_cached_tokens)
        return Prepared((*result.timings, moved), cached, ended)

    async def _reserved(
        self, num_choices: int, inbox: Inbox
    ) -> tuple[tuple[TokenChunk, ...], KvReserved | None]:
        """Wait for room: this is the back-pressure on prefill.

        Last chunks of choices that had ended before come first; None if that is all of them.
        """
        ended: list[TokenChunk] = []
        while len(ended) < num_choices:
            try:
                items = await inbox.take(self._parts.settings.reserve_timeout_s)
            except TimeoutError as error:
                raise Overloaded("no free KV blocks here", retry_after_s=1.0) from error
            for item in items:
                if isinstance(item, KvReserved):
                    return tuple(ended), item
                ended.extend(self._chunks(item))
        return tuple(ended), None

    async def _pull(
        self,
        num_tokens: int,
        reserved: KvReserved,
        peer: PeerWorker,
        stream: ClientStream[PrefillItem],
    ) -> tuple[PrefillResult, StageTiming]:
        """Copy spans as they become ready; returns when all KV is here, lent to the end.

        Raises:
            ConnectionLost, WorkerLost, TimeoutError: the loan ended before the copy did.
        """
        kv = self._parts.kv
        progress = KvProgress(
            num_layers=kv.layout.num_layers,
            block_size=kv.layout.block_size,
            num_tokens=num_tokens,
            num_here=reserved.num_cached_tokens,
        )
        await check_codes(peer, self._parts)
        pools = [(into, await peer.pool(into)) for into in self._parts.kv_of_ranks]
        loop = asyncio.get_running_loop()
        num_bytes, busy_s = 0, 0.0
        result: PrefillResult | None = None
        while result is None:
            items = await stream.take(STALL_S)
            if not items:
                raise TimeoutError("prefill ended without a result")
            for item in items:
                for span in item.spans:
                    progress.note(span)
                result = item.result or result
            if result is not None:
                progress.all_ready()
            start_s = loop.time()
            for piece in progress.take():
                source = progress.source_blocks[piece.first_block : piece.end_block]
                target = reserved.block_ids[piece.first_block : piece.end_block]
                for into, pool in pools:
                    num_bytes += await pool.read(source, into, target, piece.layers)
            busy_s += loop.time() - start_s
        # A loan that has ended meanwhile (this process stood still past the peer's patience) may
        # have been copied from blocks that were somebody else's by then: nobody shall find those.
        await stream.confirm_open(self._parts.settings.call_timeout_s)
        moved = StageTiming(
            stage="transfer",
            worker_id=self._parts.worker_id,
            busy_s=busy_s,
            num_tokens=num_tokens - reserved.num_cached_tokens,
            num_bytes=num_bytes,
        )
        return result, moved

    def _chunks(self, item: Item) -> Sequence[TokenChunk]:
        match item:
            case TokensOut():
                return item.chunks
            case RequestFailed():
                raise failure(item, self._parts.worker_id)
            case _:
                return ()


def _complete(chunk: TokenChunk, prepared: Prepared) -> TokenChunk:
    """Add what other workers did to a choice's last chunk."""
    if chunk.finish_reason is None:
        return chunk
    return replace(
        chunk,
        num_cached_tokens=max(chunk.num_cached_tokens, prepared.num_cached_tokens),
        timings=(*prepared.timings, *chunk.timings),
    )
