"""This file is about a mixture of experts as config.json describes it; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epidote_engine.model_files import InvalidModel


@dataclass(frozen=True, kw_only=True)
class ExpertSpec:
    """Which layers have experts instead of one SwiGLU, how many, and who computes a token.

    intermediate   channels of each expert
    renormalises   a token's weights are divided by their sum
    layers         indices of the layers that have experts; the others are dense
    """

    num_experts: int
    per_token: int
    intermediate: int
    renormalises: bool
    layers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ExpertSlots:
    """One rank's slots for whole experts, the same number in every layer with experts.

    num_slots   of all ranks: experts and redundant ones; divisible by `num_ranks`
    """

    num_slots: int
    num_ranks: int
    rank: int

    @property
    def num_own(self) -> int:
        """This rank's."""
        return self.num_slots // self.num_ranks

    @property
    def own(self) -> range:
        """This rank's slots."""
        return range(self.rank * self.num_own, (self.rank + 1) * self.num_own)


def expert_spec(values: Mapping[str, Any]) -> ExpertSpec | None:
    """The experts of a Qwen3-MoE language model; None: every layer is dense.

    `values` has config.json's fields; `num_local_experts` is transformers 5's name for
    `num_experts`.

    Raises:
        InvalidModel: a field is missing, or sizes contradict each other.
    """
    num_experts = int(values.get("num_local_experts") or values.get("num_experts") or 0)
    num_layers, step = int(values["num_hidden_layers"]), int(values["decoder_sparse_step"])
    if step < 1:
        raise InvalidModel(f"config.json: decoder_sparse_step must be >= 1, got {step}")
    dense = set(values.get("mlp_only_layers") or ())
    layers = tuple(n for n in range(num_layers) if n not in dense and (n + 1) % step == 0)
    if not num_experts or not layers:
        return None
    missing = [
        name for name in ("num_experts_per_tok", "moe_intermediate_size") if name not in values
    ]
    if missing:
        raise InvalidModel(f"config.json: {', '.join(missing)} missing")
    per_token = int(values["num_experts_per_tok"])
    if not 1 <= per_token <= num_experts:
        raise InvalidModel(
            f"config.json: num_experts_per_tok must be from 1 to {num_experts}, got {per_token}"
        )
    return ExpertSpec(
        num_experts=num_experts,
        per_token=per_token,
        intermediate=int(values["moe_intermediate_size"]),
        renormalises=bool(values["norm_topk_prob"]),
        layers=layers,
    )
