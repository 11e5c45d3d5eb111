"""This file is about the engine: requests in, steps, events out. One thread owns it.

Contract: docs/seams.md, section 1.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from epidote_core.errors import EpidoteError, InvalidRequest
from epidote_core.generation import GenerateRequest, MediaPixels, TokenChunk, TokenLogprob
from epidote_core.roles import Role
from epidote_core.worker_view import WorkerLoad
from epidote_engine.blocks import BlockPool
from epidote_engine.config import load_model_spec
from epidote_engine.detokenizer import Vocabulary, load_vocabulary
from epidote_engine.encode_queue import EncodeQueue
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
from epidote_engine.intake import Capacity, check_request
from epidote_engine.media_cache import MediaCache
from epidote_engine.media_needs import MediaNeeds
from epidote_engine.model_parts import ModelParts
from epidote_engine.outputs import ChoiceOutput, Clock
from epidote_engine.pools import Allocate, kv_pool, media_pool, plain_allocate
from epidote_engine.prompt_positions import PromptPositions
from epidote_engine.recent_times import RecentMean
from epidote_engine.rows import BatchRows
from epidote_engine.runner import Runner
from epidote_engine.sampler import Sampled
from epidote_engine.scheduler import Limits, Plan, Scheduler
from epidote_engine.sequence import Mode, Phase, Sequence, sequences_of
from epidote_engine.settings import EngineConfig
from epidote_engine.stop import OutputText

__all__ = ["Engine", "EngineConfig"]


@dataclass(slots=True, eq=False)
class _Work:
    """One request: its unfinished sequences with their outputs."""

    request: GenerateRequest
    outputs: dict[Sequence, ChoiceOutput] = field(default_factory=dict)


class Engine:
    """See docs/seams.md. `on_layer` is called in this thread while a step runs."""

    def __init__(self, config: EngineConfig, *, allocate: Allocate = plain_allocate) -> None:
        self.config = config
        self.role = config.role
        self.on_layer: Callable[[list[KvReady]], None] | None = None
        self._spec = spec = load_model_spec(config.model)
        decoder = spec.decoder
        dtype = getattr(torch, spec.dtype if config.dtype == "auto" else config.dtype)
        self.kv_pool = kv_pool(config, decoder, dtype, allocate)
        self.media_pool = media_pool(config, spec.media_row_width, dtype, allocate)
        num_blocks, num_rows = self.kv_pool.num_blocks, self.media_pool.tensor.shape[0]
        longest = min(config.max_model_len or spec.max_positions, spec.max_positions)
        self._capacity = Capacity(
            max_len=min(longest, num_blocks * config.block_size),
            vocab=decoder.vocab,
            num_media_rows=num_rows,
        )
        self._blocks = BlockPool(num_blocks)
        self._media = MediaCache(num_rows)
        self._needs = MediaNeeds(self._media)
        self._scheduler = Scheduler(
            self._blocks,
            config.block_size,
            Limits(
                max_num_seqs=config.max_num_seqs,
                max_batched_tokens=config.max_batched_tokens,
                chunk_tokens=config.chunk_tokens,
                prefix_caching=config.prefix_caching,
            ),
            self._needs.take_again,
        )
        self._rows = BatchRows(config.max_num_seqs, -(-self._capacity.max_len // config.block_size))
        self._positions = PromptPositions(spec)
        self._encode_queue = EncodeQueue(self._media, self.media_pool.tensor)
        self._vocabulary: Vocabulary | None = load_vocabulary(spec.path)
        self._work: dict[str, _Work] = {}
        self._outbox: list[Event] = []
        self._arrivals = 0
        self._may_progress = False  # something changed since a step found nothing to do
        self._ttft, self._tpot = RecentMean(), RecentMean()
        self._parts = ModelParts(spec, config, dtype, self._make_runner)
        self._parts.take_role(config.role)

    # -- intake -------------------------------------------------------------------------------

    def add(self, request: GenerateRequest, *, mode: Mode = Mode.GENERATE) -> None:
        """Take a request in; it computes in later steps.

        Media may be submitted, reserved and committed before or after; added first, they are held
        from their arrival on.

        Raises:
            InvalidRequest: it could never be finished here; nothing was changed.
        """
        if request.request_id in self._work:
            raise InvalidRequest(f"request_id: {request.request_id!r} is in use", "request_id")
        if self._parts.runner is None:
            raise InvalidRequest(f"role {self.role} has no language model")
        check_request(request, mode, self._capacity)
        outputs, ended = self._outputs(request)
        if ended and mode is not Mode.PREFILL:
            self._emit(request.request_id, ended)
        if not outputs:
            if mode is Mode.PREFILL:
                raise InvalidRequest("choices: are all finished", "choices")
            return
        live = [choice for choice in request.choices if choice.index in outputs]
        work = _Work(replace(request, choices=tuple(live)))
        for seq in sequences_of(work.request, mode, self._arrivals):
            work.outputs[seq] = outputs[seq.choice.index]
            if seq.phase is Phase.WAITING and request.media:
                self._scheduler.hold_prefix(seq, len(seq.token_ids) - 1)
                self._needs.take(seq)
            self._scheduler.add(seq)
        self._work[request.request_id] = work
        self._arrivals += len(work.outputs)
        self._may_progress = True

    def abort(self, request_id: str) -> None:
        """Forget a request and free what it holds, in any state; unknown ids are ignored.

        In Mode.DECODE stop copying first: its blocks may belong to another sequence at once.
        """
        work = self._work.pop(request_id, None)
        if work is not None:
            for seq in list(work.outputs):
                self._drop(seq)
            self._may_progress = True

    def release_kv(self, request_id: str) -> None:
        """The peer has copied a prefilled prompt; unknown ids are ignored."""
        self.abort(request_id)

    def commit_kv(self, request_id: str, first: FirstToken) -> None:
        """All KV of a reserved prompt is in place: decoding begins. Unknown ids are ignored."""
        seq = self._scheduler.held.get(request_id)
        if seq is None or seq.phase is not Phase.RESERVED:
            return
        seq.token_ids.append(first.token_id)
        self._scheduler.commit(seq)
        self._rows.assign(seq, self._positions.delta(seq))
        now_s = time.perf_counter()
        self._work[request_id].outputs[seq].clock.started_s = now_s
        self._start_forks(seq)
        self._emit(request_id, [self._push(seq, first.token_id, first.logprob, now_s)])
        self._may_progress = True

    # -- media --------------------------------------------------------------------------------

    def submit_media(self, pixels: MediaPixels) -> None:
        """Encode a medium here; `MediaReady` follows, at once if it is cached."""
        if self._parts.encoder is None:
            self._fail_medium(pixels.key, f"role {self.role} has no encoder")
        elif pixels.num_tokens > self._media.num_rows:
            self._fail_medium(pixels.key, "larger than the encoder cache")
        elif self._media.is_ready(pixels.key):
            self._outbox.append(MediaReady(key=pixels.key))
        elif pixels.key not in self._encode_queue:
            self._encode_queue.add(pixels)
        self._may_progress = True

    def reserve_media(self, key: str, num_tokens: int) -> MediaRows | None:
        """Rows to copy an embedding into; with `ready` set if there is nothing to copy.

        None: no room now, or the medium is just being filled; ask again later.

        Raises:
            InvalidRequest: larger than the whole pool.
        """
        if num_tokens > self._media.num_rows:
            raise InvalidRequest(f"media: {num_tokens} embeddings do not fit", "media")
        if self._media.is_known(key):
            return self._media.rows(key) if self._media.is_ready(key) else None
        return self._media.reserve(key, num_tokens)

    def commit_media(self, key: str) -> None:
        """The reserved rows are filled; `MediaReady` follows."""
        if self._media.is_known(key) and not self._media.is_ready(key):
            self._media.commit(key)
            self._note_ready(key)

    def cancel_media(self, key: str) -> None:
        """The reserved rows could not be filled: they are free again."""
        if self._media.is_known(key) and not self._media.is_ready(key):
            self._media.cancel(key)
            self._may_progress = True

    def acquire_media(self, key: str, owner: str) -> MediaRows | None:
        """Keep a ready embedding from being evicted until `release_media`; None: not ready."""
        if not self._media.is_ready(key):
            return None
        self._media.hold(key, f"peer:{owner}")
        return self._media.rows(key)

    def release_media(self, key: str, owner: str) -> None:
        """Undo `acquire_media`; without one nothing happens."""
        self._media.let_go(key, f"peer:{owner}")
        self._may_progress = True

    # -- work ---------------------------------------------------------------------------------

    def has_work(self) -> bool:
        """Whether a step could do something now; only another call here can change a False."""
        if self._outbox or self._scheduler.running:
            return True
        return self._may_progress and bool(
            self._scheduler.waiting or self._scheduler.reserving or len(self._encode_queue)
        )

    def step(self) -> list[Event]:
        """One language step, then one encoder batch; [] when idle."""
        self._may_progress = False
        if self._parts.runner is not None and self._work:
            self._language_step(self._parts.runner)
        if len(self._encode_queue) and self._parts.encoder is not None:
            for event in self._encode_queue.step(self._parts.encoder.encode):
                if isinstance(event, MediaReady):
                    self._note_ready(event.key)
                else:
                    self._fail_medium(event.key, event.message)
        events, self._outbox = self._outbox, []
        return events

    def _language_step(self, runner: Runner) -> None:
        plan = self._scheduler.schedule()
        if plan.is_empty:
            return
        self._may_progress = True
        now_s = time.perf_counter()
        for seq in plan.preempted:
            self._rows.release(seq)
        for seq in plan.admitted:
            self._rows.assign(seq, self._positions.delta(seq))
            clock = self._work[seq.request_id].outputs[seq].clock
            clock.started_s = clock.started_s or now_s
        for seq in plan.grown:
            if seq.row >= 0:
                self._rows.follow_blocks(seq)
        runner.move_blocks(plan)
        for seq in plan.granted:
            self._outbox.append(
                KvReserved(
                    request_id=seq.request_id,
                    block_ids=tuple(seq.blocks),
                    num_cached_tokens=seq.num_computed,
                )
            )
        if plan.decodes or plan.prefills:
            self._announce_cached(plan)
            sampled = runner.step(
                plan,
                axes=self._positions.axes,
                media_rows=self._media.rows,
                on_layer=self.on_layer,
            )
            self._take_tokens(plan, sampled)

    def _announce_cached(self, plan: Plan) -> None:
        """Tell a waiting peer about the part of the prompt that needs no computing."""
        spans = [
            KvReady(
                request_id=seq.request_id,
                block_ids=tuple(seq.blocks),
                start_token=0,
                end_token=seq.num_computed,
                first_layer=0,
                end_layer=self.kv_pool.tensor.shape[0],
            )
            for seq in plan.admitted
            if seq.mode is Mode.PREFILL and seq.num_computed
        ]
        if spans and self.on_layer is not None:
            self.on_layer(spans)

    def _take_tokens(self, plan: Plan, sampled: Sampled) -> None:
        sampling = self._scheduler.advance(plan)
        now_s = time.perf_counter()
        for seq, _start, _end in plan.prefills:
            if seq.request.media:
                self._start_forks_if_prefilled(seq)
                self._needs.give_back(seq)
        rows = torch.tensor([seq.row for seq in sampling], dtype=torch.int64).numpy()
        self._rows.append(rows, sampled.token_ids)
        chunks: dict[str, list[TokenChunk]] = {}
        may_fork = bool(self._scheduler.forking)
        for seq, token_id, logprob in zip(
            sampling, sampled.token_ids.tolist(), sampled.logprobs, strict=True
        ):
            if seq.mode is Mode.PREFILL:
                self._lease(seq, token_id, logprob, now_s)
                continue
            if may_fork:
                self._start_forks_if_prefilled(seq)
            seq.token_ids.append(token_id)
            chunk = self._push(seq, token_id, logprob, now_s)
            if len(seq.request.choices) == 1:
                self._emit(seq.request_id, [chunk])
            else:
                chunks.setdefault(seq.request_id, []).append(chunk)
        for request_id, some in chunks.items():
            self._emit(request_id, some)

    def _push(
        self, seq: Sequence, token_id: int, logprob: TokenLogprob | None, now_s: float
    ) -> TokenChunk:
        """A running sequence's new token, which `token_ids` has already; it may end with it."""
        output = self._work[seq.request_id].outputs[seq]
        chunk = output.push(token_id, logprob, max(seq.num_cached, 0))
        clock = output.clock
        if not clock.first_token_s:
            clock.first_token_s = now_s
            self._ttft.note(now_s - clock.added_s, now_s)
        if not output.is_finished:
            return chunk
        if output.num_tokens > 1:
            self._tpot.note((now_s - clock.first_token_s) / (output.num_tokens - 1), now_s)
        work = self._work[seq.request_id]
        del work.outputs[seq]
        if not work.outputs:
            del self._work[seq.request_id]
        self._drop(seq)
        return replace(chunk, timings=output.timings(self.config.worker_id, seq, now_s))

    def _lease(
        self, seq: Sequence, token_id: int, logprob: TokenLogprob | None, now_s: float
    ) -> None:
        self._scheduler.lease(seq)
        self._rows.release(seq)
        clock = self._work[seq.request_id].outputs[seq].clock
        self._ttft.note(now_s - clock.added_s, now_s)
        self._outbox.append(
            PrefillDone(
                request_id=seq.request_id,
                first=FirstToken(token_id=token_id, logprob=logprob),
                num_cached_tokens=max(seq.num_cached, 0),
                timing=clock.prefill(self.config.worker_id, len(seq.token_ids), now_s),
            )
        )

    # -- role, weights and reports ------------------------------------------------------------

    def set_role(self, role: Role) -> None:
        """Change what this engine is for; loads and releases weights as `weights_policy` says.

        Raises:
            EpidoteError: work is left; nothing was changed. Ask `is_drained`.
        """
        if not self.is_drained():
            raise EpidoteError(f"set_role({role}): requests or media are still at work")
        self._parts.take_role(role)
        self.role = role

    def is_drained(self) -> bool:
        """No request, no lease, no medium queued or being filled."""
        return not (self._work or len(self._encode_queue) or self._media.num_filling)

    def load(self) -> WorkerLoad:
        """Queues and memory now."""
        scheduler, now_s = self._scheduler, time.perf_counter()
        waiting = [*scheduler.waiting, *scheduler.reserving]
        unfinished = [
            len(seq.token_ids) - seq.num_computed
            for seq in (*scheduler.waiting, *scheduler.running)
            if not seq.is_decoding
        ]
        return WorkerLoad(
            num_waiting=len(waiting),
            num_running=len(scheduler.running),
            num_encoding=len(self._encode_queue) + self._media.num_filling,
            queued_prefill_tokens=sum(unfinished),
            num_kv_blocks=self._blocks.num_blocks,
            num_free_kv_blocks=self._blocks.num_free,
            num_media_rows=self._media.num_rows,
            num_free_media_rows=self._media.num_free,
            num_preemptions=scheduler.num_preemptions,
            prefix_hit_tokens=scheduler.hit_tokens,
            prefix_query_tokens=scheduler.query_tokens,
            ttft_s=self._ttft.mean(now_s),
            tpot_s=self._tpot.mean(now_s),
        )

    def take_cache_changes(self) -> CacheChanges:
        """Names that became reusable or ceased to be since the last call."""
        blocks, media = self._blocks.take_changes(), self._media.take_changes()
        return CacheChanges(
            blocks_added=blocks[0],
            blocks_removed=blocks[1],
            media_added=media[0],
            media_removed=media[1],
        )

    def conservation_errors(self) -> list[str]:
        """Every block, media row, batch row and reference accounted for; [] when sound."""
        found = self._scheduler.errors() + self._media.errors()
        sequences = set(self._scheduler.sequences())
        known = {seq for work in self._work.values() for seq in work.outputs}
        if sequences != known:
            found.append(f"{len(sequences ^ known)} sequences without request or the reverse")
        found += self._needs.errors(sequences)
        found += self._rows.errors(self._scheduler.running)
        runner = self._parts.runner
        parked = {seq for seq in sequences if seq.parked}
        if runner is not None and set(runner.parked) != parked:
            found.append("parked sequences and saved KV disagree")
        return found

    # -- inside -------------------------------------------------------------------------------

    def _outputs(
        self, request: GenerateRequest
    ) -> tuple[dict[int, ChoiceOutput], list[TokenChunk]]:
        """Outputs of the choices that go on, and last chunks of those that ended before."""
        going: dict[int, ChoiceOutput] = {}
        ended: list[TokenChunk] = []
        limit = self._capacity.max_len - len(request.prompt_token_ids)
        now_s = time.perf_counter()
        for choice in request.choices:
            text = OutputText(
                request.sampling,
                self._vocabulary.stream() if self._vocabulary is not None else None,
                eos_token_ids=self._spec.eos_token_ids,
                max_outputs=min(request.sampling.max_tokens, limit),
            )
            output = ChoiceOutput(choice.index, text, Clock(now_s))
            last = output.replay(choice.emitted_token_ids)
            if last is None:
                going[choice.index] = output
            else:
                ended.append(last)
        return going, ended

    def _start_forks_if_prefilled(self, seq: Sequence) -> None:
        if seq.num_computed == len(seq.token_ids):
            self._start_forks(seq)

    def _start_forks(self, parent: Sequence) -> None:
        for child in [s for s in self._scheduler.forking if s.request is parent.request]:
            self._scheduler.fork(parent, child)
            if child.request.media:
                self._needs.take(child)

    def _drop(self, seq: Sequence) -> None:
        """Free everything that belongs to one sequence."""
        self._scheduler.finish(seq)
        self._rows.release(seq)
        self._needs.give_back(seq, all_of_it=True)
        self._positions.forget(seq)
        if self._parts.runner is not None:
            self._parts.runner.forget(seq)

    def _emit(self, request_id: str, chunks: list[TokenChunk]) -> None:
        self._outbox.append(TokensOut(request_id=request_id, chunks=tuple(chunks)))

    def _note_ready(self, key: str) -> None:
        self._outbox.append(MediaReady(key=key))
        for seq in self._scheduler.waiting:
            seq.missing_media.discard(key)
        self._may_progress = True

    def _fail_medium(self, key: str, message: str) -> None:
        self._outbox.append(MediaFailed(key=key, message=message))
        failed = {s.request_id for s in self._scheduler.waiting if key in s.missing_media}
        for request_id in failed:
            self.abort(request_id)
            self._outbox.append(RequestFailed(request_id=request_id, message=message))

    def _make_runner(self, parts: ModelParts) -> Runner:
        on_gpu = torch.device(self.config.device).type == "cuda"
        static = self.config.static_shapes
        return Runner(
            parts.decoder(),
            self.kv_pool.tensor,
            self.media_pool.tensor,
            self._rows,
            max_tokens=self.config.max_batched_tokens,
            eos_token_ids=self._spec.eos_token_ids,
            static_shapes=on_gpu if static is None else static,
            cuda_graphs=on_gpu and self.config.cuda_graphs and static is not False,
        )
