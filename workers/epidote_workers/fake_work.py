"""This file is about one request inside the pretend engine: its blocks, its sums, its choices."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from epidote_core.block_hash import chain
from epidote_core.generation import FinishReason, GenerateRequest, StageTiming, TokenChunk
from epidote_engine.events import KvReady
from epidote_engine.sequence import Mode
from epidote_workers.fake_tokens import next_token, token_sum


@dataclass(eq=False)
class FakeChoice:
    index: int
    outputs: list[int]
    total: int = 0  # of the KV of all tokens but the last output
    done: bool = False


@dataclass(eq=False)
class FakeWork:
    """`phase` is one of waiting, reserving, reserved, running, leased."""

    request: GenerateRequest
    mode: Mode
    block_size: int
    worker_id: str
    tokens: list[int]  # prompt + emitted tokens of the first choice
    choices: list[FakeChoice]
    blocks: list[int] = field(default_factory=list)
    num_computed: int = 0
    num_cached: int = 0
    phase: str = "waiting"
    added_s: float = field(default_factory=time.monotonic)

    @classmethod
    def of(
        cls, request: GenerateRequest, mode: Mode, block_size: int, worker_id: str
    ) -> "FakeWork":
        """A request as it comes in; a prefill computes for its first choice only."""
        chosen = request.choices[:1] if mode is Mode.PREFILL else request.choices
        return cls(
            request=request,
            mode=mode,
            block_size=block_size,
            worker_id=worker_id,
            tokens=[*request.prompt_token_ids, *request.choices[0].emitted_token_ids],
            choices=[FakeChoice(choice.index, list(choice.emitted_token_ids)) for choice in chosen],
            phase="reserving" if mode is Mode.DECODE else "waiting",
        )

    @property
    def num_needed(self) -> int:
        """Blocks for the prompt and every token that may come."""
        longest = len(self.request.prompt_token_ids) + self.request.sampling.max_tokens
        return -(-longest // self.block_size)

    @property
    def covering(self) -> tuple[int, ...]:
        """The blocks of the tokens that are known."""
        return tuple(self.blocks[: -(-len(self.tokens) // self.block_size)])

    @property
    def is_prefilling(self) -> bool:
        return self.phase == "running" and self.num_computed < len(self.tokens)

    @property
    def num_new_tokens(self) -> int:
        """Of its first choice, without those that were sent before it came here."""
        return len(self.choices[0].outputs) - len(self.request.choices[0].emitted_token_ids)

    @property
    def is_done(self) -> bool:
        return all(choice.done for choice in self.choices)

    def names(self, limit: int) -> list[bytes]:
        """Of the full blocks among the first `limit` tokens."""
        named = chain(
            self.tokens[:limit],
            self.block_size,
            media=self.request.media,
            salt=self.request.cache_salt,
        )
        return list(named)

    def span(self, start: int, end: int, layer: int) -> KvReady:
        """One layer of a chunk, ready to be copied."""
        return KvReady(
            request_id=self.request.request_id,
            block_ids=self.covering,
            start_token=start,
            end_token=end,
            first_layer=layer,
            end_layer=layer + 1,
        )

    def sample(self, choice: FakeChoice, total: int) -> int:
        return next_token(total, self.request, choice.index, len(choice.outputs))

    def first_tokens(self, first: int, total: int) -> Iterator[TokenChunk]:
        """Decoding begins: `total` of the KV in the pool, `first` as the prefill sampled it."""
        prompt = len(self.request.prompt_token_ids)
        for at, token in enumerate(self.choices[0].outputs, prompt):
            total -= token_sum(token, at)
        for number, choice in enumerate(self.choices):
            choice.total = total
            for at, token in enumerate(choice.outputs, prompt):
                choice.total += token_sum(token, at)
            yield self._emit(choice, self.sample(choice, choice.total) if number else first)

    def next_tokens(self) -> Iterator[TokenChunk]:
        """One more token of every choice that goes on."""
        for choice in self.choices:
            if not choice.done:
                at = len(self.request.prompt_token_ids) + len(choice.outputs) - 1
                choice.total += token_sum(choice.outputs[-1], at)
                yield self._emit(choice, self.sample(choice, choice.total))

    def _emit(self, choice: FakeChoice, token: int) -> TokenChunk:
        choice.outputs.append(token)
        choice.done = len(choice.outputs) >= self.request.sampling.max_tokens
        timing = StageTiming(stage="decode", worker_id=self.worker_id)
        return TokenChunk(
            index=choice.index,
            token_ids=(token,),
            text=chr(97 + token % 26),
            finish_reason=FinishReason.LENGTH if choice.done else None,
            num_cached_tokens=self.num_cached,
            timings=(timing,) if choice.done else (),
        )
