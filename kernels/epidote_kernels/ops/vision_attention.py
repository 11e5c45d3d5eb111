"""This file is about the op of attention within pictures or windows."""

import torch
from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel


def vision_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, *, scale: float, max_seqlen: int
) -> Tensor:
    """Attention in both directions within each segment, none between segments.

    A segment is a picture, a frame, or a window of one: windowed attention is more, shorter ones.

    q, k, v     [T, H, D]  fp, last dimension of stride 1
    cu_seqlens  [S + 1]  int32, rising from 0: segment s has rows cu_seqlens[s]:cu_seqlens[s+1]
    max_seqlen  at least the longest segment; it sizes the launch, so that nothing waits
    returns     [T, H, D] like q, contiguous; rows of no segment are zeros; sums in fp32
    Work: 4·H·D·sum(len²) floating-point operations.
    Twin: reference.vision_attention. Sources: FlashAttention-2, Dao, 2023; NaViT, Dehghani et
    al., NeurIPS 2023.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit; from the twin, which reads them,
            also bounds that do not.
    """
    if q.dim() != 3:
        raise ValueError(f"q: must have shape [T, H, D], got {list(q.shape)}")
    if k.shape != q.shape or v.shape != q.shape:
        arguments.fits("k", k, q.shape)
        arguments.fits("v", v, q.shape)
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        raise ValueError(f"cu_seqlens: must have shape [S + 1], got {list(cu_seqlens.shape)}")
    arguments.is_int("cu_seqlens", cu_seqlens, torch.int32)
    arguments.is_float("q", q)
    arguments.are_alike("q, k, v", q, k, v)
    if max_seqlen < 0:
        raise ValueError(f"max_seqlen: must be >= 0, got {max_seqlen}")
    if by_kernel(q):
        arguments.are_together("q, cu_seqlens", q, cu_seqlens)
        arguments.head_dim_is_supported(q.shape[2])
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            arguments.rows_are_whole(name, tensor)
        arguments.is_contiguous("cu_seqlens", cu_seqlens)
        from epidote_kernels.vision_attention import vision_attention as kernel

        return kernel(q, k, v, cu_seqlens, scale=scale, max_seqlen=max_seqlen)
    return reference.vision_attention(q, k, v, cu_seqlens, scale=scale, max_seqlen=max_seqlen)
