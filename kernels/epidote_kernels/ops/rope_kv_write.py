"""This file is about the op that rotates queries and keys and files keys and values."""

from typing import Any

import torch
from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel
from epidote_kernels.ops.paged_cache import check_cache


def rope_kv_write(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    *,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 0.0,
) -> Tensor:
    """Rotate queries and keys by their positions; file keys and values in the paged cache.

    q        [T, H, D]  fp, last dimension of stride 1 (k and v alike): views of one projection do
    k, v     [T, K, D]  like q; left as they were
    cos, sin [T, D/2]  fp32, of `rope_cos_sin` or `mrope_cos_sin`; rounded to q's dtype before use
    k_cache  [NB, BS, K, D]  like q, every block contiguous (v_cache alike). Mutated.
             With scales: int8 or float8_e4m3fn codes. With slots per head: also [NB, BS, 1, D]
    slots    [T]  int64: block·BS + offset; negative is padding, written nowhere. Distinct.
             [T, K]: a slot for each head, where heads of a compressed sequence differ in length
    k_scale  [K]  fp32, each > 0 (v_scale alike): what is filed is `round(key / scale)`, clamped
    q_norm   [D]  like q (k_norm alike): weights of an RMS norm of every head before the rotation
    eps      of that norm
    returns  rotated q, [T, H, D]. May or may not share memory with the argument q: use only it.
    The rotation pairs element i with i + D/2 ("neox"), every product rounded to q's dtype.
    Traffic: (2·T·H·D + 2·T·K·D)·itemsize + 2·T·K·D·cache_itemsize + 8·T·(D/2 + 1) bytes.
    Twin: reference.rope_kv_write. Sources: Su et al., 2021; Kwon et al., SOSP 2023.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if q.dim() != 3 or k.dim() != 3:
        raise ValueError(
            f"q, k: must have shapes [T, H, D] and [T, K, D], "
            f"got {list(q.shape)} and {list(k.shape)}"
        )
    tokens, _, dim = q.shape
    num_kv_heads = k.shape[1]
    if k.shape != (tokens, num_kv_heads, dim):
        arguments.fits("k", k, (tokens, "K", dim))
    if v.shape != k.shape:
        arguments.fits("v", v, k.shape)
    half = (tokens, dim // 2)
    if dim % 2 or cos.shape != half or sin.shape != half:
        arguments.fits("cos", cos, half)
        arguments.fits("sin", sin, half)
        raise ValueError(f"q: head_dim must be even, got {dim}")
    by_head = slots.dim() == 2
    check_cache(q, k_cache, v_cache, k_scale, v_scale, num_kv_heads=num_kv_heads, by_head=by_head)
    if slots.shape != (tokens,) or slots.dtype is not torch.int64:
        arguments.fits("slots", slots, (tokens, num_kv_heads) if by_head else (tokens,))
        arguments.is_int("slots", slots, torch.int64)
    arguments.is_float("q", q)
    arguments.are_alike("q, k, v", q, k, v)
    if (q_norm is None) != (k_norm is None):
        raise ValueError("q_norm, k_norm: must be given both or neither, got one")
    if q_norm is not None and k_norm is not None:
        arguments.fits("q_norm", q_norm, (dim,))
        arguments.fits("k_norm", k_norm, (dim,))
        arguments.are_alike("q, q_norm, k_norm", q, q_norm, k_norm)
    more: dict[str, Any] = {"k_scale": k_scale, "v_scale": v_scale}
    more |= {"q_norm": q_norm, "k_norm": k_norm, "eps": eps}
    if by_kernel(q):
        for name, weight in (("q_norm", q_norm), ("k_norm", k_norm)):
            if weight is not None:
                arguments.is_contiguous(name, weight)
        arguments.are_alike("cos, sin", cos, sin)
        arguments.are_together("q, cos, slots", q, cos, slots)
        arguments.head_dim_is_supported(dim)
        arguments.codes_are_supported("k_cache", k_cache)
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            arguments.rows_are_whole(name, tensor)
        for name, tensor in (("cos", cos), ("sin", sin)):
            arguments.rows_are_whole(name, tensor)
        arguments.blocks_are_whole("k_cache", k_cache)
        arguments.blocks_are_whole("v_cache", v_cache)
        from epidote_kernels.rope_kv_write import rope_kv_write as kernel

        return kernel(q, k, v, cos, sin, k_cache, v_cache, slots, **more)
    return reference.rope_kv_write(q, k, v, cos, sin, k_cache, v_cache, slots, **more)
