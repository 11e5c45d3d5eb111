"""This file is about refusing wrong paged caches: their shape, their number type, their scales.

A cache is like the queries, or holds codes of one byte with a scale per head. A block holds a slot
of every head, or belongs to one head alone; then a compressed sequence frees what a head dropped.
"""

import torch
from torch import Tensor

from epidote_kernels import arguments

CODE_TYPES = (torch.int8, torch.float8_e4m3fn)


def check_cache(
    like: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k_scale: Tensor | None,
    v_scale: Tensor | None,
    *,
    num_kv_heads: int,
    by_head: bool = False,
) -> None:
    """Refuse caches that do not fit `like` [T, …, D].

    by_head  whether blocks may be of one head each

    Raises:
        ValueError: naming the argument, what was wanted and what was found.
    """
    dim = like.shape[-1]
    shape = k_cache.shape
    if (
        k_scale is v_scale is None
        and shape[2:] == (num_kv_heads, dim)
        and len(shape) == 4
        and v_cache.shape == shape
    ):  # the usual case costs one comparison, not seven
        arguments.are_alike("q, k_cache, v_cache", like, k_cache, v_cache)
        return
    heads = k_cache.shape[2] if k_cache.dim() == 4 else -1
    if heads != num_kv_heads and not (by_head and heads == 1):
        arguments.fits("k_cache", k_cache, ("NB", "BS", num_kv_heads, dim))
    arguments.fits("k_cache", k_cache, ("NB", "BS", heads, dim))
    arguments.fits("v_cache", v_cache, k_cache.shape)
    if (k_scale is None) != (v_scale is None):
        raise ValueError("k_scale, v_scale: must be given both or neither, got one")
    if k_scale is None or v_scale is None:
        arguments.are_alike("q, k_cache, v_cache", like, k_cache, v_cache)
        return
    arguments.are_alike("k_cache, v_cache", k_cache, v_cache)
    if k_cache.dtype not in CODE_TYPES:
        raise ValueError(
            f"k_cache: with scales, must be int8 or float8_e4m3fn, got {k_cache.dtype}"
        )
    for name, scale in (("k_scale", k_scale), ("v_scale", v_scale)):
        arguments.fits(name, scale, (num_kv_heads,))
        if scale.dtype is not torch.float32:
            raise ValueError(f"{name}: must be float32, got {scale.dtype}")
        arguments.is_contiguous(name, scale)
    arguments.are_together("q, k_cache, k_scale, v_scale", like, k_cache, k_scale, v_scale)


def check_tables(
    block_tables: Tensor, lens: Tensor, name: str, *, num_seqs: int, num_kv_heads: int, heads: int
) -> None:
    """Refuse tables and lengths that are neither per sequence nor per head of one.

    `heads` is what one block of the cache holds.

    Raises:
        ValueError: naming the argument, what was wanted and what was found.
    """
    if (
        lens.shape == (num_seqs,)
        and block_tables.dim() == 2
        and block_tables.shape[0] == num_seqs
        and heads == num_kv_heads
        and block_tables.dtype is lens.dtype is torch.int32
    ):
        return
    shape: tuple[int | str, ...]
    shape = (num_seqs, "MB") if block_tables.dim() != 3 else (num_seqs, num_kv_heads, "MB")
    arguments.fits("block_tables", block_tables, shape)
    arguments.is_int("block_tables", block_tables, torch.int32)
    if heads != num_kv_heads and block_tables.dim() != 3:
        raise ValueError(
            f"block_tables: must have shape [{num_seqs}, {num_kv_heads}, MB] for blocks of one "
            f"head, got {list(block_tables.shape)}"
        )
    arguments.fits(name, lens, (num_seqs,) if lens.dim() != 2 else (num_seqs, num_kv_heads))
    arguments.is_int(name, lens, torch.int32)


def check_layout(q: Tensor, k_cache: Tensor, v_cache: Tensor, block_tables: Tensor) -> None:
    """Refuse what the kernels have no tile for, or cannot address.

    Raises:
        ValueError: naming the argument and what was found.
    """
    block_size = k_cache.shape[1]
    if not 16 <= block_size <= 64 or block_size & (block_size - 1):
        raise ValueError(f"k_cache: block size must be 16, 32 or 64, got {block_size}")
    arguments.head_dim_is_supported(q.shape[2])
    arguments.codes_are_supported("k_cache", k_cache)
    arguments.rows_are_whole("q", q)
    arguments.rows_are_whole("block_tables", block_tables)
    arguments.blocks_are_whole("k_cache", k_cache)
    arguments.blocks_are_whole("v_cache", v_cache)
