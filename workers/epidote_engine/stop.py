"""This file is about when a choice ends, and which of its text may be shown.

Text that could be the beginning of a stop string is held back until it is clear.
"""

from collections.abc import Collection
from typing import NamedTuple

from epidote_core.generation import FinishReason
from epidote_core.sampling import SamplingParams
from epidote_engine.detokenizer import TextStream


class Verdict(NamedTuple):
    """What one token leads to: text to show now, and whether the choice ends with it."""

    text: str
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None


class OutputText:
    """One choice's output: feed it every output token in order.

    `max_outputs` is where length ends it: max_tokens, or less where the context ends.
    Stop strings and stop ids count from output token `min_tokens` on. A stop id's own text is
    shown only with `include_stop_str_in_output`; an end-of-sequence token's never.
    """

    __slots__ = ("_eos", "_held", "_max_outputs", "_num_outputs", "_sampling", "_stream")

    def __init__(
        self,
        sampling: SamplingParams,
        stream: TextStream | None,
        *,
        eos_token_ids: Collection[int],
        max_outputs: int,
    ) -> None:
        self._sampling = sampling
        self._stream = stream  # None: no tokenizer, hence no text
        self._eos = () if sampling.ignore_eos else eos_token_ids
        self._max_outputs = max_outputs
        self._num_outputs = 0
        self._held = ""

    def push(self, token_id: int) -> Verdict:
        """Take the next output token."""
        sampling = self._sampling
        self._num_outputs += 1
        may_stop = self._num_outputs >= sampling.min_tokens
        if may_stop and token_id in self._eos:
            return self._end(FinishReason.STOP)
        if may_stop and token_id in sampling.stop_token_ids:
            shown = self._push_text(token_id) if sampling.include_stop_str_in_output else ""
            return self._end(FinishReason.STOP, token_id, shown)
        text = self._held + self._push_text(token_id)
        if sampling.stop:
            if may_stop and (hit := first_stop(text, sampling.stop)) is not None:
                start, stop = hit
                end = start + len(stop) if sampling.include_stop_str_in_output else start
                return Verdict(text[:end], FinishReason.STOP, stop)
            keep = longest_beginning(text, sampling.stop)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        if self._num_outputs >= self._max_outputs:
            return self._end(FinishReason.LENGTH, shown=text)
        return Verdict(text)

    def _push_text(self, token_id: int) -> str:
        return self._stream.push(token_id) if self._stream is not None else ""

    def _end(
        self, reason: FinishReason, stop_reason: int | None = None, shown: str = ""
    ) -> Verdict:
        rest = self._stream.finish() if self._stream is not None else ""
        if reason is FinishReason.LENGTH:
            text = shown + self._held + rest
        else:
            text = self._held + shown + rest
        self._held = ""
        return Verdict(text, reason, stop_reason)


def first_stop(text: str, stops: Collection[str]) -> tuple[int, str] | None:
    """(start, stop string) of the match that begins first; of several there, the longest.

    >>> first_stop("say END now", ("now", "END"))
    (4, 'END')
    """
    found = [(at, -len(stop), stop) for stop in stops if (at := text.find(stop)) >= 0]
    if not found:
        return None
    start, _length, stop = min(found)
    return start, stop


def longest_beginning(text: str, stops: Collection[str]) -> int:
    """Length of the longest end of `text` that is the beginning, not the whole, of a stop string.

    >>> longest_beginning("so the en", ("end", "other"))
    2
    """
    longest = 0
    for stop in stops:
        for length in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:length]):
                longest = length
                break
    return longest
