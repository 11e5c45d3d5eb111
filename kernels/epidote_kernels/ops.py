"""This file is about the ops a model calls: each checks its arguments, then picks who computes.

A CUDA tensor goes to the Triton kernel (`epidote_kernels.<op>`), any other to the torch twin
(`epidote_kernels.reference`). `EPIDOTE_KERNELS`, read once at import, overrides that:

| value    | CUDA tensor | other tensor |
| -------- | ----------- | ------------ |
| `auto`   | kernel, or twin without triton | twin |
| `torch`  | twin        | twin |
| `triton` | kernel      | kernel under `TRITON_INTERPRET=1`, else `ValueError` |

Letters in shapes: T tokens of the step, flattened over sequences; S sequences; H query heads;
K key/value heads; D head dimension; NB blocks of BS slots; MB blocks at most per sequence.
"fp" is fp32, bf16 or fp16. No op waits for the device when a kernel computes; twins read lengths
on the host. Nothing here is differentiable.
"""

import importlib.util
import os
from collections.abc import Mapping

import torch
from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.rope_tables import mrope_cos_sin, rope_cos_sin, rope_table

__all__ = [
    "add_rms_norm",
    "copy_blocks",
    "gather_blocks",
    "mrope_cos_sin",
    "paged_decode_attention",
    "paged_prefill_attention",
    "rms_norm",
    "rope_cos_sin",
    "rope_kv_write",
    "rope_table",
    "scatter_blocks",
    "silu_mul",
    "vision_attention",
]


def read_choice(environment: Mapping[str, str], *, has_triton: bool) -> str:
    """The value of `EPIDOTE_KERNELS`, by default "auto", which without triton is "torch".

    Raises:
        ValueError: another value, or "triton" where none is installed.
    """
    choice = environment.get("EPIDOTE_KERNELS", "auto")
    if choice not in ("auto", "torch", "triton"):
        raise ValueError(f"EPIDOTE_KERNELS: must be auto, torch or triton, got {choice!r}")
    if choice == "triton" and not has_triton:
        raise ValueError("EPIDOTE_KERNELS: is triton, but no triton is installed")
    return "torch" if choice == "auto" and not has_triton else choice


