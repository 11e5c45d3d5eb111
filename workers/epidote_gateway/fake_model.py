"""This file is about a pretend model: a renderer whose tokens are bytes, and what it answers.

Its next token is a function of (prompt and tokens so far, seed, choice): what any exact engine
guarantees, hence a resumed request must give the same text.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from PIL import Image

from epidote_core.errors import InvalidRequest
from epidote_core.generation import (
    FinishReason,
    GenerateRequest,
    MediaKind,
    MediaPixels,
    MediaSpan,
    Route,
    StageTiming,
    TokenChunk,
    TokenLogprob,
)
from epidote_core.roles import Stage

IMAGE_TOKEN = 256
BOS, EOS = 257, 258
VOCAB_SIZE = 259
PATCH_PX = 16
ALPHABET = "etaoin shrdlu\nüß→漢"  # one to three bytes each: chunks split characters


@dataclass(frozen=True, kw_only=True)
class FakePrompt:
    token_ids: tuple[int, ...]
    media: tuple[MediaSpan, ...] = ()


class FakeRenderer:
    """Bytes as tokens; an image is one placeholder per 16 x 16 pixels."""

    def __init__(self, *, model_name: str = "fake-vl", max_model_len: int = 4096) -> None:
        self.model_name = model_name
        self.max_model_len = max_model_len
        self.vocab_size = VOCAB_SIZE
        self.eos_token_ids: Sequence[int] = (EOS,)
        self.supports_images = True

    def render_chat(
        self,
        messages: list[dict[str, Any]],
        *,
        media: Sequence[MediaPixels],
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **template_kwargs: Any,
    ) -> FakePrompt:
        ids: list[int] = [BOS]
        spans: list[MediaSpan] = []
        for message in messages:
            ids += f"{message['role']}: ".encode()
            content = message["content"] or ""
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for part in parts:
                if part["type"] == "text":
                    ids += part["text"].encode()
                    continue
                pixels = media[len(spans)]
                spans.append(
                    MediaSpan(
                        key=pixels.key,
                        kind=pixels.kind,
                        offset=len(ids),
                        num_tokens=pixels.num_tokens,
                        grid_thw=pixels.grid_thw,
                    )
                )
                ids += [IMAGE_TOKEN] * pixels.num_tokens
            ids += b"\n"
        if add_generation_prompt:
            ids += b"assistant: "
        return FakePrompt(token_ids=tuple(ids), media=tuple(spans))

    def render_text(self, prompt: str | list[int]) -> FakePrompt:
        if isinstance(prompt, str):
            return FakePrompt(token_ids=(BOS, *prompt.encode()))
        return FakePrompt(token_ids=tuple(prompt))

    def prepare_image(self, image: Image.Image, content_key: str) -> MediaPixels:
        width, height = image.size
        if max(width, height) > 200 * min(width, height):
            raise InvalidRequest(f"aspect ratio must be at most 200, got {width} x {height}")
        columns, rows = max(1, width // PATCH_PX), max(1, height // PATCH_PX)
        data = image.resize((columns * PATCH_PX, rows * PATCH_PX)).tobytes()
        return MediaPixels(
            key=blake2b(content_key.encode(), digest_size=16).hexdigest(),
            kind=MediaKind.IMAGE,
            num_frames=1,
            height=rows * PATCH_PX,
            width=columns * PATCH_PX,
            grid_thw=(1, rows, columns),
            num_tokens=rows * columns,
            data=data,
        )

    def tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [BOS] * add_special_tokens + list(text.encode())

    def detokenize(self, ids: Sequence[int]) -> str:
        return b"".join(self.token_bytes(id) for id in ids).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""


def displayable(data: bytes, stop: Iterable[str]) -> tuple[str, str | None]:
    """(what may be shown of these bytes, the stop string that ended it if any)."""
    text = data.decode(errors="ignore")  # cuts a split character, the only possible error
    found = min(((text.find(s), s) for s in stop if s in text), default=None)
    if found:
        return text[: found[0]], found[1]
    held = max(
        (n for s in stop for n in range(1, len(s)) if text.endswith(s[:n])),
        default=0,
    )
    return text[: len(text) - held], None


def fake_tokens(request: GenerateRequest, choice: int) -> list[int]:
    """The whole answer: what one choice says if nothing stops it before `max_tokens`."""
    sampling = request.sampling
    seed = 0 if sampling.is_greedy else sampling.seed + 1 + choice
    digest = blake2b(f"{seed}".encode(), digest_size=16)
    digest.update(",".join(map(str, request.prompt_token_ids)).encode())
    for span in request.media:
        digest.update(span.key.encode())
    stem, data, block = digest.digest(), bytearray(), 0
    while len(data) < sampling.max_tokens:
        picks = blake2b(stem + block.to_bytes(4), digest_size=64).digest()
        data += "".join(ALPHABET[pick % len(ALPHABET)] for pick in picks).encode()
        block += 1
    return list(data[: sampling.max_tokens])


def interleave(request: GenerateRequest, route: Route, size: int) -> Iterator[TokenChunk]:
    """The chunks of all choices, one of each in turn."""
    alive = [_choice_chunks(request, route, index, size) for index in range(len(request.choices))]
    while alive:
        for chunks in list(alive):
            chunk = next(chunks, None)
            if chunk is None:
                alive.remove(chunks)
            else:
                yield chunk


def _choice_chunks(
    request: GenerateRequest, route: Route, number: int, size: int
) -> Iterator[TokenChunk]:
    sampling, choice = request.sampling, request.choices[number]
    tokens = fake_tokens(request, choice.index)
    position = len(choice.emitted_token_ids)
    assert tuple(tokens[:position]) == choice.emitted_token_ids, "resumed with other tokens"
    shown = len(displayable(bytes(tokens[:position]), sampling.stop)[0])
    while position < len(tokens):
        before, position = position, min(position + size, len(tokens))
        if sampling.stop:
            for end in range(before + 1, position + 1):  # never past the stopping token
                if displayable(bytes(tokens[:end]), sampling.stop)[1] is not None:
                    position = end
                    break
        text, stopped_by = displayable(bytes(tokens[:position]), sampling.stop)
        finish = None
        if stopped_by is not None:
            finish = FinishReason.STOP
        elif position == len(tokens):
            finish = FinishReason.LENGTH
            text = bytes(tokens).decode(errors="replace")
        yield TokenChunk(
            index=choice.index,
            token_ids=tuple(tokens[before:position]),
            text=text[shown:],
            logprobs=_logprobs(tokens[before:position], sampling.logprobs),
            finish_reason=finish,
            stop_reason=stopped_by,
            timings=_timings(route, request) if finish else (),
        )
        shown = len(text)
        if finish:
            return


def _logprobs(tokens: Sequence[int], wanted: int | None) -> tuple[TokenLogprob, ...]:
    if wanted is None:
        return ()
    return tuple(
        TokenLogprob(
            token_id=token,
            logprob=-0.5,
            top=tuple(((token + n) % 256, -0.5 - n) for n in range(wanted)),
        )
        for token in tokens
    )


def _timings(route: Route, request: GenerateRequest) -> tuple[StageTiming, ...]:
    encode = [
        StageTiming(stage=Stage.ENCODE, worker_id=worker, busy_s=0.002, num_tokens=1)
        for _, worker in route.encode
    ]
    prompt = len(request.prompt_token_ids)
    return (
        *encode,
        StageTiming(stage=Stage.PREFILL, worker_id=route.prefill, busy_s=0.003, num_tokens=prompt),
        StageTiming(stage=Stage.DECODE, worker_id=route.decode, busy_s=0.004),
    )
