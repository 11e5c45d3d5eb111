"""This file is about a chunk of each sequence's queries against its paged KV cache, in plain torch.

Source: PagedAttention, Kwon et al., SOSP 2023; chunks: Sarathi-Serve, Agrawal et al., OSDI 2024.
"""

import torch
from torch import Tensor

from epidote_kernels.reference.gathered import gathered


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
    """One causal attention per sequence; see `ops.paged_prefill_attention`.

    Reads the lengths on the host, and therefore can refuse them.

    Raises:
        ValueError: a chunk longer than its sequence, or than `max_q_len`, or past the end of `q`.
    """
    starts = cu_q_lens.tolist()
    lengths = seq_lens.tolist()
    block_size, num_kv_heads = k_cache.shape[1:3]
    if starts[-1] > q.shape[0]:
        raise ValueError(f"cu_q_lens: must end within q's {q.shape[0]} rows, got {starts[-1]}")
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    for row, length in enumerate(lengths):
        first, last = starts[row], starts[row + 1]
        chunk = last - first
        if chunk == 0 or length == 0:
            continue
        if chunk > length or chunk > max_q_len:
            raise ValueError(
                f"cu_q_lens: sequence {row} has {length} tokens and max_q_len is {max_q_len}, "
                f"got a chunk of {chunk}"
            )
        ids = block_tables[row, : -(-length // block_size)]
        keys = gathered("keys", k_cache, ids)[:length].transpose(0, 1).unsqueeze(0)
        values = gathered("values", v_cache, ids)[:length].transpose(0, 1).unsqueeze(0)
        bias = None
        if 1 < chunk < length:  # the chunk's queries are the last rows of the full triangle
            bias = torch.full((chunk, length), -torch.inf, dtype=q.dtype, device=q.device)
            bias = bias.triu_(length - chunk + 1)
        out[first:last] = torch.nn.functional.scaled_dot_product_attention(
            q[first:last].transpose(0, 1).unsqueeze(0),
            keys,
            values,
            attn_mask=bias,
            is_causal=1 < chunk == length,
            scale=scale,
            enable_gqa=q.shape[1] != num_kv_heads,
        )[0].transpose(0, 1)
    return out
