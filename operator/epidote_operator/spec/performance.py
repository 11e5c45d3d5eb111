"""This file is about how long a worker takes for each stage, as a resource may say it.

Kubernetes discourages floating point, so times are integers in units small enough to be exact.
"""

from typing import Annotated

from pydantic import Field

from epidote_operator.spec.field_model import SpecModel
from epidote_planner.performance import (
    DecodeCost,
    EncodeCost,
    PerformanceProfile,
    PrefillCost,
    TransferCost,
)

Time = Annotated[int, Field(ge=0, le=10**12)]


class EncodeCostSpec(SpecModel):
    """One batch of the encoder: base, plus images, plus image tokens."""

    base_microseconds: Time = 0
    """Fixed time of a batch."""
    per_image_microseconds: Time = 0
    """Added for each image."""
    per_token_nanoseconds: Time = 0
    """Added for each image token."""
    max_images: Annotated[int, Field(ge=1, le=4096)] = 8
    """Images in one batch."""


class PrefillCostSpec(SpecModel):
    """One prefill step: base, plus tokens, plus pairs of query and key."""

    base_microseconds: Time = 0
    """Fixed time of a step."""
    per_token_nanoseconds: Annotated[int, Field(ge=1, le=10**12)]
    """Added for each prompt token."""
    per_pair_femtoseconds: Time = 0
    """Added for each pair of query and key token (attention)."""
    max_tokens: Annotated[int, Field(ge=1, le=1_048_576)] = 2048
    """Tokens in one step."""


class DecodeCostSpec(SpecModel):
    """One decode step: base, plus sequences, plus the tokens they hold."""

    base_microseconds: Annotated[int, Field(ge=1, le=10**9)]
    """Fixed time of a step."""
    per_sequence_nanoseconds: Time = 0
    """Added for each sequence of the batch."""
    per_context_token_picoseconds: Time = 0
    """Added for each token in the KV cache of the batch."""
    max_sequences: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Sequences in one batch."""
    kv_tokens: Annotated[int, Field(ge=1, le=10**9)] = 1_000_000
    """Tokens that a worker's KV cache holds."""


class TransferCostSpec(SpecModel):
    """Moving embeddings and KV blocks between workers."""

    base_microseconds: Time = 0
    """Fixed time of a transfer."""
    per_image_token_picoseconds: Time = 0
    """Added for each token of embeddings."""
    per_kv_token_picoseconds: Time = 0
    """Added for each token of KV cache."""


class PerformanceSpec(SpecModel):
    """A measured or published profile of one worker. The planner corrects it while it watches."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name, shown in decisions."""
    provenance: Annotated[str, Field(min_length=1, max_length=1024)]
    """Where the figures come from. A profile without a source is a guess."""
    encode: EncodeCostSpec = EncodeCostSpec()
    """Times of the encode stage."""
    prefill: PrefillCostSpec
    """Times of the prefill stage."""
    decode: DecodeCostSpec
    """Times of the decode stage."""
    transfer: TransferCostSpec = TransferCostSpec()
    """Times between the stages."""
    switch_milliseconds: Annotated[int, Field(ge=0, le=3_600_000)] = 100
    """Switch between prefill and decode: weights stay where they are."""
    reload_switch_milliseconds: Annotated[int, Field(ge=0, le=3_600_000)] = 700
    """Switch from or to encode: other weights become active."""
    startup_seconds: Annotated[int, Field(ge=0, le=86_400)] = 120
    """A new worker, from its pod to its first request."""

    def profile(self) -> PerformanceProfile:
        """The same for the planner, in seconds."""
        encode, prefill, decode, transfer = self.encode, self.prefill, self.decode, self.transfer
        return PerformanceProfile(
            name=self.name,
            provenance=self.provenance,
            encode=EncodeCost(
                base_s=encode.base_microseconds / 1e6,
                per_image_s=encode.per_image_microseconds / 1e6,
                per_token_s=encode.per_token_nanoseconds / 1e9,
                max_images=encode.max_images,
            ),
            prefill=PrefillCost(
                base_s=prefill.base_microseconds / 1e6,
                per_token_s=prefill.per_token_nanoseconds / 1e9,
                per_pair_s=prefill.per_pair_femtoseconds / 1e15,
                max_tokens=prefill.max_tokens,
            ),
            decode=DecodeCost(
                base_s=decode.base_microseconds / 1e6,
                per_sequence_s=decode.per_sequence_nanoseconds / 1e9,
                per_context_token_s=decode.per_context_token_picoseconds / 1e12,
                max_sequences=decode.max_sequences,
                kv_tokens=decode.kv_tokens,
            ),
            transfer=TransferCost(
                base_s=transfer.base_microseconds / 1e6,
                per_image_token_s=transfer.per_image_token_picoseconds / 1e12,
                per_kv_token_s=transfer.per_kv_token_picoseconds / 1e12,
            ),
            switch_s=self.switch_milliseconds / 1e3,
            reload_switch_s=self.reload_switch_milliseconds / 1e3,
            startup_s=float(self.startup_seconds),
        )