_CHOICE = read_choice(os.environ, has_triton=importlib.util.find_spec("triton") is not None)
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _by_kernel(tensor: Tensor) -> bool:
    if tensor.is_cuda:
        return _CHOICE != "torch"
    if _CHOICE != "triton":
        return False
    if not _INTERPRETED:
        raise ValueError(
            f"EPIDOTE_KERNELS: triton runs tensors on {tensor.device} only under "
            "TRITON_INTERPRET=1, set before the first import"
        )
    return True


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`weight · x / sqrt(mean(x²) + eps)` over the last dimension.

    x        [..., N]  fp, last dimension of stride 1; leading ones may be strided
    weight   [N]  like x
    returns  like x, contiguous; the sum of squares is in fp32
    Traffic: 2·numel(x)·itemsize bytes.
    Twin: reference.rms_norm. Source: Zhang and Sennrich, NeurIPS 2019.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if x.dim() < 1 or weight.dim() != 1 or x.shape[-1] != weight.shape[0]:
        raise ValueError(
            f"x, weight: must have shapes [..., N] and [N], "
            f"got {list(x.shape)} and {list(weight.shape)}"
        )
    arguments.is_float("x", x)
    arguments.are_alike("x, weight", x, weight)
    if _by_kernel(x):
        arguments.rows_are_whole("x", x)
        arguments.is_contiguous("weight", weight)
        from epidote_kernels.norms import rms_norm as kernel

        return kernel(x, weight, eps)
    return reference.rms_norm(x, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The residual sum of a layer and its norm, in one pass over both.

    x, residual  [..., N]  fp, contiguous
    weight       [N]  like x
    returns      (norm of the sum, the sum `x + residual` rounded to x's dtype), each like x.
                 The arguments are left as they were.
    Traffic: 4·numel(x)·itemsize bytes, where add and norm apart move 5.
    Twin: reference.add_rms_norm. Source: Zhang and Sennrich, NeurIPS 2019.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if x.dim() < 1 or weight.dim() != 1 or x.shape[-1] != weight.shape[0]:
        raise ValueError(
            f"x, weight: must have shapes [..., N] and [N], "
            f"got {list(x.shape)} and {list(weight.shape)}"
        )
    if residual.shape != x.shape:
        raise ValueError(
            f"residual: must have x's shape {list(x.shape)}, got {list(residual.shape)}"
        )
    arguments.is_float("x", x)
    arguments.are_alike("x, residual, weight", x, residual, weight)
    if _by_kernel(x):
        arguments.is_contiguous("x", x)
        arguments.is_contiguous("residual", residual)
        arguments.is_contiguous("weight", weight)
        from epidote_kernels.norms import add_rms_norm as kernel

        return kernel(x, residual, weight, eps)
    return reference.add_rms_norm(x, residual, weight, eps)


def silu_mul(gate_up: Tensor) -> Tensor:
    """`silu(gate) · up`, the activation between the two projections of a SwiGLU block.

    gate_up  [..., 2·I]  fp, contiguous; the gate is the first half
    returns  [..., I]  like gate_up; silu in fp32, rounded, then multiplied
    Traffic: 1.5·numel(gate_up)·itemsize bytes.
    Twin: reference.silu_mul. Source: Shazeer, 2020.

    Raises:
        ValueError: an odd last dimension, a wrong dtype or strides.
    """
    if gate_up.dim() < 1 or gate_up.shape[-1] % 2:
        raise ValueError(f"gate_up: must have shape [..., 2·I], got {list(gate_up.shape)}")
    arguments.is_float("gate_up", gate_up)
    if _by_kernel(gate_up):
        arguments.is_contiguous("gate_up", gate_up)
        from epidote_kernels.silu_mul import silu_mul as kernel

        return kernel(gate_up)
    return reference.silu_mul(gate_up)


def rope_kv_write(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
) -> Tensor:
    """Rotate queries and keys by their positions; file keys and values in the paged cache.

    q        [T, H, D]  fp, last dimension of stride 1 (k and v alike): views of one projection do
    k, v     [T, K, D]  like q; left as they were
    cos, sin [T, D/2]  fp32, of `rope_cos_sin` or `mrope_cos_sin`; rounded to q's dtype before use
    k_cache  [NB, BS, K, D]  like q, every block contiguous (v_cache alike). Mutated.
    slots    [T]  int64: block·BS + offset; negative is padding, written nowhere. Distinct.
    returns  rotated q, [T, H, D]. May or may not share memory with the argument q: use only it.
    The rotation pairs element i with i + D/2 ("neox"), every product rounded to q's dtype.
    Traffic: (2·T·H·D + 4·T·K·D)·itemsize + 8·T·(D/2 + 1) bytes.
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
    if k_cache.dim() != 4 or k_cache.shape[2:] != (num_kv_heads, dim):
        arguments.fits("k_cache", k_cache, ("NB", "BS", num_kv_heads, dim))
    if v_cache.shape != k_cache.shape:
        arguments.fits("v_cache", v_cache, k_cache.shape)
    if slots.shape != (tokens,) or slots.dtype is not torch.int64:
        arguments.fits("slots", slots, (tokens,))
        arguments.is_int("slots", slots, torch.int64)
    arguments.is_float("q", q)
    arguments.are_alike("q, k, v, k_cache, v_cache", q, k, v, k_cache, v_cache)
    if _by_kernel(q):
        arguments.are_alike("cos, sin", cos, sin)
        arguments.are_together("q, cos, slots", q, cos, slots)
        arguments.head_dim_is_supported(dim)
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            arguments.rows_are_whole(name, tensor)
        for name, tensor in (("cos", cos), ("sin", sin)):
            arguments.rows_are_whole(name, tensor)
        arguments.blocks_are_whole("k_cache", k_cache)
        arguments.blocks_are_whole("v_cache", v_cache)
        from epidote_kernels.rope_kv_write import rope_kv_write as kernel

        return kernel(q, k, v, cos, sin, k_cache, v_cache, slots)
    return reference.rope_kv_write(q, k, v, cos, sin, k_cache, v_cache, slots)


def paged_decode_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    seq_lens: Tensor,
    *,
    scale: float,
) -> Tensor:
    """One query token per sequence against its paged KV cache.

    q             [S, H, D]  fp; H a multiple of K, head h reads KV head h // (H/K)
    k_cache       [NB, BS, K, D]  like q, every block contiguous (v_cache alike)
    block_tables  [S, MB]  int32; entries past a sequence's end are never used as block numbers
    seq_lens      [S]  int32, the query's own token included; 0 is padding, its row returns zeros
    scale         factor of the scores, usually D ** -0.5
    returns       [S, H, D] like q, contiguous; softmax and sums in fp32
    Slots of a live block past its sequence's end may hold anything finite.
    Traffic: every live K and V once, 2·sum(seq_lens)·K·D·itemsize bytes.
    Twin: reference.paged_decode_attention. Sources: Kwon et al., SOSP 2023; splits of one long
    sequence: Flash-Decoding, Dao et al., 2023.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if q.dim() != 3 or k_cache.dim() != 4:
        raise ValueError(
            f"q, k_cache: must have shapes [S, H, D] and [NB, BS, K, D], "
            f"got {list(q.shape)} and {list(k_cache.shape)}"
        )
    num_seqs = q.shape[0]
    if seq_lens.shape != (num_seqs,) or seq_lens.dtype is not torch.int32:
        arguments.fits("seq_lens", seq_lens, (num_seqs,))
        arguments.is_int("seq_lens", seq_lens, torch.int32)
    _check_paged(q, k_cache, v_cache, block_tables, num_seqs)
    if _by_kernel(q):
        arguments.are_together("q, block_tables, seq_lens", q, block_tables, seq_lens)
        arguments.is_contiguous("seq_lens", seq_lens)
        _check_paged_layout(q, k_cache, v_cache, block_tables)
        from epidote_kernels.paged_decode_attention import paged_decode_attention as kernel

        return kernel(q, k_cache, v_cache, block_tables, seq_lens, scale=scale)
    return reference.paged_decode_attention(
        q, k_cache, v_cache, block_tables, seq_lens, scale=scale
    )


def paged_prefill_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    cu_q_lens: Tensor,
    seq_lens: Tensor,
    *,
    scale: float,
    max_q_len: int,
) -> Tensor:
    """A chunk of each sequence's queries against its paged KV cache, causal.

    The chunk is the last tokens of the sequence so far: its keys and values are in the cache
    already, and so is the prefix before it.

    q             [T, H, D]  fp; H a multiple of K
    k_cache       [NB, BS, K, D]  like q, every block contiguous (v_cache alike)
    block_tables  [S, MB]  int32; entries past a sequence's end are never used as block numbers
    cu_q_lens     [S + 1]  int32, rising from 0: sequence s has rows cu_q_lens[s]:cu_q_lens[s+1]
    seq_lens      [S]  int32, prefix and chunk; at least the chunk. 0, or an empty chunk: padding
    max_q_len     at least the longest chunk; it sizes the launch, so that nothing waits
    returns       [T, H, D] like q, contiguous; rows of no sequence or of an empty one are zeros
    Traffic: about 2·T·H·D·itemsize, plus every live K and V once per 64 rows or so of a chunk.
    Twin: reference.paged_prefill_attention. Sources: FlashAttention-2, Dao, 2023; Kwon et al.,
    SOSP 2023; chunks: Agrawal et al., OSDI 2024.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit; from the twin, which reads them,
            also lengths that do not.
    """
    if q.dim() != 3 or k_cache.dim() != 4 or seq_lens.dim() != 1:
        raise ValueError(
            f"q, k_cache, seq_lens: must have shapes [T, H, D], [NB, BS, K, D] and [S], "
            f"got {list(q.shape)}, {list(k_cache.shape)} and {list(seq_lens.shape)}"
        )
    num_seqs = seq_lens.shape[0]
    arguments.is_int("seq_lens", seq_lens, torch.int32)
    arguments.fits("cu_q_lens", cu_q_lens, (num_seqs + 1,))
    arguments.is_int("cu_q_lens", cu_q_lens, torch.int32)
    _check_paged(q, k_cache, v_cache, block_tables, num_seqs)
    if max_q_len < 0:
        raise ValueError(f"max_q_len: must be >= 0, got {max_q_len}")
    if _by_kernel(q):
        arguments.are_together(
            "q, block_tables, cu_q_lens, seq_lens", q, block_tables, cu_q_lens, seq_lens
        )
        arguments.is_contiguous("cu_q_lens", cu_q_lens)
        arguments.is_contiguous("seq_lens", seq_lens)
        _check_paged_layout(q, k_cache, v_cache, block_tables)
        from epidote_kernels.paged_prefill_attention import paged_prefill_attention as kernel

        return kernel(
            q, k_cache, v_cache, block_tables, cu_q_lens, seq_lens,
            scale=scale, max_q_len=max_q_len,
        )  # fmt: skip
    return reference.paged_prefill_attention(
        q, k_cache, v_cache, block_tables, cu_q_lens, seq_lens, scale=scale, max_q_len=max_q_len
    )


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
    if _by_kernel(q):
        arguments.are_together("q, cu_seqlens", q, cu_seqlens)
        arguments.head_dim_is_supported(q.shape[2])
        for name, tensor in (("q", q), ("k", k), ("v", v)):
            arguments.rows_are_whole(name, tensor)
        arguments.is_contiguous("cu_seqlens", cu_seqlens)
        from epidote_kernels.vision_attention import vision_attention as kernel

        return kernel(q, k, v, cu_seqlens, scale=scale, max_seqlen=max_seqlen)
    return reference.vision_attention(q, k, v, cu_seqlens, scale=scale, max_seqlen=max_seqlen)


def copy_blocks(src_cache: Tensor, dst_cache: Tensor, src_ids: Tensor, dst_ids: Tensor) -> None:
    """`dst_cache[dst_ids[i]] = src_cache[src_ids[i]]` for every i. Mutates `dst_cache`.

    src_cache  [NB, BS, K, D]  any dtype, every block contiguous
    dst_cache  [NB', BS, K, D]  like src_cache; may be the same tensor
    src_ids    [N]  int32 or int64, existing blocks (dst_ids alike, and distinct). In one cache, no
               block may be read and written: the order of copies is not defined
    Traffic: 2·N·BS·K·D·itemsize bytes.
    Twin: reference.copy_blocks.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if src_cache.dim() < 2 or dst_cache.shape[1:] != src_cache.shape[1:]:
        raise ValueError(
            f"src_cache, dst_cache: must have blocks of one shape, "
            f"got {list(src_cache.shape)} and {list(dst_cache.shape)}"
        )
    _check_ids("src_ids", src_ids)
    _check_ids("dst_ids", dst_ids)
    if dst_ids.shape != src_ids.shape:
        arguments.fits("dst_ids", dst_ids, src_ids.shape)
    arguments.are_alike("src_cache, dst_cache", src_cache, dst_cache)
    if _by_kernel(src_cache):
        arguments.are_together("src_cache, src_ids, dst_ids", src_cache, src_ids, dst_ids)
        arguments.blocks_are_whole("src_cache", src_cache)
        arguments.blocks_are_whole("dst_cache", dst_cache)
        from epidote_kernels.blocks import copy_blocks as kernel

        return kernel(src_cache, dst_cache, src_ids, dst_ids)
    return reference.copy_blocks(src_cache, dst_cache, src_ids, dst_ids)


def gather_blocks(cache: Tensor, ids: Tensor) -> Tensor:
    """Blocks `ids` of `cache` side by side in a new tensor, to be sent away in one piece.

    cache    [NB, BS, K, D]  any dtype, every block contiguous
    ids      [N]  int32 or int64, existing blocks
    returns  [N, BS, K, D]  like cache, contiguous
    Traffic: 2·N·BS·K·D·itemsize bytes.
    Twin: reference.gather_blocks.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if cache.dim() < 2:
        raise ValueError(f"cache: must have shape [NB, BS, K, D], got {list(cache.shape)}")
    _check_ids("ids", ids)
    if _by_kernel(cache):
        arguments.are_together("cache, ids", cache, ids)
        arguments.blocks_are_whole("cache", cache)
        from epidote_kernels.blocks import gather_blocks as kernel

        return kernel(cache, ids)
    return reference.gather_blocks(cache, ids)


def scatter_blocks(cache: Tensor, ids: Tensor, packed: Tensor) -> None:
    """`cache[ids[i]] = packed[i]`, the way back from `gather_blocks`. Mutates `cache`.

    cache   [NB, BS, K, D]  any dtype, every block contiguous
    ids     [N]  int32 or int64, existing blocks, distinct
    packed  [N, BS, K, D]  like cache
    Traffic: 2·N·BS·K·D·itemsize bytes.
    Twin: reference.scatter_blocks.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if cache.dim() < 2:
        raise ValueError(f"cache: must have shape [NB, BS, K, D], got {list(cache.shape)}")
    _check_ids("ids", ids)
    arguments.fits("packed", packed, (*ids.shape, *cache.shape[1:]))
    arguments.are_alike("cache, packed", cache, packed)
    if _by_kernel(cache):
        arguments.are_together("cache, ids", cache, ids)
        arguments.blocks_are_whole("cache", cache)
        arguments.blocks_are_whole("packed", packed)
        from epidote_kernels.blocks import scatter_blocks as kernel

        return kernel(cache, ids, packed)
    return reference.scatter_blocks(cache, ids, packed)


def _check_paged(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, block_tables: Tensor, num_seqs: int
) -> None:
    num_kv_heads = k_cache.shape[2]
    if v_cache.shape != k_cache.shape:
        arguments.fits("v_cache", v_cache, k_cache.shape)
    if k_cache.shape[3] != q.shape[2]:
        arguments.fits("k_cache", k_cache, ("NB", "BS", "K", q.shape[2]))
    if not num_kv_heads or q.shape[1] % num_kv_heads:
        raise ValueError(f"q: heads must be a multiple of {num_kv_heads}, got {q.shape[1]}")
    if (
        block_tables.dim() != 2
        or block_tables.shape[0] != num_seqs
        or block_tables.dtype is not torch.int32
    ):
        arguments.fits("block_tables", block_tables, (num_seqs, "MB"))
        arguments.is_int("block_tables", block_tables, torch.int32)
    arguments.is_float("q", q)
    arguments.are_alike("q, k_cache, v_cache", q, k_cache, v_cache)


def _check_paged_layout(q: Tensor, k_cache: Tensor, v_cache: Tensor, block_tables: Tensor) -> None:
    block_size = k_cache.shape[1]
    if not 16 <= block_size <= 64 or block_size & (block_size - 1):
        raise ValueError(f"k_cache: block size must be 16, 32 or 64, got {block_size}")
    arguments.head_dim_is_supported(q.shape[2])
    arguments.rows_are_whole("q", q)
    arguments.rows_are_whole("block_tables", block_tables)
    arguments.blocks_are_whole("k_cache", k_cache)
    arguments.blocks_are_whole("v_cache", v_cache)


def _check_ids(name: str, ids: Tensor) -> None:
    if ids.dim() != 1 or ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"{name}: must have shape [N], int32 or int64, got {list(ids.shape)} {ids.dtype}"
        )
