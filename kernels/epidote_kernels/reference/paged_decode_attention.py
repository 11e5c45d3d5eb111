"""This file is about one query token per sequence against its paged KV cache, in plain torch.

Source: PagedAttention, Kwon et al., SOSP 2023.
"""

import functools

import torch
from torch import Tensor

from epidote_kernels.reference.cache_contents import head_contents, length_of, slots_of


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
    """Gather every sequence's blocks, then one batched attention; see `ops`.

    Reads the lengths on the host. The batch is padded to its longest sequence, so slots past a
    sequence's end are read and weighted with zero: they must hold finite numbers (allocate the
    cache with zeros).
    """
    if seq_lens.dim() == 2 or block_tables.dim() == 3:
        return _head_by_head(
            q, k_cache, v_cache, block_tables, seq_lens,
            scale=scale, k_scale=k_scale, v_scale=v_scale,
        )  # fmt: skip
    num_seqs, num_heads, dim = q.shape
    _, block_size, num_kv_heads, _ = k_cache.shape
    lengths = tuple(seq_lens.tolist())
    longest = max(lengths, default=0)
    if longest == 0:
        return torch.zeros_like(q)
    table = block_tables[:, : -(-longest // block_size)]
    bias = None
    if min(lengths) != longest:
        bias, live_blocks = _ragged(lengths, block_size, q.dtype, q.device)
        table = table * live_blocks  # ids past a sequence's end may be anything: make them block 0
    ids = table.reshape(-1)
    shape = (num_seqs, -1, num_kv_heads, dim)
    keys = slots_of("keys", k_cache, ids, k_scale, q.dtype)
    values = slots_of("values", v_cache, ids, v_scale, q.dtype)
    # The heads that share a KV head stand where a longer query would: no KV is repeated.
    out = torch.nn.functional.scaled_dot_product_attention(
        q.view(num_seqs, num_kv_heads, num_heads // num_kv_heads, dim),
        keys.view(shape)[:, :longest].transpose(1, 2),
        values.view(shape)[:, :longest].transpose(1, 2),
        attn_mask=bias,
        scale=scale,
    ).reshape(num_seqs, num_heads, dim)
    if 0 in lengths:
        out = out.masked_fill((seq_lens == 0).view(-1, 1, 1), 0.0)
    return out


def _head_by_head(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    seq_lens: Tensor,
    *,
    scale: float,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
) -> Tensor:
    """One attention per head of each sequence, for caches whose heads differ."""
    num_kv_heads = block_tables.shape[1] if block_tables.dim() == 3 else k_cache.shape[2]
    group = q.shape[1] // num_kv_heads
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    for row in range(q.shape[0]):
        for head in range(num_kv_heads):
            length = length_of(seq_lens, row, head)
            if not length:
                continue
            table = block_tables[row]
            keys = head_contents(k_cache, table, length, head, k_scale, q.dtype)
            values = head_contents(v_cache, table, length, head, v_scale, q.dtype)
            heads = slice(head * group, (head + 1) * group)
            out[row, heads] = torch.nn.functional.scaled_dot_product_attention(
                q[row, heads].unsqueeze(0), keys.unsqueeze(0), values.unsqueeze(0), scale=scale
            )[0]
    return out


# The same lengths come once per layer. Two entries: a batch this wide can be megabytes of bias.
@functools.lru_cache(maxsize=2)
def _ragged(
    lengths: tuple[int, ...], block_size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Bias [S, 1, 1, longest], -inf past each end, and int32 [S, blocks], 1 for a live block.

    An empty sequence gets a bias of zeros, since a row of -inf alone has no softmax.
    """
    longest = max(lengths)
    ends = torch.tensor([n or longest for n in lengths], device=device).unsqueeze(1)
    past = torch.arange(longest, device=device) >= ends
    bias = torch.zeros(past.shape, dtype=dtype, device=device).masked_fill_(past, -torch.inf)
    blocks = torch.tensor([-(-n // block_size) for n in lengths], device=device).unsqueeze(1)
    live = torch.arange(-(-longest // block_size), device=device) < blocks
    return bias.view(len(lengths), 1, 1, longest), live.int()
