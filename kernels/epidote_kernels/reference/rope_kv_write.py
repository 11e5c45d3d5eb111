"""This file is about rotating queries and keys and filing keys and values, in plain torch.

Source: RoFormer, Su et al., 2021 (the rotation); PagedAttention, Kwon et al., SOSP 2023 (slots).
"""

import torch
from torch import Tensor

from epidote_kernels.reference.kv_codes import encoded
from epidote_kernels.reference.norms import rms_norm


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
    """Rotate `q` and `k` by halves, write `k` and `v` to their slots; see `ops.rope_kv_write`.

    `q` itself is left as it was. The result is a view whose token stride spans the keys too.
    """
    num_heads = q.shape[1]
    if q_norm is not None and k_norm is not None:
        q, k = rms_norm(q, q_norm, eps), rms_norm(k, k_norm, eps)
    rotated = _rotate(_side_by_side(q, k), cos, sin)
    keys = rotated[:, num_heads:]
    if k_cache.dtype is not v.dtype:
        keys = encoded(keys, k_scale, k_cache.dtype)
        v = encoded(v, v_scale, v_cache.dtype)
    if slots.dim() == 2:
        _file_by_head(k_cache, slots, keys)
        _file_by_head(v_cache, slots, v)
        return rotated[:, :num_heads]
    if slots.numel() and int(slots.min()) < 0:  # padding: rare, so it may cost a copy
        live = (slots >= 0).nonzero().squeeze(1)
        slots, keys, v = slots[live], keys[live], v[live]
    _file(k_cache, slots, keys)
    _file(v_cache, slots, v)
    return rotated[:, :num_heads]


def _file_by_head(cache: Tensor, slots: Tensor, rows: Tensor) -> None:
    """`slots` [T, K]; a cache of one head per block is shared by all heads."""
    tokens, heads = (slots >= 0).nonzero(as_tuple=True)
    places = slots[tokens, heads]
    block_size = cache.shape[1]
    inside = heads if cache.shape[2] == slots.shape[1] else torch.zeros_like(heads)
    _bits(cache)[places // block_size, places % block_size, inside] = _bits(rows)[tokens, heads]


def _bits(x: Tensor) -> Tensor:
    """torch cannot index e4m3 numbers on every device; as integers of a byte it can."""
    return x.view(torch.int8) if x.element_size() == 1 else x


def _file(cache: Tensor, slots: Tensor, rows: Tensor) -> None:
    cache, rows = _bits(cache), _bits(rows)
    if cache.is_contiguous():
        cache.view(-1, *cache.shape[2:]).index_copy_(0, slots, rows)
    else:  # blocks of keys and of values may alternate; `flatten` would write to a copy
        block_size = cache.shape[1]
        cache[slots // block_size, slots % block_size] = rows


def _side_by_side(q: Tensor, k: Tensor) -> Tensor:
    """[T, H+K, D] without a copy where `q` and `k` are neighbours in one projection's output.

    One rotation of both costs half of two: at decode sizes the time is all in starting ops.
    """
    tokens, num_heads, dim = q.shape
    if (
        q.stride() == k.stride()
        and q.stride(1) == dim
        and q.data_ptr() + num_heads * dim * q.element_size() == k.data_ptr()
        and q.untyped_storage().data_ptr() == k.untyped_storage().data_ptr()
    ):
        return q.as_strided((tokens, num_heads + k.shape[1], dim), q.stride(), q.storage_offset())
    return torch.cat((q, k), 1)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(x₁, x₂) → (x₁·cos - x₂·sin, x₂·cos + x₁·sin), x₁ and x₂ being the halves of D.

    Every product and sum is rounded to `x.dtype`, so that fp32 has the bits of the textbook's
    `x·cos + rotate_half(x)·sin`.
    """
    tokens, heads, dim = x.shape
    half = dim // 2
    if cos.dtype is not x.dtype:
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    halves = x.view(tokens, heads, 2, half)
    out = halves * cos.view(tokens, 1, 1, half)
    cross = halves * sin.view(tokens, 1, 1, half)
    out_low, out_high = out.unbind(2)
    cross_low, cross_high = cross.unbind(2)
    out_low.sub_(cross_high)
    out_high.add_(cross_low)
    return out.view(tokens, heads, dim)
