"""This file is about an answer as bytes: the chunks that a client saw, without who computed them.

Chunks keep their boundaries, so a hit streams as its original did; streamed and whole answers are
made from the same chunks and serve each other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from epidote_core.generation import FinishReason, TokenChunk, TokenLogprob

_VERSION = 1
_ENCODER = msgspec.msgpack.Encoder()


class _Row(msgspec.Struct, array_like=True, kw_only=True):
    """A chunk without field names: an eighth of the bytes."""

    index: int
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason | None
    stop_reason: str | int | None
    logprobs: tuple[tuple[int, float, tuple[tuple[int, float], ...]], ...]


_DECODER = msgspec.msgpack.Decoder(tuple[int, tuple[_Row, ...]])


def without_traces(chunk: TokenChunk) -> TokenChunk:
    """For a client that no worker worked for: no stage timings, no cached prompt tokens."""
    if not chunk.timings and not chunk.num_cached_tokens:
        return chunk
    return replace(chunk, timings=(), num_cached_tokens=0)


def encode_answer(chunks: Iterable[TokenChunk]) -> bytes:
    """Timings and cached prompt tokens are left out, as `without_traces` does."""
    rows = [
        _Row(
            index=chunk.index,
            token_ids=chunk.token_ids,
            text=chunk.text,
            finish_reason=chunk.finish_reason,
            stop_reason=chunk.stop_reason,
            logprobs=tuple((item.token_id, item.logprob, item.top) for item in chunk.logprobs),
        )
        for chunk in chunks
    ]
    return _ENCODER.encode((_VERSION, rows))


def decode_answer(body: bytes) -> tuple[TokenChunk, ...]:
    """Raises ValueError if `body` is no whole answer, or of another version."""
    try:
        version, rows = _DECODER.decode(body)
    except msgspec.MsgspecError as error:
        raise ValueError(f"no answer: {error}") from error
    if version != _VERSION:
        raise ValueError(f"no answer: version {version}")
    chunks = tuple(_chunk(row) for row in rows)
    if not is_whole(chunks):
        raise ValueError("not every choice is finished")
    return chunks


def _chunk(row: _Row) -> TokenChunk:
    return TokenChunk(
        index=row.index,
        token_ids=row.token_ids,
        text=row.text,
        logprobs=tuple(
            TokenLogprob(token_id=token, logprob=logprob, top=top)
            for token, logprob, top in row.logprobs
        ),
        finish_reason=row.finish_reason,
        stop_reason=row.stop_reason,
    )


def is_whole(chunks: Sequence[TokenChunk]) -> bool:
    """Whether every choice that began has its end."""
    begun = {chunk.index for chunk in chunks}
    return bool(begun) and begun == {c.index for c in chunks if c.finish_reason is not None}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What an answer amounts to. `text` is that of choice 0: what a follow-up would quote."""

    text: str
    num_tokens: int  # of the longest choice
    total_tokens: int
    is_normal: bool  # every choice ended by itself or by its token limit
    is_truncated: bool  # some choice by its limit


def measure(chunks: Sequence[TokenChunk], num_choices: int) -> Measured:
    """Sums over a whole answer."""
    lengths: dict[int, int] = {}
    for chunk in chunks:
        lengths[chunk.index] = lengths.get(chunk.index, 0) + len(chunk.token_ids)
    reasons = [chunk.finish_reason for chunk in chunks if chunk.finish_reason is not None]
    first = min(lengths, default=0)
    return Measured(
        text="".join(chunk.text for chunk in chunks if chunk.index == first),
        num_tokens=max(lengths.values(), default=0),
        total_tokens=sum(lengths.values()),
        is_normal=len(reasons) == num_choices == len(lengths)
        and all(reason in (FinishReason.STOP, FinishReason.LENGTH) for reason in reasons),
        is_truncated=FinishReason.LENGTH in reasons,
    )
