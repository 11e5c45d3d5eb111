"""This file is about the ops that move whole KV blocks."""

import torch
from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel


def copy_blocks(src_cache: Tensor, dst_cache: Tensor, src_ids: Tensor, dst_ids: Tensor) -> None:
    """`dst_cache[dst_ids[i]] = src_cache[src_ids[i]]` for every i. Mutates `dst_cache`.

    src_cache  [NB, BS, K, D]  any dtype, every block contiguous
    dst_cache  [NB', BS, K, D]  like src_cache; may be the same tensor
    src_ids    [N]  int32 or int64, existing blocks (dst_ids alike, and distinct). In one cache, no
               block may be read and written: the order of copies is not defined
    Traffic: 2·N·BS·K·D·itemsize bytes.
    Twin: reference.copy_blocks.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if src_cache.dim() < 2 or dst_cache.shape[1:] != src_cache.shape[1:]:
        raise ValueError(
            f"src_cache, dst_cache: must have blocks of one shape, "
            f"got {list(src_cache.shape)} and {list(dst_cache.shape)}"
        )
    _check_ids("src_ids", src_ids)
    _check_ids("dst_ids", dst_ids)
    if dst_ids.shape != src_ids.shape:
        arguments.fits("dst_ids", dst_ids, src_ids.shape)
    arguments.are_alike("src_cache, dst_cache", src_cache, dst_cache)
    if by_kernel(src_cache):
        arguments.are_together("src_cache, src_ids, dst_ids", src_cache, src_ids, dst_ids)
        arguments.blocks_are_whole("src_cache", src_cache)
        arguments.blocks_are_whole("dst_cache", dst_cache)
        from epidote_kernels.blocks import copy_blocks as kernel

        return kernel(src_cache, dst_cache, src_ids, dst_ids)
    return reference.copy_blocks(src_cache, dst_cache, src_ids, dst_ids)


def gather_blocks(cache: Tensor, ids: Tensor) -> Tensor:
    """Blocks `ids` of `cache` side by side in a new tensor, to be sent away in one piece.

    cache    [NB, BS, K, D]  any dtype, every block contiguous
    ids      [N]  int32 or int64, existing blocks
    returns  [N, BS, K, D]  like cache, contiguous
    Traffic: 2·N·BS·K·D·itemsize bytes.
    Twin: reference.gather_blocks.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if cache.dim() < 2:
        raise ValueError(f"cache: must have shape [NB, BS, K, D], got {list(cache.shape)}")
    _check_ids("ids", ids)
    if by_kernel(cache):
        arguments.are_together("cache, ids", cache, ids)
        arguments.blocks_are_whole("cache", cache)
        from epidote_kernels.blocks import gather_blocks as kernel

        return kernel(cache, ids)
    return reference.gather_blocks(cache, ids)


def scatter_blocks(cache: Tensor, ids: Tensor, packed: Tensor) -> None:
    """`cache[ids[i]] = packed[i]`, the way back from `gather_blocks`. Mutates `cache`.

    cache   [NB, BS, K, D]  any dtype, every block contiguous
    ids     [N]  int32 or int64, existing blocks, distinct
    packed  [N, BS, K, D]  like cache
    Traffic: 2·N·BS·K·D·itemsize bytes.
    Twin: reference.scatter_blocks.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if cache.dim() < 2:
        raise ValueError(f"cache: must have shape [NB, BS, K, D], got {list(cache.shape)}")
    _check_ids("ids", ids)
    arguments.fits("packed", packed, (*ids.shape, *cache.shape[1:]))
    arguments.are_alike("cache, packed", cache, packed)
    if by_kernel(cache):
        arguments.are_together("cache, ids", cache, ids)
        arguments.blocks_are_whole("cache", cache)
        arguments.blocks_are_whole("packed", packed)
        from epidote_kernels.blocks import scatter_blocks as kernel

        return kernel(cache, ids, packed)
    return reference.scatter_blocks(cache, ids, packed)


def _check_ids(name: str, ids: Tensor) -> None:
    if ids.dim() != 1 or ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"{name}: must have shape [N], int32 or int64, got {list(ids.shape)} {ids.dtype}"
        )
