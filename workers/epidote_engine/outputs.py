"""This file is about how a choice's tokens look to the client: chunks with text and timing."""

from dataclasses import dataclass, replace

from epidote_core.generation import StageTiming, TokenChunk, TokenLogprob
from epidote_engine.sequence import Mode, Sequence
from epidote_engine.stop import OutputText


@dataclass(slots=True)
class Clock:
    """When a sequence reached each point, in seconds of `time.perf_counter`; 0: not yet."""

    added_s: float
    started_s: float = 0.0
    first_token_s: float = 0.0

    def prefill(self, worker_id: str, num_tokens: int, now_s: float) -> StageTiming:
        return StageTiming(
            stage="prefill",
            worker_id=worker_id,
            queued_s=self.started_s - self.added_s,
            busy_s=(self.first_token_s or now_s) - self.started_s,
            num_tokens=num_tokens,
        )


@dataclass(slots=True, eq=False)
class ChoiceOutput:
    """One choice's way from tokens to chunks."""

    index: int
    text: OutputText
    clock: Clock
    num_tokens: int = 0  # sampled here

    def push(
        self, token_id: int, logprob: TokenLogprob | None, num_cached_tokens: int
    ) -> TokenChunk:
        """The chunk of one more token; without timings."""
        verdict = self.text.push(token_id)
        self.num_tokens += 1
        return TokenChunk(
            index=self.index,
            token_ids=(token_id,),
            text=verdict.text,
            logprobs=(logprob,) if logprob is not None else (),
            finish_reason=verdict.finish_reason,
            stop_reason=verdict.stop_reason,
            num_cached_tokens=num_cached_tokens,
        )

    def timings(self, worker_id: str, seq: Sequence, now_s: float) -> tuple[StageTiming, ...]:
        """What this engine did for the choice, once it ended."""
        clock = self.clock
        decode = StageTiming(
            stage="decode",
            worker_id=worker_id,
            busy_s=now_s - clock.first_token_s,
            num_tokens=self.num_tokens,
        )
        if seq.mode is Mode.DECODE:
            return (replace(decode, queued_s=clock.started_s - clock.added_s),)
        return (clock.prefill(worker_id, seq.replayed_to, now_s), decode)

    def replay(self, token_ids: tuple[int, ...]) -> TokenChunk | None:
        """Tokens that the client has already; a last, empty chunk if they end the choice."""
        for token_id in token_ids:
            verdict = self.text.push(token_id)
            if verdict.finish_reason is not None:
                return TokenChunk(
                    index=self.index,
                    token_ids=(),
                    text="",
                    finish_reason=verdict.finish_reason,
                    stop_reason=verdict.stop_reason,
                )
        return None
