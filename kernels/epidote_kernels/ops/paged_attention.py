"""This file is about the ops of attention over a paged KV cache, one query or many."""

import torch
from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel
from epidote_kernels.ops.paged_cache import check_cache, check_layout, check_tables


def paged_decode_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    seq_lens: Tensor,
    *,
    scale: float,
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
) -> Tensor:
    """One query token per sequence against its paged KV cache.

    q             [S, H, D]  fp; H a multiple of K, head h reads KV head h // (H/K)
    k_cache       [NB, BS, K, D]  like q, every block contiguous (v_cache alike).
                  With scales: int8 or float8_e4m3fn codes. [NB, BS, 1, D] with tables per head
    block_tables  [S, MB]  int32; entries past a sequence's end are never used as block numbers.
                  [S, K, MB]: a table for each head
    seq_lens      [S]  int32, the query's own token included; 0 is padding, its row returns zeros.
                  [S, K]: a length for each head, as compression leaves them
    scale         factor of the scores, usually D ** -0.5
    k_scale       [K]  fp32 (v_scale alike): what a code counts for, as `rope_kv_write` filed it
    returns       [S, H, D] like q, contiguous; softmax and sums in fp32
    Slots of a live block past its sequence's end may hold anything finite.
    Traffic: every live K and V once, 2·sum(seq_lens)·K·D·cache_itemsize bytes.
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
    _check_paged(q, k_cache, v_cache, block_tables, seq_lens, k_scale, v_scale, q.shape[0])
    if by_kernel(q):
        arguments.are_together("q, block_tables, seq_lens", q, block_tables, seq_lens)
        check_layout(q, k_cache, v_cache, block_tables)
        from epidote_kernels.paged_decode_attention import paged_decode_attention as kernel

        return kernel(
            q, k_cache, v_cache, block_tables, seq_lens,
            scale=scale, k_scale=k_scale, v_scale=v_scale,
        )  # fmt: skip
    return reference.paged_decode_attention(
        q, k_cache, v_cache, block_tables, seq_lens, scale=scale, k_scale=k_scale, v_scale=v_scale
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
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
    span_ends: Tensor | None = None,
) -> Tensor:
    """A chunk of each sequence's queries against its paged KV cache: causal, pictures whole.

    The chunk is the last tokens of the sequence so far: its keys and values are in the cache
    already, and so is the prefix before it.

    q             [T, H, D]  fp; H a multiple of K
    k_cache       [NB, BS, K, D]  like q, every block contiguous (v_cache alike).
                  With scales: int8 or float8_e4m3fn codes. [NB, BS, 1, D] with tables per head
    block_tables  [S, MB]  int32; entries past a sequence's end are never used as block numbers.
                  [S, K, MB]: a table for each head
    cu_q_lens     [S + 1]  int32, rising from 0: sequence s has rows cu_q_lens[s]:cu_q_lens[s+1]
    seq_lens      [S]  int32, prefix and chunk; at least the chunk. 0, or an empty chunk: padding.
                  [S, K]: a length for each head; the chunk is the last tokens of every head
    max_q_len     at least the longest chunk; it sizes the launch, so that nothing waits
    k_scale       [K]  fp32 (v_scale alike): what a code counts for, as `rope_kv_write` filed it
    span_ends     [T]  int32: queries of a picture that is read in both directions see the keys
                  before this place of their sequence, which the chunk must reach; 0: causal
    returns       [T, H, D] like q, contiguous; rows of no sequence or of an empty one are zeros
    Traffic: about 2·T·H·D·itemsize, plus every live K and V once per 64 rows or so of a chunk.
    Twin: reference.paged_prefill_attention. Sources: FlashAttention-2, Dao, 2023; Kwon et al.,
    SOSP 2023; chunks: Agrawal et al., OSDI 2024.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit; from the twin, which reads them,
            also lengths that do not.
    """
    if q.dim() != 3 or k_cache.dim() != 4 or seq_lens.dim() not in (1, 2):
        raise ValueError(
            f"q, k_cache, seq_lens: must have shapes [T, H, D], [NB, BS, K, D] and [S], "
            f"got {list(q.shape)}, {list(k_cache.shape)} and {list(seq_lens.shape)}"
        )
    num_seqs = seq_lens.shape[0]
    arguments.fits("cu_q_lens", cu_q_lens, (num_seqs + 1,))
    arguments.is_int("cu_q_lens", cu_q_lens, torch.int32)
    _check_paged(q, k_cache, v_cache, block_tables, seq_lens, k_scale, v_scale, num_seqs)
    if span_ends is not None:
        arguments.fits("span_ends", span_ends, (q.shape[0],))
        arguments.is_int("span_ends", span_ends, torch.int32)
    if max_q_len < 0:
        raise ValueError(f"max_q_len: must be >= 0, got {max_q_len}")
    if by_kernel(q):
        arguments.are_together(
            "q, block_tables, cu_q_lens, seq_lens", q, block_tables, cu_q_lens, seq_lens
        )
        arguments.is_contiguous("cu_q_lens", cu_q_lens)
        check_layout(q, k_cache, v_cache, block_tables)
        from epidote_kernels.paged_prefill_attention import paged_prefill_attention as kernel

        return kernel(
            q, k_cache, v_cache, block_tables, cu_q_lens, seq_lens,
            scale=scale, max_q_len=max_q_len, k_scale=k_scale, v_scale=v_scale,
            span_ends=span_ends,
        )  # fmt: skip
    return reference.paged_prefill_attention(
        q, k_cache, v_cache, block_tables, cu_q_lens, seq_lens,
        scale=scale, max_q_len=max_q_len, k_scale=k_scale, v_scale=v_scale, span_ends=span_ends,
    )  # fmt: skip


def _check_paged(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    seq_lens: Tensor,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
    num_seqs: int,
) -> None:
    arguments.is_float("q", q)
    by_head = block_tables.dim() == 3
    heads = k_cache.shape[2]
    num_kv_heads = block_tables.shape[1] if by_head else heads
    check_cache(q, k_cache, v_cache, k_scale, v_scale, num_kv_heads=num_kv_heads, by_head=by_head)
    if not num_kv_heads or q.shape[1] % num_kv_heads:
        raise ValueError(f"q: heads must be a multiple of {num_kv_heads}, got {q.shape[1]}")
    check_tables(
        block_tables, seq_lens, "seq_lens",
        num_seqs=num_seqs, num_kv_heads=num_kv_heads, heads=heads,
    )  # fmt: skip
