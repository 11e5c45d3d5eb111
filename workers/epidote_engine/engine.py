"""This file is about the engine: requests in, steps, events out. One thread owns it.

Contract: docs/seams.md, section 1.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from epidote_core.errors import EpidoteError, InvalidRequest
from epidote_core.generation import GenerateRequest
from epidote_core.roles import Role
from epidote_engine.blocks import BlockPool
from epidote_engine.broken_steps import BrokenSteps
from epidote_engine.config import load_model_spec
from epidote_engine.device_events import Record, check_device, made_current, recorded_event
from epidote_engine.dtypes import computing_dtype
from epidote_engine.encode_queue import EncodeQueue
from epidote_engine.engine_experts import own_decoder
from epidote_engine.engine_steps import EngineSteps
from epidote_engine.events import (
    Event,
    FirstToken,
    KvReady,
)
from epidote_engine.intake import Capacity, check_request
from epidote_engine.kernel_shapes import kernel_shapes
from epidote_engine.kv_scales import measure_scales
from epidote_engine.launched import Launched
from epidote_engine.layer_events import LayerEvents
from epidote_engine.media_cache import MediaCache
from epidote_engine.media_needs import MediaNeeds
from epidote_engine.memory_plan import reserved_bytes
from epidote_engine.model_parts import ModelParts
from epidote_engine.plan import Limits, Plan
from epidote_engine.pools import Allocate, kv_pool, media_pool, plain_allocate
from epidote_engine.prompt_positions import PromptPositions
from epidote_engine.requests import Requests
from epidote_engine.rows import BatchRows
from epidote_engine.runner import Runner
from epidote_engine.scheduler import Scheduler
from epidote_engine.sequence import Mode, Phase, Sequence, sequences_of
from epidote_engine.settings import EngineConfig
from epidote_kernels.warm_up import warm_up

if TYPE_CHECKING:
    from epidote_engine.parallel.shards import Shards

__all__ = ["Engine", "EngineConfig"]


class Engine(EngineSteps):
    """See docs/seams.md. `on_layer` is called in this thread while a step runs.

    Whatever device is current in the caller's thread, the engine works on its own.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        allocate: Allocate = plain_allocate,
        shards: "Shards | None" = None,
        record: Record | None = None,
    ) -> None:
        """`shards`: this engine holds one rank's part of the language model (`parallel`).

        `record` marks what the device was given so far; None: CUDA's events, on a CPU nothing.
        """
        self.config = config
        self.role = config.role
        self.on_layer: Callable[[list[KvReady]], None] | None = None
        check_device(config.device)
        self._spec = spec = load_model_spec(config.model)
        decoder = own_decoder(spec, config, shards)
        dtype = computing_dtype(spec, config)
        reserved = reserved_bytes(spec, config, decoder, dtype, shards.size if shards else 1)
        self.kv_pool = kv_pool(config, decoder, dtype, allocate, shards, reserved)
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
        self._requests = Requests(spec, max_len=self._capacity.max_len, worker_id=config.worker_id)
        self._outbox: list[Event] = []
        self._flying: Launched | None = None
        self._plan: Plan | None = None
        self._broken = BrokenSteps(config.device, may_go_on=shards is None)
        on_gpu = torch.device(config.device).type == "cuda"
        self._overlaps = on_gpu if config.overlap_steps is None else config.overlap_steps
        self._arrivals = 0
        self._may_progress = False  # something changed since a step found nothing to do
        self._encodes_next = False
        self._is_whole = shards is None
        self._record = recorded_event if record is None and on_gpu else record
        # one thread, whatever the role
        self._layer_events = None if self._record is None else LayerEvents(self._record)
        self._warms_up = on_gpu if config.warm_up is None else config.warm_up
        if self._warms_up:  # once, for every role, and before graphs are captured
            shapes = kernel_shapes(
                decoder, self.kv_pool.tensor, dtype, spec.vision, config.quantization
            )
            warm_up(shapes, torch.device(config.device))
        self._parts = ModelParts(spec, config, dtype, self._make_runner, shards)
        self._device = self.kv_pool.tensor.device  # "cuda" has become one of them
        with made_current(self._device):
            self._parts.take_role(config.role)

    # -- intake -------------------------------------------------------------------------------

    def add(self, request: GenerateRequest, *, mode: Mode = Mode.GENERATE) -> None:
        """Take a request in; it computes in later steps.

        Media may be submitted, reserved and committed before or after; added first, they are held
        from their arrival on.

        Raises:
            InvalidRequest: it could never be finished here; nothing was changed.
        """
        if request.request_id in self._requests:
            raise InvalidRequest(f"request_id: {request.request_id!r} is in use", "request_id")
        if self._parts.runner is None:
            raise InvalidRequest(f"role {self.role} has no language model")
        check_request(request, mode, self._capacity)
        outputs, ended = self._requests.outputs_of(request, time.perf_counter())
        if ended and mode is not Mode.PREFILL:
            self._emit(request.request_id, ended)
        if not outputs:
            if mode is Mode.PREFILL:
                raise InvalidRequest("choices: are all finished", "choices")
            return
        live = tuple(choice for choice in request.choices if choice.index in outputs)
        sequences = list(sequences_of(replace(request, choices=live), mode, self._arrivals))
        self._requests.open(request.request_id, sequences, outputs)
        for seq in sequences:
            seq.longest = len(request.prompt_token_ids) + min(
                request.sampling.max_tokens, self._capacity.max_len - len(request.prompt_token_ids)
            )
            if seq.phase is Phase.WAITING and request.media:
                self._scheduler.hold_prefix(seq, len(seq.token_ids) - 1)
                self._needs.take(seq)
            self._scheduler.add(seq)
        self._arrivals += len(sequences)
        self._may_progress = True

    def abort(self, request_id: str) -> None:
        """Forget a request and free what it holds, in any state; unknown ids are ignored.

        In Mode.DECODE stop copying first: its blocks may belong to another sequence at once.
        """
        if self._flying is not None and self._flying.has(request_id):
            self._land()  # what a step still reads and writes goes to nobody else
            self._outbox = [
                event for event in self._outbox if getattr(event, "request_id", None) != request_id
            ]
        for seq in self._requests.close(request_id):
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
        self._requests.start(seq, now_s)
        self._start_forks(seq)
        self._emit(request_id, [self._push(seq, first.token_id, first.logprob, now_s)])
        self._may_progress = True

    # -- work ---------------------------------------------------------------------------------

    def has_work(self) -> bool:
        """Whether a step could do something now; only another call here can change a False."""
        if self._outbox or self._scheduler.running or self._flying is not None:
            return True
        if self._moves_experts():
            return True
        return self._may_progress and bool(
            self._scheduler.waiting or self._scheduler.reserving or len(self._encode_queue)
        )

    def step(self) -> list[Event]:
        """Events that wait, at once; else those of a language step or an encoder batch.

        Where both have work they take turns, so that the tokens of one are not held back by the
        other. [] when idle.
        """
        if not self._outbox:
            with made_current(self._device):
                self._compute()
        events, self._outbox = self._outbox, []
        return events

    def _compute(self) -> None:
        self._may_progress = False
        for encodes in (self._encodes_next, not self._encodes_next):
            if self._encoder_step() if encodes else self._guarded_step():
                self._encodes_next = not encodes
                self._may_progress = True  # for the other
                return

    # -- role and weights ---------------------------------------------------------------------

    def set_role(self, role: Role) -> None:
        """Change what this engine is for; loads and releases weights as `weights_policy` says.

        Raises:
            EpidoteError: work is left; nothing was changed. Ask `is_drained`.
        """
        if not self.is_drained():
            raise EpidoteError(f"set_role({role}): requests or media are still at work")
        with made_current(self._device):
            self._parts.take_role(role)
        self.role = role

    def is_drained(self) -> bool:
        """No request, no lease, no medium queued or being filled."""
        work = self._requests or len(self._encode_queue) or self._media.num_filling
        return not work and self._flying is None

    # -- inside -------------------------------------------------------------------------------

    def _drop(self, seq: Sequence) -> None:
        """Free everything that belongs to one sequence."""
        self._scheduler.finish(seq)
        self._rows.release(seq)
        self._needs.give_back(seq, all_of_it=True)
        self._positions.forget(seq)
        if self._parts.runner is not None:
            self._parts.runner.forget(seq)

    def _make_runner(self, parts: ModelParts) -> Runner:
        on_gpu = torch.device(self.config.device).type == "cuda"
        static = self.config.static_shapes
        model = parts.decoder()
        if self.kv_pool.has_codes:
            measure_scales(model, self.kv_pool.tensor)
        runner = Runner(
            model,
            self.kv_pool.tensor,
            self.media_pool.tensor,
            self._rows,
            max_tokens=self.config.max_batched_tokens,
            eos_token_ids=self._spec.eos_token_ids,
            static_shapes=on_gpu if static is None else static,
            cuda_graphs=on_gpu and self.config.cuda_graphs and static is not False,
            overlaps=self._overlaps,
            lean=self._is_whole,
            native=self.config.native_decode,
            record=self._record,
            layer_events=self._layer_events,
        )
        if self._warms_up:
            runner.warm_up(min(self.config.chunk_tokens, self._capacity.max_len))
        return runner
