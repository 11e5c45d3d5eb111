"""This file is about packing KV blocks of all layers on a GPU in one launch, and unpacking them.

One program takes one head of one block (quantised), or a piece of one block (as it is). Quantising
on the way halves what crosses the link; a scale per block and head follows the head's own range,
which differs more between heads than between tokens.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from epidote_kernels.launching import (
    INDEX_POINTERS,
    Form,
    divided_up,
    launching_on,
    power_of_two,
)
from epidote_kernels.reference.packed_blocks import LARGEST, PackedBlocks

BYTES = 8192  # a program's piece of a block that is moved as it is; not tuned yet
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_QUANTIZED = {torch.int8: "i8", torch.float8_e4m3fn: "fp8e4nv"}


@triton.jit(do_not_specialize=("num_blocks",), do_not_specialize_on_alignment=INDEX_POINTERS)
def move_blocks_kernel(
    pool_ptr,
    packed_ptr,
    ids_ptr,
    plane_stride,
    block_stride,
    num_blocks,
    size,
    PACK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0)
    plane = tl.program_id(1).to(tl.int64)
    there = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    mask = there < size
    block = tl.load(ids_ptr + index).to(tl.int64)
    in_pool = pool_ptr + plane * plane_stride + block * block_stride + there
    in_packed = packed_ptr + (plane * num_blocks + index) * size + there
    if PACK:
        tl.store(in_packed, tl.load(in_pool, mask=mask), mask=mask)
    else:
        tl.store(in_pool, tl.load(in_packed, mask=mask), mask=mask)


@triton.jit(do_not_specialize=("num_blocks",), do_not_specialize_on_alignment=INDEX_POINTERS)
def quantize_blocks_kernel(
    pool_ptr,
    packed_ptr,
    scales_ptr,
    ids_ptr,
    plane_stride,
    block_stride,
    num_blocks,
    num_heads,
    tokens,
    dim,
    LARGEST: tl.constexpr,
    ROUNDS: tl.constexpr,
    TOKENS: tl.constexpr,
    DIM: tl.constexpr,
):
    index = tl.program_id(0)
    plane = tl.program_id(1).to(tl.int64)
    head = tl.program_id(2)
    token, column = tl.arange(0, TOKENS)[:, None], tl.arange(0, DIM)[None, :]
    mask = (token < tokens) & (column < dim)
    there = (token * num_heads + head) * dim + column
    block = tl.load(ids_ptr + index).to(tl.int64)
    x = tl.load(
        pool_ptr + plane * plane_stride + block * block_stride + there, mask=mask, other=0.0
    ).to(tl.float32)
    most = tl.max(tl.max(tl.abs(x), axis=1), axis=0)
    scale = tl.where(most > 0, tl.div_rn(most, LARGEST), 1.0)
    values = tl.div_rn(x, tl.zeros_like(x) + scale)
    if ROUNDS:
        values = tl.minimum(tl.maximum(tl.floor(values + 0.5), -LARGEST), LARGEST)
    packed = plane * num_blocks + index
    out = packed_ptr + packed * tokens * num_heads * dim + there
    tl.store(out, values.to(packed_ptr.dtype.element_ty), mask=mask)
    tl.store(scales_ptr + packed * num_heads + head, scale)


@triton.jit(do_not_specialize=("num_blocks",), do_not_specialize_on_alignment=INDEX_POINTERS)
def dequantize_blocks_kernel(
    pool_ptr,
    packed_ptr,
    scales_ptr,
    ids_ptr,
    plane_stride,
    block_stride,
    num_blocks,
    num_heads,
    tokens,
    dim,
    TOKENS: tl.constexpr,
    DIM: tl.constexpr,
):
    index = tl.program_id(0)
    plane = tl.program_id(1).to(tl.int64)
    head = tl.program_id(2)
    token, column = tl.arange(0, TOKENS)[:, None], tl.arange(0, DIM)[None, :]
    mask = (token < tokens) & (column < dim)
    there = (token * num_heads + head) * dim + column
    block = tl.load(ids_ptr + index).to(tl.int64)
    packed = plane * num_blocks + index
    scale = tl.load(scales_ptr + packed * num_heads + head)
    values = tl.load(packed_ptr + packed * tokens * num_heads * dim + there, mask=mask, other=0.0)
    x = values.to(tl.float32) * scale
    out = pool_ptr + plane * plane_stride + block * block_stride + there
    tl.store(out, x.to(pool_ptr.dtype.element_ty), mask=mask)


def pack_blocks(pool: Tensor, ids: Tensor, quantized: torch.dtype | None) -> PackedBlocks:
    """The kernel behind `ops.pack_blocks`, which checks; twin: `reference.pack_blocks`."""
    layers, parts, _, tokens, heads, dim = pool.shape
    shape, device = (layers, parts, ids.shape[0], tokens, heads, dim), pool.device
    if quantized is None:
        packed = PackedBlocks(torch.empty(shape, dtype=pool.dtype, device=device), None)
        _move(pool, packed.values, ids, pack=True)
        return packed
    values = torch.empty(shape, dtype=quantized, device=device)
    scales = torch.empty((layers, parts, ids.shape[0], heads), device=device)
    if values.numel():
        with launching_on(pool):
            quantize_blocks_kernel[(ids.shape[0], layers * parts, heads)](
                pool, values, scales, ids.contiguous(), pool.stride(1), pool.stride(2),
                ids.shape[0], heads, tokens, dim,
                LARGEST=LARGEST[quantized], ROUNDS=quantized is torch.int8,
                TOKENS=power_of_two(tokens), DIM=power_of_two(dim),
            )  # fmt: skip
    return PackedBlocks(values, scales)


def unpack_blocks(packed: PackedBlocks, pool: Tensor, ids: Tensor) -> None:
    """The kernel behind `ops.unpack_blocks`, which checks; twin: `reference.unpack_blocks`."""
    values, scales = packed
    if scales is None:
        _move(pool, values, ids, pack=False)
        return
    layers, parts, _, tokens, heads, dim = pool.shape
    if values.numel():
        with launching_on(pool):
            dequantize_blocks_kernel[(ids.shape[0], layers * parts, heads)](
                pool, values, scales, ids.contiguous(), pool.stride(1), pool.stride(2),
                ids.shape[0], heads, tokens, dim,
                TOKENS=power_of_two(tokens), DIM=power_of_two(dim),
            )  # fmt: skip


def _move(pool: Tensor, packed: Tensor, ids: Tensor, *, pack: bool) -> None:
    size = packed[0, 0, 0].numel() if packed.numel() else 0
    if not size:
        return
    block = min(BYTES // pool.element_size(), power_of_two(size))
    kind = _INTEGERS[pool.element_size()]
    planes = packed.shape[0] * packed.shape[1]
    with launching_on(pool):
        move_blocks_kernel[(ids.shape[0], planes, divided_up(size, block))](
            pool.view(kind), packed.view(kind), ids.contiguous(), pool.stride(1), pool.stride(2),
            ids.shape[0], size, PACK=pack, BLOCK=block,
        )  # fmt: skip


def forms(number: str) -> Iterator[Form]:
    """Compile both directions, plain, in int8 and in fp8; `number` is the pool's type."""
    width = {"fp32": "i32", "fp16": "i16", "bf16": "i16"}[number]
    strides = {"ids_ptr": "*i64", "plane_stride": "i64", "block_stride": "i64", "num_blocks": "i32"}
    for name, pack in (("pack_blocks", True), ("unpack_blocks", False)):
        yield Form(
            name=name,
            kernel=move_blocks_kernel,
            types={"pool_ptr": f"*{width}", "packed_ptr": f"*{width}", **strides, "size": "i32"},
            constants={"PACK": pack, "BLOCK": BYTES // (4 if width == "i32" else 2)},
            num_warps=4,
            num_stages=3,
        )
    sizes = {"num_heads": "i32", "tokens": "i32", "dim": "i32"}
    for dtype, name in _QUANTIZED.items():
        types = {"pool_ptr": f"*{number}", "packed_ptr": f"*{name}", "scales_ptr": "*fp32"}
        tile = {"TOKENS": 16, "DIM": 128}
        yield Form(
            name=f"pack_blocks {name}",
            kernel=quantize_blocks_kernel,
            types={**types, **strides, **sizes},
            constants={"LARGEST": LARGEST[dtype], "ROUNDS": dtype is torch.int8, **tile},
            num_warps=4,
            num_stages=3,
        )
        yield Form(
            name=f"unpack_blocks {name}",
            kernel=dequantize_blocks_kernel,
            types={**types, **strides, **sizes},
            constants=tile,
            num_warps=4,
            num_stages=3,
        )
