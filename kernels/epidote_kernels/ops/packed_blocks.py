"""This file is about the ops that pack KV blocks of all layers for a transfer, and unpack them."""

import torch
from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel
from epidote_kernels.reference.packed_blocks import LARGEST, PackedBlocks


def pack_blocks(pool: Tensor, ids: Tensor, *, quantized: torch.dtype | None = None) -> PackedBlocks:
    """Blocks `ids` of every layer side by side, to be sent in one piece.

    pool       [L, P, NB, BS, K, D]  fp, contiguous from NB on; P is 2: keys, values
    ids        [N]  int32 or int64, existing blocks
    quantized  int8 or float8_e4m3fn: smaller by the ratio of widths, with one fp32 scale for each
               layer, part, block and head; None: as they are
    returns    values [L, P, N, BS, K, D] and, if quantised, scales [L, P, N, K], both contiguous
    The largest magnitude of a head in a block becomes the type's largest number (127, 448).
    Traffic: L·P·N·BS·K·D·(itemsize of the pool + itemsize of the result) bytes.
    Twin: reference.pack_blocks. Why one piece: LMCache, arXiv 2510.09665.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    _check(pool, ids)
    if quantized is not None and quantized not in LARGEST:
        raise ValueError(f"quantized: must be torch.int8 or torch.float8_e4m3fn, got {quantized}")
    if by_kernel(pool):
        from epidote_kernels.packed_blocks import pack_blocks as kernel

        return kernel(pool, ids, quantized)
    return reference.pack_blocks(pool, ids, quantized)


def unpack_blocks(packed: PackedBlocks, pool: Tensor, ids: Tensor) -> None:
    """`pool[:, :, ids[i]] = packed[:, :, i]`, the way back from `pack_blocks`. Mutates `pool`.

    packed  as `pack_blocks` gives it, from a pool of the same shape but NB
    pool    [L, P, NB, BS, K, D]  fp, contiguous from NB on
    ids     [N]  int32 or int64, existing blocks, distinct
    Traffic: as in `pack_blocks`.
    Twin: reference.unpack_blocks.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    _check(pool, ids)
    values, scales = packed
    layers, parts, _, tokens, heads, dim = pool.shape
    arguments.fits("packed.values", values, (layers, parts, ids.shape[0], tokens, heads, dim))
    arguments.is_contiguous("packed.values", values)
    if scales is None:
        arguments.are_alike("pool, packed.values", pool, values)
    else:
        if values.dtype not in LARGEST:
            raise ValueError(
                f"packed.values: with scales must be int8 or float8_e4m3fn, got {values.dtype}"
            )
        arguments.fits("packed.scales", scales, (layers, parts, ids.shape[0], heads))
        arguments.is_contiguous("packed.scales", scales)
        arguments.is_int("packed.scales", scales, torch.float32)
        arguments.are_together("pool, packed", pool, values, scales)
    if by_kernel(pool):
        from epidote_kernels.packed_blocks import unpack_blocks as kernel

        return kernel(packed, pool, ids)
    return reference.unpack_blocks(packed, pool, ids)


def _check(pool: Tensor, ids: Tensor) -> None:
    if pool.dim() != 6:
        raise ValueError(f"pool: must have shape [L, P, NB, BS, K, D], got {list(pool.shape)}")
    arguments.is_float("pool", pool)
    if ids.dim() != 1 or ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"ids: must have shape [N], int32 or int64, got {list(ids.shape)} {ids.dtype}"
        )
    arguments.are_together("pool, ids", pool, ids)
    layers, parts = pool.shape[:2]
    # layers and parts are addressed by one stride
    whole = layers < 2 or pool.stride(0) == parts * pool.stride(1)
    if not whole or (pool.numel() and not pool[0, 0].is_contiguous()):
        raise ValueError(
            f"pool: every layer's blocks must be contiguous, got strides {pool.stride()}"
        )
