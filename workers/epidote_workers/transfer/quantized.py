"""This file is about KV blocks that cross a network as codes of one byte, in half the bytes.

`ops.pack_blocks` scales each head of each block by its largest number. What arrives differs from
what was sent: by half a step of the scale in int8, by a sixteenth of each number in fp8 (e4m3). It
stays so in the receiver's prefix cache. Off unless a fleet asks for it (`KV_TRANSFER_DTYPES`).
"""

from collections.abc import Sequence

import torch

from epidote_core.errors import InvalidRequest
from epidote_kernels import ops
from epidote_kernels.reference.packed_blocks import PackedBlocks
from epidote_workers.transfer.layout import MEDIA_POOL, PoolLayout, as_blocks
from epidote_workers.transfer.transport import LocalPool

KV_TRANSFER_DTYPES = ("auto", "int8", "fp8")  # auto: as the pool holds them
_TYPES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


def codes_for(kv_transfer_dtype: str, layout: PoolLayout) -> str:
    """How to ask for units of a pool: "int8", "fp8", or "" for as they are. Only KV is coded.

    Raises:
        InvalidRequest: no such setting, or the pool holds codes already.
    """
    if kv_transfer_dtype not in KV_TRANSFER_DTYPES:
        known = ", ".join(KV_TRANSFER_DTYPES)
        raise InvalidRequest(
            f"kv_transfer_dtype: must be one of {known}, got {kv_transfer_dtype!r}",
            "kv_transfer_dtype",
        )
    if layout.name == MEDIA_POOL or kv_transfer_dtype == "auto":
        return ""
    if layout.torch_dtype.itemsize == 1:
        raise InvalidRequest(
            f"kv_transfer_dtype: {kv_transfer_dtype} with a KV cache of {layout.dtype}, "
            "whose codes travel as they are: leave it at auto",
            "kv_transfer_dtype",
        )
    return kv_transfer_dtype


def pack_codes(pool: LocalPool, units: Sequence[int], layers: range, codes: str) -> bytes:
    """Codes [layers, parts, units, unit], then scales [layers, parts, units, heads] in float32.

    Raises:
        ValueError: unknown codes, or a pool whose numbers are not floats.
    """
    if codes not in _TYPES:
        raise ValueError(f"codes: must be one of {', '.join(_TYPES)}, got {codes!r}")
    blocks = as_blocks(pool.units, pool.layout)[layers.start : layers.stop]
    index = torch.tensor(units, device=blocks.device)
    values, scales = ops.pack_blocks(blocks, index, quantized=_TYPES[codes])
    assert scales is not None, "quantised"
    return _bytes(values) + _bytes(scales)


def unpack_codes(
    data: bytes | memoryview, into: LocalPool, units: Sequence[int], layers: range, codes: str
) -> None:
    """The reverse of `pack_codes`, into `into`.

    Raises:
        ValueError: not as many bytes as that many units have.
    """
    blocks = as_blocks(into.units, into.layout)[layers.start : layers.stop]
    num_layers, parts, _, tokens, heads, width = blocks.shape
    num_values = num_layers * parts * len(units) * tokens * heads * width
    num_scales = num_layers * parts * len(units) * heads
    if len(data) != num_values + 4 * num_scales:
        raise ValueError(f"wanted {num_values + 4 * num_scales} bytes of codes, got {len(data)}")
    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(blocks.device)
    values = flat[:num_values].view(_TYPES[codes])
    scales = flat[num_values:].clone().view(torch.float32)  # a multiple of 4 only by itself
    packed = PackedBlocks(
        values.view(num_layers, parts, len(units), tokens, heads, width),
        scales.view(num_layers, parts, len(units), heads),
    )
    ops.unpack_blocks(packed, blocks, torch.tensor(units, device=blocks.device))


def warm_up(pool: LocalPool, codes: str) -> None:
    """Pack and unpack a block, for the kernels to be compiled before a request waits for it.

    Call it before the pool is used: what the block holds becomes what its codes say.
    """
    everything = range(pool.layout.num_layers)
    unpack_codes(pack_codes(pool, [0], everything, codes), pool, [0], everything, codes)


def num_bytes_of(layout: PoolLayout, num_units: int, num_layers: int) -> int:
    """What `pack_codes` makes of so many units."""
    planes = num_layers * layout.num_parts * num_units
    return planes * (layout.unit_values + 4 * layout.num_heads)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
