"""This file is about a pretend fleet and a pretend model, for tests, benches and API work.

The pretend model's tokens are bytes, its next token a function of (prompt and tokens so far, seed,
choice): what any exact engine guarantees, hence a resumed request must give the same text.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from PIL import Image

from epidote_core.errors import InvalidRequest, WorkerLost
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
from epidote_core.roles import Role, Stage, WorkerState
from epidote_core.worker_view import WorkerLoad, WorkerView
from epidote_gateway.backend import SwitchOutcome, TokenStream

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


@dataclass(kw_only=True)
class FakeBackend:
    """Several pretend workers in one process. Fields may be changed while it serves."""

    fleet: dict[str, WorkerView] = field(default_factory=dict)
    block_size: int = 16
    tokens_per_chunk: int = 1
    chunks_per_item: int = 1
    delay_s: float = 0.0  # before every item; 0 still lets other tasks run
    encode_delay_s: float = 0.0
    accept: Callable[[GenerateRequest, Route], None] = lambda request, route: None  # may raise
    die_after: dict[str, int] = field(default_factory=dict)  # worker -> items until it dies
    requests: list[tuple[GenerateRequest, Route]] = field(default_factory=list)
    encoded: list[tuple[str, str, str]] = field(default_factory=list)  # worker, key, request
    closed: list[str] = field(default_factory=list)  # requests closed before their end
    num_open: int = 0
    wanted_workers: int = 0

    @classmethod
    def of(cls, roles: Mapping[Role, int], **kwargs: Any) -> "FakeBackend":
        backend = cls(**kwargs)
        for role, count in roles.items():
            for number in range(count):
                backend.put(f"{role.value}-{number}", role)
        backend.wanted_workers = len(backend.fleet)
        return backend

    def put(self, worker_id: str, role: Role, **changes: Any) -> None:
        """Add or replace a worker."""
        defaults: dict[str, Any] = {
            "state": WorkerState.ROUTABLE,
            "epoch": 1,
            "address": f"unix:/{worker_id}",
            "load": WorkerLoad(num_kv_blocks=1000, num_free_kv_blocks=1000, num_media_rows=1000),
        }
        self.fleet[worker_id] = WorkerView(
            worker_id=worker_id, role=role, **{**defaults, **changes}
        )

    def kill(self, worker_id: str) -> None:
        """Like `kill -9`: streams over the worker break, its view is gone a moment later."""
        self.fleet.pop(worker_id, None)

    def workers(self) -> Sequence[WorkerView]:
        return tuple(self.fleet.values())

    def _check_alive(self, worker_id: str) -> None:
        if worker_id not in self.fleet:
            raise WorkerLost(f"worker {worker_id} is gone", worker_id=worker_id)

    def generate(self, request: GenerateRequest, route: Route) -> TokenStream:
        return self._generate(request, route)

    async def _generate(
        self, request: GenerateRequest, route: Route
    ) -> AsyncGenerator[list[TokenChunk], None]:
        self.requests.append((request, route))
        self.accept(request, route)
        self.num_open += 1
        finished = False
        try:
            unfinished = {choice.index for choice in request.choices}
            used = {route.prefill, route.decode, *(worker for _, worker in route.encode)}
            waiting: list[TokenChunk] = []
            for chunk in interleave(request, route, self.tokens_per_chunk):
                waiting.append(chunk)
                if chunk.finish_reason is not None:
                    unfinished.discard(chunk.index)
                if unfinished and len(waiting) < self.chunks_per_item:
                    continue
                await asyncio.sleep(self.delay_s)
                for worker_id in sorted(used):
                    self._spend_life(worker_id)
                    self._check_alive(worker_id)
                finished = not unfinished
                yield waiting
                waiting = []
        finally:
            self.num_open -= 1
            if not finished:
                self.closed.append(request.request_id)

    def _spend_life(self, worker_id: str) -> None:
        if worker_id in self.die_after:
            self.die_after[worker_id] -= 1
            if self.die_after[worker_id] < 0:
                del self.die_after[worker_id]
                self.kill(worker_id)

    async def encode(self, worker_id: str, pixels: MediaPixels, *, request_id: str) -> None:
        await asyncio.sleep(self.encode_delay_s)
        self._spend_life(worker_id)
        self._check_alive(worker_id)
        self.encoded.append((worker_id, pixels.key, request_id))
        view = self.fleet[worker_id]
        self.fleet[worker_id] = replace(view, media_keys=view.media_keys | {pixels.key})

    async def set_roles(self, roles: Mapping[Role, int]) -> Sequence[SwitchOutcome]:
        if sum(roles.values()) != len(self.fleet):
            raise InvalidRequest(f"roles: must add up to {len(self.fleet)} workers", "roles")
        missing = Counter(roles)
        missing.subtract(view.role for view in self.fleet.values())
        outcomes = []
        for view in list(self.fleet.values()):
            wanted = next((role for role, count in missing.items() if count > 0), None)
            if wanted is not None and missing[view.role] < 0:
                missing[view.role] += 1
                missing[wanted] -= 1
                outcomes.append(await self.switch_role(view.worker_id, wanted, deadline_s=1.0))
        return outcomes

    async def switch_role(self, worker_id: str, role: Role, *, deadline_s: float) -> SwitchOutcome:
        if worker_id not in self.fleet:
            raise InvalidRequest(f"worker_id: no worker {worker_id!r}", "worker_id")
        before = self.fleet[worker_id]
        after = replace(before, role=role, epoch=before.epoch + 1)
        self.fleet[worker_id] = replace(before, state=WorkerState.SWITCHING)
        await asyncio.sleep(self.delay_s)
        self.fleet[worker_id] = after
        return SwitchOutcome(
            worker_id=worker_id, from_role=before.role, to_role=role, ok=True, epoch=after.epoch
        )

    async def set_num_workers(self, num_workers: int) -> None:
        self.wanted_workers = num_workers

    async def conservation(self) -> Mapping[str, Sequence[str]]:
        return {worker_id: [] for worker_id in self.fleet}


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
