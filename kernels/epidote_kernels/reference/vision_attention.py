"""This file is about attention within each picture or window, in plain torch.

Source: Patch n' Pack (NaViT), Dehghani et al., NeurIPS 2023: many pictures in one row of tokens.
"""

import itertools

import torch
from torch import Tensor


def vision_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, *, scale: float, max_seqlen: int
) -> Tensor:
    """One batched attention per run of equally long segments; see `ops.vision_attention`.

    Windows come in long runs of one length, so that a picture cut in windows is a few calls.
    Reads the lengths on the host.

    Raises:
        ValueError: `cu_seqlens` falls, ends past `q`, or has a segment longer than `max_seqlen`.
    """
    tokens, num_heads, dim = q.shape
    bounds = cu_seqlens.tolist()
    lengths = [end - start for start, end in itertools.pairwise(bounds)]
    if bounds[-1] > tokens or min(lengths, default=0) < 0:
        raise ValueError(f"cu_seqlens: must rise to at most {tokens} (q's rows), got {bounds}")
    if max(lengths, default=0) > max_seqlen:
        raise ValueError(f"max_seqlen: must be >= {max(lengths)}, got {max_seqlen}")
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    start = bounds[0]
    for length, run in itertools.groupby(lengths):
        count = len(list(run))
        end = start + count * length
        if length:
            shape = (count, length, num_heads, dim)
            queries, keys, values = (x[start:end].reshape(shape).transpose(1, 2) for x in (q, k, v))
            part = torch.nn.functional.scaled_dot_product_attention(
                queries, keys, values, scale=scale
            )
            out[start:end].view(shape).copy_(part.transpose(1, 2))
        start = end
    return out
