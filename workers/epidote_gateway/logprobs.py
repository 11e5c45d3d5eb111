"""This file is about log-probabilities in OpenAI's two shapes, from token ids and numbers."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from epidote_core.generation import TokenLogprob
from epidote_gateway.backend import PromptRenderer
from epidote_gateway.responses import ChatLogprobs, ContentLogprob, TextLogprobs, TopLogprob

LOWEST = -9999.0  # JSON has no infinity; OpenAI's own stand-in for "never"


class TokenTexts:
    """What single tokens look like. A token that is a part of a character shows U+FFFD."""

    def __init__(self, renderer: PromptRenderer) -> None:
        self.bytes_of = lru_cache(maxsize=65536)(renderer.token_bytes)

    def text_of(self, token_id: int) -> str:
        return self.bytes_of(token_id).decode(errors="replace")


def _finite(logprob: float) -> float:
    return logprob if logprob > LOWEST else LOWEST  # NaN too


def chat_logprobs(logprobs: Sequence[TokenLogprob], texts: TokenTexts) -> ChatLogprobs:
    """One entry per token, alternatives best first."""
    return ChatLogprobs(
        content=[
            ContentLogprob(
                token=texts.text_of(item.token_id),
                logprob=_finite(item.logprob),
                bytes=list(texts.bytes_of(item.token_id)),
                top_logprobs=[
                    TopLogprob(
                        token=texts.text_of(token_id),
                        logprob=_finite(logprob),
                        bytes=list(texts.bytes_of(token_id)),
                    )
                    for token_id, logprob in item.top
                ],
            )
            for item in logprobs
        ]
    )


def text_logprobs(
    logprobs: Iterable[TokenLogprob], texts: TokenTexts, *, offset: int
) -> tuple[TextLogprobs, int]:
    """(arrays for these tokens, offset behind them). Offsets count characters of token texts."""
    found = TextLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    for item in logprobs:
        token = texts.text_of(item.token_id)
        found.tokens.append(token)
        found.token_logprobs.append(_finite(item.logprob))
        found.top_logprobs.append({texts.text_of(t): _finite(p) for t, p in item.top})
        found.text_offset.append(offset)
        offset += len(token)
    return found, offset
