"""This file is about driving engines in one process, for tests and benches: to the end, or with
prefill on one and decode on another."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from epidote_core.errors import EpidoteError
from epidote_core.generation import (
    FinishReason,
    GenerateRequest,
    MediaPixels,
    StageTiming,
    TokenChunk,
    TokenLogprob,
)
from epidote_engine.engine import Engine
from epidote_engine.events import Event, KvReady, KvReserved, PrefillDone, RequestFailed, TokensOut
from epidote_engine.sequence import Mode


@dataclass(slots=True)
class Answer:
    """One choice's joined chunks."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    num_cached_tokens: int = 0
    timings: tuple[StageTiming, ...] = ()

    def add(self, chunk: TokenChunk) -> None:
        assert self.finish_reason is None, "nothing follows a choice's last chunk"
        self.token_ids += chunk.token_ids
        self.text += chunk.text
        self.logprobs += chunk.logprobs
        self.finish_reason = chunk.finish_reason
        self.stop_reason = chunk.stop_reason
        self.num_cached_tokens = max(self.num_cached_tokens, chunk.num_cached_tokens)
        self.timings = chunk.timings


Answers = dict[tuple[str, int], Answer]  # by request and choice index


def collect(answers: Answers, events: Iterable[Event]) -> None:
    """Add what `events` bring.

    Raises:
        EpidoteError: a request failed.
    """
    for event in events:
        if isinstance(event, RequestFailed):
            raise EpidoteError(f"{event.request_id}: {event.message}")
        if isinstance(event, TokensOut):
            for chunk in event.chunks:
                answers.setdefault((event.request_id, chunk.index), Answer()).add(chunk)


def serve(
    engine: Engine, requests: Iterable[GenerateRequest], media: Iterable[MediaPixels] = ()
) -> Answers:
    """Add all, step until nothing is left."""
    for request in requests:
        engine.add(request)
    for pixels in media:
        engine.submit_media(pixels)
    answers: Answers = {}
    while engine.has_work():
        collect(answers, engine.step())
    return answers


def serve_apart(prefill: Engine, decode: Engine, requests: Iterable[GenerateRequest]) -> Answers:
    """Prefill on one engine, decode on the other, all requests at once; KV is copied layer by layer
    as spans become ready, into reservations that may come late. Media must be in `prefill`."""
    by_id = {request.request_id: request for request in requests}
    reserved: dict[str, KvReserved] = {}
    answers: Answers = {}

    def copy(spans: list[KvReady]) -> None:
        for span in spans:
            copy_span(prefill, span, decode, reserved[span.request_id])

    prefill.on_layer = copy
    for request in by_id.values():
        decode.add(request, mode=Mode.DECODE)
    while prefill.has_work() or decode.has_work():
        events = decode.step()
        for event in events:
            if isinstance(event, KvReserved):
                reserved[event.request_id] = event
                prefill.add(by_id[event.request_id], mode=Mode.PREFILL)
        collect(answers, events)
        for event in prefill.step():
            if isinstance(event, PrefillDone):
                decode.commit_kv(event.request_id, event.first)
                prefill.release_kv(event.request_id)
            collect(answers, [event])
    return answers


def copy_span(source: Engine, span: KvReady, target: Engine, reserved: KvReserved) -> None:
    """The part of a span that the target does not have yet."""
    size = target.kv_pool.block_size
    kv, into = source.kv_pool.tensor, target.kv_pool.tensor
    if kv.itemsize == 1:  # torch cannot index e4m3 numbers
        kv, into = kv.view(torch.int8), into.view(torch.int8)
    layers = slice(span.first_layer, span.end_layer)
    for token in range(max(span.start_token, reserved.num_cached_tokens), span.end_token):
        block, offset = divmod(token, size)
        into[layers, :, reserved.block_ids[block], offset] = kv[
            layers, :, span.block_ids[block], offset
        ]
