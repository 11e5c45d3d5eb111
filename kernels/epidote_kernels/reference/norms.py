"""This file is about RMS normalisation in plain torch, with or without the residual sum before it.

Source: Root Mean Square Layer Normalization, Zhang and Sennrich, NeurIPS 2019.
"""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`weight · x / sqrt(mean(x²) + eps)` over the last dimension; see `ops.rms_norm`.

    In fp32 the result has the same bits as `weight * (x * rsqrt(mean(x²) + eps))`. Half types
    are normalised in fp32, rounded, then scaled in their own type, as Llama's checkpoints expect.
    """
    if x.dtype is torch.float32 and weight.dtype is torch.float32:
        return torch.rms_norm(x, weight.shape, weight, eps)
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True).add_(eps))
    return weight * wide.to(x.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The sum `x + residual`, rounded to `x.dtype`, and its norm; see `ops.add_rms_norm`."""
    total = x + residual
    return rms_norm(total, weight, eps), total
