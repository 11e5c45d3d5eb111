"""This file is about KV numbers in one byte, in plain torch; see `epidote_kernels.kv_codes`."""

import torch
from torch import Tensor

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


def encoded(x: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What a cache of `dtype` holds for `x` [..., K, D], by head: `round(x / scale)`, clamped.

    scale  [K] fp32, each > 0; None where `dtype` is x's own
    """
    if scale is None:
        return x.to(dtype)
    largest = LARGEST[dtype]
    scaled = (x.float() / scale.unsqueeze(-1)).clamp(-largest, largest)
    return (scaled.round() if dtype is torch.int8 else scaled).to(dtype)


def decoded(codes: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The numbers that `codes` [..., K, D] stand for, rounded to `dtype` once."""
    if scale is None:
        return codes
    return (codes.float() * scale.unsqueeze(-1)).to(dtype)


def head_scales(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The scale of each head, [K] fp32, that takes the largest of `x` [..., K, D] to the limit.

    A head of zeros gets 1. Calibration in the simplest form: the scale of a sample of keys.
    """
    heads = x.shape[-2]
    if not x.numel():
        return torch.ones(heads, device=x.device)
    largest = x.float().abs().amax(-1).reshape(-1, heads).amax(0)
    scale = largest / LARGEST[dtype]
    return torch.where(scale > 0, scale, torch.ones_like(scale))
