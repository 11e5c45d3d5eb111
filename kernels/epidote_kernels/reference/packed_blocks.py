"""This file is about packing KV blocks of all layers in plain torch, quantised or not."""

from typing import NamedTuple

import torch
from torch import Tensor

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}  # the numbers each type ends at


class PackedBlocks(NamedTuple):
    """Blocks side by side, ready to be sent.

    values  [L, P, N, BS, K, D]  the pool's dtype, or int8 or float8_e4m3fn, contiguous
    scales  [L, P, N, K]  fp32: what values are multiplied by; None if they are not quantised
    """

    values: Tensor
    scales: Tensor | None


def pack_blocks(pool: Tensor, ids: Tensor, quantized: torch.dtype | None) -> PackedBlocks:
    """Blocks `ids` of every layer; see `ops.pack_blocks`."""
    blocks = pool.index_select(2, ids)
    if quantized is None:
        return PackedBlocks(blocks, None)
    wide = blocks.float()
    most = wide.abs().amax((3, 5))
    scales = torch.where(most > 0, most / LARGEST[quantized], 1.0)
    values = wide / scales[:, :, :, None, :, None]
    if quantized is torch.int8:
        values = (values + 0.5).floor().clamp(-127, 127)
    return PackedBlocks(values.to(quantized), scales)


def unpack_blocks(packed: PackedBlocks, pool: Tensor, ids: Tensor) -> None:
    """The way back; see `ops.unpack_blocks`."""
    values, scales = packed
    if scales is not None:
        values = (values.float() * scales[:, :, :, None, :, None]).to(pool.dtype)
    pool.index_copy_(2, ids.long(), values)
