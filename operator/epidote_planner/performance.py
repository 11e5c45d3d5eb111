"""This file is about how long one worker takes for encode, prefill and decode: its profile.

The three shapes are the ones that DistServe's simulator fits (prefill linear plus an attention
term, decode linear in batch and context; Zhong et al., OSDI 2024), with encode linear in tokens.
"""

from dataclasses import dataclass, fields
from math import ceil

from epidote_planner.field_checks import require_count, require_number, require_text


def _check(stage: str, cost: object, counts: tuple[str, ...] = ()) -> None:
    """Every field of a stage's cost: seconds from 0 on, the named ones whole numbers from 1 on."""
    for item in fields(cost):  # type: ignore[arg-type]
        value = getattr(cost, item.name)
        if item.name in counts:
            require_count(f"{stage}.{item.name}", value, least=1)
        else:
            require_number(f"{stage}.{item.name}", value)


@dataclass(frozen=True, kw_only=True)
class EncodeCost:
    """Seconds of one encoder batch: `base_s + images·per_image_s + tokens·per_token_s`."""

    base_s: float = 0.0
    per_image_s: float = 0.0
    per_token_s: float = 0.0
    max_images: int = 8  # images in one batch

    def __post_init__(self) -> None:
        _check("encode", self, ("max_images",))

    def seconds(self, images: float, tokens: float) -> float:
        return self.base_s + images * self.per_image_s + tokens * self.per_token_s


@dataclass(frozen=True, kw_only=True)
class PrefillCost:
    """Seconds of one step: `base_s + tokens·per_token_s + pairs·per_pair_s`.

    `pairs` is the number of (query, key) pairs: a chunk of t tokens after a context of c tokens
    has about t·(c + t/2). A step holds at most `max_tokens` tokens (chunked prefill).
    """

    base_s: float = 0.0
    per_token_s: float
    per_pair_s: float = 0.0
    max_tokens: int = 2048

    def __post_init__(self) -> None:
        _check("prefill", self, ("max_tokens",))
        # a step without a duration would be computed infinitely often in a second
        require_number("prefill.base_s + per_token_s", self.base_s + self.per_token_s, above=True)

    def seconds(self, tokens: float, context: float = 0.0) -> float:
        """Time of a prompt's `tokens` alone on a worker, `context` of them already cached."""
        steps = max(1, ceil(tokens / self.max_tokens))
        pairs = tokens * (context + tokens / 2)
        return steps * self.base_s + tokens * self.per_token_s + pairs * self.per_pair_s

    def work_s(self, tokens: float, context: float = 0.0) -> float:
        """Share of a busy worker's time that the prompt costs when steps are full."""
        pairs = tokens * (context + tokens / 2)
        share = tokens / self.max_tokens * self.base_s
        return share + tokens * self.per_token_s + pairs * self.per_pair_s


@dataclass(frozen=True, kw_only=True)
class DecodeCost:
    """Seconds of one step: `base_s + sequences·per_sequence_s + context·per_context_token_s`."""

    base_s: float
    per_sequence_s: float = 0.0
    per_context_token_s: float = 0.0
    max_sequences: int = 256
    kv_tokens: int = 1_000_000  # KV capacity of a worker, in tokens

    def __post_init__(self) -> None:
        _check("decode", self, ("max_sequences", "kv_tokens"))
        step_s = self.base_s + self.per_sequence_s
        require_number("decode.base_s + per_sequence_s", step_s, above=True)

    def seconds(self, sequences: float, context_tokens: float) -> float:
        """One token for each of `sequences` that hold `context_tokens` in sum."""
        return (
            self.base_s
            + sequences * self.per_sequence_s
            + context_tokens * self.per_context_token_s
        )


@dataclass(frozen=True, kw_only=True)
class TransferCost:
    """Seconds between stages: a fixed part and one per token of embeddings or KV."""

    base_s: float = 0.0
    per_image_token_s: float = 0.0
    per_kv_token_s: float = 0.0

    def __post_init__(self) -> None:
        _check("transfer", self)

    def embeddings_s(self, image_tokens: float) -> float:
        return self.base_s + image_tokens * self.per_image_token_s

    def kv_s(self, tokens: float) -> float:
        return self.base_s + tokens * self.per_kv_token_s


@dataclass(frozen=True, kw_only=True)
class PerformanceProfile:
    """What one worker of the pool does, from measurement or published figures.

    `provenance` says where the numbers come from; a profile without it is a guess.

    Raises:
        ValueError: a field of it or of a stage's cost that cannot be, by its name.
    """

    name: str
    provenance: str
    encode: EncodeCost
    prefill: PrefillCost
    decode: DecodeCost
    transfer: TransferCost = TransferCost()
    switch_s: float = 0.1  # prefill <-> decode: a relabel, weights and KV pool stay
    reload_switch_s: float = 0.7  # encode <-> {prefill, decode}: other weights become active
    startup_s: float = 120.0  # a new worker: pod, weights, warm-up

    def __post_init__(self) -> None:
        require_text("name", self.name)
        require_text("provenance", self.provenance)
        for field in ("switch_s", "reload_switch_s", "startup_s"):
            require_number(field, getattr(self, field))
