"""This file is about how much each cached key is attended to, in plain torch.

Sources: SnapKV, Li et al., NeurIPS 2024; H2O, Zhang et al., NeurIPS 2023.
"""

import torch
from torch import Tensor

from epidote_kernels.reference.cache_contents import head_contents, length_of


def attention_column_sums(
    q: Tensor,
    k_cache: Tensor,
    block_tables: Tensor,
    cu_q_lens: Tensor,
    seq_lens: Tensor,
    out: Tensor,
    *,
    scale: float,
    max_q_len: int,
    k_scale: Tensor | None = None,
) -> None:
    """One softmax per sequence and KV head; see `ops.attention_column_sums`. Mutates `out`."""
    num_kv_heads = out.shape[1]
    starts = cu_q_lens.tolist()
    for row in range(out.shape[0]):
        window = q[starts[row] : starts[row + 1]]
        chunk = window.shape[0]
        for head in range(num_kv_heads):
            length = length_of(seq_lens, row, head)
            if not chunk or not length:
                continue
            if chunk > min(length, max_q_len) or length > out.shape[2]:
                raise ValueError(
                    f"cu_q_lens: sequence {row} has {length} tokens, max_q_len is {max_q_len} and "
                    f"the longest {out.shape[2]}, got a window of {chunk}"
                )
            keys = head_contents(k_cache, block_tables[row], length, head, k_scale, q.dtype)
            group = window.view(chunk, num_kv_heads, -1, q.shape[2])[:, head]
            scores = torch.einsum("tgd,ld->gtl", group.float(), keys.float()) * scale
            hidden = torch.ones(chunk, length, dtype=torch.bool, device=q.device)
            hidden = hidden.triu_(length - chunk + 1)
            shares = scores.masked_fill(hidden, -torch.inf).softmax(-1)
            out[row, head, :length] += shares.sum(1).mean(0)


def pool_scores(scores: Tensor, seq_lens: Tensor, width: int, *, largest: bool) -> Tensor:
    """Average or largest of the `width` scores around each; see `ops.pool_scores`."""
    if not scores.numel():
        return torch.empty_like(scores)
    lengths = seq_lens if seq_lens.dim() == 2 else seq_lens.unsqueeze(1)
    columns = torch.arange(scores.shape[2], device=scores.device)
    live = columns < lengths.unsqueeze(-1)
    kept = scores.masked_fill(~live, 0.0)
    if largest:
        pooled = torch.nn.functional.max_pool1d(kept, width, stride=1, padding=width // 2)
    else:
        pooled = torch.nn.functional.avg_pool1d(kept, width, stride=1, padding=width // 2)
    return pooled.masked_fill(~live, 0.0)
