"""This file is about what the pretend engine answers: a function of every number in its pools."""

from collections.abc import Iterable
from hashlib import blake2b

from epidote_core.generation import GenerateRequest, MediaPixels

LAYERS = 4
VOCAB = 251
MODULUS = 65521  # sums of these stay exact in float32 and int64


def token_value(token: int, position: int, layer: int) -> int:
    return (token * 31337 + position * 7919 + layer * 10473) % MODULUS


def token_sum(token: int, position: int) -> int:
    """Over all layers."""
    return sum(token_value(token, position, layer) for layer in range(LAYERS))


def row_value(pixels_sum: int, key: str, row: int) -> int:
    digest = int.from_bytes(blake2b(key.encode(), digest_size=4).digest())
    return (digest + pixels_sum * 17 + row * 131) % MODULUS


def next_token(total: int, request: GenerateRequest, choice: int, position: int) -> int:
    """The token at output `position`, given the sum of all KV before it."""
    sampling = request.sampling
    dice = 0 if sampling.is_greedy else sampling.seed * 97 + choice * 13 + 1
    return (total * 2654435761 + dice + position) % VOCAB


def answer(
    request: GenerateRequest, media: Iterable[MediaPixels] = (), *, choice: int = 0
) -> list[int]:
    """All tokens of one choice, computed without any engine."""
    inputs = list(request.prompt_token_ids)
    by_key = {pixels.key: pixels for pixels in media}
    for span in request.media:
        row = 0
        for offset, count in span.token_runs:
            for at in range(offset, offset + count):
                inputs[at] = row_value(sum(by_key[span.key].data), span.key, row)
                row += 1
    total = sum(token_sum(token, at) for at, token in enumerate(inputs))
    tokens: list[int] = []
    for position in range(request.sampling.max_tokens):
        tokens.append(next_token(total, request, choice, position))
        at = len(inputs) + position
        total += token_sum(tokens[-1], at)
    return tokens
