"""This file is about which requests an engine can serve at all; everything else is refused here."""

from dataclasses import dataclass

from epidote_core.errors import InvalidRequest
from epidote_core.generation import GenerateRequest
from epidote_engine.sequence import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What bounds a request. `max_len` counts prompt and output, and fits into the KV pool."""

    max_len: int
    vocab: int
    num_media_rows: int


def check_request(request: GenerateRequest, mode: Mode, capacity: Capacity) -> None:
    """Refuse what could never be finished.

    Raises:
        InvalidRequest: naming the field; a request that passes fits into an empty engine.
    """
    prompt = request.prompt_token_ids
    if not prompt:
        raise InvalidRequest("prompt: is empty", "prompt")
    if len(prompt) >= capacity.max_len:
        raise InvalidRequest(
            f"prompt: has {len(prompt)} tokens; prompt and answer together may have "
            f"{capacity.max_len}",
            "prompt",
        )
    if not request.choices:
        raise InvalidRequest("choices: is empty", "choices")
    for tokens in (prompt, *(choice.emitted_token_ids for choice in request.choices)):
        if tokens and (min(tokens) < 0 or max(tokens) >= capacity.vocab):
            raise InvalidRequest(f"prompt: token ids must be in [0, {capacity.vocab})", "prompt")
    sampling = request.sampling
    banned = {token for token in sampling.stop_token_ids if 0 <= token < capacity.vocab}
    if sampling.min_tokens and len(banned) == capacity.vocab:
        raise InvalidRequest(
            f"min_tokens: must be 0 where stop_token_ids holds all {capacity.vocab} tokens of the "
            f"vocabulary, got {sampling.min_tokens}: none would be left to choose",
            "min_tokens",
        )
    for span in request.media:
        if span.offset < 0 or span.end > len(prompt):
            raise InvalidRequest("media: placeholders lie outside of the prompt", "media")
    if request.media:
        _check_media(request, mode, capacity)


def _check_media(request: GenerateRequest, mode: Mode, capacity: Capacity) -> None:
    if not capacity.num_media_rows:
        raise InvalidRequest("media: this model has no vision", "media")
    rows = sum({span.key: span.num_tokens for span in request.media}.values())
    if mode is not Mode.DECODE and rows > capacity.num_media_rows:
        raise InvalidRequest(
            f"media: {rows} embeddings, the encoder cache has {capacity.num_media_rows}", "media"
        )
    ends_in_media = any(span.end == len(request.prompt_token_ids) for span in request.media)
    if mode is Mode.DECODE and ends_in_media and len(request.choices) > 1:
        # further choices compute the prompt's last token, whose embedding is not here
        raise InvalidRequest("choices: only one for a prompt that ends in a medium", "n")
