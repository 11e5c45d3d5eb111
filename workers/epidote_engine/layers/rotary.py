"""This file is about the rotary frequencies of a text model and its ways to stretch them.

Sources: RoFormer, Su et al., 2021; linear position interpolation, Chen et al., 2023; YaRN, Peng et
al., 2023; the Llama 3.1 model card. Arithmetic follows transformers' `modeling_rope_utils`, since
equality with it is the measure.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def inverse_frequencies(
    head_dim: int, rope: Mapping[str, Any], max_positions: int
) -> tuple[Tensor, float]:
    """(float32 [head_dim / 2], factor of cosines and sines) for config.json's rope parameters.

    `rope` has `rope_theta`, `rope_type` (default, linear, llama3, yarn) and that type's fields.

    Raises:
        ValueError: another rope type.
    """
    theta = float(rope["rope_theta"])
    exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    plain = 1.0 / theta**exponents
    match rope.get("rope_type", "default"):
        case "default":
            return plain, 1.0
        case "linear":
            return plain / float(rope["factor"]), 1.0
        case "llama3":
            return _llama3(plain, rope, max_positions), 1.0
        case "yarn":
            return _yarn(theta**exponents, head_dim, theta, rope, max_positions)
        case other:
            raise ValueError(f"rope_type: {other!r} is not supported")


def _llama3(plain: Tensor, rope: Mapping[str, Any], max_positions: int) -> Tensor:
    """Slow frequencies are divided, fast ones kept, those between blended."""
    factor, low, high = (
        float(rope[name]) for name in ("factor", "low_freq_factor", "high_freq_factor")
    )
    context = rope.get("original_max_position_embeddings") or max_positions
    wavelength = 2 * math.pi / plain
    slow = torch.where(wavelength > context / low, plain / factor, plain)
    blend = (context / wavelength - low) / (high - low)
    between = (1 - blend) * slow / factor + blend * slow
    is_between = ~(wavelength < context / high) & ~(wavelength > context / low)
    return torch.where(is_between, between, slow)


def _yarn(
    powers: Tensor, head_dim: int, theta: float, rope: Mapping[str, Any], max_positions: int
) -> tuple[Tensor, float]:
    """Ramp from kept to divided frequencies, and the attention factor."""
    context = rope.get("original_max_position_embeddings") or max_positions
    factor = rope.get("factor") or max_positions / context

    def turning_point(rotations: float) -> float:
        return head_dim * math.log(context / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = turning_point(rope.get("beta_fast") or 32)
    high = turning_point(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # a step instead of a ramp
    ramp = ((torch.arange(head_dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    kept = 1 - ramp
    frequencies = (1.0 / (factor * powers)) * (1 - kept) + (1.0 / powers) * kept

    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    attention = rope.get("attention_factor")
    if attention is None:
        above, below = rope.get("mscale"), rope.get("mscale_all_dim")
        attention = magnitude(above) / magnitude(below) if above and below else magnitude(1.0)
    return frequencies, float(attention)
