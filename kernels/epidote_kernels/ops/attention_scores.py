"""This file is about the ops that score cached keys, for policies that drop, merge or demote them.

SnapKV: the window's column sums, pooled with width 5 over the keys before the window. H2O: the
column sums of the whole prompt, then of every step, added to the same tensor.
"""

import torch
from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel
from epidote_kernels.ops.paged_cache import check_cache, check_layout, check_tables

MAX_WIDTH = 63


def attention_column_sums(
    q: Tensor,
    k_cache: Tensor,
    block_tables: Tensor,
    cu_q_lens: Tensor,
    seq_lens: Tensor,
    *,
    scale: float,
    max_q_len: int,
    max_seq_len: int,
    k_scale: Tensor | None = None,
    into: Tensor | None = None,
) -> Tensor:
    """How much attention each cached key gets from the last queries of its sequence.

    q             [T, H, D]  fp: rotated queries of the windows; H a multiple of K
    k_cache       [NB, BS, K, D]  like q, every block contiguous. With a scale: int8 or
                  float8_e4m3fn codes. [NB, BS, 1, D] with tables per head
    block_tables  [S, MB] or [S, K, MB]  int32
    cu_q_lens     [S + 1]  int32: window s is rows cu_q_lens[s]:cu_q_lens[s+1] of q, and the last
                  tokens of its sequence. Causal: a query sees the keys up to its own
    seq_lens      [S] or [S, K]  int32; 0, or an empty window: padding, scores stay as they were
    max_q_len     at least the longest window; it sizes the launch, so that nothing waits
    max_seq_len   at least the longest sequence
    into          [S, K, max_seq_len]  fp32, contiguous: sums are added to it; by default zeros
    returns       `into`: sums over the window of the softmax's shares, averaged over the query
                  heads of a KV head. Columns past a sequence's end are left alone
    Work: 4·H·D·sum(window·seq_len) floating-point operations at most. Traffic: live keys twice.
    Twin: reference.attention_column_sums. Sources: SnapKV, Li et al., NeurIPS 2024; H2O, Zhang et
    al., NeurIPS 2023.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit; from the twin, which reads them,
            also lengths that do not.
    """
    if q.dim() != 3 or k_cache.dim() != 4 or seq_lens.dim() not in (1, 2):
        raise ValueError(
            f"q, k_cache, seq_lens: must have shapes [T, H, D], [NB, BS, K, D] and [S], "
            f"got {list(q.shape)}, {list(k_cache.shape)} and {list(seq_lens.shape)}"
        )
    arguments.is_float("q", q)
    num_seqs = seq_lens.shape[0]
    by_head = block_tables.dim() == 3
    num_kv_heads = block_tables.shape[1] if by_head else k_cache.shape[2]
    check_cache(q, k_cache, k_cache, k_scale, k_scale, num_kv_heads=num_kv_heads, by_head=by_head)
    if not num_kv_heads or q.shape[1] % num_kv_heads:
        raise ValueError(f"q: heads must be a multiple of {num_kv_heads}, got {q.shape[1]}")
    check_tables(
        block_tables, seq_lens, "seq_lens",
        num_seqs=num_seqs, num_kv_heads=num_kv_heads, heads=k_cache.shape[2],
    )  # fmt: skip
    arguments.fits("cu_q_lens", cu_q_lens, (num_seqs + 1,))
    arguments.is_int("cu_q_lens", cu_q_lens, torch.int32)
    if max_q_len < 0 or max_seq_len < 0:
        raise ValueError(f"max_q_len, max_seq_len: must be >= 0, got {max_q_len} and {max_seq_len}")
    shape = (num_seqs, num_kv_heads, max_seq_len)
    if into is None:
        into = torch.zeros(shape, dtype=torch.float32, device=q.device)
    else:
        arguments.fits("into", into, shape)
        arguments.is_contiguous("into", into)
        arguments.are_together("q, into", q, into)
        if into.dtype is not torch.float32:
            raise ValueError(f"into: must be torch.float32, got {into.dtype}")
    if by_kernel(q):
        arguments.are_together(
            "q, block_tables, cu_q_lens, seq_lens", q, block_tables, cu_q_lens, seq_lens
        )
        arguments.is_contiguous("cu_q_lens", cu_q_lens)
        check_layout(q, k_cache, k_cache, block_tables)
        from epidote_kernels.attention_scores import attention_column_sums as kernel

        kernel(
            q, k_cache, block_tables, cu_q_lens, seq_lens, into,
            scale=scale, max_q_len=max_q_len, k_scale=k_scale,
        )  # fmt: skip
        return into
    reference.attention_column_sums(
        q, k_cache, block_tables, cu_q_lens, seq_lens, into,
        scale=scale, max_q_len=max_q_len, k_scale=k_scale,
    )  # fmt: skip
    return into


def pool_scores(
    scores: Tensor, seq_lens: Tensor, width: int = 5, *, largest: bool = False
) -> Tensor:
    """Each score's average with its neighbours, or the largest of them: keys are kept in runs.

    scores    [S, K, L]  fp32, contiguous, none negative
    seq_lens  [S] or [S, K]  int32: columns from here on count as zero and come out as zero.
              SnapKV passes the length before the window
    width     odd, at most 63: the score itself and (width - 1) / 2 on either side
    returns   like scores; an average always divides by `width`, at the ends too
    Traffic: 8·S·K·L bytes.
    Twin: reference.pool_scores. Source: SnapKV, Li et al., NeurIPS 2024.

    Raises:
        ValueError: shapes, dtypes or strides do not fit, or an even or too large width.
    """
    arguments.fits("scores", scores, ("S", "K", "L"))
    if scores.dtype is not torch.float32:
        raise ValueError(f"scores: must be torch.float32, got {scores.dtype}")
    arguments.fits(
        "seq_lens", seq_lens, scores.shape[:1] if seq_lens.dim() != 2 else scores.shape[:2]
    )
    arguments.is_int("seq_lens", seq_lens, torch.int32)
    if not 1 <= width <= MAX_WIDTH or width % 2 == 0:
        raise ValueError(f"width: must be odd and from 1 to {MAX_WIDTH}, got {width}")
    if by_kernel(scores):
        arguments.is_contiguous("scores", scores)
        arguments.are_together("scores, seq_lens", scores, seq_lens)
        from epidote_kernels.attention_scores import pool_scores as kernel

        return kernel(scores, seq_lens, width, largest=largest)
    return reference.pool_scores(scores, seq_lens, width, largest=largest)
