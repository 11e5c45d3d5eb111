"""This file is about random inputs shaped like an engine's, for tests and benches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NO_BLOCK = 2**30  # fills block tables past a sequence's end: nothing may use it as a block number


@dataclass(frozen=True, kw_only=True)
class PagedBatch:
    """A paged cache of random keys and values, and the tables of the sequences in it."""

    k_cache: Tensor  # [NB, BS, K, D]
    v_cache: Tensor
    block_tables: Tensor  # [S, MB] int32
    seq_lens: Tensor  # [S] int32


def paged_batch(
    seq_lens: Sequence[int],
    *,
    num_kv_heads: int,
    dim: int,
    block_size: int = 16,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    elsewhere: float | None = None,
) -> PagedBatch:
    """Sequences in blocks of one shuffled pool, drawn from torch's global generator.

    elsewhere  what every slot without a token holds; by default random numbers, as left behind
    """
    counts = [-(-length // block_size) for length in seq_lens]
    num_blocks = sum(counts) + 3
    shape = (num_blocks, block_size, num_kv_heads, dim)
    k_cache = torch.randn(shape, device=device).to(dtype)
    v_cache = torch.randn(shape, device=device).to(dtype)
    order = torch.randperm(num_blocks)
    tables = torch.full((len(counts), max(counts, default=0) + 2), NO_BLOCK, dtype=torch.int32)
    used = torch.zeros(num_blocks, block_size, dtype=torch.bool)
    taken = 0
    for row, (length, count) in enumerate(zip(seq_lens, counts, strict=True)):
        blocks = order[taken : taken + count]
        tables[row, :count] = blocks
        inside = torch.arange(count * block_size).view(count, block_size) < length
        used[blocks] = inside
        taken += count
    if elsewhere is not None:
        unused = ~used.to(device)
        k_cache[unused] = elsewhere
        v_cache[unused] = elsewhere
    return PagedBatch(
        k_cache=k_cache,
        v_cache=v_cache,
        block_tables=tables.to(device),
        seq_lens=torch.tensor(list(seq_lens), dtype=torch.int32, device=device),
    )


def cumulative(lengths: Sequence[int], device: str | torch.device = "cpu") -> Tensor:
    """0 and the running sums of `lengths`, int32: the bounds of packed pieces."""
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    return bounds.to(torch.int32).to(device)
