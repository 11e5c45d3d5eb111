"""This file is about a pretend engine: real pools and bookkeeping, pretend arithmetic.

A token's "KV" is a number made of the token (or of the embedding row in its place), its position
and the layer; the next token is a function of the sum of what lies in the pool. A block or row that
was copied wrongly, too early, or to the wrong place therefore changes the tokens. `answer` tells
what any worker, any split and any resumption must say.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from epidote_core.block_hash import chain
from epidote_core.generation import (
    FinishReason,
    GenerateRequest,
    MediaPixels,
    StageTiming,
    TokenChunk,
)
from epidote_core.roles import Role
from epidote_core.worker_view import WorkerLoad
from epidote_engine.blocks import BlockPool
from epidote_engine.events import (
    CacheChanges,
    Event,
    FirstToken,
    KvReady,
    KvReserved,
    MediaFailed,
    MediaReady,
    MediaRows,
    PrefillDone,
    RequestFailed,
    TokensOut,
)
from epidote_engine.media_cache import MediaCache
from epidote_engine.sequence import Mode
from epidote_engine.settings import EngineConfig
from epidote_workers.engine_protocol import Allocate
from epidote_workers.fake_memory import FakeMemory
from epidote_workers.fake_tokens import LAYERS, answer, next_token, token_sum

__all__ = ["FakeEngine", "answer"]


@dataclass(eq=False)
class _Choice:
    index: int
    outputs: list[int]
    total: int = 0  # of the KV of all tokens but the last output
    done: bool = False


@dataclass(eq=False)
class _Work:
    request: GenerateRequest
    mode: Mode
    tokens: list[int]  # prompt + emitted tokens of the first choice
    choices: list[_Choice]
    blocks: list[int] = field(default_factory=list)
    num_computed: int = 0
    num_cached: int = 0
    phase: str = "waiting"  # waiting, reserving, reserved, running, leased
    added_s: float = field(default_factory=time.monotonic)


class FakeEngine:
    """An `EngineLike`. `step_s` and `layer_s` are slept, to open windows for races."""

    def __init__(
        self, config: EngineConfig, allocate: Allocate, *, step_s: float = 0.0, layer_s: float = 0.0
    ) -> None:
        self.config, self.role = config, config.role
        self.step_s, self.layer_s = step_s, layer_s
        blocks = config.num_kv_blocks or 512
        self._memory = FakeMemory(config, blocks, allocate)
        self.kv_pool, self.media_pool = self._memory.kv, self._memory.media
        self.on_layer: Callable[[list[KvReady]], None] | None = None
        self._blocks = BlockPool(blocks)
        self._media = MediaCache(config.num_media_rows)
        self._work: dict[str, _Work] = {}
        self._encode: list[MediaPixels] = []
        self._events: list[Event] = []
        self.fail_next_role: Role | None = None  # set_role raises once for this role

    # intake

    def add(self, request: GenerateRequest, *, mode: Mode = Mode.GENERATE) -> None:
        assert request.request_id not in self._work, "request ids are unique"
        chosen = request.choices[:1] if mode is Mode.PREFILL else request.choices
        work = _Work(
            request=request,
            mode=mode,
            tokens=[*request.prompt_token_ids, *request.choices[0].emitted_token_ids],
            choices=[_Choice(choice.index, list(choice.emitted_token_ids)) for choice in chosen],
            phase="reserving" if mode is Mode.DECODE else "waiting",
        )
        needed = self._needed(work)
        if needed > self._blocks.num_blocks:
            message = f"{needed} blocks wanted, the pool has {self._blocks.num_blocks}"
            self._events.append(RequestFailed(request_id=request.request_id, message=message))
            return
        self._work[request.request_id] = work
        if mode is not Mode.DECODE:
            for span in request.media:
                self._media.hold(span.key, request.request_id)

    def abort(self, request_id: str) -> None:
        work = self._work.pop(request_id, None)
        if work is not None:
            self._let_go_media(work)
            self._blocks.release(work.blocks)

    def release_kv(self, request_id: str) -> None:
        self.abort(request_id)

    def commit_kv(self, request_id: str, first: FirstToken) -> None:
        work = self._work[request_id]
        assert work.phase == "reserved", "commit follows a reservation"
        self._start_decoding(work, first.token_id)

    def submit_media(self, pixels: MediaPixels) -> None:
        if self._media.is_ready(pixels.key):
            self._events.append(MediaReady(key=pixels.key))
        elif all(queued.key != pixels.key for queued in self._encode):
            self._encode.append(pixels)

    def reserve_media(self, key: str, num_tokens: int) -> MediaRows | None:
        if self._media.is_known(key):
            return self._media.rows(key)
        return self._media.reserve(key, num_tokens)

    def commit_media(self, key: str) -> None:
        self._media.commit(key)
        self._events.append(MediaReady(key=key))

    def cancel_media(self, key: str) -> None:
        self._media.cancel(key)

    def acquire_media(self, key: str, owner: str) -> MediaRows | None:
        if not self._media.is_ready(key):
            return None
        self._media.hold(key, owner)
        return self._media.rows(key)

    def release_media(self, key: str, owner: str) -> None:
        self._media.let_go(key, owner)

    # work

    def has_work(self) -> bool:
        return bool(
            self._events
            or self._encode
            or any(
                work.phase in ("reserving", "running")
                or (work.phase == "waiting" and self._has_media(work))
                for work in self._work.values()
            )
        )

    def step(self) -> list[Event]:
        if self.step_s:
            time.sleep(self.step_s)
        if self._encode:
            self._encode_one()
        for work in list(self._work.values()):
            if work.phase in ("waiting", "reserving"):
                self._admit(work)
        prefilling = [w for w in self._work.values() if self._is_prefilling(w)]
        decoding = [w for w in self._work.values() if w.phase == "running" and w not in prefilling]
        if prefilling:
            self._prefill(prefilling)
        for work in decoding:
            self._decode(work)
        events, self._events = self._events, []
        return events

    def _admit(self, work: _Work) -> None:
        if work.phase == "waiting" and not self._has_media(work):
            return
        limit = len(work.tokens) if work.mode is Mode.DECODE else len(work.tokens) - 1
        found: list[int] = []
        if self.config.prefix_caching:
            found = self._blocks.longest_prefix(self._names(work, limit))
        missing = self._needed(work) - len(found)
        self._blocks.share(found)
        if missing > self._blocks.num_free:
            self._blocks.release(found)
            return
        work.blocks = found + self._blocks.allocate(missing)
        work.num_computed = work.num_cached = len(found) * self.config.block_size
        if work.phase == "waiting":
            work.phase = "running"
            return
        work.phase = "reserved"
        covering = -(-len(work.tokens) // self.config.block_size)
        self._events.append(
            KvReserved(
                request_id=work.request.request_id,
                block_ids=tuple(work.blocks[:covering]),
                num_cached_tokens=work.num_cached,
            )
        )

    def _prefill(self, works: list[_Work]) -> None:
        """One chunk of each, layer by layer."""
        chunks = []
        for work in works:
            end = min(work.num_computed + self.config.chunk_tokens, len(work.tokens))
            chunks.append((work, work.num_computed, end, self._inputs(work)))
        for layer in range(LAYERS):
            if self.layer_s:
                time.sleep(self.layer_s)
            ready = []
            for work, start, end, inputs in chunks:
                for at in range(start, end):
                    self._memory.write(work.blocks, at, layer, inputs[at])
                if work.mode is Mode.PREFILL:
                    ready.append(self._span(work, start, end, layer))
            if ready and self.on_layer is not None:
                self.on_layer(ready)
        for work, _start, end, _inputs in chunks:
            work.num_computed = end
            if end == len(work.tokens):
                self._finish_prefill(work)

    def _finish_prefill(self, work: _Work) -> None:
        self._name(work)
        self._let_go_media(work)
        first = self._sample(
            work, work.choices[0], self._memory.total(work.blocks, len(work.tokens))
        )
        if work.mode is not Mode.PREFILL:
            self._start_decoding(work, first)
            return
        work.phase = "leased"
        self._events.append(
            PrefillDone(
                request_id=work.request.request_id,
                first=FirstToken(token_id=first),
                num_cached_tokens=work.num_cached,
                timing=StageTiming(
                    stage="prefill", worker_id=self.config.worker_id, num_tokens=len(work.tokens)
                ),
            )
        )

    def _start_decoding(self, work: _Work, first: int) -> None:
        """The prompt's KV is in the pool: from here on only sums are needed."""
        self._name(work)
        work.phase, work.num_computed = "running", len(work.tokens)
        total = self._memory.total(work.blocks, len(work.tokens))
        prompt = len(work.request.prompt_token_ids)
        for at, token in enumerate(work.choices[0].outputs, prompt):
            total -= token_sum(token, at)
        chunks = []
        for number, choice in enumerate(work.choices):
            choice.total = total
            for at, token in enumerate(choice.outputs, prompt):
                choice.total += token_sum(token, at)
            token = self._sample(work, choice, choice.total) if number else first
            chunks.append(self._emit(work, choice, token))
        self._out(work, chunks)

    def _decode(self, work: _Work) -> None:
        chunks = []
        for choice in work.choices:
            if choice.done:
                continue
            at = len(work.request.prompt_token_ids) + len(choice.outputs) - 1
            token = choice.outputs[-1]
            choice.total += token_sum(token, at)
            chunks.append(self._emit(work, choice, self._sample(work, choice, choice.total)))
        self._out(work, chunks)

    def _sample(self, work: _Work, choice: _Choice, total: int) -> int:
        return next_token(total, work.request, choice.index, len(choice.outputs))

    def _emit(self, work: _Work, choice: _Choice, token: int) -> TokenChunk:
        choice.outputs.append(token)
        choice.done = len(choice.outputs) >= work.request.sampling.max_tokens
        timing = StageTiming(stage="decode", worker_id=self.config.worker_id)
        return TokenChunk(
            index=choice.index,
            token_ids=(token,),
            text=chr(97 + token % 26),
            finish_reason=FinishReason.LENGTH if choice.done else None,
            num_cached_tokens=work.num_cached,
            timings=(timing,) if choice.done else (),
        )

    def _out(self, work: _Work, chunks: Sequence[TokenChunk]) -> None:
        request_id = work.request.request_id
        self._events.append(TokensOut(request_id=request_id, chunks=tuple(chunks)))
        if all(choice.done for choice in work.choices):
            self.abort(request_id)

    def _encode_one(self) -> None:
        pixels = self._encode[0]
        if self._media.is_known(pixels.key):
            self._encode.pop(0)
            return
        if pixels.num_tokens > self._media.num_rows:
            self._encode.pop(0)
            self._events.append(MediaFailed(key=pixels.key, message="larger than the media pool"))
            return
        reserved = self._media.reserve(pixels.key, pixels.num_tokens)
        if reserved is None:
            return
        self._encode.pop(0)
        rows = [row for part in reserved.rows for row in part]
        self._memory.encode(pixels, rows)
        self.commit_media(pixels.key)

    # pools

    def _needed(self, work: _Work) -> int:
        longest = len(work.request.prompt_token_ids) + work.request.sampling.max_tokens
        return -(-longest // self.config.block_size)

    def _names(self, work: _Work, limit: int) -> list[bytes]:
        names = chain(
            work.tokens[:limit],
            self.config.block_size,
            media=work.request.media,
            salt=work.request.cache_salt,
        )
        return list(names)

    def _name(self, work: _Work) -> None:
        if self.config.prefix_caching:
            names = self._names(work, len(work.tokens))
            for block, name in zip(work.blocks, names, strict=False):
                self._blocks.name(block, name)

    def _inputs(self, work: _Work) -> list[int]:
        """Tokens, with embeddings in the places of media.

        Rows may have been evicted where the prefix cache covers them, and are not read then.
        """
        inputs = list(work.tokens)
        for span in work.request.media:
            if not self._media.is_ready(span.key):
                continue
            rows = [row for part in self._media.rows(span.key).rows for row in part]
            places = [at for offset, n in span.token_runs for at in range(offset, offset + n)]
            for at, row in zip(places, rows, strict=True):
                inputs[at] = self._memory.embedding(row)
        return inputs

    def _span(self, work: _Work, start: int, end: int, layer: int) -> KvReady:
        covering = -(-len(work.tokens) // self.config.block_size)
        return KvReady(
            request_id=work.request.request_id,
            block_ids=tuple(work.blocks[:covering]),
            start_token=start,
            end_token=end,
            first_layer=layer,
            end_layer=layer + 1,
        )

    def _is_prefilling(self, work: _Work) -> bool:
        return work.phase == "running" and work.num_computed < len(work.tokens)

    def _has_media(self, work: _Work) -> bool:
        return all(self._media.is_ready(span.key) for span in work.request.media)

    def _let_go_media(self, work: _Work) -> None:
        for span in work.request.media:
            self._media.let_go(span.key, work.request.request_id)

    # role and reports

    def set_role(self, role: Role) -> None:
        assert self.is_drained(), "set_role wants a drained engine"
        if self.fail_next_role is role:
            self.fail_next_role = None
            raise RuntimeError(f"pretend failure of the switch to {role}")
        self.role = role

    def is_drained(self) -> bool:
        return not self._work and not self._encode and not self._media.num_filling

    def load(self) -> WorkerLoad:
        running = sum(work.phase == "running" for work in self._work.values())
        return WorkerLoad(
            num_waiting=len(self._work) - running,
            num_running=running,
            num_encoding=len(self._encode),
            num_kv_blocks=self._blocks.num_blocks,
            num_free_kv_blocks=self._blocks.num_free,
            num_media_rows=self._media.num_rows,
            num_free_media_rows=self._media.num_free,
        )

    def take_cache_changes(self) -> CacheChanges:
        blocks, media = self._blocks.take_changes(), self._media.take_changes()
        return CacheChanges(
            blocks_added=blocks[0],
            blocks_removed=blocks[1],
            media_added=media[0],
            media_removed=media[1],
        )

    def conservation_errors(self) -> list[str]:
        holders = {owner for owners in self._media.holds().values() for owner in owners}
        strangers = [f"media held by {owner}" for owner in holders - set(self._work)]
        held = [work.blocks for work in self._work.values()]
        return self._blocks.errors(held) + self._media.errors() + strangers
