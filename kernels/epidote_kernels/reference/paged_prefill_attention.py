"""This file is about a chunk of each sequence's queries against its paged KV cache, in plain torch.

Source: PagedAttention, Kwon et al., SOSP 2023; chunks: Sarathi-Serve, Agrawal et al., OSDI 2024.
"""

import torch
from torch import Tensor

from epidote_kernels.reference.cache_contents import head_contents, length_of, slots_of


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
    """One causal attention per sequence; see `ops.paged_prefill_attention`.

    Reads the lengths on the host, and therefore can refuse them.

    Raises:
        ValueError: a chunk longer than its sequence, or than `max_q_len`, or past the end of `q`;
            a span that ends past its sequence.
    """
    starts = cu_q_lens.tolist()
    by_head = seq_lens.dim() == 2 or block_tables.dim() == 3
    shortest = seq_lens.amin(1) if seq_lens.dim() == 2 and seq_lens.numel() else seq_lens
    lengths = shortest.tolist()
    block_size = k_cache.shape[1]
    num_kv_heads = block_tables.shape[1] if block_tables.dim() == 3 else k_cache.shape[2]
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
        ends = None if span_ends is None else span_ends[first:last]
        if ends is not None and int(ends.max()) > length:
            raise ValueError(
                f"span_ends: sequence {row} has {length} tokens, got a span to {int(ends.max())}"
            )
        if by_head:
            queries = q[first:last].reshape(chunk, num_kv_heads, -1, q.shape[2])
            outputs = out[first:last].view(queries.shape)
            for head in range(num_kv_heads):
                own = length_of(seq_lens, row, head)
                keys, values = (
                    head_contents(cache, block_tables[row], own, head, head_scale, q.dtype)
                    for cache, head_scale in ((k_cache, k_scale), (v_cache, v_scale))
                )
                outputs[:, head] = _one_head(queries[:, head], keys, values, ends, scale)
            continue
        ids = block_tables[row, : -(-length // block_size)]
        keys = slots_of("keys", k_cache, ids, k_scale, q.dtype)[:length]
        values = slots_of("values", v_cache, ids, v_scale, q.dtype)[:length]
        bias = None
        if ends is not None:
            bias = _seen(chunk, length, ends)
        elif 1 < chunk < length:  # the chunk's queries are the last rows of the full triangle
            bias = torch.full((chunk, length), -torch.inf, dtype=q.dtype, device=q.device)
            bias = bias.triu_(length - chunk + 1)
        out[first:last] = torch.nn.functional.scaled_dot_product_attention(
            q[first:last].transpose(0, 1).unsqueeze(0),
            keys.transpose(0, 1).unsqueeze(0),
            values.transpose(0, 1).unsqueeze(0),
            attn_mask=bias,
            is_causal=bias is None and 1 < chunk == length,
            scale=scale,
            enable_gqa=q.shape[1] != num_kv_heads,
        )[0].transpose(0, 1)
    return out


def _seen(chunk: int, length: int, ends: Tensor | None) -> Tensor:
    """bool [chunk, length]: the keys that each query sees, up to its own or its span's end."""
    seen_until = torch.arange(length - chunk + 1, length + 1)
    if ends is not None:
        seen_until = torch.maximum(seen_until.to(ends.device), ends)
    return torch.arange(length, device=seen_until.device) < seen_until.unsqueeze(1)


def _one_head(q: Tensor, keys: Tensor, values: Tensor, ends: Tensor | None, scale: float) -> Tensor:
    """Queries [chunk, group, D] of one KV head against its own keys [length, D]."""
    seen = _seen(q.shape[0], keys.shape[0], ends).to(q.device)
    out = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(0, 1), keys.unsqueeze(0), values.unsqueeze(0), attn_mask=seen, scale=scale
    )
    return out.transpose(0, 1)
