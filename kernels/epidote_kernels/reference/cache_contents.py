"""This file is about the numbers a paged cache holds for a sequence, in plain torch."""

import torch
from torch import Tensor

from epidote_kernels.reference.gathered import gathered
from epidote_kernels.reference.kv_codes import decoded


def slots_of(
    role: str, cache: Tensor, ids: Tensor, scale: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """The slots of blocks `ids` in order, [N·BS, K, D], like `dtype`; valid until the next call.

    role  "keys" or "values": what the memory that the thread keeps is for
    """
    if scale is None:
        return gathered(role, cache, ids)
    bits = gathered(role, cache.view(torch.int8), ids)  # torch cannot index e4m3 everywhere
    return decoded(bits.view(cache.dtype), scale, dtype)


def head_contents(
    cache: Tensor, table: Tensor, length: int, head: int, scale: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """One head's first `length` keys or values, [length, D], like `dtype`.

    table  [K, MB] or [MB]; a block is of all heads, or of one
    """
    row = table[head] if table.dim() == 2 else table
    blocks = row[: -(-length // cache.shape[1])].long()
    inside = head if cache.shape[2] > 1 else 0
    bits = cache.view(torch.int8) if scale is not None else cache
    found = bits[blocks, :, inside].flatten(0, 1)[:length]
    if scale is None:
        return found
    return decoded(found.view(cache.dtype).unsqueeze(1), scale[head : head + 1], dtype).squeeze(1)


def length_of(seq_lens: Tensor, row: int, head: int) -> int:
    """The length of one head of one sequence; `seq_lens` [S] or [S, K]."""
    return int(seq_lens[row, head] if seq_lens.dim() == 2 else seq_lens[row])
