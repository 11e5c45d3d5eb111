"""This file is about a pretend engine: real pools and bookkeeping, pretend arithmetic.

A token's "KV" is a number made of the token (or of the embedding row in its place), its position
and the layer; the next token is a function of the sum of what lies in the pool. A block or row that
was copied wrongly, too early, or to the wrong place therefore changes the tokens. `answer` tells
what any worker, any split and any resumption must say.
"""

import threading
import time
from collections.abc import Callable, Iterable

from epidote_core.errors import InvalidRequest
from epidote_core.expert_placement import Placement, check_placement, default_placement
from epidote_core.generation import GenerateRequest, MediaPixels, StageTiming, TokenChunk
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
from epidote_workers.fake_tokens import LAYERS, answer
from epidote_workers.fake_work import FakeWork

__all__ = ["FakeEngine", "answer"]

EXPERT_LAYERS, NUM_EXPERTS = 2, 4  # with `expert_parallel`


class FakeEngine:
    """An `EngineLike`. `step_s` and `layer_s` are slept, to open windows for races.

    No step begins while `go` is clear: what a test wants to happen meanwhile happens for certain.
    It clears by itself, before the next step, once any stream has `hold_at_tokens` new tokens, and
    with `hold_prefills` in the middle of a prefill for another worker.
    """

    def __init__(
        self,
        config: EngineConfig,
        allocate: Allocate,
        *,
        step_s: float = 0.0,
        layer_s: float = 0.0,
        hold_at_tokens: int | None = None,
        hold_prefills: bool = False,
    ) -> None:
        self.config, self.role = config, config.role
        self.step_s, self.layer_s = step_s, layer_s
        self.go = threading.Event()
        self.go.set()
        self.hold_at_tokens, self.hold_prefills = hold_at_tokens, hold_prefills
        self.num_steps = 0
        blocks = config.num_kv_blocks or 512
        self._memory = FakeMemory(config, blocks, allocate)
        self.kv_pool, self.media_pool = self._memory.kv, self._memory.media
        self.on_layer: Callable[[list[KvReady]], None] | None = None
        self._blocks = BlockPool(blocks)
        self._media = MediaCache(config.num_media_rows)
        self._work: dict[str, FakeWork] = {}
        self._encode: list[MediaPixels] = []
        self._events: list[Event] = []
        self._may_progress = False  # something changed since a step found nothing to do
        self.fail_next_role: Role | None = None  # set_role raises once for this role
        self._placement: Placement | None = None
        self._moving: Placement | None = None
        self.moves_experts = True  # False: a move that was begun never ends
        self.counts = ((0,) * NUM_EXPERTS,) * EXPERT_LAYERS  # what `expert_tokens` says
        if config.expert_parallel:
            slots = NUM_EXPERTS + config.num_redundant_experts
            self._placement = default_placement(EXPERT_LAYERS, NUM_EXPERTS, slots)

    # intake

    def add(self, request: GenerateRequest, *, mode: Mode = Mode.GENERATE) -> None:
        assert request.request_id not in self._work, "request ids are unique"
        work = FakeWork.of(request, mode, self.config.block_size, self.config.worker_id)
        self._may_progress = True
        if work.num_needed > self._blocks.num_blocks:
            message = f"{work.num_needed} blocks wanted, the pool has {self._blocks.num_blocks}"
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
            self._may_progress = True

    def release_kv(self, request_id: str) -> None:
        self.abort(request_id)

    def commit_kv(self, request_id: str, first: FirstToken) -> None:
        work = self._work[request_id]
        assert work.phase == "reserved", "commit follows a reservation"
        self._start_decoding(work, first.token_id)

    def submit_media(self, pixels: MediaPixels) -> None:
        self._may_progress = True
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
        self._may_progress = True

    def cancel_media(self, key: str) -> None:
        self._media.cancel(key)
        self._may_progress = True

    def acquire_media(self, key: str, owner: str) -> MediaRows | None:
        if not self._media.is_ready(key):
            return None
        self._media.hold(key, owner)
        return self._media.rows(key)

    def release_media(self, key: str, owner: str) -> None:
        self._media.let_go(key, owner)
        self._may_progress = True

    # work

    def has_work(self) -> bool:
        """As the real engine says it: waiting for what only a call can bring is no work.

        Spinning instead would starve the event loop, whose calls are what everybody waits for.
        """
        if self._events or any(work.phase == "running" for work in self._work.values()):
            return True
        return self._may_progress and bool(
            self._encode
            or any(work.phase in ("waiting", "reserving") for work in self._work.values())
        )

    def step(self) -> list[Event]:
        self.go.wait()
        self.num_steps += 1
        self._may_progress = False
        if self.step_s:
            time.sleep(self.step_s)
        if self._encode:
            self._encode_one()
        for work in list(self._work.values()):
            if work.phase in ("waiting", "reserving"):
                self._admit(work)
        prefilling = [work for work in self._work.values() if work.is_prefilling]
        decoding = [w for w in self._work.values() if w.phase == "running" and w not in prefilling]
        if prefilling:
            self._prefill(prefilling)
        for work in decoding:
            self._out(work, work.next_tokens())
        if self.hold_at_tokens is not None and self._most_tokens() >= self.hold_at_tokens:
            self.go.clear()
        events, self._events = self._events, []
        return events

    def _admit(self, work: FakeWork) -> None:
        if work.phase == "waiting" and not self._has_media(work):
            return
        limit = len(work.tokens) if work.mode is Mode.DECODE else len(work.tokens) - 1
        found: list[int] = []
        if self.config.prefix_caching:
            found = self._blocks.longest_prefix(work.names(limit))
        missing = work.num_needed - len(found)
        self._blocks.share(found)
        if missing > self._blocks.num_free:
            self._blocks.release(found)
            return
        self._may_progress = True
        work.blocks = found + self._blocks.allocate(missing)
        work.num_computed = work.num_cached = len(found) * self.config.block_size
        if work.phase == "waiting":
            work.phase = "running"
            return
        work.phase = "reserved"
        self._events.append(
            KvReserved(
                request_id=work.request.request_id,
                block_ids=work.covering,
                num_cached_tokens=work.num_cached,
            )
        )

    def _prefill(self, works: list[FakeWork]) -> None:
        """One chunk of each, layer by layer."""
        chunks = []
        for work in works:
            end = min(work.num_computed + self.config.chunk_tokens, len(work.tokens))
            chunks.append((work, work.num_computed, end, self._inputs(work)))
        for layer in range(LAYERS):
            if self.layer_s:
                time.sleep(self.layer_s)
            if layer and self.hold_prefills and any(w.mode is Mode.PREFILL for w in works):
                self.go.clear()
                self.go.wait()
            ready = []
            for work, start, end, inputs in chunks:
                for at in range(start, end):
                    self._memory.write(work.blocks, at, layer, inputs[at])
                if work.mode is Mode.PREFILL:
                    ready.append(work.span(start, end, layer))
            if ready and self.on_layer is not None:
                self.on_layer(ready)
        for work, _start, end, _inputs in chunks:
            work.num_computed = end
            if end == len(work.tokens):
                self._finish_prefill(work)

    def _finish_prefill(self, work: FakeWork) -> None:
        self._name(work)
        self._let_go_media(work)
        first = work.sample(work.choices[0], self._memory.total(work.blocks, len(work.tokens)))
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

    def _start_decoding(self, work: FakeWork, first: int) -> None:
        """The prompt's KV is in the pool: from here on only sums are needed."""
        self._name(work)
        work.phase, work.num_computed = "running", len(work.tokens)
        total = self._memory.total(work.blocks, len(work.tokens))
        self._out(work, work.first_tokens(first, total))

    def _out(self, work: FakeWork, chunks: Iterable[TokenChunk]) -> None:
        request_id = work.request.request_id
        self._events.append(TokensOut(request_id=request_id, chunks=tuple(chunks)))
        if work.is_done:
            self.abort(request_id)

    def _encode_one(self) -> None:
        pixels = self._encode[0]
        if self._media.is_known(pixels.key):
            self._encode.pop(0)
            self._may_progress = True
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

    def _name(self, work: FakeWork) -> None:
        if self.config.prefix_caching:
            for block, name in zip(work.blocks, work.names(len(work.tokens)), strict=False):
                self._blocks.name(block, name)

    def _inputs(self, work: FakeWork) -> list[int]:
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

    def _has_media(self, work: FakeWork) -> bool:
        return all(self._media.is_ready(span.key) for span in work.request.media)

    def _let_go_media(self, work: FakeWork) -> None:
        for span in work.request.media:
            self._media.let_go(span.key, work.request.request_id)
        self._may_progress = True

    def _most_tokens(self) -> int:
        running = [work for work in self._work.values() if work.phase == "running"]
        return max((work.num_new_tokens for work in running), default=0)

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

    def expert_tokens(self) -> tuple[tuple[int, ...], ...] | None:
        return None if self._placement is None else self.counts

    def expert_placement(self) -> Placement | None:
        """One layer more of what was asked for comes into force with every look."""
        if self.role is Role.ENCODE:
            return None
        if self._placement is not None and self._moving is not None and self.moves_experts:
            layers = list(self._placement)
            for number, slots in enumerate(self._moving):
                if layers[number] != slots:
                    layers[number] = slots
                    break
            self._placement = tuple(layers)
        return self._placement

    def place_experts(self, placement: Placement) -> None:
        if self._placement is None:
            raise InvalidRequest("placement: this engine's experts are cut", "placement")
        check_placement(
            placement,
            num_layers=EXPERT_LAYERS,
            num_experts=NUM_EXPERTS,
            num_slots=len(self._placement[0]),
        )
        self._moving = placement

    def kv_scales(self) -> tuple[tuple[float, ...], ...]:
        return ()

    def conservation_errors(self) -> list[str]:
        holders = {owner for owners in self._media.holds().values() for owner in owners}
        strangers = [f"media held by {owner}" for owner in holders - set(self._work)]
        held = [work.blocks for work in self._work.values()]
        return self._blocks.errors(held) + self._media.errors() + strangers
