"""This file is about the ops of attention over a paged KV cache, one query or many."""

import torch
from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel


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
    if by_kernel(q):
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
    if by_kernel(q):
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
