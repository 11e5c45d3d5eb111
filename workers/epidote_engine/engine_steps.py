"""This file is about the language model's steps: planned, launched, and their tokens taken."""

import time
from collections.abc import Callable

from epidote_core.generation import TokenChunk, TokenLogprob
from epidote_engine.drafts import Draft
from epidote_engine.engine_faults import EngineFaults
from epidote_engine.events import KvReady, KvReserved, TokensOut
from epidote_engine.launched import Launched
from epidote_engine.layer_events import LayerEvents
from epidote_engine.plan import Plan
from epidote_engine.prompt_positions import PromptPositions
from epidote_engine.sampler import Sampled
from epidote_engine.sequence import Mode, Phase, Sequence


class EngineSteps(EngineFaults):
    """The part of `Engine` that computes tokens; `Engine` makes what it works with."""

    on_layer: Callable[[list[KvReady]], None] | None
    _layer_events: LayerEvents | None
    _overlaps: bool
    _positions: PromptPositions

    def _language_step(self) -> bool:
        """Whether there was anything to do."""
        runner = self._parts.runner
        if runner is None or not self._requests:
            return self._land()
        plan = self._plan = self._scheduler.schedule()
        if plan.is_empty:
            return self._land()
        now_s = time.perf_counter()
        for seq in plan.preempted:
            self._rows.release(seq)
        for seq in plan.admitted:
            self._rows.assign(seq, self._positions.delta(seq))
            self._requests.start(seq, now_s)
        for seq in plan.grown:
            if seq.row >= 0:
                self._rows.follow_blocks(seq)
        runner.move_blocks(plan)
        granted = [
            KvReserved(
                request_id=seq.request_id,
                block_ids=tuple(seq.blocks),
                num_cached_tokens=seq.num_computed,
            )
            for seq in plan.granted
        ]
        launched: Launched | None = None
        if plan.decodes or plan.prefills:
            self._announce_cached(plan)
            sampled = runner.step(
                plan,
                axes=self._positions.axes,
                media_rows=self._media.rows,
                on_layer=self.on_layer,
            )
            launched = Launched(plan, self._advance(plan, sampled), sampled)
        if self._overlaps:  # what is waited for is the step before
            self._land()
        self._flying = launched
        if not self._overlaps:
            self._land()
        # only now: a step that has landed may have used the blocks that were just given away
        self._outbox += granted
        return True

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
        tell = self.on_layer
        if spans and tell is not None:
            # blocks get names when their step has landed; what was parked is only on its way back
            if plan.restores and self._layer_events is not None:
                tell = self._layer_events.behind(tell)
            tell(spans)

    def _advance(self, plan: Plan, sampled: Sampled | Draft) -> list[Sequence]:
        """The next step is planned as if this one's tokens were there."""
        sampling = self._scheduler.advance(plan)
        if isinstance(sampled, Sampled):
            self._rows.append(sampled.rows, sampled.token_ids)
        else:
            self._rows.launch(sampled.rows)
            for seq in sampling:
                seq.launch()
        for seq in sampling[len(plan.decodes) :]:
            if seq.mode is Mode.PREFILL:
                self._scheduler.lease(seq)
                self._rows.release(seq)
        return sampling

    def _land(self) -> bool:
        """Take the tokens of the step that is under way; whether there was one."""
        if self._flying is None:
            return False
        step, self._flying = self._flying, None
        self._take_tokens(step.plan, step.sampling, step.tokens())
        return True

    def _take_tokens(self, plan: Plan, sampling: list[Sequence], sampled: Sampled) -> None:
        now_s = time.perf_counter()
        self._fail_tokenless(sampling, sampled)
        self._scheduler.name_blocks(plan)
        if self._scheduler.forking:
            for seq in sampling:
                self._start_forks(seq)
        for seq, _start, end in plan.prefills:
            if seq.request.media and seq.num_computed >= end:  # else it was preempted meanwhile
                self._needs.give_back(seq, num_computed=end)
        chunks: dict[str, list[TokenChunk]] = {}
        for seq, token_id, logprob in zip(
            sampling, sampled.token_ids.tolist(), sampled.logprobs, strict=True
        ):
            if seq.phase is Phase.FINISHED:
                continue  # failed, or by its last token, unknown when this one was begun
            if seq.mode is Mode.PREFILL:
                self._outbox.append(self._requests.prefilled(seq, token_id, logprob, now_s))
                continue
            self._rows.settle(seq, token_id)
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
        chunk = self._requests.push(seq, token_id, logprob, now_s)
        if chunk.finish_reason is not None:
            self._drop(seq)
        return chunk

    def _start_forks(self, parent: Sequence) -> None:
        for child in [s for s in self._scheduler.forking if s.request is parent.request]:
            self._scheduler.fork(parent, child)
            if child.request.media:
                self._needs.take(child)

    def _emit(self, request_id: str, chunks: list[TokenChunk]) -> None:
        self._outbox.append(TokensOut(request_id=request_id, chunks=tuple(chunks)))
