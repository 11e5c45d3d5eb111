"""This file is about what both kinds of answer have in common on the wire.

A streamed event is put together from prepared bytes: only the text of a token is encoded for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from epidote_core.generation import FinishReason, TokenChunk, TokenLogprob
from epidote_gateway.answers import Job
from epidote_gateway.api_errors import ApiError
from epidote_gateway.logprobs import TokenTexts
from epidote_gateway.responses import Usage

encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """The fields around the choices, and what the client asked to be told."""

    id: str
    created: int  # unix time, seconds
    model: str
    include_usage: bool = False
    return_token_ids: bool = False


@dataclass(kw_only=True)
class Collected:
    """A whole choice, as its chunks came in."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason = FinishReason.ABORT
    stop_reason: str | int | None = None

    def add(self, chunk: TokenChunk) -> None:
        self.texts.append(chunk.text)
        self.token_ids += chunk.token_ids
        self.logprobs += chunk.logprobs
        if chunk.finish_reason is not None:
            self.finish_reason = chunk.finish_reason
            self.stop_reason = chunk.stop_reason


class Writer(ABC):
    """Turns chunks into events, or collected choices into one body."""

    event_object: str

    def __init__(self, envelope: Envelope, texts: TokenTexts) -> None:
        self.envelope = envelope
        self._texts = texts
        head = encode(
            {
                "id": envelope.id,
                "object": self.event_object,
                "created": envelope.created,
                "model": envelope.model,
            }
        )
        self._head = b"data: " + head[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if envelope.include_usage else b"]}\n\n"

    def _event(self, choice: bytes, **more: Any) -> bytes:
        """One event; `more` are further top-level fields."""
        if not more:
            return self._head + choice + self._tail
        fields = b"".join(b"," + encode(name) + b":" + encode(more[name]) for name in more)
        if self.envelope.include_usage and "usage" not in more:
            fields = b',"usage":null' + fields
        return self._head + choice + b"]" + fields + b"}\n\n"

    @abstractmethod
    def opening(self, job: Job, index: int) -> bytes:
        """The event before a choice's first token; empty if there is none."""

    @abstractmethod
    def event(self, chunk: TokenChunk, index: int, **more: Any) -> bytes:
        """One chunk as an event; empty if it has nothing to show."""

    @abstractmethod
    def whole(
        self,
        jobs: Sequence[Job],
        choices: Sequence[Sequence[Collected]],
        usage: Usage,
        timings: dict[str, Any] | None,
    ) -> bytes:
        """The complete body; `choices[i]` answer `jobs[i]`."""

    def closing(self, usage: Usage, timings: dict[str, Any] | None) -> bytes:
        """After the last chunk: usage if asked for, [DONE]."""
        if not self.envelope.include_usage:
            return DONE
        more = {"epidote": timings} if timings else {}
        return self._event(b"", usage=usage, **more) + DONE


def finish_fields(chunk: TokenChunk) -> bytes:
    """`finish_reason` and, at the end, vLLM's `stop_reason`."""
    if chunk.finish_reason is None:
        return b',"finish_reason":null'
    return (b',"finish_reason":' + encode(chunk.finish_reason) + b',"stop_reason":') + encode(
        chunk.stop_reason
    )


def error_events(error: ApiError) -> bytes:
    """How a stream that has begun ends badly: clients of OpenAI raise on an `error` field."""
    return b"data: " + error.body() + b"\n\n" + DONE
