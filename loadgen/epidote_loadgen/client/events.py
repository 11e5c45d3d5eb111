"""This file is about reading a completion's event stream, in whatever pieces it arrives.

Server-sent events as the HTML standard has them (section 9.2), with OpenAI's chunks as data.
"""

from typing import Annotated, Any

import msgspec

from epidote_loadgen.bounds import MOST_TOKENS

MAX_EVENT_BYTES = 8 << 20  # a stream that never ends an event is not an event stream


class BadEvents(ValueError):
    """The bytes are no event stream of this API; the message says how, and quotes nothing."""


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None  # of /v1/completions
    finish_reason: str | None = None


# A count that can't be is no count: a negative one would make any pace look good.
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]


class _PromptDetails(msgspec.Struct):
    cached_tokens: _Tokens | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Tokens | None = None
    completion_tokens: _Tokens | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class EventStream:
    """What one reply has said so far. `text` is kept only where somebody wants it."""

    __slots__ = (
        "_has_return",
        "_keep_text",
        "_num_bytes",
        "_pieces",
        "cached_tokens",
        "done",
        "failed",
        "finished",
        "output_tokens",
        "prompt_tokens",
        "text",
    )

    def __init__(self, *, keep_text: bool = False) -> None:
        self._pieces: list[bytes] = []  # of an event that has not ended yet
        self._num_bytes = 0  # in them
        self._has_return = False  # the last read ended with one
        self._keep_text = keep_text
        self.text: list[str] = []
        self.done = False  # [DONE] came
        self.finished = False  # a choice had a finish reason
        self.failed = False  # an error event came
        self.prompt_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.output_tokens: int | None = None

    def feed(self, data: bytes) -> int:
        """The number of events with content in it.

        Raises:
            BadEvents
        """
        if self._has_return or b"\r" in data:
            data = self._without_returns(data)
        if self._pieces:
            is_end = data.startswith(b"\n") and self._pieces[-1].endswith(b"\n")
            if not is_end and b"\n\n" not in data:
                self._keep(data)  # joined once, at the end: a long event costs no more than it is
                return 0
            data = b"".join([*self._pieces, data])
            self._pieces.clear()
            self._num_bytes = 0
        *events, rest = data.split(b"\n\n")
        self._keep(rest)
        return sum([self._event(event) for event in events])

    def _keep(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self._num_bytes += len(data)
        if self._num_bytes > MAX_EVENT_BYTES:
            self._pieces.clear()
            raise BadEvents(f"an event of over {MAX_EVENT_BYTES >> 20} MiB")

    def _without_returns(self, data: bytes) -> bytes:
        """A pair may be torn between two reads: a return is held back until its neighbour comes."""
        if self._has_return:
            data = b"\r" + data
        self._has_return = data.endswith(b"\r")
        if self._has_return:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n")

    def _event(self, event: bytes) -> bool:
        """Take in one event; whether it has content."""
        data = event[6:] if event.startswith(b"data: ") and b"\n" not in event else _data(event)
        if not data:
            return False  # a comment, a keep-alive
        if data == b"[DONE]":
            self.done = True
            return False
        try:
            value = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BadEvents("an event whose data is no completion chunk") from None
        self.failed = self.failed or value.error is not None
        if value.usage is not None:
            self._count(value.usage)
        content = False
        for choice in value.choices:
            self.finished = self.finished or choice.finish_reason is not None
            text = choice.text
            if choice.delta is not None:
                delta = choice.delta
                text = text or delta.content
                content = bool(
                    content or delta.reasoning_content or delta.reasoning or delta.tool_calls
                )
            if text:
                content = True
                if self._keep_text:
                    self.text.append(text)
        return content

    def _count(self, usage: _Usage) -> None:
        self.prompt_tokens = usage.prompt_tokens
        self.output_tokens = usage.completion_tokens
        if usage.prompt_tokens_details is not None:
            self.cached_tokens = usage.prompt_tokens_details.cached_tokens


def _data(event: bytes) -> bytes:
    """An event's data: its data lines, joined; its other fields say nothing to us.

    Raises:
        BadEvents: a line that is no field of the standard (which would skip it): not SSE at all.
    """
    lines = []
    for line in event.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
        elif name not in (b"", b"event", b"id", b"retry"):
            raise BadEvents("a line that is no field of an event")
    return b"\n".join(lines)
