"""This file is about moving whole KV blocks in plain torch."""

from torch import Tensor


def copy_blocks(src_cache: Tensor, dst_cache: Tensor, src_ids: Tensor, dst_ids: Tensor) -> None:
    """`dst_cache[dst_ids[i]] = src_cache[src_ids[i]]`; see `ops.copy_blocks`."""
    dst_cache.index_copy_(0, dst_ids.long(), src_cache.index_select(0, src_ids))


def gather_blocks(cache: Tensor, ids: Tensor) -> Tensor:
    """Blocks `ids` of `cache`, packed; see `ops.gather_blocks`."""
    return cache.index_select(0, ids)


def scatter_blocks(cache: Tensor, ids: Tensor, packed: Tensor) -> None:
    """`cache[ids[i]] = packed[i]`; see `ops.scatter_blocks`."""
    cache.index_copy_(0, ids.long(), packed)
